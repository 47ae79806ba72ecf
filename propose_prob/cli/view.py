"""`propose-prob view`: a result file as one interactive page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import InputError, short
from ..io.atomic import check_outputs
from .options import at_least
from .output import printable, tell

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..bodies import Body
    from ..results.reader import StoredResult

    Array = npt.NDArray[Any]

__all__ = ["View"]

#: Meters, and coefficients of shape.
_LARGEST = 1e6


@dataclass(frozen=True)
class View:
    """Write a result of lift, fuse, smooth or fit as one interactive page.

    The page turns the hypotheses in 3D, steps through frames, and shows point estimate, spread of
    each joint, keypoints and, for fits of a body with a surface, the surface. It is one HTML file
    that opens in a browser without a network.

    Attributes:
        file: Result file, .nc or .npz.
        out: Page to write.
        samples: At most so many hypotheses of each pose; `lift --log-prob` stores what colors
            them by log-probability.
        frames: At most so many poses, evenly spread over the file. A surface takes 0.1 MB for each.
        truth: Ground truth to compare with: an array (poses, joints, 3) in meters and camera axes,
            .npy or, named p3d, in .npz.
        body: Path of the SMPL, SMPL-H or SMPL-X file that was fitted; open and skeleton are known.
        title: Heading of the page.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: the file's name with .html)"),
    ] = None
    samples: int = 50
    frames: int = 200
    truth: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    body: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    title: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None

    def run(self) -> None:
        """Write the page.

        Raises:
            InputError: If plotly is missing, or a file or an option is not as expected.
        """
        import numpy as np

        from ..geometry.skeletons import H36M_17
        from ..plotting.viewer import write_viewer
        from ..results.reader import read_result

        at_least(self.samples, 0, "--samples")
        at_least(self.frames, 1, "--frames")
        out = self.out or Path(f"{self.file.stem}.html")
        if out.suffix not in (".html", ".htm"):
            raise InputError(f"{out}: expected the name of a page that ends in .html")
        check_outputs([out], [self.file, self.truth, self.body])
        whole = read_result(self.file)
        truth = None if self.truth is None else _read_truth(self.truth, len(whole))
        count = min(self.frames, len(whole))
        rows = np.linspace(0, len(whole) - 1, count).round().astype(int)
        result = whole.take(rows)
        vertices, faces = self._surface(result)
        write_viewer(
            out,
            result,
            H36M_17,
            title=printable(self.title or self.file.name),
            samples=self.samples,
            truth=None if truth is None else truth[rows],
            vertices=vertices,
            faces=faces,
        )
        poses = "pose" if count == 1 else "poses"
        left = "" if count == len(whole) else f" of {len(whole)} (see --frames)"
        tell(f"{count} {poses}{left}: {out} ({out.stat().st_size / 1e6:.1f} MB)")

    def _surface(self, result: StoredResult) -> tuple[Array | None, Array | None]:
        body = self._fitted_body(result)
        if body is None or body.faces is None:
            return None, None
        import numpy as np
        import torch

        count, parts = len(result), []
        shapes: dict[str, tuple[int, ...]] = {"theta": (3, 3), "shape": (), "translation": ()}
        for name, ending in shapes.items():
            values = result.arrays[name]
            if len(values) != count or values.shape[2:] != ending or not values.size:
                raise InputError(f"{self.file}: {name} has shape {values.shape}, which is no fit's")
            if not (np.abs(values) < _LARGEST).all():
                raise InputError(f"{self.file}: expected finite numbers in {name}, got others")
            parts.append(torch.from_numpy(values).float())
        try:
            with torch.no_grad():
                # Ten at a time: a body's surface takes memory while it is posed.
                posed = [
                    body(theta, shape, translation).vertices
                    for theta, shape, translation in zip(
                        *(part.split(10) for part in parts), strict=True
                    )
                ]
        except ValueError as error:
            raise InputError(f"{self.file}: not a fit of this body: {error}") from None
        return torch.cat(posed).numpy(), body.faces.numpy()

    def _fitted_body(self, result: StoredResult) -> Body | None:
        if not {"theta", "shape", "translation"} <= set(result.arrays):
            if self.body is not None:
                raise InputError(f"{self.file}: --body is for fits, and this file holds no body")
            return None
        from ..bodies import load_open_body, load_smpl

        if self.body is not None:
            return load_smpl(self.body)
        return load_open_body() if result.attributes.get("body") == "open" else None


def _read_truth(path: Path, count: int) -> Array:
    import numpy as np

    from ..io.archives import map_npy, read_npz

    if path.suffix == ".npz":
        arrays = read_npz(path)
        if "p3d" not in arrays:
            raise InputError(f"{path}: expected an array p3d, got {short(', '.join(arrays))}")
        stored = arrays["p3d"]
    else:
        stored = map_npy(path)
    if stored.ndim != 3 or len(stored) != count or stored.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected ground truth for the {count} poses of the result (axis 0), "
            f"got shape {stored.shape} of {stored.dtype}"
        )
    return np.asarray(stored, dtype=np.float64)
