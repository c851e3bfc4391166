import numpy as np
import pytest

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Targets
from perturbcore.models.simple.label_logistic import LabelLogistic
from perturbcore.models.simple.labels import LabelKernel, LabelKNN, cosine_kernel, kernel_scores
from perturbcore.models.simple.space import NestedSpace
from perturbcore.score.labels import Labels, best_threshold
from perturbcore.score.metrics.pairs import auroc_within, macro_f1


def case(n=40, m=9, g=15, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + m, 6))
    observed = rng.random((n + m, g)) < 0.4
    label = (rng.random((n + m, g)) < 0.3).astype(float)
    return X, label, observed, n


def test_labels_keep_what_is_known_and_rows_can_be_taken_in_any_order():
    _, label, observed, _ = case()
    rows = np.array([5, 2, 2, 30])
    taken = Labels.from_dense(label, observed)[rows]
    np.testing.assert_array_equal(taken.label, label[rows][observed[rows]])
    np.testing.assert_array_equal(taken.genes, np.nonzero(observed[rows])[1])


def test_gene_rates_are_pulled_to_the_overall_rate():
    _, label, observed, _ = case()
    labels = Labels.from_dense(label, observed)
    overall = label[observed].mean()
    want = ((label * observed).sum(0) + 5 * overall) / (observed.sum(0) + 5)
    np.testing.assert_allclose(labels.rates(), want)


def test_kernel_scores_equal_the_formula_written_out():
    X, label, observed, n = case()
    space = NestedSpace(X[:n], X[n:], 5).outer
    kernel = cosine_kernel(space)
    kernel[3] = 0  # a perturbation like no other falls back to the rates
    known, query = (
        Labels.from_dense(label[:n], observed[:n]),
        Labels.from_dense(label[n:], observed[n:]),
    )
    rate = known.rates()
    got = kernel_scores(known, query, kernel, [1.0, 3.0], total=60, prior=2.0, rate=rate)
    for power, scores in zip([1.0, 3.0], got, strict=True):
        w = kernel**power
        w = w * 60 / np.where(w.sum(1, keepdims=True) > 0, w.sum(1, keepdims=True), 1)
        full = (w @ (label * observed)[:n] + 2 * rate) / (w @ observed[:n] + 2)
        np.testing.assert_allclose(scores, full[observed[n:]], rtol=1e-12)
        np.testing.assert_allclose(full[3], rate)


def test_knn_scores_equal_the_formula_written_out():
    X, label, observed, n = case()
    space = NestedSpace(X[:n], X[n:], 5)
    observed[:n, 4] = False  # a gene without any known training label
    known = Labels.from_dense(label[:n], observed[:n])
    rate = known.rates()
    got, k, _ = LabelKNN([7], prior=3.0).predict(space, Targets(known))
    near = space.outer.neighbours(7)
    y, o = (label * observed)[:n][near].sum(1), observed[:n][near].sum(1)
    np.testing.assert_allclose(got, (y + 3 * rate) / (o + 3))
    assert k == 7


@pytest.mark.parametrize(
    ("make", "grid"), [(LabelKNN, [3, 25]), (LabelKernel, [0.5, 8.0]), (LabelLogistic, [1e-3, 1e3])]
)
def test_the_candidate_of_best_auroc_on_inner_folds_predicts(make, grid):
    X, label, observed, n = case(n=60, g=30)
    label = (X[:, :1] + 0.3 * np.random.default_rng(5).normal(size=label.shape) > 0.3) * 1.0
    known = Labels.from_dense(label[:n], observed[:n])
    space = NestedSpace(X[:n], X[n:], 5)
    losses = []
    for value in grid:
        each = []
        for (a, b), inner in zip(space.splits, space.inner, strict=True):
            alone = make([value])
            s = alone.scores(inner, known[a], known[b], known[a].rates(), alone.grid)[0]
            each.append(auroc_within(known[b].label, s, known[b].genes))
        losses.append(np.mean(each))
    best = grid[int(np.argmax(losses))]
    values, chosen, _ = make(grid).predict(space, Targets(known))
    assert abs(losses[0] - losses[1]) > 1e-3 and chosen == best
    np.testing.assert_array_equal(values, make([best]).predict(space, Targets(known))[0])


def test_the_threshold_is_the_best_of_its_quantiles():
    rng = np.random.default_rng(1)
    label = (rng.random(500) < 0.3).astype(float)
    score = np.round(0.3 * label + rng.random(500), 2)
    cuts = np.unique(np.quantile(score, np.linspace(0.01, 0.99, 99)))
    best = max(macro_f1(label, score, None, c) for c in cuts)
    assert macro_f1(label, score, None, best_threshold(label, score)) == pytest.approx(best)


def test_bad_parameters_are_named():
    with pytest.raises(ParameterError, match="at least 1"):
        LabelKNN([0])
    with pytest.raises(ParameterError, match="above 0"):
        LabelKernel([0.0])
