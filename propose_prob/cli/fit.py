"""`propose-prob fit`: keypoint files to bodies, their motion and their surface."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import InputError
from ..io.atomic import atomic_file, check_outputs
from .lift import _people, _skipped_line, _with_source
from .options import Runtime, RuntimeOptions, progress, run_attributes
from .output import printable, tell, warn

if TYPE_CHECKING:
    from ..bodies import Body
    from ..io.keypoints import Keypoints
    from ..tasks.fitting import FittedPeople
    from ..tasks.people import Skipped

__all__ = ["Fit"]

_ENDINGS = (".npz", ".nc", ".bvh", ".ply", ".glb")

#: Output arrays: dimensions after `item`, unit and meaning.
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "theta": (
        ("body_joint", "row", "column"),
        "",
        "local rotation matrices in SMPL's convention; the first is the orientation in camera axes",
    ),
    "shape": (("coefficient",), "", "shape coefficients of the body"),
    "translation": (("axis",), "m", "added to the body; depth 0 where the focal length is unknown"),
    "joints": (("joint", "axis"), "m", "fitted joints, camera axes (x right, y down, z forward)"),
    "projected": (("joint", "image_axis"), "pixel", "where the camera sees the fitted joints"),
    "keypoints": (("joint", "image_axis"), "pixel", "2D keypoints that were fitted; NaN: not seen"),
    "confidence": (("joint",), "", "confidence of the keypoints; 0: not seen"),
    "camera": (("parameter",), "", "weak-perspective camera: pixels per meter, place x and y"),
    "log_density": ((), "nat", "log-density that was maximized"),
    "converged": ((), "", "1 where the optimization ended at a stationary point"),
}


@dataclass(frozen=True)
class Fit:
    """Fit bodies to 2D keypoints of any number of people and frames.

    Reads what `lift` reads. The model gives a distribution over body pose; the fit maximizes it
    together with a robust likelihood of the keypoints, over pose, shape and camera.

    Attributes:
        files: Files or folders of 2D keypoints.
        out: File to write: .npz or .nc (all numbers), .bvh (motion, one file for each person where
            there are several), .glb or .ply (surfaces; .ply is one file for each person and frame).
        model: Name of a shipped model of body pose or path of a .safetensors file.
        body: skeleton, open (the shipped mesh body) or the path of an SMPL, SMPL-H or SMPL-X file.
        likelihood: Kernel of the keypoints' errors; all but gaussian bear outliers.
        noise: Standard deviation of a keypoint at confidence 1, unit of the keypoints; by default 3
            percent of a person's root mean square radius.
        focal: Focal length in the unit of the keypoints, where known; otherwise the camera is a
            weak-perspective one.
        center: Principal point in the unit of the keypoints; goes with --focal.
        skeleton: Joint set of arrays that do not name theirs; see lift.
        image_size: Width and height in pixels of the images behind MediaPipe's fractions.
        min_joints: People with fewer visible joints, after conversion, are skipped, counted and
            named.
        min_confidence: Joints with a lower confidence count as not seen.
        frame_rate: Frames a second of a .bvh file.
        solver: lm is fastest, auto also tries what lm may miss.
        batch_size: People fitted at once.
    """

    files: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE [FILE ...]", help_behavior_hint="(required)"),
    ]
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="PATH", help_behavior_hint="(default: the first input's name with _fit.npz)"
        ),
    ] = None
    model: str = "prohmr-cmu17"
    body: Annotated[str, tyro.conf.arg(metavar="NAME|PATH")] = "skeleton"
    likelihood: Literal["gaussian", "student_t", "geman_mcclure"] = "student_t"
    noise: Annotated[float | None, tyro.conf.arg(metavar="SD")] = None
    focal: Annotated[float | None, tyro.conf.arg(metavar="F")] = None
    center: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="X Y")] = None
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H")] = None
    min_joints: int = 6
    min_confidence: float = 0.0
    frame_rate: float = 30.0
    solver: Literal["auto", "lm", "lbfgs", "adam"] = "auto"
    batch_size: int = 64
    machine: Runtime = field(default_factory=RuntimeOptions)

    def run(self) -> None:
        """Fit everything and write the output.

        Raises:
            InputError: If an option or a file is not as expected; nothing is written then.
        """
        out = self.out or Path(f"{self.files[0].resolve().stem}_fit.npz" if self.files else "x.npz")
        self._check(out)
        body = self._body(out)
        model = self._model()
        from ..tasks import fit_people

        done: list[_Done] = []
        sources: dict[str, Path] = {}
        with progress(None, total=0, unit="frame") as bar:
            batches = fit_people(
                model,
                self._frames(bar, sources),
                body=body,
                focal=self.focal,
                center=self.center or (0.0, 0.0),
                likelihood=self.likelihood,
                scale=self.noise,
                solver=self.solver,
                batch_size=self.batch_size,
                min_joints=self.min_joints,
                min_confidence=self.min_confidence,
                surface=out.suffix in (".ply", ".glb"),
                device=self.machine.device,
            )
            done.extend(_Done(batch) for batch in batches)
        skipped = batches.skipped
        if not done:
            raise InputError(
                f"nobody to fit: {_skipped_line(skipped, shown=1)}; "
                f"--min-joints is {self.min_joints}"
            )
        arrays = {name: _join([part.arrays[name] for part in done]) for name in done[0].arrays}
        labels = {
            "frame": [str(label) for part in done for label in part.frames],
            "person": [str(label) for part in done for label in part.people],
        }
        written = self._write(out, arrays, labels, sources, body, skipped)
        if skipped:
            warn(_skipped_line(skipped))
        count, converged = len(labels["frame"]), int(arrays["converged"].sum())
        paths = list(written)
        names = str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        tell(f"{count} {_people(count)}, {converged} converged: {names}")
        tell(*(f"{path}: {whom}" for path, whom in written.items() if whom))

    def _check(self, out: Path) -> None:
        if not self.files:
            raise InputError("expected at least one FILE of keypoints")
        for path in self.files:
            if not path.exists():
                raise InputError(f"{path}: there is no such file or folder")
        check_outputs([out], self._inputs())
        if out.suffix not in _ENDINGS:
            raise InputError(f"{out}: expected an output name that ends in {', '.join(_ENDINGS)}")
        if (self.focal is None) != (self.center is None):
            raise InputError("expected --focal and --center together, got only one of them")
        for option, value in (
            ("--focal", self.focal),
            ("--noise", self.noise),
            ("--frame-rate", self.frame_rate),
        ):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"expected {option} > 0, got {value}")

    def _inputs(self) -> list[Path | str | None]:
        return [*self.files, self.model, self.body]

    def _model(self) -> Any:
        from ..models import ProHMRJoints

        loaded = self.machine.load(self.model)
        if not isinstance(loaded, ProHMRJoints) or loaded.model.config.keypoints != 17:
            raise InputError(
                f"expected a model of body pose given 17 keypoints such as prohmr-cmu17, "
                f"got {self.model}"
            )
        return loaded.model

    def _body(self, out: Path) -> Body:
        from ..bodies import SkeletonBody, load_open_body, load_smpl

        body: Body
        if self.body == "skeleton":
            body = SkeletonBody()
        elif self.body == "open":
            body = load_open_body()
        else:
            if not Path(self.body).is_file():
                raise InputError(
                    f"expected --body skeleton, open or the path of an SMPL file, got {self.body}"
                )
            body = load_smpl(self.body)
        if out.suffix in (".ply", ".glb") and body.faces is None:
            raise InputError(
                f"{out}: this body has no surface; take --body open or the path of an SMPL file"
            )
        return body

    def _frames(self, bar: Any, sources: dict[str, Path]) -> Iterator[Keypoints]:
        """All frames; which file each is from is noted under its name."""
        from ..io.keypoints import read_keypoints

        for path in self.files:
            stream = read_keypoints(path, skeleton=self.skeleton, image_size=self.image_size)
            bar.total += len(stream)
            for frame in stream:
                bar.update()
                named = frame if len(self.files) == 1 else _with_source(frame, path)
                sources[str(named.frame)] = path
                yield named

    def _write(
        self,
        out: Path,
        arrays: dict[str, Any],
        labels: dict[str, list[str]],
        sources: dict[str, Path],
        body: Body,
        skipped: Sequence[Skipped],
    ) -> dict[Path, str]:
        """The files written, each with whom it holds, where that is not everybody."""
        if out.suffix == ".bvh":
            people = _people_of(labels, sources)
            check_outputs(motion_files(out, people).values(), self._inputs())
            return _write_motion(out, arrays, people, body, self.frame_rate)
        if out.suffix in (".ply", ".glb"):
            from ..io.meshes import mesh_files, write_meshes

            assert body.faces is not None  # `_body` saw to it.
            check_outputs(mesh_files(out, len(labels["frame"])), self._inputs())
            pairs = zip(labels["frame"], labels["person"], strict=True)
            names = [f"frame {frame} person {person}" for frame, person in pairs]
            paths = write_meshes(out, arrays["vertices"], body.faces, names=names)
            if len(paths) == 1:
                return {out: ""}
            return {
                path: f"frame {printable(frame)}, person {printable(person)}"
                for path, frame, person in zip(
                    paths, labels["frame"], labels["person"], strict=True
                )
            }
        camera = (
            "weak-perspective camera"
            if self.focal is None
            else f"focal length {self.focal:g}, principal point {self.center}"
        )
        noise = "3% of a person's radius" if self.noise is None else f"{self.noise:g}"
        protocol = (
            f"maximum of the distribution in its latent space and a {self.likelihood} likelihood "
            f"of scale "
            f"{noise}, {camera}, at least {self.min_joints} joints seen, confidence of at least "
            f"{self.min_confidence:g}, solver {self.solver}"
        )
        body_name = self.body if self.body in ("skeleton", "open") else Path(self.body).name
        attributes = {
            **run_attributes(self.model, protocol),
            "body": body_name,
            "num_skipped": len(skipped),
        }
        _write_arrays(out, arrays, labels, body, attributes)
        return {out: ""}


class _Done:
    """What is kept of a batch: numbers, without the distribution."""

    def __init__(self, batch: FittedPeople) -> None:
        bodies = batch.bodies
        self.frames, self.people = batch.frames, batch.people
        self.arrays = {
            "theta": bodies.theta.cpu(),
            "shape": bodies.shape.cpu(),
            "translation": bodies.translation.cpu(),
            "joints": bodies.joints.cpu(),
            "projected": bodies.projected.cpu(),
            "keypoints": batch.p2d.cpu(),
            "confidence": batch.confidence.cpu(),
            "camera": bodies.camera.cpu(),
            "log_density": bodies.log_density.cpu(),
            "converged": bodies.converged.cpu(),
        }
        if bodies.vertices is not None:
            self.arrays["vertices"] = bodies.vertices.cpu()


def _join(parts: list[Any]) -> Any:
    import torch

    return torch.cat(parts)


def _write_arrays(
    out: Path,
    arrays: dict[str, Any],
    labels: dict[str, list[str]],
    body: Body,
    attributes: dict[str, str | int | float],
) -> None:
    import numpy as np

    from ..geometry.skeletons import H36M_17, SMPL_24
    from ..results.netcdf import netcdf_file
    from ..results.schema import AXES, IMAGE_AXES, stored_labels

    labels = {name: stored_labels(name, texts) for name, texts in labels.items()}
    values = {name: arrays[name].numpy() for name in _VARIABLES}
    values["converged"] = values["converged"].astype(np.int8)
    count = values["theta"].shape[1]
    whole = count == body.num_joints
    body_joints = body.joint_names if whole else SMPL_24.joint_names[:count]
    names = {
        "body_joint": list(body_joints),
        "joint": list(H36M_17.joint_names),
        "axis": list(AXES),
        "image_axis": list(IMAGE_AXES),
        "parameter": ["scale", "x", "y"],
    }
    if out.suffix == ".npz":
        texts = {name: np.array(text, dtype=np.str_) for name, text in (names | labels).items()}
        facts = {name: np.asarray(value) for name, value in attributes.items()}
        with atomic_file(out) as file:
            np.savez(file, **values, **texts, **facts)  # type: ignore[arg-type]
        return
    import xarray
    from xarray.backends import H5NetCDFStore

    variables = {
        name: (("item", *dims), values[name], {"units": unit, "long_name": meaning})
        for name, (dims, unit, meaning) in _VARIABLES.items()
    }
    coordinates = {name: ((name,), text) for name, text in names.items()}
    coordinates |= {name: (("item",), text) for name, text in labels.items()}
    data = xarray.Dataset(variables, coordinates, attributes)
    with netcdf_file(out) as opened, opened.writing():
        data.dump_to_store(H5NetCDFStore(opened.root))


def _write_motion(
    out: Path, arrays: dict[str, Any], people: list[str], body: Body, frame_rate: float
) -> dict[Path, str]:
    """One BVH file for each label of a person, frames in the order of the input."""
    import torch

    from ..bodies import write_body_bvh

    theta = arrays["theta"]
    missing = body.num_joints - theta.shape[1]
    if missing > 0:
        # A body with fingers: they are at rest.
        rest = torch.eye(3).expand(len(theta), body.num_joints - 22, 3, 3)
        theta = torch.cat([theta[:, :22], rest], 1)
    targets = motion_files(out, people)
    for label, target in targets.items():
        rows = torch.tensor([index for index, name in enumerate(people) if name == label])
        write_body_bvh(
            target,
            theta[rows],
            translation=arrays["translation"][rows],
            body=body,
            # A person's bones do not change from frame to frame.
            shape=arrays["shape"][rows].mean(0) if body.num_shape else None,
            frame_rate=frame_rate,
        )
    alone = len(targets) == 1
    return {path: "" if alone else _whom(label) for label, path in targets.items()}


#: Between file and person, in labels that have both; neither of them can hold it.
_BETWEEN = "\0"


def _people_of(labels: dict[str, list[str]], sources: dict[str, Path]) -> list[str]:
    """Whom each row shows: the person's label, with the file where there are several.

    The same label in two files is two people.
    """
    files = dict.fromkeys(sources[frame] for frame in labels["frame"])
    if len(files) == 1:
        return labels["person"]
    stems = Counter(path.stem for path in files)
    names = {path: path.stem if stems[path.stem] == 1 else str(path) for path in files}
    return [
        f"{names[sources[frame]]}{_BETWEEN}{person}"
        for frame, person in zip(labels["frame"], labels["person"], strict=True)
    ]


def _whom(label: str) -> str:
    source, between, person = label.rpartition(_BETWEEN)
    whom = f"person {printable(person)}"
    return f"{printable(source)}, {whom}" if between else whom


def motion_files(out: Path, people: Sequence[str]) -> dict[str, Path]:
    """The file of each person's motion, a different one for each label.

    Args:
        out: The file to write, the one where there is one person.
        people: Labels, which may come several times.

    Returns:
        Label to file, in the order in which the labels come first.
    """
    labels = list(dict.fromkeys(people))
    if len(labels) == 1:
        return {labels[0]: out}
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()
    safe = {label: re.sub(r"[^A-Za-z0-9-]", "-", label)[:60] for label in labels}
    # Labels that can stand in a name come first, so that others do not take their places.
    for label in sorted(labels, key=lambda label: safe[label] != label):
        # Some file systems take capital and small letters for the same.
        taken[safe[label].lower()] += 1
        number = taken[safe[label].lower()]
        # No safe label has an underscore, so that none is another one with its number.
        names[label] = safe[label] + (f"_{number}" if number > 1 else "")
    return {label: out.with_stem(f"{out.stem}_{names[label]}") for label in labels}
