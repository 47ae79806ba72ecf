"""Networks: residual MLPs whose context part is computed once."""

from .mlp import ConditionalMLP, ResidualMLP

__all__ = ["ConditionalMLP", "ResidualMLP"]
