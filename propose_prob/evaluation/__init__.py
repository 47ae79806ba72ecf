"""Evaluation of laws over 3D poses: errors, proper scores, calibration, protocols."""

from propose_prob.evaluation.calibration import (
    LEVELS,
    Calibration,
    CalibrationCurve,
    calibration_hits,
)
from propose_prob.evaluation.errors import best_of, joint_errors, mpjpe, n_mpjpe, pa_mpjpe, pck
from propose_prob.evaluation.protocols import Evaluator, Metrics, Protocol, Report
from propose_prob.evaluation.scores import EnergyScores, energy_scores, joint_spread

__all__ = [
    "LEVELS",
    "Calibration",
    "CalibrationCurve",
    "EnergyScores",
    "Evaluator",
    "Metrics",
    "Protocol",
    "Report",
    "best_of",
    "calibration_hits",
    "energy_scores",
    "joint_errors",
    "joint_spread",
    "mpjpe",
    "n_mpjpe",
    "pa_mpjpe",
    "pck",
]
