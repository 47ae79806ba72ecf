"""The error raised for wrong input data."""

import sys

__all__ = ["InputError", "is_numerical", "short"]


class InputError(ValueError):
    """A user's file or data is not what was expected.

    The message is one line that says what was expected, what came, and where. The command line
    prints it without a traceback and exits with code 2.

    Example:
        >>> from propose_prob.io import read_keypoints
        >>> try:
        ...     read_keypoints("missing.json")
        ... except InputError as error:
        ...     print(error)
        missing.json: ...
    """


def is_numerical(error: Exception) -> bool:
    """Whether torch raised it over numbers that a distribution or a decomposition cannot have.

    A network answers with such, NaN as a rule, where its weights or what it is given are far too
    large.

    Example:
        >>> import torch
        >>> try:
        ...     torch.distributions.Normal(torch.tensor(torch.nan), 1.0)
        ... except ValueError as error:
        ...     is_numerical(error)
        True
    """
    # Importing this package does not import torch.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.linalg.LinAlgError):
        return True
    return isinstance(error, ValueError) and "but found invalid values" in str(error)


def short(text: str, most: int = 200) -> str:
    """What a message shows of something in a file: one line, not longer than a reader wants.

    Example:
        >>> short("a   b"), len(short("a" * 1_000_000))
        ('a b', 200)
    """
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 3]}..."
