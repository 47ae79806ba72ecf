"""Save and load models as safetensors: tensors and a configuration, never code."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from .._shipped import shipped_file
from ..configuration import check_ranges, from_dict, to_dict
from ..errors import InputError, short
from ..io.atomic import atomic_path
from ..io.files import open_file
from ..models.registry import STORED

_FORMAT = "propose_prob/1"

#: Numbers in a configuration up to this are taken as they are: not each is the size of a tensor.
_LEAST = 4096

Model = TypeVar("Model", bound=nn.Module)


def available() -> list[str]:
    """Names of the models that ship with the package.

    Example:
        >>> "propose-cmu17" in available()
        True
    """
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".safetensors") for f in files if f.name.endswith("tensors"))


def load(name: str | Path, *, device: torch.device | str = "cpu") -> Any:
    """Loads a trained model, ready to use: evaluation mode, float32, parameters frozen.

    Args:
        name: Name of a shipped model (see `available`) or path of a file written by `save`.
        device: Where to put it.

    Returns:
        The model; `requires_grad_(True)` makes it trainable again.

    Raises:
        InputError: If there is no such model, or the file is truncated, not safetensors (a pickle,
            say), of another library or model, has weights that are not finite, or, if it ships with
            the package, is not the one that was shipped.

    Example:
        >>> model = load("propose-cmu17")
        >>> model.conditional(torch.randn(17, 2)).sample((200,)).shape
        torch.Size([200, 17, 3])
    """
    if str(name) in available():
        return _read(shipped_file(f"weights/{name}.safetensors"), device)
    path = Path(name)
    if not path.exists() or path.is_dir():
        raise InputError(
            f"no model named {str(name)!r}: expected one of {', '.join(available()) or 'none'} "
            "or the path of a .safetensors file"
        )
    return _read(path, device)


def save(model: nn.Module, path: str | Path, *, half: bool = False) -> None:
    """Writes a model as safetensors, whole or not at all.

    Args:
        model: The model.
        path: File to write, replaced if it exists.
        half: Store floating-point tensors as float16, half the size; use is float32 again.

    Raises:
        InputError: If the folder cannot be written to, `path` is a folder or a device, or the
            model's configuration has a number that `load` would refuse.
        OSError: If there is no such folder, or it is full; an older file stays then.

    Example:
        >>> import tempfile
        >>> from propose_prob.models import ProPose, ProPoseConfig
        >>> model = ProPose(ProPoseConfig(couplings=2, width=16, decoder_width=16, code=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(model, f"{folder}/mine.safetensors")
        ...     load(f"{folder}/mine.safetensors").config == model.config
        True
    """
    path = Path(path)
    config = _config(model)
    check_ranges(config)
    tensors = {}
    for key, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        tensors[key] = tensor.half() if half and tensor.is_floating_point() else tensor.clone()
    metadata = {
        "format": _FORMAT,
        "model": type(model).__name__,
        "config": json.dumps(to_dict(config)),
    }
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}", str(path))
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except SafetensorError as error:
        reason = f"cannot be written whole; an older one is kept ({error})"
        raise OSError(errno.EIO, reason, str(path)) from error


def average(models: Sequence[Model]) -> Model:
    """The model whose parameters are the mean of several models' of one training.

    Weights that one training passed through, or that stages of it started from each other, often
    generalize better averaged (Wortsman et al., 2022, "model soups"). Fit the observation noise and
    the temperature anew afterwards (`training.loop.finish`).

    Args:
        models: At least one, of equal configurations.

    Returns:
        A new model in evaluation mode, with the first one's buffers.

    Raises:
        InputError: If there are none or their configurations differ.

    Example:
        >>> from propose_prob.models import ProPose, ProPoseConfig
        >>> config = ProPoseConfig(couplings=2, width=16, decoder_width=16, code=8)
        >>> average([ProPose(config), ProPose(config)]).training
        False
    """
    if not models or any(_config(model) != _config(models[0]) for model in models):
        raise InputError("expected at least one model, all of the same configuration")
    mean = copy.deepcopy(models[0]).eval()
    others = [dict(model.named_parameters()) for model in models]
    with torch.no_grad():
        for name, parameter in mean.named_parameters():
            parameter.copy_(torch.stack([other[name] for other in others]).mean(0))
    return mean


def _config(model: nn.Module) -> Any:
    if getattr(model, "is_frozen", False):
        raise TypeError("a frozen model is for inference only: save the model it was made from")
    entry = STORED.get(type(model).__name__)
    if entry is None or type(model) is not entry.model:
        raise TypeError(f"expected one of {', '.join(STORED)}, got {type(model).__name__}")
    return model.config


def _read(path: Path, device: torch.device | str) -> nn.Module:
    # Not a pipe or a device.
    open_file(path).close()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path.name}: expected a safetensors file, got a truncated or foreign one "
            f"({short(str(error))})"
        ) from None
    if metadata.get("format") != _FORMAT or metadata.get("model") not in STORED:
        got = f"{metadata.get('format', 'no format')} {metadata.get('model', '')}".rstrip()
        raise InputError(
            f"{path.name}: expected a model of this library ({', '.join(STORED)}), got {short(got)}"
        )
    entry = STORED[metadata["model"]]
    try:
        config = from_dict(json.loads(metadata["config"]), default=entry.config(), fixed=False)
        _check_sizes(config, tensors)
        with _as_stored(tensors):
            model = entry.model(config)
        converted = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        model.load_state_dict(converted)
    # A wrong configuration can fail anywhere in a constructor.
    except Exception as error:
        reason = textwrap.shorten(short(str(error)), 160)
        raise InputError(
            f"{path.name}: the tensors do not fit the stored configuration ({reason})"
        ) from None
    for key, value in converted.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(f"{path.name}: expected finite weights, got others in {short(key)}")
    return model.to(device).eval().requires_grad_(False)


def _check_sizes(config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Refuse numbers in a configuration that no stored tensor can be of."""
    most = max(
        [_LEAST, len(tensors), *(size for value in tensors.values() for size in value.shape)]
    )
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int) and value > most:
            raise InputError(f"{field.name} is above {most}, the largest size that is stored")


@contextmanager
def _as_stored(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse to build a model with other parameters than are stored, at the first of them.

    The configuration in a file of some kilobytes may ask for a model that fills the memory, or for
    billions of layers. torch registers a parameter before it is written to, so that the memory of
    one too large is not taken yet.
    """
    left = Counter(tuple(value.shape) for value in tensors.values())
    here = threading.get_ident()

    def check(module: nn.Module, name: str, value: Tensor | None) -> None:
        # torch calls it for whatever any thread builds.
        if value is not None and threading.get_ident() == here:
            shape = tuple(value.shape)
            left[shape] -= 1
            if left[shape] < 0:
                raise InputError(f"no tensor of shape {shape} for another {name} is stored")

    handle = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        handle.remove()
