import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.order import least, row_ranks
from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.score.ceiling.ceiling import distances
from perturbcore.score.ceiling.halves import calibrate_metrics, dynamic_range_fraction
from perturbcore.score.labels import Labels
from perturbcore.score.metrics.deg import called_per_gene, deg_metrics, one_hot, ranked_per_gene
from perturbcore.score.metrics.pairs import auroc_interval
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.task import task_of

LFC = metrics_of("lfc")
PAIRS = metrics_of("pairs")


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(9, 40)).astype(np.float32)
    truth[:, 5:9] = 0  # silent genes tie
    prediction = (0.5 * truth + rng.normal(size=truth.shape)).astype(np.float32)
    prediction[:, 5:9] = 0
    return truth, prediction, rng.normal(size=40).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("L2", lambda t, p, m: np.linalg.norm(t - p)),
        ("MSE", lambda t, p, m: np.mean((t - p) ** 2)),
        ("MAE", lambda t, p, m: np.mean(np.abs(t - p))),
        ("Pearson", lambda t, p, m: stats.pearsonr(t, p)[0]),
        ("Spearman", lambda t, p, m: stats.spearmanr(t, p)[0]),
        ("Pearson_delta", lambda t, p, m: stats.pearsonr(t - m, p - m)[0]),
        ("cosine", lambda t, p, m: t @ p / np.linalg.norm(t) / np.linalg.norm(p)),
        (
            "top20_recall",
            lambda t, p, m: len(set(np.argsort(-abs(t))[:20]) & set(np.argsort(-abs(p))[:20])) / 20,
        ),
    ],
)
def test_each_metric_equals_its_definition_row_by_row(case, name, one):
    truth, prediction, mean = case
    want = [
        one(t, p, mean.astype(float))
        for t, p in zip(truth.astype(float), prediction.astype(float), strict=True)
    ]
    np.testing.assert_allclose(metric(name).function(truth, prediction, mean), want, rtol=2e-6)


def test_discrimination_equals_a_loop(case):
    truth, prediction, _ = case
    want = []
    for k, p in enumerate(prediction):
        d = np.linalg.norm(truth - p, axis=1)
        want.append(1 - (np.delete(d, k) < d[k]).mean())
    np.testing.assert_allclose(metric("discrimination").function(truth, prediction), want)


def test_where_nothing_differs_every_metric_has_a_defined_value(case):
    truth, _, mean = case
    for name in LFC:
        for constant in (np.zeros_like(truth), np.tile(mean, (len(truth), 1))):
            values = metric(name).function(truth, constant, mean)
            assert np.isfinite(values).all(), name
    zero = np.zeros_like(truth)
    for name in ("Pearson", "Spearman", "cosine"):
        assert (metric(name).function(truth, zero, mean) == 0).all()
    for level in (0.1, 1 / 3, 0.7):  # the mean of many tenths is not exactly a tenth
        assert (metric("Pearson").function(truth, np.full(truth.shape, level), mean) == 0).all()
    assert (metric("Pearson_delta").function(truth, np.tile(mean, (9, 1)), mean) == 0).all()
    np.testing.assert_allclose(metric("top20_recall").function(truth, zero), 20 / 40)
    flat = metric("discrimination").function(truth, np.tile(mean, (9, 1)))
    assert abs(flat.mean() - 0.5) < 1e-9
    for name in PAIRS:  # no pair to compare
        value = metric(name).function(np.zeros(4), np.arange(4.0), np.arange(4), 0.5)
        assert np.isfinite(value)


def test_a_perfect_prediction_reaches_the_best_bound(case):
    truth, _, mean = case
    for name in LFC:
        m = metric(name)
        best = m.bounds[1] if m.higher_is_better else m.bounds[0]
        got = m.function(truth, truth.copy(), mean)
        if name == "top20_recall":  # 36 genes have an effect, so the first 20 are distinct
            assert (got == 1).all()
        np.testing.assert_allclose(got, best, atol=1e-6)


def pairs(seed, n=300, genes=25):
    rng = np.random.default_rng(seed)
    gene = rng.integers(genes, size=n)
    label = rng.integers(2, size=n)
    return label, np.round(rng.normal(size=n) + 0.3 * label, 1), gene


@settings(max_examples=6)
@given(st.integers(0, 10_000))
def test_pair_metrics_equal_a_loop_over_genes(seed):
    label, score, gene = pairs(seed)
    top, bottom, aucs, ap, weight = 0.0, 0.0, [], 0.0, 0
    for g in np.unique(gene):
        y, s = label[gene == g], score[gene == g]
        if 0 < y.sum() < len(y):
            auc, n = sk.roc_auc_score(y, s), y.sum() * (1 - y).sum()
            top, bottom = top + auc * n, bottom + n
            aucs.append(auc)
            ap += sk.average_precision_score(y, s) * y.sum()
            weight += y.sum()
    assert metric("auroc_within").function(label, score, gene) == pytest.approx(top / bottom)
    assert metric("auroc_per_gene").function(label, score, gene) == pytest.approx(np.mean(aucs))
    assert metric("ap_within").function(label, score, gene) == pytest.approx(ap / weight)
    want = sk.f1_score(label, score >= 0.2, average="macro")
    assert metric("macro_F1").function(label, score, gene, 0.2) == pytest.approx(want)


def test_the_interval_of_the_auroc_equals_scoring_drawn_perturbations_again():
    label, score, gene = pairs(3)
    row = np.random.default_rng(1).integers(12, size=len(label))
    rng, values = np.random.default_rng(5), []
    for _ in range(40):
        drawn = [np.flatnonzero(row == r) for r in rng.integers(12, size=12)]
        i = np.concatenate(drawn)
        values.append(metric("auroc_per_gene").function(label[i], score[i], gene[i]))
    found = auroc_interval(label, score, gene, row, n_draws=40, seed=5)
    np.testing.assert_allclose(found, np.quantile(values, [0.025, 0.975]), rtol=1e-12)


def test_equal_scores_are_ties_however_they_were_added_up():
    """Sums of the same numbers in another order differ in the last digit, which decided places."""
    one, other = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert one > other
    label, score = np.tile([1, 1, 0, 0], 5), np.tile([one, one, other, other], 5)
    gene = np.repeat(np.arange(5), 4)
    for name in ("auroc_within", "auroc_per_gene", "ap_within"):
        assert metric(name).function(label, score, gene) == 0.5
    truth = Labels.from_dense(label.reshape(5, 4).T, np.ones((4, 5), bool))
    assert not np.diff(task_of("deg_pairs").kept(truth, score.reshape(5, 4).T)["order"]).any()


def test_a_metric_that_is_not_there_and_shapes_that_do_not_fit_are_named():
    label, p = cases()
    for call, error, message in (
        (lambda: metric("l2"), ParameterError, "L2"),
        (lambda: deg_metrics(label, p[:2], NAMES), InputError, r"\(3, perturbations, genes\)"),
        (lambda: deg_metrics(label[:0], p[:, :0], NAMES), InputError, "no test perturbations"),
    ):
        pytest.raises(error, call).match(message)


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
        "f1_score": sk.f1_score(y, called, **kw),
        "precision": sk.precision_score(y, called, **kw),
        "recall": sk.recall_score(y, called, **kw),
    }
    auc = [
        sk.roc_auc_score(y == c, s[c + 1]) if 0 < (y == c).sum() < len(y) else 0.0
        for c in (-1, 0, 1)
    ]
    ap = [sk.average_precision_score(y == c, s[c + 1]) for c in present]
    if present == [-1]:
        ap = [1.0, 0.0, 0.0]
    return out | {"roc_auc": np.mean(auc), "average_precision": np.mean(ap)}


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.integers(1, 25), st.sampled_from([None, 1, 3]))
def test_every_metric_equals_scikit_learn_gene_by_gene(seed, m, levels):
    label, p = cases(max(m, 4), 7, seed, levels)
    label, p = label[:m], p[:, :m]
    got = called_per_gene(label, p) | ranked_per_gene(label, p)
    for gene in range(7):
        for name, value in by_hand(label, p, gene).items():
            assert got[name][gene] == pytest.approx(value, abs=1e-6), (name, gene)


def test_absent_classes_are_treated_as_torchmetrics_treats_them():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    for levels in (None, 3):
        label, p = cases(levels=levels)
        got, how = ranked_per_gene(label, p), dict(num_classes=3, average="macro")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for gene in range(label.shape[1]):
                classes = torch.tensor(label[:, gene] + 1).long()
                given = torch.tensor(p[:, :, gene].T.copy()), classes
                auc = torchmetrics.multiclass_auroc(*given, **how).item()
                ap = torchmetrics.multiclass_average_precision(*given, **how).item()
                assert got["roc_auc"][gene] == pytest.approx(auc, abs=1e-5), gene
                assert got["average_precision"][gene] == pytest.approx(ap, abs=1e-5), gene


def test_registered_metrics_are_the_means_over_genes_and_equal_probabilities_the_first_class():
    label, p = cases()
    together = deg_metrics(label, p, NAMES)
    assert set(metrics_of("deg")) == set(NAMES)
    assert {name: metric(name).function(label, p) for name in NAMES} == together
    assert all((v == 1).all() for v in called_per_gene(label, one_hot(label)).values())
    even, down = np.full_like(p, 1 / 3), one_hot(np.full_like(label, -1))
    scores = [called_per_gene(label, x)["f1_score"] for x in (even, down)]
    np.testing.assert_array_equal(*scores)


def test_responses_at_the_same_distance_share_their_rank():
    truth = np.array([[0.0, 0], [3, 4], [3, 4], [10, 0], [0, 5]])
    score = metric("discrimination").function
    np.testing.assert_allclose(score(truth, truth), [1, 0.875, 0.875, 1, 1])
    nothing = np.zeros_like(truth)  # the lengths decide: 0, then three of length 5, then 10
    np.testing.assert_allclose(score(truth, nothing), [1, 0.5, 0.5, 0, 0.5])


# dynamic range fraction and bound discrimination score on a screen


def test_a_duplicate_lies_between_the_train_mean_and_perfect_as_scperteval_places_it():
    positive, negative = np.array([1.0, 3.0, 5.0, 0.0]), np.array([4.0, 3.0, 2.0, 0.0])
    drf = dynamic_range_fraction(positive, negative, metric("L2"))
    np.testing.assert_allclose(drf, [0.75, 0.0, -1.0, np.nan])
    scperteval = pytest.importorskip("scperteval.calibrators")
    asked = SimpleNamespace(perfect=0.0, better="lower")
    theirs = [
        scperteval._drf_per_pert({"positive": p, "negative": n}, asked)
        for p, n in zip(positive[:3], negative[:3], strict=True)
    ]
    np.testing.assert_allclose(drf[:3], theirs, atol=1e-5)


def test_metrics_tell_nothing_where_perturbations_do_nothing():
    sizes = dict(n_cell_lines=1, n_perturbations=40, n_genes=60, n_batches=2, n_control_cells=200)
    every = metrics_of("lfc")
    strong = calibrate_metrics(simulate_screen(**sizes, seed=0).screen, every).set_index("metric")
    assert (strong["bds"] > 0.6).all() and (strong["n_perturbations"] == 40).all()
    screen = simulate_screen(**sizes, seed=0).screen
    other = ~screen.obs["is_control"].to_numpy()
    names = screen.obs["perturbation"].astype(str).to_numpy()
    names[other] = np.random.default_rng(0).permutation(names[other])
    screen.obs["perturbation"] = names
    none = calibrate_metrics(screen, every).set_index("metric")
    assert (none.loc[["L2", "MSE", "MAE", "Pearson"], "drf"] < 0).all()
    assert abs(none.loc["discrimination", "drf"]) < 0.1 and none.loc["L2", "bds"] < 0.1


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_order_within_rows_is_that_of_scipy_and_of_a_stable_sort(kind):
    values = np.random.default_rng(0).normal(size=(7, 500)).astype(kind)
    values[1], values[2], values[3, ::2] = np.round(values[1], 1), -0.0, 0.0
    values[4] *= 10.0 ** np.linspace(-30, 30, 500)
    assert np.array_equal(row_ranks(values), stats.rankdata(values, axis=1) - 1)
    assert np.array_equal(row_ranks(values.T), stats.rankdata(values.T, axis=1) - 1)
    for n in (1, 20, 500):
        assert np.array_equal(least(values, n), np.argsort(values, axis=1, kind="stable")[:, :n])


@pytest.mark.parametrize("n", [1, 4], ids=["one point", "row by row"])
def test_distances_of_samples_to_points_are_those_of_scipy(n):
    rng = np.random.default_rng(1)
    samples, points = rng.normal(size=(4, 60)).round(1), rng.normal(size=(n, 60)).round(1)
    found = distances(samples, points)
    pairs = [(s, points[i % n]) for i, s in enumerate(samples)]
    assert found["L2"] == pytest.approx([np.linalg.norm(s - p) for s, p in pairs])
    for name, function in {"Spearman": stats.spearmanr, "Pearson": stats.pearsonr}.items():
        assert found[name] == pytest.approx([function(s, p)[0] for s, p in pairs])
