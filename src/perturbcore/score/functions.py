"""Functions of a perturbation as a task: complete labels, 0 or 1, of many gene sets at once."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from perturbcore.score.metrics.registry import metric, register
from perturbcore.score.task import Task, register_task


def f1_per_function(label: np.ndarray, called: np.ndarray) -> np.ndarray:
    """F1 of the positives of each function, (T,); 0 without a true or called one."""
    right, both = (label & called).sum(axis=0), label.sum(axis=0) + called.sum(axis=0)
    return np.divide(2.0 * right, both, out=np.zeros(len(both)), where=both > 0)


@register("function_f1")
def function_f1(label, probability):
    """F1 of the positives of each function, called from 0.5 on, averaged over functions."""
    return float(f1_per_function(label > 0, probability >= 0.5).mean())


@register("function_auroc")
def function_auroc(label, probability):
    """AUROC of each function that has both classes, averaged; 0.5 where none has."""
    positive = label.sum(axis=0, dtype=float)
    negative = len(label) - positive
    above = (rankdata(probability, axis=0) * (label > 0)).sum(axis=0)
    there = (positive > 0) & (negative > 0)
    p, n = positive[there], negative[there]
    area = (above[there] - p * (p + 1) / 2) / (p * n)
    return float(area.mean()) if len(area) else 0.5


@dataclass(frozen=True)
class Functions(Task):
    """Labels 0 or 1 of every function; predictions are probabilities, called from 0.5 on."""

    kind = "functions"
    floors = {
        # who weighs both classes alike and knows nothing says 0.5, and so calls every function
        "train_mean": lambda Y: np.full(Y.shape[1], 0.5, dtype=np.float32),
        "prior": lambda Y: Y.mean(axis=0, dtype=np.float64).astype(np.float32),
    }

    def truth(self, rows):
        """(n, T) float32 of 0 and 1."""
        return np.ascontiguousarray(rows.X, dtype=np.float32)

    def loss(self, truth, values):
        """Minus macro F1."""
        return -function_f1(truth, values)

    def score(self, truth, values, names, *, train, memo, threshold=None):
        """Each function over the test perturbations, then the mean over functions."""
        return {m: metric(m).function(truth, values) for m in names}, {}

    def kept(self, truth, values):
        """Labels, and which functions are called."""
        return {"label": truth > 0, "called": values >= 0.5}

    def score_some(self, kept, rows):
        """Macro F1 of what is called."""
        each = f1_per_function(kept["label"][rows], kept["called"][rows])
        return {"function_f1": float(each.mean())}


register_task(Functions("functions", "functions of the genes that respond", "function_f1"))
