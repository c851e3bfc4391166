"""Evaluation: responses and embeddings in, one tidy table of scores out."""

from perturbcore.evaluate.joint import JointModel, Prediction, evaluate_joint
from perturbcore.evaluate.plan import Protocol
from perturbcore.evaluate.run import evaluate, save_scores
from perturbcore.evaluate.store import ScoreStore

__all__ = ["JointModel", "Prediction", "Protocol", "ScoreStore", "evaluate", "evaluate_joint", "save_scores"]
