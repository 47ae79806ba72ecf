"""Evaluation: errors, proper scores, calibration, protocols."""

from .benchmark import comparison, evaluate
from .calibration import CalibrationCurve
from .coverage import Coverage
from .evaluator import Evaluator
from .fit_recalibration import recalibrate
from .metrics import auc, best_of, mpjpe, n_mpjpe, pa_mpjpe, pck, pve
from .motion_errors import acceleration_error
from .protocol import PROTOCOLS, Protocol
from .scores import crps, energy_scores
from .sets import ClipSet, CMU17Set, PairSet

__all__ = [
    "PROTOCOLS",
    "CMU17Set",
    "CalibrationCurve",
    "ClipSet",
    "Coverage",
    "Evaluator",
    "PairSet",
    "Protocol",
    "acceleration_error",
    "auc",
    "best_of",
    "comparison",
    "crps",
    "energy_scores",
    "evaluate",
    "mpjpe",
    "n_mpjpe",
    "pa_mpjpe",
    "pck",
    "pve",
    "recalibrate",
]
