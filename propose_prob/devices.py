"""Checks of devices and of the torchrun environment."""

from __future__ import annotations

import os
import textwrap

from .errors import InputError

#: More processes than any machine or cluster runs of one program.
_MOST = 2**20


def check_device(device: str) -> None:
    """Raise unless tensors can be made on the device and read back.

    Args:
        device: For instance `cpu`, `cuda` or `cuda:1`.

    Raises:
        InputError: If the device cannot be used, with torch's reason in one line.

    Example:
        >>> check_device("cpu")
    """
    import torch

    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = textwrap.shorten((str(error).splitlines() or [type(error).__name__])[0], 80)
        raise InputError(f"--device {device} cannot be used: {reason}") from None


def launched_as() -> tuple[int, int]:
    """Number of this process and how many share the work, as `torchrun` sets `RANK`, `WORLD_SIZE`.

    Raises:
        InputError: If only one of both is set, or they are not such numbers.

    Example:
        >>> launched_as()
        (0, 1)
    """
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    if all(value is None for value in given.values()):
        return 0, 1
    for name, value in given.items():
        if value is None:
            other = next(other for other in given if other != name)
            raise InputError(
                f"expected the environment to set RANK and WORLD_SIZE, as torchrun does, got only "
                f"{other}={textwrap.shorten(repr(given[other]), 40)}: without {name} a part of the "
                "work would be left out"
            )
    count = environment_number("WORLD_SIZE", 1, _MOST)
    return environment_number("RANK", 0, count - 1), count


def environment_number(name: str, least: int, most: int) -> int:
    """A whole number that the environment has to set.

    Raises:
        InputError: If it is not set, or is none of `least` to `most`.
    """
    text = os.environ.get(name, "")
    # Only digits: Python takes more than that for a number, signs and underscores for instance.
    if not (text.isascii() and text.isdigit() and len(text) < 20) or not least <= int(text) <= most:
        got = textwrap.shorten(repr(text), 40) if name in os.environ else "none"
        raise InputError(
            f"expected the environment variable {name} as torchrun sets it, a number of {least} to "
            f"{most}, got {got}"
        )
    return int(text)


def set_threads(threads: int) -> None:
    """Set how many CPU threads torch uses.

    Raises:
        InputError: If there are fewer than one or more than any machine has.

    Example:
        >>> import torch
        >>> before = torch.get_num_threads()
        >>> set_threads(1)
        >>> torch.set_num_threads(before)
    """
    import torch

    if not 1 <= threads <= 4096:
        raise InputError(f"expected --threads of 1 to 4096, got {threads}")
    torch.set_num_threads(threads)
