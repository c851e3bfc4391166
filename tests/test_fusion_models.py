"""Fusions without a neural network: exact algebra, missing sources, copies of one source."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from worlds import responses_of

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion import kernel_models as km
from perturbcore.models.fusion import kernels as fk
from perturbcore.models.fusion import simple
from perturbcore.models.fusion.choice import ablate, fewer_sources
from perturbcore.models.fusion.sources import lay_out_fold
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.labels import LabelKernel, raise_to
from perturbcore.score.evaluate import evaluate
from perturbcore.score.labels import Labels
from perturbcore.score.model import Fold, fit_predict

GENES = 14
PAIR_TASKS = ("deg_pairs", "dir_pairs")


def world(task="lfc", n=80, seed=0, missing=True, n_folds=4):
    """Responses driven by four traits, of which each of two sources shows two; a third is noise."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"P{i:02d}" for i in range(n)])
    genes = np.array([f"G{i:02d}" for i in range(GENES)])
    z, w = rng.normal(size=(n, 4)), rng.normal(size=(GENES, 4))
    both, traits = np.r_[ids, genes], np.r_[z, w].astype(np.float32)
    parts = {"first": traits[:, :2], "second": traits[:, 2:]}
    parts["noise"] = rng.normal(size=(n + GENES, 3))
    sources = []
    for i, (name, X) in enumerate(parts.items()):
        here = np.ones(len(both), bool)
        if missing:
            here[i : n - 6 : 7] = False
            here[0] = False  # the first perturbation has no source at all
        wide = np.repeat(X, 2, axis=1) + 0.05 * rng.normal(size=(len(X), 2 * X.shape[1]))
        sources.append(
            Embedding(name, "Prior knowledge", both[here], wide[here].astype(np.float32))
        )
    Y = z @ w.T + 0.3 * rng.normal(size=(n, GENES))
    observed = rng.random(Y.shape) < 0.7 if task in PAIR_TASKS else None
    # of labelled pairs, a response is learnable where it goes one way
    deg = {"deg_pairs": Y > 0.5, "dir_pairs": np.sign(Y)}.get(task, np.sign(Y) * (np.abs(Y) > 1))
    how = dict(n_folds=n_folds, seed=seed, genes=genes, task=task, observed=observed)
    return responses_of(Y if task == "lfc" else deg, ids, **how), sources


def small(models):
    return [replace(m, inner_folds=3) for m in models]


def run(model, responses, fold=0):
    cut = Fold.of(responses, fold)
    # nothing of the test responses can be reached, not even which labels are known
    assert not cut.test.layers and np.isnan(cut.test.X).all()
    return fit_predict(model, cut)


# ------------------------------------------------------------------------------------ kernel ridge


@pytest.mark.parametrize("penalty", [0.01, 0.3, 5.0])
def test_leave_one_out_is_exact(penalty):
    rng = np.random.default_rng(int(10 * penalty))
    X, Y = rng.normal(size=(12, 4)), rng.normal(size=(12, 3)) + 2
    K = X @ X.T
    scale = np.trace(fk.centred(K)) / len(K)
    # an unpenalised intercept: ridge in the features themselves, refitted without each row
    left_out = cross_val_predict(SklearnRidge(alpha=penalty * scale), X, Y, cv=LeaveOneOut())
    expected = np.linalg.norm(Y - left_out, axis=1).mean()
    assert fk.Ridge(K).losses(Y @ Y.T, [penalty])[0] == pytest.approx(expected, rel=1e-8)


def test_kernel_ridge_predicts_as_scikit_learn_does():
    rng = np.random.default_rng(1)
    X, T, Y = rng.normal(size=(20, 5)), rng.normal(size=(4, 5)), rng.normal(size=(20, 3)) + 1
    alpha = 0.7 * np.trace(fk.centred(X @ X.T)) / len(X)
    theirs = SklearnRidge(alpha=alpha).fit(X, Y).predict(T)
    assert np.allclose(fk.Ridge(X @ X.T).predict(T @ X.T, 0.7, Y), theirs)


def test_bent_kernels_are_kernels_and_leave_missing_rows_out():
    responses, sources = world()
    fold = lay_out_fold(Fold.of(responses, 0), sources)
    for (K, cross), source in zip(fk.bent_cosines(fold, 4), fold.sources, strict=True):
        has = source.has_train
        assert 0 < has.mean() < 1
        assert np.linalg.eigvalsh(K).min() > -1e-10 and not K[~has].any()
        assert np.allclose(np.diag(K)[has], 1) and not cross[:, ~has].any()


def test_weights_find_the_informative_kernel_and_beat_equal_ones():
    rng = np.random.default_rng(2)
    good, bad = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    Y = good @ rng.normal(size=(3, 6))
    kernels, penalties = [bad @ bad.T, good @ good.T], [0.01, 0.1, 1.0]
    weights, penalty, loss = fk.tune_weights(kernels, Y @ Y.T, penalties)
    _, _, equal = fk.tune_weights(kernels, Y @ Y.T, penalties, steps=0)
    assert weights[1] > 0.9 and weights.sum() == pytest.approx(1)
    assert loss < equal
    # the search takes a short cut to the same error
    K = weights[0] * kernels[0] + weights[1] * kernels[1]
    assert loss == pytest.approx(fk.Ridge(K).losses(Y @ Y.T, [penalty])[0])


def test_stack_weights_solve_non_negative_least_squares():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    X[:, 3] = X[:, 0]  # a copy makes the system singular
    w = simple.non_negative(X.T @ X, X.T @ y)
    gradient = X.T @ (X @ w - y)
    assert (w >= 0).all() and (gradient > -1e-8).all() and np.abs(w * gradient).max() < 1e-8


@given(st.integers(0, 1000))
def test_error_of_a_smoother_needs_only_inner_products(seed):
    rng = np.random.default_rng(seed)
    Y, a, b = rng.normal(size=(15, 4)), np.arange(9), np.arange(9, 15)
    W = rng.random((6, 9))
    expected = np.linalg.norm(Y[b] - W @ Y[a], axis=1).mean()
    assert simple.smoother_error(W, Y @ Y.T, a, b) == pytest.approx(expected)


# --------------------------------------------------------------------------------- labelled pairs


def test_scores_of_known_pairs_are_those_among_all_pairs():
    responses, embeddings = world("deg_pairs")
    fold = lay_out_fold(Fold.of(responses, 0), embeddings, n_components=20, inner_folds=3)
    kernel, powers = fk.summed(fk.cosines(fold))[0], (1.0, 2.0, 3.0, 6.0)
    for i, (a, b) in enumerate(fold.splits):
        known, query = fold.inner[i]
        for power, scores in zip(powers, fk.smooth_inner(fold, kernel, i, powers), strict=True):
            every = fk.smooth_all(known, kernel[np.ix_(b, a)], power)
            np.testing.assert_allclose(scores, every[query.rows, query.genes], rtol=1e-12)
    # without neighbours: the rates
    none = fk.smooth_all(fold.truth, np.zeros((2, len(fold.ids))), 1.0)
    np.testing.assert_allclose(none, np.tile(fold.truth.rates(), (2, 1)))


@given(st.floats(0.2, 9.0) | st.integers(1, 17))
def test_a_kernel_is_raised_as_pow_does(power):
    kernel = np.random.default_rng(0).random((4, 5))
    np.testing.assert_allclose(raise_to(kernel, power), kernel**power, rtol=1e-12)


@pytest.mark.parametrize("shared, module, own", [(0.2, 0.0, 0.0), (0.0, 0.3, 0.1), (0.1, 0.2, 0.3)])
def test_mixed_model_is_the_posterior_mean_of_its_covariance(shared, module, own):
    rng = np.random.default_rng(5)
    n, g, m = 12, 7, 3
    z = rng.random((n + m, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    K = z @ z.T
    phi = rng.normal(size=(g, 2)).astype(np.float32)
    observed = rng.random((n, g)) < 0.6
    known = Labels.from_dense(rng.integers(0, 2, (n, g)), observed)
    model = km.MixedModel(shared, module, own, noise=1.3, power=2.0, iterations=300, tolerance=1e-7)
    mine = model.scores(known, K[:n, :n], K[n:, :n], phi)
    # brute force: the covariance of all pairs written out, and solved
    k = K**2 / np.diag(K[:n, :n] ** 2).mean()
    rows = np.repeat(np.arange(n), np.diff(known.indptr))
    between = np.eye(g) + shared + module * phi @ phi.T
    cov = k[np.ix_(rows, rows)] * between[np.ix_(known.genes, known.genes)]
    cov += own * (rows[:, None] == rows) + 1.3 * np.eye(len(rows))
    alpha = np.linalg.solve(cov, known.label - known.rates()[known.genes])
    at, gene = np.repeat(np.arange(m), g), np.tile(np.arange(g), m)
    cross = k[n:, :n][np.ix_(at, rows)] * between[np.ix_(gene, known.genes)]
    expected = known.rates()[gene] + cross @ alpha
    assert np.allclose(mine.ravel(), expected, atol=2e-5)


def test_sources_count_by_how_good_they_are_alone():
    auroc = np.array([0.7, 0.6, 0.45])
    assert np.allclose(fk.source_weights(auroc, 2.0), [0.8, 0.2, 0])
    assert np.allclose(fk.source_weights(auroc, 0.0), 1 / 3)
    assert np.allclose(fk.source_weights(np.array([0.4, 0.5]), 2.0), 0.5)


# ------------------------------------------------------------------------------------ every fusion

EVERY = [
    (task, i)
    for task in ("lfc", "deg", *PAIR_TASKS)
    for i in range(len(km.fusions(task, world()[1])))
]


@cache
def floor_of(task):
    responses, sources = world(task)
    floor = evaluate_embeddings(
        responses, sources[:1], (), controls=("train_mean",), folds=[0, 1], progress=False
    )
    return floor.groupby("metric")["value"].mean()


@pytest.mark.parametrize("task, i", EVERY)
def test_beats_the_train_mean_whatever_the_order_of_rows_and_sources(task, i):
    responses, sources = world(task)
    order = np.random.default_rng(0).permutation(responses.n_obs)
    shuffled = responses[order].copy()
    model, turned = (small(km.fusions(task, s))[i] for s in (sources, sources[::-1]))
    assert model.digest == turned.digest
    first, again = run(model, responses), run(turned, shuffled)
    rows = [Fold.of(r, 0).test_ids for r in (responses, shuffled)]
    assert np.allclose(first.values[..., rows[0].get_indexer(rows[1]), :], again.values, atol=1e-5)
    assert np.isfinite(first.values).all() and first.values.shape[-2:] == (len(rows[0]), GENES)
    scores = evaluate(responses, [model], folds=[0, 1], progress=False)
    metric = {"lfc": "L2", "deg": "f1_score"}.get(task, "auroc_within")
    mine, mean = scores.groupby("metric")["value"].mean()[metric], floor_of(task)[metric]
    assert mine < mean if task == "lfc" else mine > mean
    assert ("macro_F1" in set(scores["metric"])) == (task in PAIR_TASKS)


FOR_PAIRS = (simple.AveragedKNN, simple.Concatenation, simple.Stacked, km.KernelSum, km.PairModel)
LINEAR = [
    ("lfc", k) for k in (simple.AveragedKNN, simple.Concatenation, simple.Stacked, km.KernelRidge)
]
LINEAR += [("deg", simple.AveragedKNN)]
LINEAR += [("deg_pairs", k) for k in FOR_PAIRS]


@pytest.mark.parametrize("task, kind", LINEAR)
def test_fusing_copies_of_one_source_is_that_source(task, kind):
    responses, sources = world(task, missing=False)
    copies = [replace(sources[0], name=f"copy {i}") for i in range(3)]
    one = run(kind(copies[:1], inner_folds=3), responses).values
    three = run(kind(copies, inner_folds=3), responses).values
    assert np.allclose(one, three, atol=2e-4 * np.abs(one).max())


@pytest.mark.parametrize(
    "task, way, kind, options, rtol",
    [
        ("lfc", KNN([3, 5, 10]), simple.Concatenation, {"k": (3, 5, 10)}, 1e-5),
        ("deg_pairs", LabelKernel([2.0]), km.KernelSum, {"powers": (2.0,)}, 0.02),
    ],
)
def test_a_fusion_of_one_source_is_the_predictor_of_that_source(task, way, kind, options, rtol):
    responses, sources = world(task, missing=False)
    metrics = ["L2"] if task == "lfc" else ["auroc_within"]
    single = evaluate_embeddings(
        responses, sources[:1], [way], controls=(), metrics=metrics, progress=False
    )
    fused = evaluate(responses, [kind(sources[:1], **options)], metrics=metrics, progress=False)
    np.testing.assert_allclose(fused["value"], single["value"], rtol=rtol)


def test_a_perturbation_without_any_source_gets_the_mean():
    responses, sources = world()
    cut = Fold.of(responses, int(responses.obs["fold"].iloc[0]))
    row = list(cut.test_ids).index("P00")
    for kind in (simple.AveragedKNN, simple.Concatenation):
        values = fit_predict(kind(sources, inner_folds=3), cut).values
        assert np.allclose(values[row], cut.train.X.mean(axis=0), atol=1e-4)


def test_genes_without_a_known_training_label_get_the_overall_rate():
    responses, sources = world("deg_pairs")
    train = (responses.obs["fold"] != 0).to_numpy()
    observed = np.asarray(responses.layers["observed"]).copy()
    observed[train, 3] = False
    responses.layers["observed"] = observed
    values = run(km.KernelSum(sources), responses).values
    label = np.asarray(responses.layers["deg"])[train][observed[train]] != 0
    assert np.allclose(values[:, 3], label.mean(), atol=1e-6) and values.shape[1] == GENES


def test_exponent_of_the_sources_is_tuned_and_used():
    responses, sources = world("deg_pairs", n=120)
    told = run(km.KernelSum(sources), responses)
    assert "exponent 1" in told.chosen  # neither the first candidate nor the last
    fixed = {e: run(km.KernelSum(sources, exponents=(e,)), responses) for e in (0.0, 1.0, 2.0)}
    assert np.array_equal(told.values, fixed[1.0].values)
    assert not np.allclose(told.values, fixed[0.0].values, atol=1e-3)
    fold = lay_out_fold(Fold.of(responses, 0), sources, inner_folds=5)
    for exponent, prediction in fixed.items():
        expected = fk.source_weights(fk.auroc_alone(fold), exponent)
        assert np.allclose(list(prediction.note["weights"].values()), expected, atol=1e-4)


@pytest.mark.parametrize("task", ["lfc", "deg_pairs"])
def test_fewer_sources_under_the_same_predictors_are_chosen_in_training(task):
    responses, sources = world(task, n=120)
    sets = {"both": ["first", "second"], "absent": ["elsewhere"]}
    *models, last = fewer_sources(small(km.fusions(task, sources)), sets, inner_folds=3)
    names = {"knn", "ridge"} if task == "lfc" else {"knn", "kernel", "mixed"}
    assert {(m.name, m.predictor) for m in models} == {
        (name, p) for name in ("both", "Best source") for p in names
    }
    by_predictor = {}
    for model in models:
        alone = run(model, responses)
        if model.name == "both":
            assert [e.name for e in model.embeddings] == sets["both"]
            continue
        by_predictor[model.predictor] = alone.values
        name = alone.chosen.split(":")[0]
        assert name in ("first", "second")
        only = replace(model.under, embeddings=[e for e in sources if e.name == name])
        assert np.allclose(alone.values, run(only, responses).values, atol=1e-6)
    # under any predictor: one of them, and by more than a guess
    chosen = run(last, responses)
    predictor = chosen.chosen.split(",")[0]
    assert (last.name, last.predictor) == ("Best source", "any predictor")
    assert np.array_equal(chosen.values, by_predictor[predictor])
    assert fewer_sources([simple.Stacked(sources)], sets) == []


# ------------------------------------------------------------------------------------ ablation


@pytest.mark.parametrize("task", ["lfc", "deg_pairs"])
def test_ablation_finds_noise_useless_and_never_chooses_by_test_labels(task):
    responses, sources = world(task, n=100)
    table = ablate(responses, sources, folds=[0, 1], inner_folds=3)
    sign = -1 if task == "lfc" else 1
    mean = table.groupby(["kind", "source"])["value"].mean() * sign
    assert mean["alone", "noise"] < min(mean["alone", "first"], mean["alone", "second"])
    assert mean["without", "noise"] > max(mean["without", "first"], mean["without", "second"])
    greedy = table[table["kind"] == "greedy"]
    every = table[table["kind"] == "all"].set_index("fold")["value"]
    last = greedy[greedy["n_sources"] == 3].set_index("fold")["value"]
    assert np.allclose(last, every)
    assert list(greedy.loc[greedy["n_sources"] == 3, "source"]) == ["noise"] * 2
    poisoned = responses.copy()
    test = (poisoned.obs["fold"] == 0).to_numpy()
    if task == "lfc":
        poisoned.X[test] = poisoned.X[test][::-1]
    else:
        poisoned.layers["deg"][test] = np.asarray(poisoned.layers["deg"])[test][::-1]
    again = ablate(poisoned, sources, folds=[0], inner_folds=3)
    one = greedy[greedy["fold"] == 0]
    assert list(again.loc[again["kind"] == "greedy", "source"]) == list(one["source"])
    assert not np.allclose(again.loc[again["kind"] == "greedy", "value"], one["value"])


# ------------------------------------------------------------------------------------ refusals


def test_refusals_say_what_to_do():
    responses, sources = world("deg")
    with pytest.raises(ParameterError, match="Multi-kernel ridge .* predicts lfc, not 'deg'"):
        evaluate(responses, [km.KernelRidge(sources)], progress=False)
    pytest.raises(ParameterError, km.fusions, "signs", sources).match("task 'signs' is not one of")
    # negative controls are no sources
    control = replace(sources[2], name="shuffled", modality="Negative control")
    assert {len(m.embeddings) for m in km.fusions("deg_pairs", [*sources[:2], control])} == {2}
    pytest.raises(InputError, km.KernelSum, []).match("no embedding to fuse")
    foreign = [Embedding("ensembl", "Protein", ["ENSG00000000001"], np.ones((1, 2), np.float32))]
    with pytest.raises(InputError, match="convert the embeddings' ids"):
        run(km.KernelSum(foreign), responses)
