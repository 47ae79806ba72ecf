"""HDF5 and MATLAB files that would reach beyond themselves; code beside a user's data."""

import os
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

import propose_prob
from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.io import sandbox
from propose_prob.io.matlab import read_mat
from propose_prob.results.reader import read_result
from propose_prob.results.writer import open_writer

SECRET = b"secret bytes of this machine" * 8


POINTS = np.linspace(0, 2, 102, dtype=np.float32)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "a.nc"
    with open_writer(path, joint_names=H36M_17.joint_names) as writer:
        arrays = {
            "point_estimate": POINTS.reshape(2, 17, 3),
            "pose": np.ones((2, 3, 17, 3), np.float32),
        }
        writer.append(arrays, {"frame": ["7", "8"], "person": ["a", "b"]})
        writer.finish({"model": "none", "num_skipped": 3})
    return path


def changed(result, folder, change, name="a.nc"):
    """A copy of a result in which something is changed."""
    (folder / "secret").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.frombuffer(SECRET, np.uint8)
    path = shutil.copy(result, folder / name)
    with h5py.File(path, "r+") as file:
        change(file)
    return Path(path)


def external(file):
    file.create_dataset("x", (len(SECRET),), "u1", external=[("secret", 0, len(SECRET))])


def absolute_external(file):
    secret = str(Path(file.filename).with_name("secret"))
    file.create_dataset("constant_data/x", (9,), "u1", external=[(secret, 0, 9)])


def virtual(file):
    layout = h5py.VirtualLayout((len(SECRET),), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "x", (len(SECRET),))
    file.create_virtual_dataset("x", layout)


def external_link(file):
    file["x"] = h5py.ExternalLink("other.h5", "x")


def soft_link(file):
    file["x"] = h5py.SoftLink("/constant_data/point_estimate")


def cycle(file):
    file["posterior/again"] = file["posterior"]


def nested(file):
    file.create_group("/".join(["g"] * 500))


def foreign_filter(file):
    stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    stored.set_chunk((4,))
    stored.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT8, h5py.h5s.create_simple((4,)), stored)


def reference(file):
    data = file.create_dataset("x", (1,), h5py.ref_dtype)
    data[0] = file["constant_data"].ref


def bomb(file):
    for number in range(20):
        file.create_dataset(f"x{number}", (2**20,), "f8", chunks=(2**16,), compression="gzip")


def chunk(file):
    file.create_dataset("x", (1,), "f8", chunks=(2**26,), maxshape=(None,))


def long_texts(file):
    frames = file["constant_data/frame"]
    frames.resize((2**16,))
    frames[0] = "a" * 2**16


def many_attributes(file):
    for number in range(1001):
        file.attrs[f"a{number}"] = number


HOSTILE = {
    external: "external storage",
    absolute_external: "external storage",
    virtual: "virtual dataset",
    external_link: "link to another place",
    soft_link: "link to another place",
    cycle: "group met before",
    nested: "too deep",
    foreign_filter: "filter 32015",
    reference: "in place of numbers",
    bomb: "such a file is not read",
    chunk: "chunks of",
    long_texts: "such a file is not read",
    many_attributes: r"has \d+ attributes",
}


def test_an_honest_result_is_read_whole(result):
    stored = read_result(result)
    assert stored.frames == ("7", "8") and stored.people == ("a", "b")
    np.testing.assert_array_equal(stored.arrays["point_estimate"].ravel(), POINTS)
    assert stored.arrays["pose"].shape == (2, 3, 17, 3)
    assert stored.attributes["model"] == "none" and stored.attributes["num_skipped"] == 3


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_results_that_reach_beyond_themselves_are_refused(result, tmp_path, change):
    path = changed(result, tmp_path, change)
    start = time.monotonic()
    with pytest.raises(InputError, match=HOSTILE[change]) as raised:
        read_result(path)
    assert time.monotonic() - start < 10
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and len(message) < 600 and "\n" not in message


MATLAB_HEAD = b"MATLAB 7.3 MAT-file".ljust(512)


def matlab73(path, write):
    with h5py.File(path, "w", userblock_size=512) as file:
        write(file)
    with path.open("r+b") as file:
        file.write(MATLAB_HEAD)
    return path


def cells(file):
    file["a"] = np.arange(6.0).reshape(2, 3)
    parts = [file.create_dataset(f"#refs#/{n}", data=np.full((2, 1), n)) for n in range(3)]
    file["c"] = np.array([part.ref for part in parts], dtype=h5py.ref_dtype).reshape(1, 3)


def test_matlab_arrays_and_cells_have_matlabs_shape(tmp_path):
    path = matlab73(tmp_path / "a.mat", cells)
    found = read_mat(path, ("a", "c"), where="nowhere")
    np.testing.assert_array_equal(found["a"], np.arange(6.0).reshape(2, 3).T)
    assert [cell.tolist() for cell in found["c"]] == [[[n, n]] for n in range(3)]


def repeated(file):
    part = file.create_dataset("#refs#/a", (2**20,), "f8", chunks=(2**16,), compression="gzip")
    file["c"] = np.array([part.ref] * 100, dtype=h5py.ref_dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external, "external storage"),
        (virtual, "virtual dataset"),
        (external_link, "link to another place"),
        (repeated, "such a file is not read"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_matlab_files_that_reach_beyond_themselves_are_refused(tmp_path, change, message):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.frombuffer(SECRET, np.uint8)
    (tmp_path / "secret").write_bytes(SECRET)
    path = matlab73(tmp_path / "a.mat", change)
    with pytest.raises(InputError, match=message):
        read_mat(path, ("x", "c"), where="nowhere")


def test_packed_matlab_variables_that_would_fill_the_memory_are_refused(tmp_path):
    path = tmp_path / "a.mat"
    pack = zlib.compressobj(9)
    packed = b"".join(pack.compress(bytes(2**20)) for _ in range(200)) + pack.flush()
    tag = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little")
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + tag + packed)
    with pytest.raises(InputError, match="such a file is not read"):
        read_mat(path, ("a",), where="nowhere")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("while True: pass", "reading it does not end"),
        ("import time; time.sleep(99)", "reading it does not end"),
        ("import os; os.kill(os.getpid(), 9)", "ends with signal 9"),
        ("raise MemoryError", "MemoryError"),
        ("import sys; sys.exit(0)", "expected a complete file"),
        ("import sys; sys.stdout.buffer.write(b'PK'); sys.stderr.write('x' * 10**7)", "complete"),
    ],
)
def test_what_a_reader_does_to_its_process_stays_there(tmp_path, monkeypatch, program, message):
    (tmp_path / "program.py").write_text(
        "import json, resource, sys\n"
        "seconds = json.loads(sys.argv[1])['seconds']\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 9))\n{program}\n"
    )
    monkeypatch.setattr(sandbox, "_SECONDS", 0.5)
    monkeypatch.setattr(sandbox, "_PROGRAM", tmp_path / "program.py")
    (tmp_path / "a.nc").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=f"a.nc: .*{message}") as raised:
        read_result(tmp_path / "a.nc")
    assert len(str(raised.value)) < 600


def test_no_plugin_and_no_path_reach_the_process(tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("open('EXECUTED', 'w').close()")
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "HDF5_PLUGIN_PATH", "PYTHONINSPECT"):
        monkeypatch.setenv(name, str(tmp_path))
    environment = sandbox._environment()
    assert not [name for name in environment if name.startswith("PYTHON")]
    assert environment["HDF5_PLUGIN_PRELOAD"] == "::" and "HDF5_PLUGIN_PATH" not in environment


LATE = ("h5netcdf", "h5py", "numpy", "scipy", "plotly", "torch", "tyro", "matplotlib", "xarray")


@pytest.mark.parametrize("start", ["module", "script", "empty entry"])
def test_nothing_beside_the_data_runs(result, tmp_path, start):
    shutil.copy(result, tmp_path / "r.nc")
    for name in LATE:
        (tmp_path / f"{name}.py").write_text("open('EXECUTED', 'w').close()\n")
    script = tmp_path / "bin" / "propose-prob"
    script.parent.mkdir()
    script.write_text("import sys\nfrom propose_prob.cli import main\nsys.exit(main())\n")
    environment = dict(os.environ)
    environment.pop("PYTHONSAFEPATH", None)
    if start == "empty entry":
        environment["PYTHONPATH"] = os.pathsep + environment.get("PYTHONPATH", "")
    command = ["-m", "propose_prob"] if start == "module" else [str(script)]
    done = subprocess.run(
        [sys.executable, *command, "view", "r.nc"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "EXECUTED").exists()
    assert (tmp_path / "r.html").is_file()


def test_a_program_that_imports_the_package_keeps_its_path(tmp_path):
    (tmp_path / "beside.py").write_text("import propose_prob, sys\nprint(sys.path[0])\n")
    done = subprocess.run(
        [sys.executable, "beside.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).resolve() == tmp_path.resolve()


def test_the_isolated_process_finds_packages_of_a_copy_of_this_one(result, tmp_path):
    """As from a checkout on PYTHONPATH, with another folder as the working folder."""
    source = Path(propose_prob.__file__).parent
    shutil.copytree(
        source,
        tmp_path / "copy" / "propose_prob",
        ignore=shutil.ignore_patterns("*.npz", "*.safetensors"),
    )
    code = (
        "import sys; from propose_prob.results.reader import read_result\n"
        "import propose_prob; print(propose_prob.__file__, len(read_result(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(result)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "copy")},
        capture_output=True,
        text=True,
        check=True,
    )
    where, count = done.stdout.split()
    assert where.startswith(str(tmp_path)) and count == "2"
