"""Many inputs in worker processes: what one of them does to its process is known as its doing.

`make fuzz SEEDS=0:20000` runs these inputs, each of which is a format or command and a seed; the
same number is always the same input. A failure names both.
"""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

#: CPU seconds, seconds and megabytes that an input may take.
CPU, SECONDS, MEGABYTES = 20.0, 240.0, 2000.0
#: Commands do more than to read: a fit, an evaluation.
COMMAND_CPU = 90.0
#: Seconds that a worker may take to start.
_START = 300.0
#: Megabytes with which a worker is replaced by a fresh one.
_TIRED = 1200.0


@dataclass
class Outcome:
    """What became of an input.

    Attributes:
        name: The format or command.
        seed: The seed.
        answered: Whether there was an answer, or else a refusal.
        fault: What else there was.
        cpu: CPU seconds, child processes included.
        peak: The most memory of the process meanwhile, megabytes.
    """

    name: str
    seed: int
    answered: bool = False
    fault: str = ""
    cpu: float = 0.0
    peak: float = 0.0


def subjects():
    """Name to weight of all formats and commands."""
    from tests.fuzz.commands import COMMANDS
    from tests.fuzz.formats import FORMATS

    return {name: subject.weight for name, subject in {**FORMATS, **COMMANDS}.items()}


def schedule(weights, seeds):
    """The format or command of each seed: as often as its weight says, and evenly."""
    total = sum(weights.values())
    turn = sorted(
        ((place + 0.5) / weight, name)
        for name, weight in weights.items()
        for place in range(weight)
    )
    return [(turn[seed % total][1], seed) for seed in seeds]


def session(name, folder):
    """A format or command in a folder of its own."""
    from tests.fuzz.commands import COMMANDS, CommandSession
    from tests.fuzz.formats import FormatSession

    folder.mkdir(parents=True)
    return (CommandSession if name in COMMANDS else FormatSession)(name, folder)


def examine(subject, seed):
    """Give a format or command the input of a seed."""
    outcome = Outcome(subject.name, seed)
    _forget_peak()
    start = _cpu()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)
            outcome.answered = subject.run(seed)
        if caught:
            outcome.fault = f"warned: {[str(w.message) for w in caught]}"
    except Exception as error:
        outcome.fault = f"{type(error).__name__}: {error}"
        if not isinstance(error, AssertionError):
            outcome.fault += f" ({_place(error)})"
    outcome.cpu, outcome.peak = _cpu() - start, _peak()
    most = COMMAND_CPU if hasattr(subject, "command") else CPU
    if not outcome.fault and outcome.cpu > most:
        outcome.fault = f"took {outcome.cpu:.0f} CPU seconds"
    if not outcome.fault and outcome.peak > MEGABYTES:
        outcome.fault = f"took {outcome.peak:.0f} MB"
    outcome.fault = outcome.fault[:2000]
    return outcome


def _place(error):
    """Where an exception was raised: the last lines of this package that it passed."""
    found, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "propose_prob" in code.co_filename:
            found.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(found[-3:])


def _cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _forget_peak():
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak():
    """The most memory of this process, MB: on Linux since it was last forgotten."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


# Processes ----------------------------------------------------------------------------------------


def work(connection):
    """A worker: outcomes for names and seeds, until there is nothing more."""
    import torch

    from propose_prob.io import sandbox

    # With its child processes it is ended as one group.
    os.setsid()
    torch.set_num_threads(1)
    # Less than a machine that does nothing else would give.
    sandbox._SECONDS = 5.0
    sessions = {}
    connection.send(None)
    with tempfile.TemporaryDirectory() as folder:
        while (task := received(connection)) is not None:
            name, seed = task
            if name not in sessions:
                sessions[name] = session(name, Path(folder, f"{len(sessions)}"))
            connection.send(examine(sessions[name], seed))


def received(connection):
    """What comes next; None where the other end has gone."""
    try:
        return connection.recv()
    except EOFError:
        return None


@dataclass
class _Worker:
    context: object
    process: object = None
    connection: object = None
    task: tuple[str, int] | None = None
    begun: float = 0.0

    def give(self, task):
        if self.process is None:
            self.connection, other = self.context.Pipe()
            self.process = self.context.Process(target=work, args=(other,), daemon=True)
            self.process.start()
            other.close()
            self.begun = time.monotonic() + _START
        self.task, self.begun = task, max(self.begun, time.monotonic())
        self.connection.send(task)

    def end(self):
        if self.process is None:
            return
        if self.task is None:
            # It has nothing to do, and ends by itself.
            with suppress(OSError):
                self.connection.send(None)
            self.process.join(5)
        # With its child processes, once it is the leader of a group.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.process = self.connection = None

    def memory(self):
        """Megabytes of the process and its children, now."""
        return sum(_resident(pid) for pid in _group(self.process.pid))


def _group(leader):
    """Processes of a group."""
    for path in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader:
            yield int(path.parent.name)


def _resident(pid):
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Tally:
    """What is known of one format or command.

    Attributes:
        inputs: How many there were.
        answered: Of how many there was an answer.
        faults: The outcomes that are neither an answer nor a refusal.
        cpu: The most CPU seconds of one.
        peak: The most megabytes of one.
    """

    inputs: int = 0
    answered: int = 0
    faults: list[Outcome] = field(default_factory=list)
    cpu: float = 0.0
    peak: float = 0.0

    def add(self, outcome):
        """Count an input."""
        self.inputs += 1
        self.answered += outcome.answered and not outcome.fault
        self.cpu, self.peak = max(self.cpu, outcome.cpu), max(self.peak, outcome.peak)
        if outcome.fault:
            self.faults.append(outcome)


def run(tasks, *, workers=2, tell=lambda text: None, seconds=float("inf")):
    """Run inputs in worker processes.

    Args:
        tasks: Names and seeds.
        workers: How many processes.
        tell: Called with each fault at once, and with the progress once a minute.
        seconds: No further input is begun after so long.

    Returns:
        Name to `Tally`.
    """
    context = multiprocessing.get_context("spawn")
    pool = [_Worker(context) for _ in range(workers)]
    left, tallies = iter(tasks), defaultdict(Tally)
    begun = told = time.monotonic()
    done = 0

    def finished(worker, outcome):
        nonlocal done
        tallies[outcome.name].add(outcome)
        worker.task = None
        done += 1
        if outcome.fault:
            tell(f"{outcome.name}, seed {outcome.seed}: {outcome.fault}")

    try:
        while True:
            for worker in pool:
                is_free = worker.task is None and time.monotonic() - begun < seconds
                if is_free and (task := next(left, None)) is not None:
                    worker.give(task)
            busy = [worker for worker in pool if worker.task is not None]
            if not busy:
                return dict(tallies)
            ready = wait([worker.connection for worker in busy], timeout=0.1)
            for worker in busy:
                if worker.connection in ready:
                    _collect(worker, finished)
                else:
                    _watch(worker, finished)
            if time.monotonic() - told > 60:
                told = time.monotonic()
                tell(f"{done} inputs in {told - begun:.0f} s")
    finally:
        for worker in pool:
            worker.end()


def _collect(worker, finished):
    name, seed = worker.task
    try:
        outcome = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        code = worker.process.exitcode
        worker.end()
        finished(worker, Outcome(name, seed, fault=f"ended its process with exit code {code}"))
        return
    if outcome is None:
        # It has started, and begins now.
        worker.begun = time.monotonic()
        return
    finished(worker, outcome)
    if worker.memory() > _TIRED:
        worker.end()


def _watch(worker, finished):
    """End a worker whose input takes too long, or too much memory."""
    name, seed = worker.task
    taken, memory = time.monotonic() - worker.begun, worker.memory()
    if taken > SECONDS or memory > MEGABYTES:
        fault = f"took {memory:.0f} MB" if memory > MEGABYTES else f"does not end in {taken:.0f} s"
        worker.end()
        finished(worker, Outcome(name, seed, fault=fault, peak=memory))


def table(tallies):
    """What became of all inputs, as text."""
    head = f"{'format or command':<30}{'inputs':>8}{'refused':>9}{'answered':>10}{'faults':>8}"
    lines = [f"{head}{'worst CPU s':>13}{'peak MB':>9}"]
    lines.append("-" * len(lines[0]))
    everything = Tally()
    for name, tally in sorted(tallies.items()):
        lines.append(_row(name, tally))
        everything.inputs += tally.inputs
        everything.answered += tally.answered
        everything.faults += tally.faults
        everything.cpu = max(everything.cpu, tally.cpu)
        everything.peak = max(everything.peak, tally.peak)
    return "\n".join([*lines, lines[1], _row("all", everything)])


def _row(name, tally):
    refused = tally.inputs - tally.answered - len(tally.faults)
    counts = f"{tally.inputs:>8}{refused:>9}{tally.answered:>10}{len(tally.faults):>8}"
    return f"{name:<30}{counts}{tally.cpu:>13.1f}{tally.peak:>9.0f}"
