"""Results as ArviZ `InferenceData`, with named joints and axes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError
from .schema import AXES, IMAGE_AXES, VARIABLES

__all__ = ["to_inference_data"]


def to_inference_data(
    distribution: Any,
    samples: Tensor,
    *,
    joint_names: Sequence[str],
    keypoints: Tensor | None = None,
    confidence: Tensor | None = None,
    frame: Sequence[int | str] | None = None,
    person: Sequence[int | str] | None = None,
    attrs: Mapping[str, str | int | float] | None = None,
) -> Any:
    """Pose samples as ArviZ `InferenceData`.

    Draws from a distribution are independent, so they make one chain. ArviZ is imported here and
    not before: it takes seconds.

    Args:
        distribution: The distribution that was sampled, event shape `(J, 3)`; its `point_estimate`
            is stored where it has one. None leaves it out.
        samples: `(S, J, 3)`, or `(S, B, J, 3)` for `B` people; meters.
        joint_names: Names of the J joints.
        keypoints: The 2D evidence, `(J, 2)` or `(B, J, 2)`; NaN where not seen.
        confidence: Its confidence, `(J,)` or `(B, J)`.
        frame: Name of each person's frame, B of them; their numbers by default.
        person: Label of each person, B of them; their numbers by default.
        attrs: What to store about the run: model, protocol, versions.

    Returns:
        `arviz.InferenceData` with `posterior` (`pose`), `constant_data` (`point_estimate`,
        `spread`) and, with evidence, `observed_data` (`keypoints`, `confidence`); coordinates
        `joint`, `axis`, `frame` and `person`.

    Raises:
        InputError: If a shape or a number of labels does not fit.

    Example:
        >>> import torch
        >>> data = to_inference_data(None, torch.randn(50, 2, 3), joint_names=["hip", "knee"])
        >>> data.posterior["pose"].sel(joint="knee", axis="z").shape
        (1, 50, 1)
    """
    if samples.ndim not in (3, 4) or samples.shape[-2:] != (len(joint_names), 3):
        raise InputError(
            f"expected samples of shape (S, {len(joint_names)}, 3) or "
            f"(S, B, {len(joint_names)}, 3), got {tuple(samples.shape)}"
        )
    single = samples.ndim == 3
    if single:
        samples = samples.unsqueeze(1)
    count = samples.shape[1]
    arrays: dict[str, Tensor] = {
        "pose": samples.movedim(0, 1),
        "spread": (samples - samples.mean(0)).square().sum(-1).mean(0).sqrt(),
    }
    point = getattr(distribution, "point_estimate", None)
    for name, value, shape in (
        ("point_estimate", point, (count, len(joint_names), 3)),
        ("keypoints", keypoints, (count, len(joint_names), 2)),
        ("confidence", confidence, (count, len(joint_names))),
    ):
        if value is None:
            continue
        expanded = value.unsqueeze(0) if single and value.ndim == len(shape) - 1 else value
        if expanded.shape != shape:
            raise InputError(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
        arrays[name] = expanded
    labels = {}
    for name, given in (("frame", frame), ("person", person)):
        chosen = [str(value) for value in (range(count) if given is None else given)]
        if len(chosen) != count:
            raise InputError(f"expected {count} labels in {name}, got {len(chosen)}")
        labels[name] = ("item", chosen)
    coords = {
        "joint": list(joint_names),
        "axis": list(AXES),
        "image_axis": list(IMAGE_AXES),
        "chain": [0],
        "draw": np.arange(len(samples)),
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, tensor in arrays.items():
        variable = VARIABLES[name]
        values, dims = tensor.detach().cpu().numpy(), ("item", *variable.dims)
        if variable.dims[0] == "draw":
            values, dims = np.moveaxis(values, 1, 0)[None], ("chain", "draw", "item", *dims[2:])
        about = {"units": variable.units, "long_name": variable.description}
        groups.setdefault(variable.group, {})[name] = (dims, values, about)
    return _inference_data(groups, coords, labels, dict(attrs or {}))


def _inference_data(
    groups: Mapping[str, Mapping[str, Any]],
    coords: Mapping[str, Any],
    labels: Mapping[str, Any],
    attrs: dict[str, Any],
) -> Any:
    import xarray

    with warnings.catch_warnings():
        # Once a day ArviZ announces its next major version, which the dependencies exclude.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    datasets: dict[str, Any] = {}
    for group, variables in groups.items():
        used = {dim for dims, _, _ in variables.values() for dim in dims}
        datasets[group] = xarray.Dataset(
            dict(variables), coords={k: v for k, v in coords.items() if k in used} | dict(labels)
        )
    return arviz.InferenceData(attrs=attrs, **datasets)
