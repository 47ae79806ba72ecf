"""Where modules are looked up when this package runs as a command."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from pathlib import Path

__all__ = ["leave_working_folder_out"]


def leave_working_folder_out() -> None:
    """Keep what lies beside a user's data from being imported by the command.

    `python -m` puts the working folder first on the path, and an empty entry of PYTHONPATH means
    that folder too: a `scipy.py` beside a downloaded file would run. Parts of this package are
    found through the package itself. Programs that import it keep their path.
    """
    if Path(sys.argv[0] if sys.argv else "").stem not in ("-m", "propose-prob"):
        return
    here = os.path.realpath(os.curdir)
    places = (*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages())
    if here not in map(os.path.realpath, places):
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]
