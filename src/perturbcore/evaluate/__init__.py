"""Evaluation: responses and embeddings in, one tidy table of scores out."""

from perturbcore.evaluate.plan import Protocol
from perturbcore.evaluate.run import evaluate, save_scores
from perturbcore.evaluate.store import ScoreStore

__all__ = ["Protocol", "ScoreStore", "evaluate", "save_scores"]
