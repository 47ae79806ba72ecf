"""`python -m propose_prob` is the `propose-prob` command."""

import os
import sys

# Python puts the working folder first, from which modules of data's authors would be imported.
if sys.path[:1] == [os.path.abspath(os.curdir)]:
    del sys.path[0]

from propose_prob.cli import main  # noqa: E402

sys.exit(main())
