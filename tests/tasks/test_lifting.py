import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import COCO_17, H36M_17
from propose_prob.io.keypoints import Keypoints
from propose_prob.tasks import lift


class Distribution:
    def __init__(self, p2d, *, spoil=None):
        depth = torch.arange(len(p2d), dtype=p2d.dtype)[:, None, None].expand(-1, 17, 1)
        self.point_estimate = torch.cat([p2d.nan_to_num(), depth], -1)
        if spoil is not None:
            self.point_estimate[spoil] = torch.nan

    def sample(self, shape):
        return self.point_estimate + torch.randn(*shape, *self.point_estimate.shape)

    def hypotheses(self, shape):
        return self.point_estimate.expand(*shape, *self.point_estimate.shape)


class Model:
    """Answers each pose by its own keypoints, and records what it was asked."""

    def __init__(self, spoil=None):
        self.calls = []
        self.spoil = spoil

    def conditional(self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0)):
        self.calls.append((p2d, confidence, focal, center))
        return Distribution(p2d, spoil=self.spoil)


def frames(people_per_frame, *, skeleton=H36M_17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, people in enumerate(people_per_frame):
        p2d = torch.rand(people, skeleton.num_joints, 2, generator=generator)
        ones = torch.ones(people, skeleton.num_joints)
        yield Keypoints(p2d, ones, skeleton, name, tuple(f"p{i}" for i in range(people)))


@given(
    people=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    batch_size=st.integers(1, 8),
)
def test_everyone_is_answered_once_in_order(people, batch_size):
    model = Model()
    batches = list(lift(model, frames(people), samples=3, batch_size=batch_size))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    labels = [pair for batch in batches for pair in zip(batch.frames, batch.people, strict=True)]
    assert labels == [(f, f"p{i}") for f, count in enumerate(people) for i in range(count)]
    expected = torch.cat([frame.p2d for frame in frames(people)])
    assert (torch.cat([batch.point_estimate[..., :2] for batch in batches]) == expected).all()
    for batch in batches:
        assert batch.samples.shape == (3, len(batch), 17, 3)
        assert batch.spread.shape == (len(batch), 17)


def test_input_is_read_no_further_than_needed():
    read = []

    def watched():
        for frame in frames([1] * 10):
            read.append(frame.frame)
            yield frame

    stream = lift(Model(), watched(), samples=2, batch_size=2)
    assert not read
    next(stream)
    assert read == [0, 1]


def test_spread_is_that_of_the_samples():
    torch.manual_seed(0)
    distribution, hypotheses = (
        next(lift(Model(), frames([2]), samples=400, use=use))
        for use in ("distribution", "hypotheses")
    )
    assert (distribution.spread - 3**0.5).abs().max() < 0.2
    assert hypotheses.spread.max() < 1e-6


def test_other_joint_sets_are_converted():
    model = Model()
    batch = next(lift(model, frames([2], skeleton=COCO_17), samples=2))
    seen = batch.confidence > 0
    missing = [name for name, s in zip(H36M_17.joint_names, seen[0], strict=True) if not s]
    assert missing == ["Spine", "Neck/Nose", "Head"]
    assert (batch.p2d.isnan().any(-1) == ~seen).all()
    source = next(frames([2], skeleton=COCO_17)).p2d
    wrist = batch.p2d[:, H36M_17.index("LWrist")]
    assert (wrist == source[:, COCO_17.index("left_wrist")]).all()


def test_too_little_seen_is_skipped_and_named():
    frame = next(frames([5]))
    frame.confidence[1, 5:] = 0
    frame.p2d[2, 6:] = torch.nan
    frame.p2d[3] = 7.0
    frame.confidence[4, :12] = 0.1
    stream = lift(Model(), [frame], samples=2, min_joints=6, min_confidence=0.2)
    batches = list(stream)
    assert [batch.people for batch in batches] == [("p0", "p2")]
    assert [(s.person, s.reason) for s in stream.skipped] == [
        ("p1", "5 of 17 joints seen"),
        ("p3", "all joints seen in one place"),
        ("p4", "5 of 17 joints seen"),
    ]


def test_skipping_everyone_asks_the_model_nothing():
    frame = next(frames([2]))
    frame.confidence[:] = 0
    model = Model()
    stream = lift(model, [frame], samples=2)
    assert not list(stream) and len(stream.skipped) == 2 and not model.calls


def test_doubtful_joints_reach_the_model_as_missing():
    frame = next(frames([1]))
    frame.confidence[0, 3] = 0.1
    model = Model()
    next(lift(model, [frame], samples=2, min_confidence=0.5, focal=2.0, center=(1.0, 3.0)))
    p2d, confidence, focal, center = model.calls[0]
    assert p2d[0, 3].isnan().all() and confidence[0, 3] == 0
    assert (confidence[0] > 0).sum() == 16
    assert (focal, center) == (2.0, (1.0, 3.0))


def test_an_answer_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match=r"frame 1, person p0: .* not finite"):
        list(lift(Model(spoil=2), frames([2, 2]), samples=2))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"samples": 1}, "samples >= 2, got 1"),
        ({"batch_size": 0}, "batch_size >= 1, got 0"),
        ({"min_joints": 1}, "min_joints >= 2, got 1"),
        ({"use": "luck"}, "'luck'"),
        ({"min_confidence": -0.1}, "min_confidence between 0 and 1, got -0.1"),
        ({"focal": 0.0}, "focal length > 0, got 0.0"),
        ({"focal": float("nan")}, "focal length > 0, got nan"),
    ],
)
def test_wrong_options(option, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        lift(Model(), frames([1]), **option)
