"""Posed meshes as `.glb` and `.ply` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from .atomic import write_bytes

__all__ = ["mesh_files", "write_meshes"]


def write_meshes(
    path: str | Path,
    vertices: Tensor,
    faces: Tensor,
    *,
    names: Sequence[str] | None = None,
) -> list[Path]:
    """Write N surfaces: `.glb` holds all of them as named nodes, `.ply` is one file for each.

    From camera axes (y down, z forward) they are turned to those that both formats expect (y up,
    z towards the viewer). Needs trimesh: `pip install 'propose_prob[mesh]'`.

    Args:
        path: The file to write. With several surfaces, `_000` and so on go before `.ply`.
        vertices: `(N, V, 3)`, meters, camera axes.
        faces: Triangles that all surfaces share, `(F, 3)`.
        names: N names of nodes in a `.glb` file; their numbers by default.

    Returns:
        The files written, each of them whole or not at all.

    Raises:
        InputError: If the name ends otherwise, a shape does not fit, a vertex is not finite, a face
            names a vertex that is not there, a name comes twice, or trimesh is missing.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> triangle = torch.eye(3).expand(2, 3, 3)
        >>> faces = torch.tensor([[0, 1, 2]])
        >>> [p.name for p in write_meshes(Path(folder.name) / "body.ply", triangle, faces)]
        ['body_000.ply', 'body_001.ply']
        >>> folder.cleanup()
    """
    path = Path(path)
    if path.suffix not in (".ply", ".glb"):
        raise InputError(f"{path}: expected an output name that ends in .ply or .glb")
    names = [str(i) for i in range(len(vertices))] if names is None else list(names)
    _check(vertices, faces, names)
    trimesh = _trimesh()
    upright = vertices.detach().cpu().double() * vertices.new_tensor([1, -1, -1]).double().cpu()
    meshes = [
        trimesh.Trimesh(points.numpy(), faces.cpu().numpy(), process=False) for points in upright
    ]
    if path.suffix == ".glb":
        scene = trimesh.Scene()
        for name, mesh in zip(names, meshes, strict=True):
            scene.add_geometry(mesh, node_name=name, geom_name=name)
        write_bytes(path, scene.export(file_type="glb"))
        return [path]
    paths = mesh_files(path, len(meshes))
    for target, mesh in zip(paths, meshes, strict=True):
        write_bytes(target, mesh.export(file_type="ply"))
    return paths


def mesh_files(path: Path, count: int) -> list[Path]:
    """The files that `write_meshes` writes: one, or one `.ply` for each of several surfaces.

    Example:
        >>> [file.name for file in mesh_files(Path("body.ply"), 2)]
        ['body_000.ply', 'body_001.ply']
    """
    if count == 1 or path.suffix == ".glb":
        return [path]
    return [path.with_stem(f"{path.stem}_{i:03d}") for i in range(count)]


def _check(vertices: Tensor, faces: Tensor, names: Sequence[str]) -> None:
    if vertices.ndim != 3 or vertices.shape[-1] != 3 or not len(vertices):
        raise InputError(
            f"expected vertices of shape (N, V, 3) with N >= 1, got {tuple(vertices.shape)}"
        )
    if not bool(vertices.isfinite().all()):
        mesh = int((~vertices.isfinite()).flatten(1).any(-1).nonzero()[0])
        raise InputError(f"expected finite vertices, surface {mesh} (axis 0) has others")
    if faces.ndim != 2 or faces.shape[-1] != 3 or faces.is_floating_point():
        raise InputError(f"expected integer faces of shape (F, 3), got {tuple(faces.shape)}")
    if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < vertices.shape[1]:
        raise InputError(
            f"expected faces of vertices 0 to {vertices.shape[1] - 1}, "
            f"got {int(faces.min())} to {int(faces.max())}"
        )
    if len(names) != len(vertices) or len(set(names)) != len(names):
        raise InputError(
            f"expected {len(vertices)} different names, got {len(names)}, {len(set(names))} of "
            "them different"
        )


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise InputError(
            "writing meshes needs trimesh, which is not installed: pip install 'propose_prob[mesh]'"
        ) from None
    return trimesh
