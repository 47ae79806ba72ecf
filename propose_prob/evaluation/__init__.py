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
from propose_prob.evaluation.dataset import ClipSet, CMU17Set, EvaluationSet, PairSet
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
from propose_prob.evaluation.gallery import Gallery, WorstCase
from propose_prob.evaluation.metrics import METRICS, Metric, Metrics
from propose_prob.evaluation.motion import Motion, MotionErrors, acceleration_error, mpjve
from propose_prob.evaluation.prepare import Condition, Prepared, prepare
from propose_prob.evaluation.protocol import PROTOCOLS, Protocol
from propose_prob.evaluation.protocols import Evaluator
from propose_prob.evaluation.recalibrate import (
    RecalibratedModel,
    RecalibrationReport,
    recalibrate,
)
from propose_prob.evaluation.recalibrate_base import recalibrate_base
from propose_prob.evaluation.reports import JointTable, Report
from propose_prob.evaluation.run import comparison, evaluate
from propose_prob.evaluation.scores import (
    EnergyScores,
    crps,
    energy_scores,
    joint_spread,
    nll_per_coordinate,
)
from propose_prob.evaluation.sharpness import SpreadError, SpreadErrorHistogram

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "CMU17Set",
    "ClipSet",
    "Condition",
    "EvaluationSet",
    "Metric",
    "Prepared",
    "RecalibratedModel",
    "RecalibrationReport",
    "comparison",
    "evaluate",
    "prepare",
    "recalibrate",
    "recalibrate_base",
    "LEVELS",
    "Calibration",
    "CalibrationCurve",
    "Coverage",
    "EnergyScores",
    "Evaluator",
    "Gallery",
    "JointTable",
    "Metrics",
    "Motion",
    "MotionErrors",
    "PITHistogram",
    "PairSet",
    "Protocol",
    "RankHistogram",
    "Ranks",
    "Report",
    "SpreadError",
    "SpreadErrorHistogram",
    "WorstCase",
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
