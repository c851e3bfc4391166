import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from perturbcore.core.errors import InputError
from perturbcore.score.metrics.deg import called_per_gene, deg_metrics, one_hot, ranked_per_gene
from perturbcore.score.metrics.registry import metric, metrics_of

NAMES = ["f1_score", "precision", "recall", "roc_auc", "average_precision"]


def cases(m=25, g=40, seed=0, levels=None):
    """Labels of genes with one, two and three classes, and probabilities, tied ones if asked."""
    rng = np.random.default_rng(seed)
    label = rng.choice([-1, 0, 1], size=(m, g), p=[0.2, 0.6, 0.2]).astype(np.int8)
    label[:, 0], label[:, 1], label[:, 2] = 0, 1, -1
    label[:, 3] = np.where(label[:, 3] == 1, 0, label[:, 3])
    label[:, 4] = np.where(label[:, 4] == 0, 1, label[:, 4])
    label[:, 5] = 0
    label[3, 5] = 1  # a single positive
    p = rng.random((3, m, g)).astype(np.float32)
    if levels:
        p = np.ceil(p * levels) / levels
    return label, (p / p.sum(axis=0)).astype(np.float32)


def by_hand(label, p, gene):
    """Write the definition of one gene out with scikit-learn, absent classes as published."""
    y, s = label[:, gene], p[:, :, gene]
    called = np.array([-1, 0, 1])[s.argmax(axis=0)]
    present = sorted(set(y))
    kw = dict(labels=present, average="macro", zero_division=0)
    out = {
        "f1_score": f1_score(y, called, **kw),
        "precision": precision_score(y, called, **kw),
        "recall": recall_score(y, called, **kw),
    }
    auc = [
        roc_auc_score(y == c, s[c + 1]) if 0 < (y == c).sum() < len(y) else 0.0 for c in (-1, 0, 1)
    ]
    ap = [average_precision_score(y == c, s[c + 1]) for c in present]
    if present == [-1]:
        ap = [1.0, 0.0, 0.0]
    return out | {"roc_auc": np.mean(auc), "average_precision": np.mean(ap)}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.sampled_from([None, 1, 3]))
def test_every_metric_equals_scikit_learn_gene_by_gene(seed, m, levels):
    label, p = cases(max(m, 4), 7, seed, levels)
    label, p = label[:m], p[:, :m]
    got = called_per_gene(label, p) | ranked_per_gene(label, p)
    for gene in range(7):
        for name, value in by_hand(label, p, gene).items():
            assert got[name][gene] == pytest.approx(value, abs=1e-6), (name, gene)


@pytest.mark.parametrize("levels", [None, 3])
def test_absent_classes_are_treated_as_torchmetrics_treats_them(levels):
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics.functional.classification import (
        multiclass_auroc,
        multiclass_average_precision,
    )

    label, p = cases(levels=levels)
    got = ranked_per_gene(label, p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for gene in range(label.shape[1]):
            scores = torch.tensor(p[:, :, gene].T.copy())
            truth = torch.tensor(label[:, gene].astype(int) + 1)
            auc = multiclass_auroc(scores, truth, num_classes=3, average="macro").item()
            ap = multiclass_average_precision(scores, truth, num_classes=3, average="macro").item()
            assert got["roc_auc"][gene] == pytest.approx(auc, abs=1e-5), gene
            assert got["average_precision"][gene] == pytest.approx(ap, abs=1e-5), gene


def test_no_change_by_hand():
    # four perturbations, two genes: one never changes, one goes up once
    label = np.array([[0, 0], [0, 1], [0, 0], [0, 0]], dtype=np.int8)
    none = one_hot(np.zeros_like(label))
    got = deg_metrics(label, none, NAMES)
    assert got["f1_score"] == pytest.approx((1 + (6 / 7 + 0) / 2) / 2)
    assert got["recall"] == pytest.approx((1 + 1 / 2) / 2)
    assert got["precision"] == pytest.approx((1 + 3 / 8) / 2)
    # constant scores: half for a class with positives and negatives, 0 for the others
    assert got["roc_auc"] == pytest.approx((0 + (0.5 + 0.5) / 3) / 2)
    # for constant predictions average precision is the share of the class
    assert got["average_precision"] == pytest.approx((1 + (3 / 4 + 1 / 4) / 2) / 2)


def test_a_perfect_prediction_has_f1_1_and_equal_probabilities_go_to_the_first_class():
    label, p = cases()
    got = called_per_gene(label, one_hot(label))
    assert all((v == 1).all() for v in got.values())
    even = np.full_like(p, 1 / 3)
    np.testing.assert_array_equal(
        called_per_gene(label, even)["f1_score"],
        called_per_gene(label, one_hot(np.full_like(label, -1)))["f1_score"],
    )


def test_registered_metrics_are_the_means_over_genes():
    label, p = cases()
    assert set(metrics_of("deg")) == set(NAMES)
    together = deg_metrics(label, p, NAMES)
    for name in NAMES:
        assert metric(name).function(label, p) == together[name]
        assert metric(name).higher_is_better


def test_shapes_that_do_not_fit_are_named():
    label, p = cases()
    with pytest.raises(InputError, match=r"\(3, perturbations, genes\)"):
        deg_metrics(label, p[:2], NAMES)
    with pytest.raises(InputError, match="no test perturbations"):
        deg_metrics(label[:0], p[:, :0], NAMES)
