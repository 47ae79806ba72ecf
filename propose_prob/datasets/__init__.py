"""CMU17, which ships, and readers of Human3.6M, MPI-INF-3DHP, 3DPW, SPIN and own pairs."""

from .cmu17 import CMU17, load_cmu17
from .cmu_body import load_cmu_body
from .h36m import read_h36m
from .mpi_inf_3dhp import read_mpi_inf_3dhp_test, read_mpi_inf_3dhp_train
from .pairs import read_pairs
from .spin import read_spin
from .threedpw import read_3dpw

__all__ = [
    "CMU17",
    "load_cmu17",
    "load_cmu_body",
    "read_3dpw",
    "read_h36m",
    "read_mpi_inf_3dhp_test",
    "read_mpi_inf_3dhp_train",
    "read_pairs",
    "read_spin",
]
