import json

import pytest
import torch

from propose_prob.cli import main
from propose_prob.models import ProHMR, ProHMRConfig, ProPose, ProPoseConfig, ScoreDiffusion
from propose_prob.models.baselines import DiffusionConfig
from propose_prob.weights import save

_TINY = ProPoseConfig(
    latent=6,
    couplings=2,
    flow_width=16,
    code=16,
    width=16,
    blocks=1,
    decoder_width=16,
    decoder_blocks=1,
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Path of a randomly initialized model that answers at once."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(ProPose(_TINY), path)
    return str(path)


@pytest.fixture(scope="session")
def diffusion_model(tmp_path_factory):
    """Path of a small model whose distribution has no density."""
    torch.manual_seed(0)
    config = DiffusionConfig(
        steps=3, context=8, width=16, blocks=1, denoiser_width=16, denoiser_blocks=1
    )
    path = tmp_path_factory.mktemp("model") / "diffusion.safetensors"
    save(ScoreDiffusion(config), path)
    return str(path)


@pytest.fixture(scope="session")
def body_model(tmp_path_factory):
    """Path of a randomly initialized model of body pose."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "body.safetensors"
    config = ProHMRConfig(flow_width=16, width=16, context=16, couplings=1, blocks=1)
    save(ProHMR(config), path)
    return str(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command line in this process: exit code, standard output, standard error."""

    def call(*args):
        threads = torch.get_num_threads()
        try:
            code = main([str(arg) for arg in args])
        finally:
            torch.set_num_threads(threads)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def coco_results(frames, people=1, *, joints=17, seed=0):
    """COCO-style results as text."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(frames, people, joints, 3, generator=generator)
    values[..., :2] *= 1000
    values[..., 2] = 0.9
    return json.dumps(
        [
            {"image_id": frame, "category_id": 1, "keypoints": person.flatten().tolist()}
            for frame in range(frames)
            for person in values[frame]
        ]
    )


@pytest.fixture
def coco(folder):
    """A file of 5 frames with 2 people each."""
    path = folder / "people.json"
    path.write_text(coco_results(5, 2))
    return path
