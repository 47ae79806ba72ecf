"""What commands print: bounded, and nothing in it acts on a terminal."""

import ast
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import propose_prob
from propose_prob.cli import app
from propose_prob.cli.output import complain, printable, tell
from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.results.writer import open_writer
from tests.cli.conftest import coco_results

ROOT = Path(propose_prob.__file__).parent
#: Clearing the screen, the title of the window, a C1 control, text from right to left, a line end.
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.\u2028\r\x00\udcff\x7f"


def acts(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_nothing_in_a_text_acts_on_a_terminal():
    shown = printable(f"a{ESCAPES}b")
    assert shown.isprintable() and shown.startswith("a\\x1b[2J") and shown.endswith("\\x7fb")
    shown.encode()
    assert printable("Größe 身長 ♥ \\x1b") == "Größe 身長 ♥ \\x1b"
    assert printable(7) == "7"


@pytest.mark.parametrize("text", ["x" * 10**6, "\x1b" * 10**6, "ab" * 30])
def test_texts_are_bounded(text):
    for limit in (10, 59, 120):
        assert len(printable(text, limit)) <= limit
        assert "…" in printable(text, limit) or len(text) <= limit


def test_lines_stay_lines(capsys):
    tell("one\ntwo", "three")
    complain("four\nfive \x1b six" + "x" * 10_000)
    captured = capsys.readouterr()
    assert captured.out == "one\\ntwo\nthree\n"
    assert captured.err.startswith("four five \\x1b six") and captured.err.count("\n") == 1
    assert len(captured.err) < 2100


def test_commands_print_in_one_place():
    for path in (ROOT / "cli").glob("*.py"):
        if path.name == "output.py":
            continue
        names = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not names & {"print", "sys.stdout.write", "sys.stderr.write"}, path.name


def test_labels_and_keys_of_files_are_shown_as_escapes(run, folder, tiny_model):
    people = json.loads(coco_results(2))
    for person in people:
        # NUL and half a surrogate pair are refused as names.
        person["track_id"] = f"a{ESCAPES}".replace("\x00", "").replace("\udcff", "")
    people[1]["keypoints"][6:] = [0.0] * 45
    (folder / "p.json").write_text(json.dumps(people))
    code, out, err = run("lift", "p.json", "--model", tiny_model, "--out", "a.nc")
    assert code == 0 and "\\x1b[2J" in err and not acts(out + err)
    assert err.count("\n") == 1
    (folder / "q.json").write_text(json.dumps([{"k" + ESCAPES + "x" * 10**5: 1}]))
    code, out, err = run("lift", "q.json", "--model", tiny_model)
    assert code == 2 and not acts(out + err) and len(err) < 2100


@pytest.mark.parametrize("command", [("lift", "a.nc"), ("lift", "a.npz"), ("fit", "a.nc")])
def test_labels_that_no_file_holds_are_refused(run, folder, tiny_model, body_model, command):
    people = json.loads(coco_results(1))
    people[0]["track_id"] = "a\0b"
    (folder / "p.json").write_text(json.dumps(people))
    model = body_model if command[0] == "fit" else tiny_model
    code, _out, err = run(command[0], "p.json", "--model", model, "--out", command[1])
    assert code == 2 and err.count("\n") == 1 and "NUL" in err
    assert os.listdir() == ["p.json"]


def test_names_of_files_are_shown_as_escapes(run, folder, tiny_model):
    name = "r\x1b[2J\n\u202e"
    with open_writer(f"{name}.npz", joint_names=H36M_17.joint_names) as writer:
        writer.append({"point_estimate": np.zeros((1, 17, 3))}, {"frame": [0], "person": [0]})
        writer.finish({})
    code, out, err = run("view", f"{name}.npz")
    assert (code, err) == (0, "") and not acts(out) and out.count("\n") == 1
    (folder / f"{name}.safetensors").write_bytes(Path(tiny_model).read_bytes())
    code, out, err = run("evaluate", f"{name}.safetensors", "--stride", 5000, "--samples", 2)
    assert code == 0 and not acts(out) and "r\\x1b[2J\\n" in out


@pytest.mark.parametrize("option", ["--title\x1b[2J", "--frames=\x1b[2J", "\x1b[2J"])
def test_options_are_shown_as_escapes(run, option):
    code, out, err = run("view", "x.nc", option)
    assert code == 2 and not acts(out + err) and err.count("\n") == 1


HELPER = "import sys; from propose_prob.cli import main; sys.exit(main())"


def started(*args, **more):
    argv = [sys.executable, "-c", HELPER, *map(str, args)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_streams_that_take_nothing(tmp_path, redirect):
    for args, code in (("--version", 0), ("fly", 2)):
        shell = f"{sys.executable} -c '{HELPER}' {args} {redirect}"
        done = subprocess.run(shell, shell=True, capture_output=True, text=True, cwd=tmp_path)
        wanted = 2 if redirect == ">/dev/full" else code
        assert done.returncode == wanted and "Traceback" not in done.stderr, (args, done.stderr)
        assert done.stderr.count("\n") <= 1 and "Exception ignored" not in done.stderr
        if wanted == 2 and code == 0:
            assert "No space left on device" in done.stderr


def test_a_file_does_not_take_the_number_of_a_closed_stream(tmp_path):
    code = (
        "import os; from propose_prob.cli import main; main(['--version'])\n"
        "with open('data', 'w') as file: assert file.fileno() > 2; os.write(1, b'x')\n"
    )
    subprocess.run(
        f'{sys.executable} -c "{code}" <&- >&- 2>&-', shell=True, cwd=tmp_path, check=True
    )
    assert (tmp_path / "data").read_bytes() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6, 1.2])
def test_an_interruption_of_the_first_imports_is_silent(tmp_path, delay):
    """Within the imports of the command line, and within those of a command."""
    ready = HELPER.replace("sys.exit", "print('ready', flush=True); sys.exit")
    argv = [sys.executable, "-c", ready, "demo", "--out", "demo"]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay + 0.02)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=100)
    assert process.returncode == 130
    # Behind the imports it says so, in one word.
    assert err in ("", "interrupted\n")
    assert not list(tmp_path.glob("demo/*"))


def test_an_interrupted_import_leaves_no_temporary_file(folder):
    """An import may happen while something is being written."""
    (folder / "slow.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    code = (
        "import sys; from propose_prob.cli import app, main\n"
        "from propose_prob.io.atomic import atomic_file\n"
        "def run(self):\n"
        "    with atomic_file('a.txt'):\n"
        "        import slow\n"
        "app.Demo.run = run; sys.path.append('.'); sys.exit(main(['demo']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "importing\n"
    assert len([name for name in os.listdir() if name.startswith(".a.txt")]) == 1
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 130
    assert not [name for name in os.listdir() if name.startswith(".a.txt")]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_requests_to_end_leave_no_temporary_file(run, folder, monkeypatch, number):
    from propose_prob.io.atomic import atomic_file

    def killed(self):
        with atomic_file("a.txt"):
            os.kill(os.getpid(), getattr(signal, number))
            time.sleep(10)

    monkeypatch.setattr(app.Demo, "run", killed)
    assert run("demo")[0] == 128 + getattr(signal, number)
    assert not os.listdir()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecursionError("maximum recursion depth exceeded"), 70),
        (KeyError("x"), 70),
        (ValueError("\x1b" * 10**5), 70),
        (AssertionError(), 70),
        (RuntimeError("[enforce fail] can't allocate memory: you tried"), 2),
        (InputError("\x1b" * 10**5), 2),
    ],
)
def test_every_exception_is_one_line(run, monkeypatch, error, code):
    def fail(self):
        raise error

    monkeypatch.setattr(app.Demo, "run", fail)
    got, out, err = run("demo")
    assert got == code and not out and err.count("\n") == 1 and len(err) < 2100
    assert not acts(err) and ("report it" in err) == (code == 70)


def test_a_broken_standard_error_hides_no_exit_code(run, monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

        def flush(self):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Broken())
    assert app.main(["fly"]) == 2


@pytest.mark.parametrize("program", [["-m", "propose_prob"], ["-c", HELPER]])
def test_nothing_in_the_working_folder_is_imported(tmp_path, program):
    if program[0] == "-c":
        # As an installed script starts: its own folder comes first, not the working one.
        program = ["-P", *program] if sys.version_info >= (3, 11) else ["-I", *program]
    for name in ("tyro", "h5netcdf", "numpy", "torch", "tqdm", "xarray", "plotly"):
        (tmp_path / f"{name}.py").write_text("open('EXECUTED', 'w')")
    done = subprocess.run(
        [sys.executable, *program, "evaluate", "--stride", "5000", "--samples", "2"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "EXECUTED").exists()


def test_settings_of_drawings_in_the_working_folder_do_not_count(folder):
    (folder / "matplotlibrc").write_text("text.usetex: True\nfont.size: 99\n")
    code = (
        "from propose_prob.cli.options import prepare_drawing; prepare_drawing()\n"
        "from matplotlib import rcParams; print(rcParams['text.usetex'], rcParams['font.size'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False 10.0\n"
