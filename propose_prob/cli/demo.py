"""`propose-prob demo`: lift a real detection, print and draw the result."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._shipped import shipped_file
from ..errors import InputError
from ..io.atomic import atomic_file, check_outputs
from .lift import batch_arrays
from .options import (
    DEFAULT_MODEL,
    Runtime,
    RuntimeOptions,
    at_least,
    model_name,
    prepare_drawing,
    run_attributes,
)
from .output import tell

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from ..geometry.skeletons import Skeleton
    from ..io.keypoints import Keypoints
    from ..plotting.demo import DemoContent
    from ..tasks.lifting import LiftedBatch

    Array = npt.NDArray[Any]

__all__ = ["Demo"]

_PHOTO, _DETECTION = "pexels-4793258.jpg", "pexels-4793258_keypoints.json"
_CREDIT = "Photo: Anete Lusina, Pexels (4793258)"

#: Size of the photo that the detector saw, in pixels.
_DETECTED_SIZE = (4016, 6016)

#: Metres that a drawn pose may reach.
_FAR = 1e3
#: Focal length that places hypotheses on the photo, in image heights. Only the drawing needs it.
_DRAWN_FOCAL = 1.2


@dataclass(frozen=True)
class Demo:
    """Lift the person on the photo that ships with the package, and show how sure the answer is.

    Takes a real OpenPose detection, draws 3D hypotheses, writes a figure (PNG) and the draws
    (NetCDF for ArviZ), and prints the uncertainty of each joint.

    Attributes:
        out: Folder to write demo.png and demo.nc to.
        model: Name of a shipped model or path of a .safetensors file.
        samples: Hypotheses to draw.
    """

    out: Path = Path("propose-demo")
    model: str = DEFAULT_MODEL
    samples: int = 200
    machine: Runtime = field(default_factory=RuntimeOptions)

    def run(self) -> None:
        """Run the demonstration.

        Raises:
            InputError: If matplotlib is missing or the model cannot be loaded.
        """
        at_least(self.samples, 2, "--samples")
        prepare_drawing()
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: expected a folder, got a file")
        figure, stored = self.out / "demo.png", self.out / "demo.nc"
        if self.out.exists():
            check_outputs([figure, stored], [self.model])
        frame = _detection()
        start = time.perf_counter()
        model = self.machine.load(self.model)
        loaded = time.perf_counter()
        from ..tasks import lift

        batch = next(
            lift(model, [frame], samples=self.samples, min_joints=2, device=self.machine.device)
        )
        _seed(self.machine.seed)
        hypotheses = batch.distribution.hypotheses((self.samples,))
        drawn = time.perf_counter()
        answer = _Answer.of(batch, hypotheses)
        answer.check_drawable(self.model)
        _tell_input(frame, answer)
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        tell(
            f"model       {model_name(self.model)}, {size:.1f} million parameters, loaded in "
            f"{loaded - start:.1f} s",
            "distribution         of the 3D pose given these keypoints, camera unknown",
            f"hypotheses  {self.samples} drawn in {drawn - loaded:.2f} s",
        )
        made = not self.out.exists()
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            self._write(batch, answer, figure, stored)
        except BaseException:
            if made:
                with suppress(OSError):
                    self.out.rmdir()
            raise
        tell(
            f"figure      {figure}",
            f"draws       {stored} (arviz.from_netcdf reads it)",
            "",
            *answer.table().split("\n"),
        )

    def _write(self, batch: LiftedBatch, answer: _Answer, figure: Path, stored: Path) -> None:
        from ..plotting.demo import demo_figure
        from ..results.writer import open_writer

        drawing = demo_figure(_content(answer, model_name(self.model)))
        protocol = (
            f"{self.samples} draws of the distribution, seed {self.machine.seed}, camera unknown; "
            f"OpenPose detection on Pexels photo 4793258"
        )
        with (
            atomic_file(figure) as file,
            open_writer(stored, joint_names=answer.skeleton.joint_names) as writer,
        ):
            arrays = batch_arrays(batch)
            arrays["hypothesis"] = answer.hypotheses[None]
            writer.append(arrays, {"frame": batch.frames, "person": batch.people})
            writer.finish(run_attributes(self.model, protocol))
            drawing.savefig(file, format="png", dpi=150)


@dataclass(frozen=True, eq=False)
class _Answer:
    """The one person's distribution in numbers; arrays without a batch axis, meters."""

    p2d: Array
    confidence: Array
    hypotheses: Array
    point: Array
    spread: Array
    radius: Array
    skeleton: Skeleton

    @classmethod
    def of(cls, batch: LiftedBatch, hypotheses: Tensor) -> _Answer:
        from ..geometry.skeletons import H36M_17

        distance = (batch.samples - batch.point_estimate).norm(dim=-1)
        return cls(
            p2d=batch.p2d[0].cpu().numpy(),
            confidence=batch.confidence[0].cpu().numpy(),
            hypotheses=hypotheses[:, 0].cpu().numpy(),
            point=batch.point_estimate[0].cpu().numpy(),
            spread=batch.spread[0].cpu().numpy(),
            radius=distance.quantile(0.9, dim=0)[0].cpu().numpy(),
            skeleton=H36M_17,
        )

    @property
    def visible(self) -> Array:
        return self.confidence > 0

    def check_drawable(self, model: str) -> None:
        """Refuse what no figure can show: of weights that are far too large, for instance.

        Raises:
            InputError: If a number is not finite, or a pose reaches far beyond any person.
        """
        import numpy as np

        numbers = (self.hypotheses, self.point, self.spread, self.radius)
        far = max(float(np.abs(values).max()) for values in numbers)
        if not far <= _FAR:
            raise InputError(
                f"{model}: expected poses within {_FAR:g} m, got {far:.3g} m; weights in order?"
            )

    def table(self) -> str:
        """Uncertainty of each joint as text."""
        lines = [f"{'joint':<10} {'2D':>8} {'confidence':>10} {'spread':>8} {'90 % within':>12}"]
        lines.append("-" * len(lines[0]))
        for joint, name in enumerate(self.skeleton.joint_names):
            seen = bool(self.visible[joint])
            start = f"{name:<10} {'seen' if seen else 'not seen':>8} "
            start += f"{self.confidence[joint]:>10.2f} " if seen else f"{'-':>10} "
            if joint == self.skeleton.root:
                lines.append(f"{start}{'the origin':>21}")
                continue
            spread, radius = 1000 * self.spread[joint], 1000 * self.radius[joint]
            lines.append(f"{start}{spread:>5.0f} mm {radius:>9.0f} mm")
        lines.append(
            "\nspread: root mean square distance of the draws to their mean; "
            "90 % within: of the draws, around the\npoint estimate. Both are relative to the "
            f"{self.skeleton.joint_names[self.skeleton.root].lower()} and include the "
            f"distribution's "
            "observation noise."
        )
        return "\n".join(lines)


def _seed(seed: int) -> None:
    """Start the random numbers again, so that hypotheses share the latents of the draws."""
    import torch

    torch.manual_seed(seed)


def _detection() -> Keypoints:
    from ..io.keypoints import read_keypoints

    return next(read_keypoints(shipped_file(f"assets/{_DETECTION}")))


def _tell_input(frame: Keypoints, answer: _Answer) -> None:
    seen = int((frame.confidence > 0).sum())
    missing = [
        name
        for name, visible in zip(answer.skeleton.joint_names, answer.visible, strict=True)
        if not visible
    ]
    tell(
        f"photo       {_PHOTO} ({_CREDIT})",
        f"detection   OpenPose {frame.skeleton.name.upper()}, one person, {seen} of "
        f"{frame.skeleton.num_joints} joints",
        f"converted   to {answer.skeleton.name.upper()}: {int(answer.visible.sum())} of "
        f"{answer.skeleton.num_joints} joints seen; missing: {', '.join(missing)}",
    )


def _content(answer: _Answer, model: str) -> DemoContent:
    import numpy as np
    from matplotlib.image import imread

    from ..plotting.demo import DemoContent

    image = imread(shipped_file(f"assets/{_PHOTO}"))
    scale = np.array(image.shape[1::-1]) / np.array(_DETECTED_SIZE)
    return DemoContent(
        image=image,
        p2d=answer.p2d * scale,
        visible=answer.visible,
        reprojected=_reproject(answer) * scale,
        poses=answer.hypotheses,
        point=answer.point,
        spread=answer.spread,
        radius=answer.radius,
        skeleton=answer.skeleton,
        model=model,
        credit=_CREDIT,
    )


def _reproject(answer: _Answer) -> Array:
    """Hypotheses `(S, J, 3)` on the photo `(S, J, 2)`, each placed by its visible joints."""
    import torch

    from ..geometry.camera import project, root_translation

    width, height = _DETECTED_SIZE
    focal, center = _DRAWN_FOCAL * height, torch.tensor([width / 2, height / 2])
    poses, p2d = torch.from_numpy(answer.hypotheses), torch.from_numpy(answer.p2d)
    visible = torch.from_numpy(answer.visible)
    place = root_translation(poses, p2d, focal=focal, center=center, visible=visible)
    image: Array = project(poses + place[..., None, :], focal=focal, center=center).numpy()
    return image
