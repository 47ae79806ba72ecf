"""Evaluation of laws over 3D poses: errors, proper scores, calibration, protocols."""

from propose_prob.evaluation.bones import (
    bone_lengths,
    bone_pairs,
    bone_symmetry,
    bone_variation,
)
from propose_prob.evaluation.calibration import (
    LEVELS,
    Calibration,
    CalibrationCurve,
    calibration_hits,
)
from propose_prob.evaluation.coverage import (
    Coverage,
    PITHistogram,
    RankHistogram,
    Ranks,
    rank_among,
)
from propose_prob.evaluation.errors import (
    auc,
    best_of,
    best_of_curve,
    cps,
    joint_errors,
    mpjpe,
    n_mpjpe,
    pa_mpjpe,
    pck,
    pve,
)
from propose_prob.evaluation.estimates import coordinate_median, estimate, geometric_median
from propose_prob.evaluation.motion import Motion, MotionErrors, acceleration_error, mpjve
from propose_prob.evaluation.protocols import Evaluator, Metrics, Protocol, Report
from propose_prob.evaluation.scores import (
    EnergyScores,
    crps,
    energy_scores,
    joint_spread,
    nll_per_coordinate,
)
from propose_prob.evaluation.sharpness import SpreadError, SpreadErrorHistogram

__all__ = [
    "LEVELS",
    "Calibration",
    "CalibrationCurve",
    "Coverage",
    "EnergyScores",
    "Evaluator",
    "Metrics",
    "Motion",
    "MotionErrors",
    "PITHistogram",
    "Protocol",
    "RankHistogram",
    "Ranks",
    "Report",
    "SpreadError",
    "SpreadErrorHistogram",
    "acceleration_error",
    "auc",
    "best_of",
    "best_of_curve",
    "bone_lengths",
    "bone_pairs",
    "bone_symmetry",
    "bone_variation",
    "calibration_hits",
    "coordinate_median",
    "cps",
    "crps",
    "energy_scores",
    "estimate",
    "geometric_median",
    "joint_errors",
    "joint_spread",
    "mpjpe",
    "mpjve",
    "n_mpjpe",
    "nll_per_coordinate",
    "pa_mpjpe",
    "pck",
    "pve",
    "rank_among",
]
