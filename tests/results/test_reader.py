import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.results.reader import read_result
from propose_prob.results.writer import open_writer

JOINTS = ("hip", "knee", "foot")


def arrays(items, draws, seed):
    random = np.random.default_rng(seed)
    return {
        "pose": random.normal(size=(items, draws, 3, 3)).astype(np.float32),
        "lp": random.normal(size=(items, draws)).astype(np.float32),
        "point_estimate": random.normal(size=(items, 3, 3)).astype(np.float32),
        "spread": random.random((items, 3)).astype(np.float32),
        "keypoints": np.full((items, 3, 2), np.nan, np.float32),
    }


def write(path, items, draws, seed=0):
    content = arrays(items, draws, seed)
    frames = [f"f{i}" for i in range(items)]
    with open_writer(path, joint_names=JOINTS) as writer:
        # In two pieces, as batches come.
        cut = items // 2
        for rows in (slice(0, cut), slice(cut, items)):
            if frames[rows]:
                writer.append(
                    {name: values[rows] for name, values in content.items()},
                    {"frame": frames[rows], "person": ["a"] * len(frames[rows])},
                )
        writer.finish({"model": "none", "num_skipped": 2})
    return content, tuple(frames)


@pytest.mark.parametrize("ending", ["nc", "npz"])
@settings(max_examples=15)
@given(items=st.integers(1, 5), draws=st.integers(1, 4), seed=st.integers(0, 9))
def test_what_was_written_is_read(tmp_path_factory, ending, items, draws, seed):
    path = tmp_path_factory.mktemp("results") / f"result.{ending}"
    content, frames = write(path, items, draws, seed)
    result = read_result(path)
    assert result.joint_names == JOINTS
    assert result.frames == frames
    assert result.people == ("a",) * items
    assert set(result.arrays) == set(content)
    for name, values in content.items():
        np.testing.assert_array_equal(result.arrays[name], values)
    assert result.attributes["model"] == "none"
    assert int(result.attributes["num_skipped"]) == 2
    part = result.take([items - 1])
    assert part.frames == frames[-1:]
    np.testing.assert_array_equal(part.point[0], result.point[items - 1])


@pytest.mark.parametrize("ending", ["nc", "npz"])
def test_damaged_files_are_refused(tmp_path, ending):
    path = tmp_path / f"result.{ending}"
    write(path, 3, 2)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cannot be read|plain arrays|complete file"):
            read_result(path)


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("pose.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 17, 3)}
            )
    with pytest.raises(InputError, match="says that it has"):
        read_result(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_result(tmp_path / "missing.nc")
    with pytest.raises(InputError, match="ends in"):
        read_result(tmp_path / "poses.csv")
    path = tmp_path / "other.npz"
    np.savez(path, p3d=np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match="it has p3d"):
        read_result(path)
    labels = {"joint": np.array(JOINTS), "frame": np.array(["0"]), "person": np.array(["0"])}
    np.savez(path, point_estimate=np.zeros((2, 3, 3)), **labels)
    with pytest.raises(InputError, match=r"point_estimate: .* \(1, 3, 3\), got \(2, 3, 3\)"):
        read_result(path)
    np.savez(path, point_estimate=np.array([[["a"] * 3] * 3]), **labels)
    with pytest.raises(InputError, match="expected numbers"):
        read_result(path)
    np.savez(path, point_estimate=np.array([{}]), **labels)
    with pytest.raises(InputError, match=r"cannot be read|plain arrays|complete file"):
        read_result(path)
