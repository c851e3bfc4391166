"""Train a torch model: batches, early stopping, best weights, resume; lightning underneath."""

from perturbcore.training.batches import Batches
from perturbcore.training.fit import Trained, fit
from perturbcore.training.learner import Learner, constant_after_warmup, cosine_after_warmup

__all__ = ["Batches", "Learner", "Trained", "constant_after_warmup", "cosine_after_warmup", "fit"]
