"""`python -m propose_prob` is the `propose-prob` command."""

import sys

from propose_prob.cli import main

sys.exit(main())
