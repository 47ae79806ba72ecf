"""`propose-prob lift`: keypoint files to files of 3D poses."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from .._atomic import check_outputs
from ..errors import InputError
from .options import DEFAULT_MODEL, Machine, MachineOptions, progress, run_attributes
from .output import printable, tell, warn

if TYPE_CHECKING:
    from ..data.keypoints import Keypoints, KeypointStream
    from ..tasks import LiftedBatch, Skipped

__all__ = ["Lift", "batch_arrays"]

#: So many skipped people are named in the output; all of them are counted.
_NAMED = 100


@dataclass(frozen=True)
class Lift:
    """Lift 2D keypoints of any number of people and frames to laws over 3D poses.

    Files are OpenPose, COCO-style, MMPose, AlphaPose or MediaPipe JSON, folders of such files (one
    for each frame), or arrays (..., joints, 2 or 3) in .npy or .npz. Other joint sets are
    converted; joints without a counterpart are missing, and the law is wide there. Input is
    streamed and the output grows batch by batch, so memory does not depend on their size. At 200
    samples, a person takes 41 kB of the output.

    Attributes:
        files: Files or folders of 2D keypoints.
        out: File to write: .nc (NetCDF, which arviz.from_netcdf reads) or .npz. A name without an
            ending is a folder of .nc files, one for every --part-frames frames: a run that was
            killed goes on where it stopped, and the processes of torchrun share the work.
        skeleton: Joint set of arrays that do not name theirs: h36m_17, coco_17, body_25, mpii_16,
            smpl_24, cmu_31, mpi_inf_3dhp_17, mediapipe_33, halpe_26, halpe_136 or
            coco_wholebody_133.
        image_size: Width and height in pixels of the images behind MediaPipe's fractions.
        model: Name of a shipped model or path of a .safetensors file.
        samples: Draws for each person.
        use: What is drawn: the law itself, observation noise included, or noise-free hypotheses.
        log_prob: Store the log-density of each draw too. Where it is an estimate (the attribute
            log_prob_kind of the output says so), that takes seconds for each person.
        focal: Focal length in the unit of the keypoints, where known.
        center: Principal point in the unit of the keypoints; goes with --focal.
        min_joints: People with fewer visible joints, after conversion, are skipped, counted and
            named.
        min_confidence: Joints with a lower confidence count as not seen.
        batch_size: People lifted at once.
        part_frames: Frames in each file, where the output is a folder.
    """

    files: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE [FILE ...]", help_behavior_hint="(required)"),
    ]
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="PATH", help_behavior_hint="(default: the first input's name with _3d.nc)"
        ),
    ] = None
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H")] = None
    model: str = DEFAULT_MODEL
    samples: int = 200
    use: Literal["law", "hypotheses"] = "law"
    log_prob: bool = False
    focal: Annotated[float | None, tyro.conf.arg(metavar="F")] = None
    center: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="X Y")] = None
    min_joints: int = 6
    min_confidence: float = 0.0
    batch_size: int = 64
    part_frames: int = 10_000
    machine: MachineOptions = field(default_factory=Machine)

    def run(self) -> None:
        """Lift everything and write the output.

        Raises:
            InputError: If an option or a file is not as expected; nothing is written then.
        """
        self._check()
        out = self._output()
        if out.suffix == "":
            from .lift_parts import lift_parts

            lift_parts(self, self._model(), out)
            return
        model = self._model()
        with progress(None, total=0, unit="frame") as bar:
            count, skipped = self.write(model, self._frames(bar), out)
        if not count:
            raise InputError(
                f"nobody to lift: {_skipped_line(skipped, shown=1)}; "
                f"--min-joints is {self.min_joints}"
            )
        if skipped:
            warn(_skipped_line(skipped))
        size = out.stat().st_size / 1e6
        tell(f"{count} {_people(count)}, {self.samples} samples each: {out} ({size:.1f} MB)")

    def write(
        self, model: Any, frames: Iterable[Keypoints], out: Path
    ) -> tuple[int, Sequence[Skipped]]:
        """Lift some frames into one file, which is not written where there is nobody.

        Args:
            model: The model.
            frames: People with their keypoints.
            out: File to write.

        Returns:
            How many people were lifted, and who was skipped.

        Raises:
            InputError: If a frame cannot be read or the law is not finite.
        """
        from ..inference.streams import open_writer
        from ..pose.skeleton import H36M_17
        from ..tasks import lift

        batches = lift(
            model,
            frames,
            samples=self.samples,
            use=self.use,
            focal=self.focal,
            center=self.center or (0.0, 0.0),
            batch_size=self.batch_size,
            min_joints=self.min_joints,
            min_confidence=self.min_confidence,
            device=self.machine.device,
        )
        first = next(batches, None)
        if first is None:
            return 0, batches.skipped
        count, kind = 0, ""
        with open_writer(out, joint_names=H36M_17.joint_names) as writer:
            for batch in itertools.chain([first], batches):
                arrays = batch_arrays(batch)
                if self.log_prob:
                    kind = batch.law.log_prob_kind
                    arrays["lp"] = _log_prob(batch)
                writer.append(arrays, {"frame": batch.frames, "person": batch.people})
                count += len(batch)
            density = {"log_prob_kind": kind} if kind else {}
            writer.finish(self._attributes(batches.skipped) | density)
        return count, batches.skipped

    def _model(self) -> Any:
        loaded = self.machine.load(self.model)
        from ..conditional import freeze

        return freeze(loaded)

    def _check(self) -> None:
        if not self.files:
            raise InputError("expected at least one FILE of keypoints")
        for path in self.files:
            if not path.exists():
                raise InputError(f"{path}: there is no such file or folder")
        if (self.focal is None) != (self.center is None):
            raise InputError("expected --focal and --center together, got only one of them")
        out = self._output()
        if out.suffix:
            check_outputs([out], [*self.files, self.model])

    def _output(self) -> Path:
        return self.out or Path(f"{self.files[0].resolve().stem}_3d.nc")

    def streams(self) -> Iterator[tuple[Path, KeypointStream]]:
        """The frames of each input.

        Raises:
            InputError: If one cannot be read.
        """
        from ..data.keypoints import read_keypoints

        for path in self.files:
            stream = read_keypoints(path, skeleton=self.skeleton, image_size=self.image_size)
            yield path, stream

    def _frames(self, bar: Any) -> Iterator[Keypoints]:
        for path, stream in self.streams():
            bar.total += len(stream)
            for frame in stream:
                bar.update()
                yield self.named(frame, path)

    def named(self, frame: Keypoints, path: Path) -> Keypoints:
        """A frame with a name that tells it from those of the other inputs."""
        return frame if len(self.files) == 1 else _with_source(frame, path)

    def _attributes(self, skipped: Sequence[Skipped]) -> dict[str, str | int | float]:
        named = "; ".join(_name(person) for person in skipped[:_NAMED])
        if len(skipped) > _NAMED:
            named += f"; and {len(skipped) - _NAMED} more"
        camera = (
            "camera unknown"
            if self.focal is None or self.center is None
            else f"focal length {self.focal:g}, principal point {self.center}"
        )
        protocol = (
            f"{self.samples} draws of {self.use} for each person, seed {self.machine.seed}, "
            f"{camera}, at least {self.min_joints} joints seen, "
            f"confidence of at least {self.min_confidence:g}"
        )
        return {
            **run_attributes(self.model, protocol),
            "num_skipped": len(skipped),
            "skipped": named,
        }


def batch_arrays(batch: LiftedBatch) -> dict[str, Any]:
    """A batch as the arrays of `propose_prob.inference.schema`, items first."""
    return {
        "pose": batch.samples.movedim(0, 1).cpu().numpy(),
        "point_estimate": batch.point_estimate.cpu().numpy(),
        "spread": batch.spread.cpu().numpy(),
        "keypoints": batch.p2d.cpu().numpy(),
        "confidence": batch.confidence.cpu().numpy(),
    }


def _log_prob(batch: LiftedBatch) -> Any:
    """Log-density of each draw `(B, S)`, nats."""
    import torch

    if batch.law.log_prob_kind == "none":
        raise InputError("--log-prob: this model's law has no density")
    with torch.no_grad():
        return batch.law.log_prob(batch.samples).T.cpu().numpy()


def _with_source(frame: Keypoints, path: Path) -> Keypoints:
    """Name a frame after its file too, so that those of several files stay apart."""
    alone = frame.frame == path.stem.removesuffix("_keypoints")
    return dataclasses.replace(frame, frame=str(path) if alone else f"{path}:{frame.frame}")


def _name(person: Skipped) -> str:
    frame, label = printable(person.frame), printable(person.person)
    return f"frame {frame}, person {label} ({person.reason})"


def _people(count: int) -> str:
    return "person" if count == 1 else "people"


def _skipped_line(skipped: Sequence[Skipped], shown: int = 5) -> str:
    line = f"skipped {len(skipped)} {_people(len(skipped))}: "
    line += "; ".join(_name(person) for person in skipped[:shown])
    return line + (f"; and {len(skipped) - shown} more" if len(skipped) > shown else "")
