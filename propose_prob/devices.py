"""Whether a device that the user named can be used."""

from __future__ import annotations

import textwrap

from .errors import InputError


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
