"""`propose-prob fuse`: keypoints of several views to one person's poses."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import InputError
from ..io.files import read_json
from .options import DEFAULT_MODEL, Runtime, RuntimeOptions, at_least, run_attributes
from .output import tell, warn
from .tracks import Track, check_intrinsics, check_output_name, frames_word, read_track

if TYPE_CHECKING:
    from ..tasks.fusion import Cameras, Fused

__all__ = ["Fuse"]


@dataclass(frozen=True)
class Fuse:
    """Fuse the keypoints of several views of one person, frame by frame.

    Frames of the files belong together by their numbers; a view may miss any of them. Without
    --cameras each view may look from anywhere, and the pose is in the axes of the first view that
    saw the frame. With it, the pose is in world axes, and --keypoint-scale reprojects it onto the
    keypoints as well. The output holds point_estimate (meters, root-relative) for every frame that
    a view saw.

    Attributes:
        files: Files or folders of 2D keypoints, one for each view.
        cameras: JSON list with one object for each view: "R" (world to camera, 3 x 3), "t"
            (meters), and "focal" with "center", or "K" (3 x 3).
        out: File to write: .nc (NetCDF) or .npz.
        person: Label of the person; in each file the one in most frames by default.
        skeleton: Joint set of arrays that do not name theirs.
        image_size: Width and height in pixels of the images behind MediaPipe's fractions.
        model: Name of a shipped model of joints or path of a .safetensors file.
        keypoint_scale: Typical error of a keypoint, in its unit; needs --cameras.
        focal: Focal length of all views without --cameras, where known.
        center: Principal point; goes with --focal.
        min_joints: Views of a frame with fewer visible joints, after conversion, are left out.
        min_confidence: Joints with a lower confidence count as not seen.
        by_order: Number frames in their order, whatever their names.
        batch_size: Frames solved at once.
    """

    files: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="VIEW [VIEW ...]", help_behavior_hint="(required)"),
    ]
    cameras: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="PATH", help_behavior_hint="(default: the first input's name + _fused.nc)"
        ),
    ] = None
    person: Annotated[str | None, tyro.conf.arg(metavar="LABEL")] = None
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H")] = None
    model: str = DEFAULT_MODEL
    keypoint_scale: Annotated[float | None, tyro.conf.arg(metavar="S")] = None
    focal: Annotated[float | None, tyro.conf.arg(metavar="F")] = None
    center: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="X Y")] = None
    min_joints: int = 6
    min_confidence: float = 0.0
    by_order: bool = False
    batch_size: int = 64
    machine: Runtime = field(default_factory=RuntimeOptions)

    def run(self) -> None:
        """Fuse and write the output.

        Raises:
            InputError: If an option or a file is not as expected; nothing is written then.
        """
        if len(self.files) < 2:
            raise InputError(f"expected at least two VIEW files, got {len(self.files)}")
        at_least(self.min_joints, 2, "--min-joints")
        at_least(self.batch_size, 1, "--batch-size")
        check_intrinsics(self.focal, self.center)
        if self.keypoint_scale is not None and self.cameras is None:
            raise InputError("--keypoint-scale needs --cameras")
        if self.focal is not None and self.cameras is not None:
            raise InputError("expected focal lengths in --cameras or as --focal, got both")
        out = self.out or Path(f"{self.files[0].resolve().stem}_fused.nc")
        check_output_name(out, (*self.files, self.cameras, self.model))
        cameras = None if self.cameras is None else read_cameras(self.cameras, len(self.files))
        tracks = [
            read_track(
                path, person=self.person, skeleton=self.skeleton, image_size=self.image_size,
                min_joints=self.min_joints, min_confidence=self.min_confidence,
                by_order=self.by_order,
            )
            for path in self.files
        ]  # fmt: skip
        model = self.machine.load(self.model)
        from ..models import ProHMRJoints

        if isinstance(model, ProHMRJoints):
            raise InputError(
                f"expected a model of joints such as {DEFAULT_MODEL}, and {self.model} is one of "
                "body pose; tasks.fuse_views fuses its distributions of rotations"
            )
        numbers, result = self._fuse(model, tracks, cameras)
        self._write(out, numbers, result, len(tracks))
        loose = int((~result.converged).sum())
        if loose:
            warn(f"{loose} frames did not converge")
        tell(f"{len(numbers)} {frames_word(len(numbers))} of {len(tracks)} views: {out}")

    def _fuse(
        self, model: Any, tracks: list[Track], cameras: Cameras | None
    ) -> tuple[list[int], Fused]:
        import torch

        from ..tasks.fusion import ViewEvidence, fuse_views

        numbers = sorted({number for track in tracks for number in track.numbers})
        place = {number: row for row, number in enumerate(numbers)}
        joints = tracks[0].p2d.shape[1]
        seen = torch.zeros(len(numbers), len(tracks), dtype=torch.bool)
        # A view that is missing borrows the view's first frame: its distribution is there, and not
        # counted.
        p2d = torch.empty(len(numbers), len(tracks), joints, 2)
        confidence = torch.empty(len(numbers), len(tracks), joints)
        for view, track in enumerate(tracks):
            rows = [place[number] for number in track.numbers]
            p2d[:, view], confidence[:, view] = track.p2d[0], track.confidence[0]
            p2d[rows, view], confidence[rows, view] = track.p2d, track.confidence
            seen[rows, view] = True
        device = self.machine.device
        p2d, confidence = p2d.to(device), confidence.to(device)
        focal: Any = self.focal
        center: Any = self.center or (0.0, 0.0)
        if cameras is not None:
            focal, center = cameras.focal, cameras.center
        evidence = None
        if self.keypoint_scale is not None:
            evidence = ViewEvidence(p2d, self.keypoint_scale, confidence)
        with torch.no_grad():
            distribution = model.conditional(p2d, confidence, focal=focal, center=center)
        return numbers, fuse_views(
            distribution, seen=seen, cameras=cameras, evidence=evidence, batch_size=self.batch_size,
            progress=sys.stderr.isatty(),
        )  # fmt: skip

    def _write(self, out: Path, numbers: list[int], result: Fused, views: int) -> None:
        from ..geometry.skeletons import H36M_17
        from ..results.writer import open_writer

        axes = "the first view seen" if self.cameras is None else "the world"
        protocol = f"fusion of {views} views, product of their distributions, axes of {axes}"
        if self.keypoint_scale is not None:
            protocol += f", keypoints with errors of {self.keypoint_scale:g}"
        with open_writer(out, joint_names=H36M_17.joint_names) as writer:
            writer.append(
                {"point_estimate": result.pose.detach().cpu().numpy()},
                {"frame": numbers, "person": [self.person or "0"] * len(numbers)},
            )
            writer.finish(
                {
                    **run_attributes(self.model, protocol),
                    "num_views": views,
                    "num_not_converged": int((~result.converged).sum()),
                }
            )


def read_cameras(path: Path, views: int) -> Cameras:
    """Read cameras from JSON; see `Fuse`.

    Args:
        path: The file.
        views: How many cameras it has to have.

    Raises:
        InputError: If the file is missing or not as described; the message names the camera.
    """
    import torch

    from ..tasks.fusion import Cameras

    listed = read_json(path)
    if not isinstance(listed, list) or len(listed) != views:
        got = f"{len(listed)}" if isinstance(listed, list) else type(listed).__name__
        raise InputError(f"{path}: expected a list of {views} cameras, one a view, got {got}")
    parts: dict[str, list[Any]] = {"R": [], "t": [], "focal": [], "center": []}
    for number, camera in enumerate(listed):
        where = f"{path}: camera {number}"
        if not isinstance(camera, dict):
            raise InputError(f"{where}: expected an object with R, t and focal or K")
        parts["R"].append(_numbers(camera, "R", (3, 3), where))
        parts["t"].append(_numbers(camera, "t", (3,), where))
        if "K" in camera:
            matrix = _numbers(camera, "K", (3, 3), where)
            parts["focal"].append(matrix[0, 0])
            parts["center"].append(matrix[:2, 2])
        else:
            parts["focal"].append(_numbers(camera, "focal", (), where))
            parts["center"].append(_numbers(camera, "center", (2,), where))
        rotation = parts["R"][-1]
        if float((rotation @ rotation.mT - torch.eye(3)).abs().max()) > 1e-3:
            raise InputError(f"{where}: expected a rotation matrix in R")
        if not float(parts["focal"][-1]) > 0:
            raise InputError(f"{where}: expected a focal length > 0")
    stacked = {name: torch.stack(values) for name, values in parts.items()}
    return Cameras(stacked["R"], stacked["t"], stacked["focal"], stacked["center"])


def _numbers(camera: dict[str, Any], key: str, shape: tuple[int, ...], where: str) -> Any:
    import torch

    if key not in camera:
        raise InputError(f"{where}: expected the key {key!r}")
    try:
        values = torch.tensor(camera[key], dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        values = torch.tensor(torch.nan)
    if values.shape != shape or not bool(values.isfinite().all()):
        raise InputError(f"{where}: expected {key!r} as finite numbers of shape {shape}")
    return values
