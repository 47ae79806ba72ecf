"""Where modules are looked up when this package runs as a command."""

# Both are there when Python has started; whatever else is imported first may lie in that folder.
import os
import sys

__all__ = ["leave_working_folder_out"]


def leave_working_folder_out() -> None:
    """Keep what lies beside a user's data from being imported by the command.

    `python -m` puts the working folder first on the path, and an empty entry of PYTHONPATH means
    that folder too: a `scipy.py` beside a downloaded file would run. Parts of this package are
    found through the package itself. Programs that import it keep their path.
    """
    program = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    if program not in ("-m", "propose-prob"):
        return
    here, before = os.path.realpath(os.curdir), list(sys.path)
    if here == os.path.realpath(os.path.dirname(os.__file__)):
        # Python's own modules are found nowhere else.
        return
    sys.path[:] = [entry for entry in before if os.path.realpath(entry) != here]
    import site
    import sysconfig

    places = (*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages())
    if here in map(os.path.realpath, places):
        # Nor are those that were installed.
        sys.path[:] = before
