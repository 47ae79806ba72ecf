"""Errors that a user's data can cause."""

__all__ = ["InputError"]


class InputError(ValueError):
    """A user's file or data is not what was expected.

    The message is one line that says what was expected, what came, and where. The command line
    prints it without a traceback and exits with code 2.

    Example:
        >>> from propose_prob.data import read_keypoints
        >>> try:
        ...     read_keypoints("missing.json")
        ... except InputError as error:
        ...     print(error)
        missing.json: ...
    """
