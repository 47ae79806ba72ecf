"""Evaluation: errors, proper scores, calibration, protocols."""

from .benchmark import comparison, evaluate
from .calibration import CalibrationCurve
from .fit_recalibration import recalibrate
from .metrics import mpjpe, pa_mpjpe
from .protocol import PROTOCOLS, Protocol
from .scores import energy_scores
from .sets import ClipSet, CMU17Set, PairSet

__all__ = [
    "PROTOCOLS",
    "CMU17Set",
    "CalibrationCurve",
    "ClipSet",
    "PairSet",
    "Protocol",
    "comparison",
    "energy_scores",
    "evaluate",
    "mpjpe",
    "pa_mpjpe",
    "recalibrate",
]
