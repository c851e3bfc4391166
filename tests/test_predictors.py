import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso, Ridge
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError
from perturbcore.models.simple import predictor
from perturbcore.models.simple.base import SklearnPredictor, Targets
from perturbcore.models.simple.deg import DEGKNN, DEGLogistic, Softmax
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.labels import (
    LabelKernel,
    LabelKNN,
    LabelLogistic,
    cosine_kernel,
    kernel_scores,
)
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import NestedSpace, principal_axes, standardise
from perturbcore.score.labels import Labels, best_threshold
from perturbcore.score.metrics.pairs import auroc_within, macro_f1

N, M, D, G, Q = 150, 30, 40, 60, 20


def case(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N + M, D)) @ rng.normal(size=(D, D))
    X[:, 3] = 2.5  # a constant column
    Y = np.tanh(X[:, :6] @ rng.normal(size=(6, G)) / 10) + 0.5 * rng.normal(size=(N + M, G)) + 0.3
    return X[:N].astype(dtype), X[N:].astype(dtype), Y[:N].astype(dtype), Y[N:].astype(dtype)


SPACE = NestedSpace(*case()[:2], Q)


def reference(estimator, grid, X, Y, Z, reduce=True):
    """The published pipeline, in scikit-learn's own words."""
    steps = [StandardScaler(), PCA(Q, svd_solver="full")] if reduce else []
    pipe = make_pipeline(*steps, estimator)
    name = type(estimator).__name__.lower()
    loss = make_scorer(lambda y, p: -np.linalg.norm(y - p, axis=1).mean())
    search = GridSearchCV(
        pipe,
        {f"{name}__{k}": v for k, v in grid.items()},
        scoring=loss,
        cv=KFold(5, shuffle=True, random_state=42),
    ).fit(X, Y)
    return search.predict(Z), list(search.best_params_.values())[0], search.cv_results_


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_knn_equals_grid_search(seed):
    X, Z, Y, _ = case(seed=seed)
    grid = [3, 5, 10, 20, 40]
    space = NestedSpace(X, Z, Q)
    got, k = KNN(grid).predict(space, Targets(Y))
    want, best, results = reference(KNeighborsRegressor(), {"n_neighbors": grid}, X, Y, Z)
    assert k == best
    np.testing.assert_allclose(got, want, atol=1e-6)
    losses = KNN(grid).losses(space, Targets(Y), grid)
    np.testing.assert_allclose(losses.mean(axis=0), -results["mean_test_score"], atol=1e-8)
    # and so does any regressor of scikit-learn
    theirs = SklearnPredictor(KNeighborsRegressor(), {"n_neighbors": grid})
    again, chosen = theirs.predict(space, Targets(Y))
    assert chosen == {"n_neighbors": best}
    np.testing.assert_allclose(again, want, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "estimator", "grid"),
    [
        ("lasso", Lasso(tol=1e-9, max_iter=200_000), [1e-2, 1e-1, 1.0]),
        ("ridge", Ridge(), [1.0, 100.0, 10_000.0]),
    ],
)
@pytest.mark.parametrize("reduce", [True, False])
def test_linear_models_equal_grid_search(kind, estimator, grid, reduce):
    X, Z, Y, _ = case()
    Y = Y[:, :3]
    got, alpha = Linear(kind, grid).predict(NestedSpace(X, Z, Q, reduce=reduce), Targets(Y))
    want, best, _ = reference(estimator, {"alpha": grid}, X, Y, Z, reduce)
    assert alpha == best
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_gram_of_a_whole_line_serves_any_subset_of_its_rows():
    X, Z, Y, _ = case()
    whole = np.vstack([np.ones((7, G)), Y])[np.random.default_rng(0).permutation(N + 7)]
    rows = np.array([int(np.flatnonzero((whole == y).all(axis=1))[0]) for y in Y])
    a = KNN([5, 10]).predict(NestedSpace(X, Z, Q), Targets(whole, whole @ whole.T, rows))
    b = KNN([5, 10]).predict(NestedSpace(X, Z, Q), Targets(Y))
    np.testing.assert_array_equal(a[0], b[0])


def test_neighbours_are_chosen_by_the_loss_of_the_task():
    X, Z, Y, _ = case()
    # of each response only the direction is told by the vector: sizes move L2, not the correlation
    Y = Y * np.exp(np.random.default_rng(1).normal(size=(len(Y), 1)))
    grid, space, by_l2 = [1, 3, 10, 30], NestedSpace(X, Z, Q), KNN([1, 3, 10, 30])
    ours, theirs = (predictor("knn", "expression", grid=grid),
                    SklearnPredictor(KNeighborsRegressor(), {"n_neighbors": grid}))  # fmt: skip
    theirs.task = ours.task
    losses = ours.losses(space, Targets(Y), grid)
    want = theirs.losses(space, Targets(Y), theirs.candidates())
    np.testing.assert_allclose(losses, want, atol=1e-6)
    assert (losses >= -1).all() and (losses <= 1).all()
    k = ours.predict(space, Targets(Y))[1]
    assert k == grid[int(losses.mean(axis=0).argmin())]
    plain = super(KNN, by_l2).losses(space, Targets(Y), grid)
    np.testing.assert_allclose(by_l2.losses(space, Targets(Y), grid), plain, rtol=1e-6)


def test_equal_distances_keep_the_order_of_training_rows():
    X = np.zeros((12, 3))
    space = NestedSpace(X, X[:2], 2, reduce=False)
    np.testing.assert_array_equal(space.outer.neighbours(4), [[0, 1, 2, 3]] * 2)


@pytest.mark.parametrize("shape", [(900, 800), (800, 2000)])
def test_large_pca_agrees_with_the_exact_one(shape):
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(shape[0], 50)) * 3 @ rng.normal(size=(50, shape[1]))
    Z = (Z + rng.normal(size=shape)).astype(np.float32)
    Z -= Z.mean(axis=0)
    axes = principal_axes(Z, 50)[:, :50]
    exact = np.linalg.svd(Z, full_matrices=False)[2][:50].T
    np.testing.assert_allclose(np.linalg.svd(axes.T @ exact)[1], 1, atol=1e-4)
    warm = principal_axes(Z[:-50], 50, start=principal_axes(Z, 50))[:, :50]
    exact = np.linalg.svd(Z[:-50], full_matrices=False)[2][:50].T
    np.testing.assert_allclose(np.linalg.svd(warm.T @ exact)[1], 1, atol=1e-3)


def test_standardise_equals_sklearn_in_float32():
    X, Z, _, _ = case(np.float32)
    scaler = StandardScaler().fit(X)
    ours = standardise(X, Z)
    assert ours[0].dtype == np.float32
    np.testing.assert_allclose(ours[0], scaler.transform(X), atol=1e-5)
    np.testing.assert_allclose(ours[1], scaler.transform(Z), atol=1e-5)


def test_test_rows_do_not_change_the_model():
    X, Z, Y, _ = case()
    poisoned = Z.copy()
    poisoned[1:] = 1e6
    for model in (KNN([5, 10]), Linear("lasso"), Linear("ridge", [1.0, 10.0])):
        a, _ = model.predict(NestedSpace(X, Z, Q), Targets(Y))
        b, _ = model.predict(NestedSpace(X, poisoned, Q), Targets(Y))
        np.testing.assert_allclose(a[0], b[0], atol=1e-9)


def label_case(n=40, m=9, g=15, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + m, 6))
    observed = rng.random((n + m, g)) < 0.4
    label = (rng.random((n + m, g)) < 0.3).astype(float)
    return X, label, observed, n


def test_kernel_scores_equal_the_formula_written_out():
    X, label, observed, n = label_case()
    kernel = cosine_kernel(NestedSpace(X[:n], X[n:], 5).outer)
    kernel[3] = 0  # a perturbation like no other falls back to the rates
    known, query = (Labels.from_dense(label[a], observed[a]) for a in (slice(n), slice(n, None)))
    rate = known.rates()
    overall = label[:n][observed[:n]].mean()
    positive = (label * observed)[:n]
    np.testing.assert_allclose(rate, (positive.sum(0) + 5 * overall) / (observed[:n].sum(0) + 5))
    got = kernel_scores(known, query, kernel, [1.0, 3.0], total=60, prior=2.0, rate=rate)
    for power, scores in zip([1.0, 3.0], got, strict=True):
        w = kernel**power
        w = w * 60 / np.where(w.sum(1, keepdims=True) > 0, w.sum(1, keepdims=True), 1)
        full = (w @ positive + 2 * rate) / (w @ observed[:n] + 2)
        np.testing.assert_allclose(scores, full[observed[n:]], rtol=1e-12)
        np.testing.assert_allclose(full[3], rate)


def test_knn_scores_equal_the_formula_written_out():
    X, label, observed, n = label_case()
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
    X, label, observed, n = label_case(n=60, g=30)
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KNN([0]), "at least 1"),
        (lambda: LabelKNN([0]), "at least 1"),
        (lambda: DEGKNN([0]), "at least 1"),
        (lambda: LabelKernel([0.0]), "above 0"),
        (lambda: LabelLogistic([-1.0]), "above 0"),
        (lambda: DEGLogistic([0.0]), "above 0"),
        (lambda: DEGLogistic([]), "above 0"),
        (lambda: Linear("lasso", [0.0]), "above 0"),
        (lambda: Linear("elastic"), "elastic"),
        (lambda: DEGKNN([5], [2.0]), "between 0 and 1"),
        (lambda: DEGLogistic(softmax={"steps": 4}), "steps"),
        (lambda: Softmax(max_iter=0), "max_iter"),
        (lambda: predictor("boosting"), "knn, lasso, ridge"),
        (lambda: predictor("knn", neighbours=[3]), "knn"),
        (lambda: SklearnPredictor(Ridge(), {"depth": [1]}), "depth"),
        (lambda: SklearnPredictor("ridge"), "fit and predict"),
        (lambda: KNN([500]).predict(SPACE, Targets(case()[2])), "inner training set"),
        (lambda: NestedSpace(case()[0][:3], case()[1], Q), "too few"),
    ],
)
def test_bad_parameters_are_named(make, message):
    pytest.raises(InputError, make).match(message)
