"""`propose-prob lift`: keypoint files to files of 3D poses."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..devices import launched_as
from ..errors import InputError
from ..io.atomic import check_outputs, locked, remove_leftovers, write_bytes, write_text
from ..io.files import open_file, read_json
from .options import (
    DEFAULT_MODEL,
    Runtime,
    RuntimeOptions,
    at_least,
    model_file,
    progress,
    run_attributes,
)
from .output import printable, tell, warn

if TYPE_CHECKING:
    from ..io.keypoints import Keypoints, KeypointStream
    from ..tasks.lifting import LiftedBatch
    from ..tasks.people import Skipped

__all__ = ["Lift", "batch_arrays", "lift_parts"]

#: So many skipped people are named in the output; all of them are counted.
_NAMED = 100


@dataclass(frozen=True)
class Lift:
    """Lift 2D keypoints of any number of people and frames to distributions over 3D poses.

    Files are OpenPose, COCO-style, MMPose, AlphaPose or MediaPipe JSON, folders of such files (one
    for each frame), or arrays (..., joints, 2 or 3) in .npy or .npz. Other joint sets are
    converted; joints without a counterpart are missing, and the distribution is wide there. Input
    is streamed and the output grows batch by batch, so memory does not depend on their size. At 200
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
        use: What is drawn: the distribution itself, observation noise included, or noise-free
            hypotheses.
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
    use: Literal["distribution", "hypotheses"] = "distribution"
    log_prob: bool = False
    focal: Annotated[float | None, tyro.conf.arg(metavar="F")] = None
    center: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="X Y")] = None
    min_joints: int = 6
    min_confidence: float = 0.0
    batch_size: int = 64
    part_frames: int = 10_000
    machine: Runtime = field(default_factory=RuntimeOptions)

    def run(self) -> None:
        """Lift everything and write the output.

        Raises:
            InputError: If an option or a file is not as expected; nothing is written then.
        """
        self._check()
        out = self._output()
        if out.suffix == "":
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
            InputError: If a frame cannot be read or the distribution is not finite.
        """
        from ..geometry.skeletons import H36M_17
        from ..results.writer import open_writer
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
                    kind = batch.distribution.log_prob_kind
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
        from ..io.keypoints import read_keypoints

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
    """A batch as the arrays of `propose_prob.results.schema`, items first."""
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

    if batch.distribution.log_prob_kind == "none":
        raise InputError("--log-prob: this model's distribution has no density")
    with torch.no_grad():
        return batch.distribution.log_prob(batch.samples).T.cpu().numpy()


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


_SETTINGS = "lift.json"
#: Bytes of it, at the most; it names every input.
_LONGEST = 1 << 26
#: Of the options, those that change neither what a part holds nor where it begins.
_FREE = ("out", "machine")


def lift_parts(command: Lift, model: Any, folder: Path) -> None:
    """Lift every frame of a command's inputs into `folder/part-NNNNNN.nc`.

    Each part is a file of its own that appears when it is whole; parts that are there already are
    passed over, and those that were cut short since are written again. The folder remembers what
    its parts are made of: options, and size and hash of the model and of every input. A part's
    random numbers depend on the seed and its number alone, so that neither interruptions nor the
    number of processes change a result. Parts with nobody in them leave an empty file
    `part-NNNNNN.empty`. The processes that `torchrun` starts take parts in turns.

    Args:
        command: The command with its options.
        model: The model.
        folder: Where to write; made where it is missing.

    Raises:
        InputError: If the folder holds the output of other options, inputs or weights, or a frame
            cannot be read.
    """
    at_least(command.part_frames, 1, "--part-frames")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder to write files to, or a name in .nc or .npz")
    rank, processes = launched_as()
    if folder.is_dir():
        if any(folder.samefile(path) for path in command.files):
            raise InputError(f"{folder}: the output would be written among the inputs")
        files = [path for path in command.files if path.is_file()]
        check_outputs([folder / _SETTINGS], [*files, command.model])
    import torch

    streams = list(command.streams())
    total = sum(len(stream) for _, stream in streams)
    _agree(command, folder, total)
    mine = range(rank, -(-total // command.part_frames), processes)
    people = skipped = new = 0
    with progress(None, total=len(mine), unit="part") as bar:
        for number in mine:
            bar.update()
            path, empty = (folder / f"part-{number:06d}.{end}" for end in ("nc", "empty"))
            if empty.exists() or _whole(path):
                continue
            # Of a process that was killed while it wrote this part; one that lives and lifts the
            # same part writes the same bytes.
            remove_leftovers(path)
            torch.manual_seed((command.machine.seed << 32) + number)
            start = number * command.part_frames

            def frames(start: int = start) -> Iterator[Keypoints]:
                passed = 0
                for source, stream in streams:
                    first, last = start - passed, start + command.part_frames - passed
                    passed += len(stream)
                    if last > 0 and first < len(stream):
                        for frame in stream.part(max(0, first), last):
                            yield command.named(frame, source)

            count, left = command.write(model, frames(), path)
            if not count:
                path.unlink(missing_ok=True)
                write_bytes(empty, b"")
            people, skipped, new = people + count, skipped + len(left), new + 1
    if skipped:
        warn(f"skipped {skipped} people")
    tell(
        f"{people} people in {new} new of {len(mine)} parts, {command.samples} samples each: "
        f"{folder}"
    )


def _agree(command: Lift, folder: Path, total: int) -> None:
    """Store what a folder's parts are made of, or compare it with what is stored."""
    options = {
        field.name: getattr(command, field.name)
        for field in dataclasses.fields(command)
        if field.name not in _FREE
    }
    options |= {
        "files": [str(path) for path in command.files],
        "frames": total,
        "seed": command.machine.seed,
        "model_content": _content(model_file(command.model)),
        "files_content": [_content(path) for path in command.files],
    }
    settings = json.loads(json.dumps(options, default=str))
    path = folder / _SETTINGS
    folder.mkdir(parents=True, exist_ok=True)
    # Another process of the same run may be storing the same at this moment.
    with locked(folder, "a lifting", wait=True):
        if not os.path.lexists(path):
            if any(not p.name.startswith(".") for p in folder.iterdir()):
                raise InputError(
                    f"{folder}: expected a new folder, or one of `propose-prob lift` with its "
                    f"{_SETTINGS}"
                )
            write_text(path, json.dumps(settings, indent=1) + "\n")
            return
    stored = read_json(path, "JSON as `propose-prob lift` writes it", most=_LONGEST)
    known = stored if isinstance(stored, dict) else {}
    differ = sorted(name for name in settings if known.get(name) != settings[name])
    if differ:
        raise InputError(
            f"{folder} holds the output of other options ({', '.join(differ)} differ): use another "
            "--out"
        )


def _content(path: Path) -> list[Any]:
    """Size and hash of a file, or of all files of a folder of keypoints with their names."""
    if not path.is_dir():
        return [*_digest(path)]
    size, together = 0, hashlib.sha256()
    for part in sorted(path.glob("*.json")):
        length, digest = _digest(part)
        size += length
        together.update(os.fsencode(part.name) + b"\0" + digest.encode() + b"\0")
    return [size, together.hexdigest()]


def _digest(path: Path) -> tuple[int, str]:
    found, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while block := file.read(1 << 20):
            found.update(block)
            size += len(block)
    return size, found.hexdigest()


def _whole(path: Path) -> bool:
    """Whether a part is there, as long as it says: HDF5 begins with where the file ends."""
    if not path.exists():
        return False
    with open_file(path) as file:
        head, size = file.read(48), file.seek(0, 2)
    # Superblocks of version 2 and 3 lay their addresses out alike; older ones begin those later.
    place = {0: 40, 2: 28, 3: 28}.get(head[8] if len(head) == 48 else -1)
    if place is None or not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return False
    return int.from_bytes(head[place : place + 8], "little") == size
