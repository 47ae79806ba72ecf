"""`python -m propose_prob` is the `propose-prob` command."""

import sys

from .cli import main

sys.exit(main())
