"""`propose-prob smooth`: keypoints of a video to one person's motion."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import InputError
from .options import DEFAULT_MODEL, Runtime, RuntimeOptions, at_least, progress, run_attributes
from .output import tell, warn
from .tracks import Track, check_intrinsics, check_output_name, frames_word, read_track

if TYPE_CHECKING:
    from ..tasks.smoothing import Smoothed

__all__ = ["Smooth"]


@dataclass(frozen=True)
class Smooth:
    """Lift one person's keypoints through a video to one smooth motion.

    Every frame's distribution and a robust constant-velocity term are solved together, over all
    frames at once; frames and joints that were not seen are filled in. The output holds every frame
    from the first to the last: point_estimate (meters, root-relative, camera axes) and spread,
    which tells how surely; or, with a model of body pose, the motion of a body's bones, which stays
    in place.

    Attributes:
        file: File or folder of 2D keypoints, as of lift.
        fps: Frames per second of the frame numbers.
        out: File to write: .nc (NetCDF), .npz, or .bvh with --model prohmr-cmu17.
        person: Label of the person; the one in most frames by default.
        skeleton: Joint set of arrays that do not name theirs.
        image_size: Width and height in pixels of the images behind MediaPipe's fractions.
        model: Name of a shipped model or path of a .safetensors file.
        acceleration: Scale of accelerations, m/s^2: smaller is smoother.
        kernel: Distribution of the accelerations; gaussian also smooths jumps away.
        focal: Focal length in the unit of the keypoints, where known.
        center: Principal point in the unit of the keypoints; goes with --focal.
        min_joints: Frames with fewer visible joints, after conversion, are filled in instead.
        min_confidence: Joints with a lower confidence count as not seen.
        by_order: Number frames in their order, whatever their names.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="KEYPOINTS")]
    fps: float
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="PATH", help_behavior_hint="(default: the input's name + _smooth.nc)"
        ),
    ] = None
    person: Annotated[str | None, tyro.conf.arg(metavar="LABEL")] = None
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H")] = None
    model: str = DEFAULT_MODEL
    acceleration: float = 20.0
    kernel: Literal["student_t", "gaussian", "geman_mcclure"] = "student_t"
    focal: Annotated[float | None, tyro.conf.arg(metavar="F")] = None
    center: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="X Y")] = None
    min_joints: int = 6
    min_confidence: float = 0.0
    by_order: bool = False
    machine: Runtime = field(default_factory=RuntimeOptions)

    def run(self) -> None:
        """Smooth and write the output.

        Raises:
            InputError: If an option or the file is not as expected; nothing is written then.
        """
        at_least(self.min_joints, 2, "--min-joints")
        check_intrinsics(self.focal, self.center)
        for name, value in (("--fps", self.fps), ("--acceleration", self.acceleration)):
            if not 1e-6 <= value <= 1e6:
                raise InputError(f"expected {name} > 0 (1e-6 to 1e6), got {value}")
        out = self.out or Path(f"{self.file.resolve().stem}_smooth.nc")
        check_output_name(out, (self.file, self.model), (".nc", ".npz", ".bvh"))
        track = read_track(
            self.file, person=self.person, skeleton=self.skeleton, image_size=self.image_size,
            min_joints=self.min_joints, min_confidence=self.min_confidence, by_order=self.by_order,
        )  # fmt: skip
        model = self.machine.load(self.model)
        self._check_model(model, out)
        import torch

        from ..tasks.smoothing import smooth

        device = self.machine.device
        with torch.no_grad(), progress(None, total=None, unit="step") as bar:
            distribution = model.conditional(
                track.p2d.to(device), track.confidence.to(device), focal=self.focal,
                center=self.center or (0.0, 0.0),
            )  # fmt: skip
            result = smooth(
                distribution, frames=torch.tensor(track.numbers), fps=self.fps, kernel=self.kernel,
                acceleration=self.acceleration, report=lambda step, change: bar.update(),
            )  # fmt: skip
        if out.suffix == ".bvh":
            from ..bodies import write_body_bvh

            write_body_bvh(out, result.rotations, body=model.body, frame_rate=self.fps)
        else:
            self._write(out, track, result)
        if not result.converged:
            warn(f"still moving after {result.steps} steps")
        filled = len(result) - len(track.numbers)
        tell(f"{len(result)} {frames_word(len(result))}, {filled} of them filled in: {out}")

    def _check_model(self, model: Any, out: Path) -> None:
        from ..models import ProHMRJoints

        if out.suffix == ".bvh" and not isinstance(model, ProHMRJoints):
            raise InputError(
                f"{out}: {self.model} gives joints and .bvh holds rotations of bones; take a "
                "model of body pose such as prohmr-cmu17"
            )

    def _write(self, out: Path, track: Track, result: Smoothed) -> None:
        import numpy as np

        from ..geometry.skeletons import H36M_17
        from ..results.writer import open_writer

        count, joints = len(result), H36M_17.num_joints
        rows = np.array(track.numbers) - track.numbers[0]
        keypoints = np.full((count, joints, 2), np.nan, np.float32)
        confidence = np.zeros((count, joints), np.float32)
        keypoints[rows], confidence[rows] = track.p2d.numpy(), track.confidence.numpy()
        names = dict(zip(rows.tolist(), track.names, strict=True))
        frames = [names.get(row, str(number)) for row, number in enumerate(result.frames.tolist())]
        protocol = (
            f"smoothed at {self.fps:g} frames per second, accelerations {self.kernel} with scale "
            f"{self.acceleration:g} m/s^2"
        )
        with open_writer(out, joint_names=H36M_17.joint_names) as writer:
            writer.append(
                {
                    "point_estimate": result.pose.cpu().numpy(),
                    "spread": result.spread.cpu().numpy(),
                    "keypoints": keypoints,
                    "confidence": confidence,
                },
                {"frame": frames, "person": [self.person or "0"] * count},
            )
            writer.finish(
                {
                    **run_attributes(self.model, protocol),
                    "num_filled": count - len(track.numbers),
                    "fps": self.fps,
                    "converged": int(result.converged),
                }
            )
