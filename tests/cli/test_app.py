import os
import signal
import subprocess
import sys
import time

import pytest

import propose_prob
from propose_prob.cli import app


def python(*args, cwd=None):
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=600
    )


def one_line(text):
    return text.startswith("propose-prob: error: ") and text.count("\n") == 1


def test_version_as_a_user_types_it():
    done = python("-m", "propose_prob", "--version")
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == f"propose-prob {propose_prob.__version__}\n"


def test_help_names_every_command(run):
    code, out, err = run("--help")
    assert code == 0 and not err
    for command in ("demo", "lift", "fit", "fuse", "smooth", "evaluate", "train"):
        assert f"• {command}" in out


@pytest.mark.parametrize("command", ["demo", "lift", "fit", "fuse", "smooth", "evaluate"])
def test_help_of_a_command(run, command):
    code, out, err = run(command, "--help")
    assert code == 0 and not err
    # `evaluate` takes any number of models, so they are positional there.
    assert ("MODEL" if command == "evaluate" else "--model") in out
    assert "--threads" in out and "--seed" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "expected a command (demo, lift, fit, "),
        (("fly",), "'fly'"),
        (("--bogus",), "see propose-prob --help"),
        (("demo", "--bogus", "3"), "--bogus"),
        (("demo", "--samples", "many"), "--samples"),
        (("lift", "a.json", "--center", "3"), "--center"),
        (("lift", "a.json", "--use", "luck"), "'distribution', 'hypotheses'"),
        (("evaluate", "--split", "secret"), "test_seen"),
        (("demo", "--bogus", "3"), "unrecognized options: --bogus 3 (see propose-prob demo --help"),
        (("view",), "expected FILE, got none (see propose-prob view --help)"),
        (("smooth",), "expected KEYPOINTS, --fps, got none"),
        (("render", "--bogus"), "expected --out, got unrecognized options: --bogus"),
        (("demo", "--samples"), "expected a value after --samples (see"),
        (
            ("demo", "--samples", "many"),
            "--samples: invalid literal for int() with base 10: 'many'",
        ),
        (
            ("lift", "a.json", "--use", "luck"),
            "expected --use of 'distribution', 'hypotheses', got",
        ),
        (("train",), "expected a model (propose, lifting, "),
        (("train", "flying"), "got 'flying' (see propose-prob train --help)"),
        (("train", "--out", "x"), "unrecognized options: --out"),
        (("train", "propose"), "expected --out, got none (see propose-prob train propose --help)"),
        (("--", "demo"), "expected one of demo, lift, "),
    ],
)
def test_wrong_options_get_one_line(run, args, words):
    code, out, err = run(*args)
    assert code == 2 and not out
    assert one_line(err) and words in err


@pytest.mark.parametrize("width", [20, 200])
def test_what_is_wrong_does_not_depend_on_what_the_parser_would_draw(run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    words = "unrecognized options: --an-option-that-is-longer-than-a-line-of-a-terminal"
    assert words in run("demo", words.split()[-1])[2]


def test_wrong_option_as_a_user_types_it(tmp_path):
    done = python("-m", "propose_prob", "lift", "x.json", "--bogus", "3", cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert one_line(done.stderr) and "--bogus" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "out.nc"), 2, "out.nc: Permission denied"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "x: No such file"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (app.InputError("two\nlines"), 2, "two lines"),
    ],
)
def test_what_ends_a_command(run, monkeypatch, error, code, words):
    def fail(self):
        raise error

    monkeypatch.setattr(app.Demo, "run", fail)
    got, out, err = run("demo")
    assert got == code and not out
    assert words in err and err.count("\n") == 1


def test_termination_unwinds_and_restores_the_handler(run, monkeypatch):
    unwound = []

    def terminated(self):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            unwound.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(app.Demo, "run", terminated)
    assert run("demo")[0] == 143
    assert unwound and signal.getsignal(signal.SIGTERM) is before


def test_a_defect_is_one_line_and_debug_shows_where(run, monkeypatch):
    def fail(self):
        raise ZeroDivisionError("by \x1b[2J zero\nand more")

    monkeypatch.setattr(app.Demo, "run", fail)
    code, out, err = run("demo")
    assert code == 70 and not out and one_line(err)
    assert "ZeroDivisionError: by \\x1b[2J zero (a defect" in err and "--debug" in err
    code, out, err = run("demo", "--debug")
    assert code == 70 and "in fail" in err and err.startswith("Traceback") and "\x1b" not in err
    assert "--debug" in run("--help")[1]


def test_parsing_imports_neither_plots_nor_arviz():
    code = (
        "import sys; from propose_prob.cli import main; main(['lift', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'arviz', 'h5netcdf')))"
    )
    assert python("-c", code).returncode == 0


def test_help_needs_no_torch():
    code = (
        "import sys; from propose_prob.cli import main; main(['--help']); main(['demo', '--help']);"
        "main(['lift', '--bogus']); sys.exit('torch' in sys.modules)"
    )
    assert python("-c", code).returncode == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--threads", 0), "--threads"),
        (("--seed", -1), "--seed"),
        (("--device", "abacus"), "--device abacus"),
        (("--model", "no-such-model"), "no-such-model"),
    ],
)
def test_wrong_machine_options(run, folder, args, words):
    code, out, err = run("evaluate", *args)
    assert code == 2 and not out
    assert one_line(err) and words in err
