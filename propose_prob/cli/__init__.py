"""The `propose-prob` command.

Nothing heavy is imported until a command runs, so that help and mistakes in options answer at once.
"""

from .app import main

__all__ = ["main"]
