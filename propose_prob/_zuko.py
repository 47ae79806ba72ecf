"""zuko, imported without its side effect on all of torch.distributions.

Importing zuko switches argument validation off for every `Distribution` in the process; this
module is the only place that imports it, and puts both settings back.
"""

from __future__ import annotations

from torch.distributions import Distribution

_validate = Distribution.__dict__["_validate_args"]
_constraints = Distribution.__dict__["arg_constraints"]

from zuko.lazy import LazyDistribution, LazyTransform  # noqa: E402
from zuko.transforms import MonotonicRQSTransform  # noqa: E402

Distribution._validate_args = _validate
Distribution.arg_constraints = _constraints  # type: ignore[method-assign]

__all__ = ["LazyDistribution", "LazyTransform", "MonotonicRQSTransform"]
