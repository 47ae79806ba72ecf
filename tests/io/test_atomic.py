"""One writer of files: whole or not at all, never through a link, nothing left behind."""

import ast
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import propose_prob
from propose_prob.errors import InputError
from propose_prob.io import atomic
from propose_prob.io.atomic import (
    atomic_file,
    atomic_path,
    check_output,
    check_outputs,
    discard,
    locked,
    remove_leftovers,
    scratch_folder,
    write_text,
)

ROOT = Path(propose_prob.__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and signals of POSIX")


def by_file(path):
    with atomic_file(path) as file:
        file.write(b"new")


def by_path(path):
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")


every_writer = pytest.mark.parametrize(
    "write", [by_file, by_path, lambda path: write_text(path, "new")], ids=["file", "path", "text"]
)


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def writes(path):
    """What a source file does to others in ways of its own."""
    source = path.read_text("utf-8")
    for node, name in calls(ast.parse(source)):
        text = [ast.unparse(value) for value in (*node.args, *(k.value for k in node.keywords))]
        modes = [word for word in text if re.fullmatch(r"'[rwax]b?\+?b?'", word)]
        method = name.rpartition(".")[2]
        if re.fullmatch(r"(os|shutil)\.(replace|rename|renames|move|link|symlink|mkfifo)", name):
            yield name
        if method in ("write_text", "write_bytes") and len(node.args) == 1 and "." in name:
            yield name
        # What has no name cannot be taken for another file.
        if (
            name.startswith("tempfile.") and name != "tempfile.TemporaryFile"
        ) or method == "NamedTemporaryFile":
            yield name
        if method in ("open", "fdopen") and any(set(word) & set("wax+") for word in modes):
            # A member of an archive that is itself written atomically, nothing at all, a pipe to
            # the parent process, and the parts of an archive in a folder of their own.
            allowed = r"((self\._)?archive|open\(os\.devnull|os\.fdopen\(1,)"
            call = ast.unparse(node)
            if not re.match(allowed, call) and "self._folder / name" not in call:
                yield call
        if method in ("savez", "savez_compressed", "savefig") and text[0] != "file":
            yield ast.unparse(node)
    if re.search(r"""\.(part|tmp)["']|["']\.part""", source):
        yield "a fixed temporary name"


def test_no_other_place_writes_files():
    found = {
        str(path.relative_to(ROOT)): list(writes(path))
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "atomic.py"
    }
    assert {name: ways for name, ways in found.items() if ways} == {}


@pytest.mark.parametrize(
    "line",
    [
        "os.replace(a, b)",
        "Path(p).write_text('x')",
        "open(p, 'wb')",
        "p.open('a')",
        "np.savez(path, x=1)",
        "part = p.with_name(p.name + '.part')",
        "tempfile.mkstemp()",
    ],
)
def test_the_search_finds_what_it_looks_for(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert list(writes(tmp_path / "a.py"))


@every_writer
def test_nothing_is_there_before_the_end_and_all_of_it_then(tmp_path, write):
    path = tmp_path / "a.txt"
    write(path)
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]
    (tmp_path / "b").write_text("x")
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode


@posix
def test_writers_that_put_a_file_of_their_own_in_the_place(tmp_path):
    with atomic_path(tmp_path / "a") as temporary:
        own = tmp_path / "own"
        own.write_text("new")
        own.chmod(0o600)
        own.rename(temporary)
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
@pytest.mark.parametrize("manager", [atomic_file, atomic_path, scratch_folder])
def test_whatever_ends_it_nothing_is_left(tmp_path, manager, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), manager(tmp_path / "a") as opened:
        if manager is scratch_folder:
            (opened / "inside").write_text("x")
        raise error
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


@posix
def test_file_and_folder_are_flushed_and_in_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def flush(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def put(source, target):
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", put)
    for write in (by_file, by_path):
        write(tmp_path / "a")
        assert done == ["file", "replace", "folder"]
        done.clear()


@posix
@every_writer
def test_a_link_in_the_temporary_place_is_not_followed(tmp_path, monkeypatch, write):
    """Nobody can guess the name; even whoever does gains nothing."""
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda size: "guessed")
    (tmp_path / ".a.guessed").symlink_to("victim")
    with pytest.raises(FileExistsError):
        write(tmp_path / "a")
    assert (tmp_path / "victim").read_text() == "precious" and not (tmp_path / "a").exists()


def test_temporary_names_differ(tmp_path):
    names = set()
    for _ in range(3):
        with atomic_path(tmp_path / "a") as temporary:
            names.add(temporary.name)
            assert temporary.parent == tmp_path
    assert len(names) == 3 and all(len(name) > 16 for name in names)


@posix
@every_writer
def test_a_link_is_replaced_and_what_it_points_at_stays(tmp_path, write):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("link", "dangling"):
        write(tmp_path / name)
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


@posix
@every_writer
def test_pipes_devices_sockets_and_links_to_them_are_refused(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    Path("null").symlink_to("/dev/null")
    Path("loop").symlink_to("loop")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.close()
    before = sorted(os.listdir())
    for name in ("pipe", "link", "null", "socket", "/dev/null", "/dev/stdout", "/dev/new", "loop"):
        with pytest.raises(InputError, match="expected the name of a file to write") as error:
            write(name)
        assert "\n" not in str(error.value)
    assert sorted(os.listdir()) == before


def test_names_that_cannot_be_are_refused_before_any_work(tmp_path):
    for name in ("x" * 300, "a\0b", "none/a", "", "."):
        with pytest.raises(InputError):
            check_output(tmp_path / name)
    check_output(tmp_path / ("x" * 255))
    by_file(tmp_path / ("x" * 255))
    by_path(tmp_path / ("ä" * 127))
    assert len(os.listdir(tmp_path)) == 2


def test_leftovers_of_killed_processes_go(tmp_path):
    for name in ("a[1].nc", "ä.nc"):
        with pytest.raises(InputError), atomic_path(tmp_path / name) as temporary:
            (tmp_path / (temporary.name + "x")).write_text("torn")
            raise InputError("killed")
    (tmp_path / ".a1.nc.0").write_text("another's")
    remove_leftovers(tmp_path / "a[1].nc")
    remove_leftovers(tmp_path / "ä.nc")
    assert os.listdir(tmp_path) == [".a1.nc.0"]


@posix
def test_what_another_is_writing_is_no_leftover(tmp_path, monkeypatch):
    path = tmp_path / "a.nc"
    with atomic_file(path) as first, atomic_file(path) as second:
        remove_leftovers(path)
        first.write(b"same")
        second.write(b"same")
    assert path.read_bytes() == b"same" and os.listdir(tmp_path) == ["a.nc"]
    # Who cleans up may come before there is a lock.
    create, made = atomic._create, []

    def removed_at_once(place):
        made.append(create(place))
        if len(made) == 1:
            place.unlink()
        return made[-1]

    monkeypatch.setattr(atomic, "_create", removed_at_once)
    by_file(path)
    assert len(made) == 2 and path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.nc"]


@posix
def test_pipes_in_the_place_of_leftovers_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".a.nc.0")
    remove_leftovers(tmp_path / "a.nc")
    assert os.listdir(tmp_path) == [".a.nc.0"]


def test_discard_removes_what_is_being_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        assert len(os.listdir(tmp_path)) == 1
        discard()
        assert not os.listdir(tmp_path)


@posix
def test_outputs_are_no_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.json").write_text("[]")
    Path("data").mkdir()
    Path("data/annotations.json").write_text("[]")
    Path("link.json").symlink_to("in.json")
    os.link("in.json", "hard.json")
    for out in ("in.json", "./data/../in.json", "link.json", "hard.json", "data/annotations.json"):
        with pytest.raises(InputError, match="would replace an input"):
            check_outputs([Path(out)], ["in.json", None, "no-such-model", Path("data")])
    check_outputs([Path("out.json"), Path("data/new.json")], ["in.json", "data"])
    with pytest.raises(InputError, match="twice"):
        check_outputs([Path("a"), Path("data/../a")], [])


LOCK = """
import sys, time
from pathlib import Path
from propose_prob.io.atomic import locked
with locked(Path(sys.argv[1]), "a training"):
    print("held", flush=True)
    time.sleep(60)
"""


@posix
def test_a_lock_ends_with_its_process_and_leaves_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="a training is going on"), locked(tmp_path, "a training"):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path, "a training"):
        assert not os.listdir(tmp_path)
        waiting = subprocess.Popen(
            [sys.executable, "-c", LOCK.replace('"a training"', '"it", wait=True'), str(tmp_path)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
    assert waiting.stdout.readline() == "held\n"
    waiting.kill()
    waiting.communicate()
