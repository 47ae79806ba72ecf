"""Configurations: frozen dataclasses whose numbers state their ranges, and their plain form.

A field says beside its default what it may be (`number`, `share`, `count`, `given`, `pair`), so
that a value that would train nothing, or end in an error of torch, is refused by its name.
"""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from .errors import InputError

__all__ = ["check_ranges", "count", "from_dict", "given", "number", "pair", "share", "to_dict"]

#: Sizes of layers and of batches, and counts of batches.
_SIZE, _LONG = 2**16, 2**62

Config = TypeVar("Config")


@dataclass(frozen=True)
class _Range:
    """What a field may be."""

    low: float
    high: float
    above: bool = False
    ordered: bool = False
    given: bool = False
    at_most: str | None = None

    def holds(self, value: Any) -> bool:
        if isinstance(value, tuple):
            ordered = not self.ordered or list(value) == sorted(value)
            return ordered and all(self.low <= v <= self.high for v in value)
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        # Whole numbers in full.
        low, high = (str(v) if isinstance(v, int) else f"{v:g}" for v in (self.low, self.high))
        return f"{'above ' * self.above}{low} to {high}{', the smaller first' * self.ordered}"


def _stated(default: Any, stated: _Range) -> Any:
    return field(default=default, metadata={"range": stated})


def number(default: float, *, low: float = 0.0, above: float | None = None, high: float = 1e6,
           at_most: str | None = None) -> Any:  # fmt: skip
    """A field for a number.

    Args:
        default: Its default.
        low: The least.
        above: Where even the least is too small: what it has to exceed.
        high: The largest.
        at_most: Name of another field that it may not exceed.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     clip: float = number(1.0, above=0.0)
        >>> check_ranges(Config(clip=0.0))
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: clip must be above 0 to 1e+06, got 0.0
    """
    least = low if above is None else above
    return _stated(default, _Range(least, high, above is not None, at_most=at_most))


def share(default: float) -> Any:
    """A field for a probability or a share, 0 to 1.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     dropout: float = share(0.1)
        >>> check_ranges(Config(1.5))
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: dropout must be 0 to 1, got 1.5
    """
    return _stated(default, _Range(0.0, 1.0))


def count(
    default: int, *, low: int = 1, high: int = _SIZE, long: bool = False,
    at_most: str | None = None,
) -> Any:  # fmt: skip
    """A field for a whole number: a size, or with `long` a number of batches or a seed.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     blocks: int = count(2, low=0)
        >>> check_ranges(Config(-1))
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: blocks must be 0 to 65536, got -1
    """
    return _stated(default, _Range(low, _LONG if long else high, at_most=at_most))


def given(default: int) -> Any:
    """A field for a size that the training data decide.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     joints: int = given(17)
        >>> from_dict({"joints": 18}, default=Config())
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: joints must be 17, as the data have, got 18
    """
    return _stated(default, _Range(1, _SIZE, given=True))


def pair(default: tuple[float, float], *, low: float, high: float, ordered: bool = True) -> Any:
    """A field for two numbers, by default the smaller one first.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     span: tuple[float, float] = pair((1.0, 2.0), low=0.0, high=9.0, ordered=False)
        >>> check_ranges(Config((2.0, 9.5)))
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: span must be 0 to 9, got (2.0, 9.5)
    """
    return _stated(default, _Range(low, high, ordered=ordered))


def check_ranges(config: Any, *, default: Any = None, where: str = "") -> None:
    """Check the numbers of a configuration and of those inside it.

    Args:
        config: A dataclass of numbers, names and such dataclasses.
        default: The same as it ships, where `given` fields have to be as they are there.
        where: What stands before its names in messages.

    Raises:
        InputError: If a number is not finite, too small or too large; the message names it.
        TypeError: If a field of a number states no range.

    Example:
        >>> from propose_prob.training.configs import TrainConfig
        >>> check_ranges(TrainConfig())
        >>> check_ranges(TrainConfig(batch_size=0))
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: batch_size must be 1 to 65536, got 0
    """
    for entry in dataclasses.fields(config):
        name, value = entry.name, getattr(config, entry.name)
        usual = None if default is None else getattr(default, name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, default=usual, where=f"{where}{name}.")
        elif not isinstance(value, (bool, str)):
            stated: _Range | None = entry.metadata.get("range")
            if stated is None:
                raise TypeError(f"{type(config).__name__}.{name} has to state its range")
            if stated.given and usual is not None and value != usual:
                raise _wrong(where + name, f"{usual}, as the data have", value)
            if not stated.holds(value):
                raise _wrong(where + name, str(stated), value)
            if stated.at_most is not None and value > getattr(config, stated.at_most):
                raise _wrong(where + name, f"at most {where}{stated.at_most}", value)


def _wrong(name: str, expected: str, value: object) -> InputError:
    return InputError(f"configuration: {name} must be {expected}, got {value}")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain values, ready for JSON.

    Example:
        >>> from propose_prob.training.configs import TrainConfig
        >>> to_dict(TrainConfig())["simulator"]["distance"]
        [2.5, 8.0]
    """
    return {entry.name: _plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else value


def from_dict(values: dict[str, Any], *, default: Config, fixed: bool = True) -> Config:
    """A configuration from plain values; what is left out keeps the default's value.

    Args:
        values: As `to_dict` gives them, or a part of them.
        default: The configuration that they change.
        fixed: Whether sizes that the training data decide have to be the default's.

    Raises:
        InputError: If a name is unknown or a value does not fit, naming it.

    Example:
        >>> from propose_prob.training.configs import TrainConfig
        >>> from_dict({"steps": 100, "loss": {"energy": 0.5}}, default=TrainConfig()).loss.energy
        0.5
    """
    if not isinstance(values, dict):
        raise InputError(f"configuration: expected names and values, got {type(values).__name__}")
    config = _merge(default, values, "")
    check_ranges(config, default=default if fixed else None)
    return config


def _float(value: float, name: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"configuration: {name} is too large") from None


def _merge(default: Any, values: dict[str, Any], where: str) -> Any:
    kinds = get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            raise InputError(
                f"configuration: unknown name {(where + name)[:80]!r}, expected one of "
                f"{', '.join(sorted(kinds))}"
            )
        old = getattr(default, name)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, dict):
                raise InputError(f"configuration: {where + name} must be an object")
            changes[name] = _merge(old, value, f"{where}{name}.")
        elif isinstance(old, tuple):
            if not isinstance(value, list) or len(value) != len(old):
                raise InputError(f"configuration: {where + name} must be {len(old)} numbers")
            if not all(type(v) in (int, float) for v in value):
                raise InputError(f"configuration: {where + name} must be {len(old)} numbers")
            changes[name] = tuple(_float(v, where + name) for v in value)
        elif isinstance(old, float) and type(value) in (int, float):
            changes[name] = _float(value, where + name)
        elif type(value) is type(old):
            changes[name] = value
        else:
            raise InputError(
                f"configuration: {where + name} must be {type(old).__name__}, got "
                f"{textwrap.shorten(repr(value), 80)}"
            )
    try:
        return dataclasses.replace(default, **changes)
    except ValueError as error:
        reason = str(error).removeprefix("configuration: ")
        raise InputError(f"configuration: {reason}") from None
