import warnings

import numpy as np
import pytest
import torch

from propose_prob.results import open_writer, to_inference_data

NAMES = ["hip", "knee", "ankle"]


class Distribution:
    def __init__(self, point):
        self.point_estimate = point


def batch(people=4, samples=6):
    torch.manual_seed(0)
    return {
        "samples": torch.randn(samples, people, 3, 3),
        "point": torch.randn(people, 3, 3),
        "keypoints": torch.randn(people, 3, 2),
        "confidence": torch.rand(people, 3),
    }


def exported(data, **changes):
    settings = {
        "joint_names": NAMES,
        "keypoints": data["keypoints"],
        "confidence": data["confidence"],
        "frame": ["a", "a", "b", 7],
        "person": [0, 1, 0, 0],
        "attrs": {"model": "m"},
    }
    return to_inference_data(Distribution(data["point"]), data["samples"], **(settings | changes))


def test_draws_are_found_by_name():
    data = batch()
    result = exported(data)
    pose = result.posterior["pose"]
    assert pose.dims == ("chain", "draw", "item", "joint", "axis")
    found = pose.sel(joint="knee", axis="z").isel(chain=0, item=2).values
    np.testing.assert_array_equal(found, data["samples"][:, 2, 1, 2].numpy())
    assert result.posterior["frame"].values.tolist() == ["a", "a", "b", "7"]
    assert result.posterior["person"].values.tolist() == ["0", "1", "0", "0"]
    assert pose.attrs["units"] == "m"
    assert result.attrs["model"] == "m"
    np.testing.assert_array_equal(
        result.observed_data["keypoints"].sel(image_axis="y"), data["keypoints"][..., 1]
    )
    spread = (data["samples"] - data["samples"].mean(0)).square().sum(-1).mean(0).sqrt()
    np.testing.assert_allclose(result.constant_data["spread"], spread)


def test_one_person_needs_no_batch_axis():
    data = batch(1)
    whole = exported(data, frame=["a"], person=[0])
    single = to_inference_data(
        Distribution(data["point"][0]),
        data["samples"][:, 0],
        joint_names=NAMES,
        keypoints=data["keypoints"][0],
        confidence=data["confidence"][0],
    )
    assert (single.posterior["pose"].values == whole.posterior["pose"].values).all()
    assert (single.constant_data["point_estimate"] == whole.constant_data["point_estimate"]).all()


def test_without_evidence_or_distribution_there_is_no_group_for_it():
    result = to_inference_data(None, batch()["samples"], joint_names=NAMES)
    assert result.groups() == ["posterior", "constant_data"]
    assert list(result.constant_data.data_vars) == ["spread"]


def test_arviz_summarizes_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    data = batch(people=1, samples=400)
    summary = arviz.summary(exported(data, frame=[0], person=[0]), kind="stats")
    assert len(summary) == 9
    expected = data["samples"][:, 0, 1, 2].mean()
    assert summary.loc["pose[0, knee, z]", "mean"] == pytest.approx(float(expected), abs=2e-3)


def test_a_streamed_file_equals_the_object(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    data = batch()
    expected = exported(data)
    spread = torch.from_numpy(expected.constant_data["spread"].values)
    with open_writer(tmp_path / "a.nc", joint_names=NAMES) as writer:
        for part in (slice(0, 3), slice(3, 4)):
            writer.append(
                {
                    "pose": data["samples"].movedim(0, 1)[part].numpy(),
                    "point_estimate": data["point"][part].numpy(),
                    "spread": spread[part].numpy(),
                    "keypoints": data["keypoints"][part].numpy(),
                    "confidence": data["confidence"][part].numpy(),
                },
                {"frame": ["a", "a", "b", 7][part], "person": [0, 1, 0, 0][part]},
            )
        writer.finish({"model": "m"})
    stored = arviz.from_netcdf(tmp_path / "a.nc")
    assert sorted(stored.groups()) == sorted(expected.groups())
    assert stored.attrs == expected.attrs
    for group in expected.groups():
        assert stored[group].equals(expected[group])
        for name, variable in expected[group].data_vars.items():
            assert stored[group][name].attrs == variable.attrs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"joint_names": NAMES[:2]}, r"\(S, 2, 3\) or \(S, B, 2, 3\), got \(6, 4, 3, 3\)"),
        ({"keypoints": torch.zeros(4, 3, 3)}, r"keypoints of shape \(4, 3, 2\), got \(4, 3, 3\)"),
        ({"confidence": torch.zeros(3)}, r"confidence of shape \(4, 3\), got \(3,\)"),
        ({"frame": ["a"]}, "4 labels in frame, got 1"),
    ],
)
def test_wrong_shapes(changes, words):
    with pytest.raises(ValueError, match=words):
        exported(batch(), **changes)
