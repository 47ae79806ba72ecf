import dataclasses

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from propose_prob.bodies import SkeletonBody, load_open_body, load_smpl
from propose_prob.bodies.body import BodyOutput
from propose_prob.distributions import KeypointLikelihood
from propose_prob.errors import InputError
from propose_prob.evaluation import pa_mpjpe
from propose_prob.geometry.camera import project
from propose_prob.geometry.rotations import matrix_from_6d, matrix_from_axis_angle, sixd_from_matrix
from propose_prob.geometry.skeletons import COCO_17, H36M_17
from propose_prob.io.keypoints import Keypoints
from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.models.prohmr import BodyEstimate
from propose_prob.tasks import fit, fit_body, fit_people, generic_prior

FOCAL, CENTER = 1000.0, (500.0, 400.0)


@dataclasses.dataclass
class Scene:
    """People whose bodies are known, seen by a camera."""

    theta: torch.Tensor
    shape: torch.Tensor
    translation: torch.Tensor
    joints: torch.Tensor
    p2d: torch.Tensor

    def distribution(self, spread, *, off=0.0, seed=1):
        """A distribution about the truth, or `off` standard deviations beside it."""
        generator = torch.Generator().manual_seed(seed)
        sixd = sixd_from_matrix(self.theta)
        centre = sixd + off * spread * torch.randn(sixd.shape, generator=generator)
        return dist.Normal(centre, spread).to_event(2)

    def start(self):
        """An estimate with a rough camera and an average shape."""
        depth = self.translation[:, 2:]
        place = self.translation[:, :2] / depth * FOCAL + torch.tensor(CENTER)
        camera = torch.cat([1.1 * FOCAL / depth, place + 5], -1)
        return BodyEstimate(None, torch.zeros_like(self.shape), camera, None)


def scene(people=3, body=None, *, joint_set="h36m_17", seed=0, depth=5.0, bend=0.25):
    body = SkeletonBody() if body is None else body
    generator = torch.Generator().manual_seed(seed)
    angles = bend * torch.randn(people, 24, 3, generator=generator)
    theta = matrix_from_axis_angle(angles)
    theta[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ theta[:, 0]
    shape = 0.5 * torch.randn(people, body.num_shape, generator=generator)
    translation = torch.randn(people, 3, generator=generator) * torch.tensor([0.5, 0.3, 0.3])
    translation[:, 2] += depth
    joints = body.regress(body(theta, shape, translation), joint_set)
    p2d = project(joints, focal=FOCAL, center=torch.tensor(CENTER))
    return Scene(theta, shape, translation, joints, p2d)


def pixels(fitted, p2d):
    return (fitted.projected - p2d).norm(dim=-1)


def millimeters(fitted, truth):
    """Error of each person's joints but for size, which one camera does not tell from distance."""
    return 1000 * pa_mpjpe(fitted.joints, truth.joints)


def exact(distribution, truth, **options):
    given = {"focal": FOCAL, "center": CENTER, "scale": 1.0, "solver": "lm"} | options
    given = {"start": truth.start()._replace(distribution=distribution)} | given
    return fit(distribution, given.pop("p2d", truth.p2d), given.pop("confidence", None), **given)


def test_a_known_body_is_recovered_from_exact_keypoints_where_the_distribution_is_narrow():
    truth = scene()
    distribution = truth.distribution(0.02, off=1.0)
    fitted = exact(distribution, truth)
    begun = SkeletonBody()(matrix_from_6d(distribution.mean), truth.shape, truth.translation)
    before = 1000 * pa_mpjpe(SkeletonBody().regress(begun), truth.joints)
    assert fitted.converged.all()
    assert (millimeters(fitted, truth) < 15).all()
    assert (pixels(fitted, truth.p2d).mean(-1) < 2).all()
    assert (millimeters(fitted, truth) < 0.8 * before).all()
    # A larger body farther away looks alike: the shape's distribution decides.
    assert (fitted.translation - truth.translation).norm(dim=-1).max() < 0.5
    output = SkeletonBody()(fitted.theta, fitted.shape, fitted.translation)
    torch.testing.assert_close(SkeletonBody().regress(output), fitted.joints)
    torch.testing.assert_close(
        project(fitted.joints, focal=FOCAL, center=torch.tensor(CENTER)), fitted.projected
    )


def test_fields_have_their_shapes_and_rotations_are_rotations():
    truth = scene(2)
    fitted = exact(truth.distribution(0.05), truth, max_steps=20)
    assert fitted.theta.shape == (2, 24, 3, 3) and fitted.shape.shape == (2, 10)
    assert fitted.translation.shape == fitted.camera.shape == (2, 3)
    assert fitted.joints.shape == (2, 17, 3) and fitted.projected.shape == (2, 17, 2)
    assert fitted.log_density.shape == fitted.converged.shape == fitted.focal.shape == (2,)
    assert fitted.vertices is None and len(fitted) == 2
    eye = torch.eye(3).expand(2, 24, 3, 3)
    torch.testing.assert_close(fitted.theta @ fitted.theta.mT, eye, atol=1e-5, rtol=0)
    assert all(
        value.dtype == torch.float32
        for value in (fitted.theta, fitted.shape, fitted.joints, fitted.log_density)
    )


def test_every_site_gets_a_gradient():
    truth = scene(2)
    distribution = truth.distribution(0.05, off=0.5)
    model = fit_body(
        distribution, SkeletonBody(), focal=FOCAL, center=CENTER, focal_spread=0.1, scale=2.0
    )
    import pyro
    from pyro import poutine

    values = {
        "theta": distribution.mean.clone(),
        "shape": torch.zeros(2, 10),
        "view": torch.tensor([[5.0, 500.0, 400.0]]).repeat(2, 1),
        "log_focal": torch.full((2,), FOCAL).log(),
    }
    values = {name: value.requires_grad_() for name, value in values.items()}
    trace = poutine.trace(pyro.condition(model, values)).get_trace(truth.p2d, torch.ones(2, 17))
    trace.compute_log_prob()
    seen = trace.nodes["keypoints"]["log_prob"].sum()
    for name, gradient in zip(
        values, torch.autograd.grad(seen, list(values.values())), strict=True
    ):
        assert gradient.isfinite().all() and (gradient != 0).any(), name


@pytest.mark.parametrize("focal", [None, FOCAL])
def test_alone_is_as_in_a_batch(focal):
    truth = scene(4)
    distribution = truth.distribution(0.05, off=0.5)
    together = exact(distribution, truth, focal=focal)
    start = truth.start()
    for person in (0, 3):
        part = slice(person, person + 1)
        own = dist.Normal(distribution.mean[part], 0.05).to_event(2)
        alone = exact(
            own,
            truth,
            p2d=truth.p2d[part],
            focal=focal,
            start=BodyEstimate(own, start.shape[part], start.camera[part], None),
        )
        torch.testing.assert_close(alone.joints, together.joints[part], atol=2e-3, rtol=0)
        torch.testing.assert_close(
            alone.log_density, together.log_density[part], atol=1e-2, rtol=1e-4
        )


def test_batches_bound_memory_and_change_nothing():
    truth = scene(5)
    distribution = truth.distribution(0.05, off=0.5)
    whole = exact(distribution, truth)
    own = {"focal": torch.full((5,), FOCAL), "center": torch.tensor(CENTER).repeat(5, 1)}
    parts = exact(distribution, truth, batch_size=2, **own)
    torch.testing.assert_close(parts.joints, whole.joints, atol=2e-3, rtol=0)


def test_hidden_joints_count_nothing_however_they_are_marked():
    truth = scene()
    distribution = truth.distribution(0.02, off=0.5)
    hidden = truth.p2d.clone()
    hidden[:, [6, 13]] = torch.nan
    marked, confidence = truth.p2d.clone(), torch.ones(3, 17)
    marked[:, [6, 13]] = 1e4
    confidence[:, [6, 13]] = 0
    by_nan = exact(distribution, truth, p2d=hidden)
    by_confidence = exact(distribution, truth, p2d=marked, confidence=confidence)
    torch.testing.assert_close(by_nan.joints, by_confidence.joints)
    assert by_nan.joints.isfinite().all()
    seen = [joint for joint in range(17) if joint not in (6, 13)]
    assert (pixels(by_nan, truth.p2d)[:, seen].mean(-1) < 2).all()
    assert (millimeters(by_nan, truth) < 25).all()


@pytest.mark.parametrize("kind", ["student_t", "geman_mcclure"])
def test_a_robust_kernel_bears_a_joint_in_the_wrong_place(kind):
    truth = scene()
    distribution = truth.distribution(0.02)
    spoiled = truth.p2d.clone()
    spoiled[:, 13] += torch.tensor([150.0, -100.0])
    robust = exact(distribution, truth, p2d=spoiled, likelihood=kind, scale=2.0)
    gaussian = exact(distribution, truth, p2d=spoiled, likelihood="gaussian", scale=2.0)
    assert (millimeters(robust, truth) < 10).all()
    assert (millimeters(gaussian, truth) > 2 * millimeters(robust, truth)).all()


def test_a_far_camera_is_a_weak_perspective_one():
    truth = scene(depth=200.0)
    distribution = truth.distribution(0.05, off=0.5)
    full = exact(distribution, truth, scale=0.1)
    weak = exact(distribution, truth, scale=0.1, focal=None)
    relative = [fitted.joints - fitted.joints[:, :1] for fitted in (full, weak)]
    torch.testing.assert_close(*relative, atol=5e-3, rtol=0)
    torch.testing.assert_close(weak.camera, full.camera, atol=0.5, rtol=2e-3)
    assert weak.focal is None and (weak.translation[:, 2] == 0).all()
    scaled = weak.camera[:, None, :1] * weak.joints[..., :2]
    torch.testing.assert_close(scaled, weak.projected)
    torch.testing.assert_close(
        full.camera[:, 0], full.focal / full.translation[:, 2], atol=1e-4, rtol=1e-4
    )


def test_an_uncertain_focal_length_is_found_where_perspective_is_strong():
    truth = scene(depth=1.8, bend=0.1)
    distribution = truth.distribution(0.005)
    wrong = 1.25 * FOCAL
    fitted = exact(distribution, truth, focal=wrong, focal_spread=0.3, scale=0.3)
    assert ((fitted.focal / FOCAL).log().abs() < 0.5 * np.log(1.25)).all()


def smpl_file(folder):
    rng = np.random.default_rng(0)
    rest = SkeletonBody()(torch.eye(3).expand(24, 3, 3)).joints.numpy()
    template = np.repeat(rest, 4, 0) + 0.03 * rng.normal(size=(96, 3))
    regressor = np.kron(np.eye(24), np.full((1, 4), 0.25))
    parents = np.array([4294967295, *SkeletonBody().parents[1:]], dtype=np.uint32)
    path = folder / "smpl.npz"
    np.savez(
        path,
        v_template=template,
        shapedirs=0.01 * rng.normal(size=(96, 3, 10)),
        posedirs=0.002 * rng.normal(size=(96, 3, 207)),
        J_regressor=regressor,
        kintree_table=np.stack([parents, np.arange(24, dtype=np.uint32)]),
        weights=np.repeat(np.eye(24), 4, 0),
        f=rng.integers(0, 96, (50, 3)).astype(np.uint32),
    )
    weights = np.zeros((17, 96))
    names = ["Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Spine2"]
    names += ["Neck", "Neck", "Head", "L_Shoulder", "L_Elbow", "L_Wrist"]
    names += ["R_Shoulder", "R_Elbow", "R_Wrist"]
    for row, name in enumerate(names):
        weights[row] = regressor[SkeletonBody().joint_names.index(name)]
    return load_smpl(path, h36m_regressor=torch.tensor(weights).float())


@pytest.fixture(scope="module", params=["open", "smpl"])
def mesh_body(request, tmp_path_factory):
    if request.param == "open":
        return load_open_body()
    return smpl_file(tmp_path_factory.mktemp("smpl"))


def test_bodies_with_a_surface_are_fitted_without_computing_it(mesh_body):
    truth = scene(2, mesh_body)
    distribution = truth.distribution(0.02, off=0.5)
    fitted = exact(distribution, truth, body=mesh_body, surface=True)
    assert (pixels(fitted, truth.p2d).mean(-1) < 2).all()
    assert (millimeters(fitted, truth) < 20).all()
    whole = mesh_body(fitted.theta, fitted.shape, fitted.translation)
    torch.testing.assert_close(mesh_body.regress(whole), fitted.joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.vertices, fitted.vertices, atol=1e-5, rtol=0)


def test_other_joint_sets_are_fitted():
    truth = scene(2, joint_set="coco_17")
    fitted = exact(truth.distribution(0.02), truth, joint_set="coco_17")
    assert fitted.joints.shape == (2, COCO_17.num_joints, 3)
    assert (millimeters(fitted, truth) < 15).all()


def test_an_unseen_distribution_without_a_batch_serves_everyone():
    truth = scene(2)
    distribution = dist.Normal(sixd_from_matrix(truth.theta[0]), 0.3).to_event(2)
    fitted = fit(distribution, truth.p2d, focal=FOCAL, center=CENTER, scale=2.0, solver="lm")
    assert (pixels(fitted, truth.p2d).mean(-1) < 3).all()


def test_the_start_is_the_estimate_of_its_own_distribution_where_the_distribution_is_another():
    truth = scene(2)
    prior = generic_prior(2, spread=0.3)
    given = exact(prior, truth, start=truth.start()._replace(distribution=prior))
    assert given.distribution is prior

    class Estimate:
        point_estimate = sixd_from_matrix(truth.theta)

    fitted = exact(prior, truth, start=truth.start()._replace(distribution=Estimate()))
    assert (millimeters(fitted, truth) < 80).all()
    assert (pixels(fitted, truth.p2d).mean(-1) < 3).all()


def test_double_precision_on_request():
    truth = scene(1)
    fitted = exact(truth.distribution(0.05), truth, dtype=torch.float64, max_steps=30)
    assert fitted.joints.dtype == torch.float64 and fitted.converged.all()


class Wrong:
    event_shape = torch.Size((17, 3))
    batch_shape = torch.Size((3,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"distribution": Wrong()},
            r"distribution of 6D rotations, event shape \(K, 6\), got \(17, 3\)",
        ),
        ({"joint_set": "cmu_31"}, "cannot give the joint set 'cmu_31'; it has h36m_17"),
        ({"focal": -1.0}, "expected a focal length > 0, got -1.0"),
        ({"focal": float("nan")}, "expected a focal length > 0"),
        ({"focal": None, "focal_spread": 0.1}, "focal length for focal_spread to be about"),
        ({"focal_spread": -1.0}, "expected focal_spread >= 0"),
        ({"scale": 0.0}, "expected scale > 0"),
        ({"p2d": torch.zeros(17, 2)}, r"keypoints of shape \(B, J, 2\), got \(17, 2\)"),
        ({"p2d": torch.zeros(0, 17, 2)}, "at least one person"),
        ({"p2d": torch.rand(2, 17, 2)}, r"batch shape \(2,\), one for each person, got \(3,\)"),
        ({"p2d": torch.full((3, 17, 2), torch.nan)}, "at least 3 visible joints .* person 0 has 0"),
        ({"p2d": torch.ones(3, 17, 2)}, "all joints seen of person 0 lie in one place"),
        ({"likelihood": "huber"}, "'huber'"),
        ({"solver": "newton"}, "'newton'"),
    ],
)
def test_wrong_input_is_named(change, message):
    truth = scene()
    options = dict(change)
    distribution = options.pop("distribution", truth.distribution(0.1))
    options.setdefault("start", None)
    with pytest.raises(InputError, match=message):
        exact(distribution, truth, **options)


def frames(truth):
    ones = torch.ones(1, 17)
    for index, points in enumerate(truth.p2d):
        yield Keypoints(points[None], ones, H36M_17, index, (0,))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ProHMRConfig(flow_width=16, width=16, context=16, couplings=1, blocks=1)
    return ProHMR(config).eval().requires_grad_(False)


def test_a_stream_is_fitted_person_by_person_and_the_rest_is_named(model, few_fitting_steps):
    truth = scene(3)
    people = list(frames(truth))
    hidden = torch.full((1, 17, 2), torch.nan)
    hidden[:, :4] = truth.p2d[0, :4]
    people.insert(1, Keypoints(hidden, torch.ones(1, 17), H36M_17, "dark", ("p",)))
    stream = fit_people(model, people, focal=FOCAL, center=CENTER, batch_size=2, solver="lm")
    batches = list(stream)
    assert [batch.frames for batch in batches] == [(0, 1), (2,)]
    assert [len(batch) for batch in batches] == [2, 1]
    assert [(person.frame, person.person) for person in stream.skipped] == [("dark", "p")]
    assert "4 of 17 joints" in stream.skipped[0].reason
    for batch in batches:
        # How near an untrained model gets is chance.
        seen = project(batch.bodies.joints, focal=FOCAL, center=torch.tensor(CENTER))
        torch.testing.assert_close(seen, batch.bodies.projected, rtol=1e-4, atol=0.1)
        assert batch.bodies.log_density.isfinite().all()


def test_a_stream_poses_other_bodies(model, few_fitting_steps):
    stream = fit_people(model, frames(scene(1)), body=load_open_body(), solver="lm", surface=True)
    bodies = next(stream).bodies
    assert bodies.vertices.shape == (1, 13492, 3) and bodies.focal is None


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batch_size": 0}, "batch_size >= 1"), ({"min_joints": 2}, "min_joints >= 3"),
     ({"min_confidence": 2.0}, "between 0 and 1")],
)  # fmt: skip
def test_wrong_options_of_a_stream_are_named(model, change, message):
    with pytest.raises(InputError, match=message):
        fit_people(model, frames(scene(1)), **change)


def test_the_keypoints_of_a_fit_have_the_kernel_that_was_asked_for():
    """The model's observation is the likelihood itself, with its scale in keypoint units."""
    truth = scene(1)
    import pyro
    from pyro import poutine

    for scale, expected in ((2.0, 2.0), (None, None)):
        model = fit_body(truth.distribution(0.1), SkeletonBody(), focal=FOCAL, scale=scale)
        trace = poutine.trace(pyro.poutine.uncondition(model)).get_trace(
            truth.p2d, torch.ones(1, 17)
        )
        distribution = trace.nodes["keypoints"]["fn"]
        assert isinstance(distribution, KeypointLikelihood) and distribution.kind == "student_t"
        radius = (truth.p2d - truth.p2d.mean(1, keepdim=True)).square().sum(-1).mean().sqrt()
        wanted = torch.as_tensor(0.03 * radius if expected is None else expected)
        torch.testing.assert_close(distribution.scale, wanted.expand(1, 17))


def test_more_evidence_about_the_bodies_counts():
    """Depths of both ankles from another sensor, which one camera's keypoints do not show well."""
    truth = scene()
    distribution = truth.distribution(0.3, off=1.0)
    ankles = [H36M_17.index("RAnkle"), H36M_17.index("LAnkle")]
    depth = truth.joints[:, ankles, 2]

    def sensor(sites):
        assert sites.joints.shape[-2:] == (17, 3) and sites.focal is not None
        pyro.sample("depth", dist.Normal(sites.joints[:, ankles, 2], 0.005).to_event(1), obs=depth)

    plain, told = exact(distribution, truth), exact(distribution, truth, extra=sensor)
    error, better = ((f.joints[:, ankles, 2] - depth).abs().amax() for f in (plain, told))
    assert better < 0.01 < error
    assert pixels(told, truth.p2d).amax() < 3
    # Each person has their own evidence, whoever they are fitted with.
    batched = exact(distribution, truth, extra=sensor, batch_size=1)
    assert torch.allclose(batched.joints, told.joints, atol=1e-3)


def test_bodies_of_other_classes_are_posed_as_they_are():
    class Stick(SkeletonBody):
        calls = 0

        def forward(self, theta, shape=None, translation=None) -> BodyOutput:
            Stick.calls += 1
            return super().forward(theta, shape, translation)

    truth = scene(1)
    exact(truth.distribution(0.05), truth, body=Stick(), max_steps=5)
    assert Stick.calls > 3
