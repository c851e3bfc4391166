"""Metrics of predicted differential expression: each gene over the test perturbations, then a mean.

Labels are -1, 0 or 1, predictions a probability for each of the three. A class without a test
label is treated as in the published evaluation: left out of F1, precision, recall and average
precision, and counted as 0 in AUROC.
"""

from functools import partial

import numba
import numpy as np

from perturbcore.core.errors import InputError
from perturbcore.score.metrics.registry import register

CLASSES = np.array([-1, 0, 1], dtype=np.int8)


@numba.njit(nogil=True, cache=True)
def _rank(label, probability, order, which, auroc, ap):
    """AUROC and average precision of one class; `order` (g, m) sorts each gene by probability."""
    m = order.shape[1]
    for g in range(order.shape[0]):
        positive = 0
        for i in range(m):
            positive += label[i, g] == which
        negative = m - positive
        hits, misses, area, total = 0, 0, 0.0, 0.0
        i = m - 1
        while i >= 0:
            score = probability[order[g, i], g]
            old_hits, old_misses = hits, misses
            # equal scores are one threshold
            while i >= 0 and probability[order[g, i], g] == score:
                if label[order[g, i], g] == which:
                    hits += 1
                else:
                    misses += 1
                i -= 1
            area += 0.5 * (misses - old_misses) * (hits + old_hits)
            total += (hits - old_hits) * hits / (hits + misses)
        auroc[g] = area / (positive * negative) if positive and negative else 0.0
        ap[g] = total / positive if positive else np.nan


def _check(label, probability) -> tuple[np.ndarray, np.ndarray]:
    label, probability = np.asarray(label), np.asarray(probability)
    if label.ndim != 2 or probability.shape != (3, *label.shape):
        raise InputError(
            f"labels of shape {label.shape} need probabilities of shape (3, perturbations, genes), "
            f"not {probability.shape}"
        )
    if not len(label):
        raise InputError("no test perturbations to score")
    return label.astype(np.int8, copy=False), np.ascontiguousarray(probability)


def called_per_gene(label, probability) -> dict[str, np.ndarray]:
    """Score the most probable class of each gene: F1, precision, recall, each (g,)."""
    label, probability = _check(label, probability)
    # equal probabilities go to the first class, as argmax has it
    best = (probability[1] > probability[0]).astype(np.int8)
    best[probability[2] > np.maximum(probability[0], probability[1])] = 2
    calls, truths = best == CLASSES[:, None, None] + 1, label == CLASSES[:, None, None]
    right, called, true = (x.sum(axis=1) for x in (calls & truths, calls, truths))
    present = true > 0
    n = present.sum(axis=0)
    return {
        name: np.divide(top, bottom, np.zeros(top.shape), where=bottom > 0).sum(axis=0) / n
        for name, top, bottom in (
            ("f1_score", 2 * right, called + true),
            ("precision", right, called),
            ("recall", right, true),
        )
    }


def ranked_per_gene(label, probability) -> dict[str, np.ndarray]:
    """Score how each class ranks the test perturbations of a gene, each (g,).

    Equal to ``torchmetrics`` 1.9 (multiclass, macro, exact thresholds), with one oddity of it:
    where all labels of a gene are its first class (-1), the absent classes count 0 in average
    precision.
    """
    label, probability = _check(label, probability)
    auroc, ap = (np.empty((3, label.shape[1])) for _ in range(2))
    for c, which in enumerate(CLASSES):
        order = np.argsort(np.ascontiguousarray(probability[c].T), axis=1)
        _rank(label, probability[c], order, which, auroc[c], ap[c])
    ap[1:, (label == -1).all(axis=0)] = 0.0
    return {"roc_auc": auroc.mean(axis=0), "average_precision": np.nanmean(ap, axis=0)}


def deg_metrics(label, probability, names) -> dict[str, float]:
    """Means over genes of the named metrics, sharing their work; see `called_per_gene`."""
    found: dict[str, np.ndarray] = {}
    if set(names) & {"f1_score", "precision", "recall"}:
        found |= called_per_gene(label, probability)
    if set(names) & {"roc_auc", "average_precision"}:
        found |= ranked_per_gene(label, probability)
    return {name: float(found[name].mean()) for name in names}


def one_hot(label) -> np.ndarray:
    """Labels as (3, m, g) float32 probabilities of 0 and 1."""
    return (np.asarray(label)[None] == CLASSES[:, None, None]).astype(np.float32)


def deg_metric(label, probability, name: str) -> float:
    """Mean over genes of one metric."""
    return deg_metrics(label, probability, [name])[name]


for _name in ("f1_score", "precision", "recall", "roc_auc", "average_precision"):
    register(_name)(partial(deg_metric, name=_name))
