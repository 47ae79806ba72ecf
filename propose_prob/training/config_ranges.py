"""Which values a configuration may have: what would train nothing, or end in an error of torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import InputError

#: Probabilities and shares.
_SHARES = frozenset(
    ("warmup", "average", "known_intrinsics", "only_2d", "gate", "dropout", "mirror", "mix", "bend")
    + ("build", "wide", "noisy", "outlier", "swap", "missing", "grey")
)
#: Numbers that are divided by, or nothing is left at 0.
_POSITIVE = frozenset(
    ("clip", "clamp", "flow_clamp", "pagd_clamp", "pilgd_clamp", "pilgd_scale", "focal_px")
    + ("smallest", "largest")
)
#: Counts that may be 0.
_NONE = frozenset(
    ("blocks", "flow_blocks", "decoder_blocks", "denoiser_blocks", "seed") + ("copies", "distil")
)
#: What the data decide.
_GIVEN = frozenset(("joints", "keypoints"))
#: Pairs of numbers, each with the least and the largest.
_PAIRS = {"distance": (0.1, 1000.0), "pitch": (-90.0, 90.0), "off_axis": (0.0, 80.0)}
#: Counts of batches, and the largest of all others: sizes of layers and of batches.
_LONG, _LARGEST = frozenset(("steps", "validate", "seed", "phase1", "phase2")), 2**16


def check_ranges(config: Any, default: Any, *, where: str = "") -> None:
    """Check the numbers of a configuration and of those inside it.

    Args:
        config: A dataclass of numbers, names and such dataclasses.
        default: The same as it ships.
        where: What stands before its names in messages.

    Raises:
        InputError: If a number is not finite, too small or too large; the message names it.

    Example:
        >>> from propose_prob.training.config import TrainConfig
        >>> check_ranges(TrainConfig(), TrainConfig())
        >>> check_ranges(TrainConfig(batch_size=0), TrainConfig())
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: batch_size must be 1 to 65536, got 0
    """
    for field in dataclasses.fields(config):
        name, value, usual = field.name, getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, usual, where=f"{where}{name}.")
        elif isinstance(value, tuple):
            low, high = _PAIRS[name]
            ordered = name == "off_axis" or list(value) == sorted(value)
            if not ordered or not all(low <= v <= high for v in value):
                raise _wrong(where + name, f"{low:g} to {high:g}, the smaller first", value)
        elif isinstance(value, int) and not isinstance(value, bool):
            least = 0 if name in _NONE else 1
            most = 2**62 if name in _LONG else _LARGEST
            if name in _GIVEN and value != usual:
                raise _wrong(where + name, f"{usual}, as the data have", value)
            if not least <= value <= most:
                raise _wrong(where + name, f"{least} to {most}", value)
        elif isinstance(value, float):
            limit = 1.0 if name in _SHARES else 1e6
            if not 0 <= value <= limit or (value == 0 and name in _POSITIVE):
                raise _wrong(where + name, f"{'above 0' if name in _POSITIVE else 0} to {limit:g}",
                             value)  # fmt: skip
    for small, large in (("best", "hypotheses"), ("smallest", "largest")):
        if hasattr(config, small) and getattr(config, small) > getattr(config, large):
            raise _wrong(where + small, f"at most {where}{large}", getattr(config, small))


def _wrong(name: str, expected: str, value: object) -> InputError:
    return InputError(f"configuration: {name} must be {expected}, got {value}")
