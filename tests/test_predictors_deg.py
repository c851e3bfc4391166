import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from worlds import world

from perturbcore.data.responses import make_responses
from perturbcore.models.simple import evaluate_embeddings as evaluate
from perturbcore.models.simple.base import Targets
from perturbcore.models.simple.deg import DEGKNN, DEGLogistic, Softmax
from perturbcore.models.simple.labels import LabelLogistic, fit_genes
from perturbcore.models.simple.space import NestedSpace, Protocol
from perturbcore.score.labels import Labels
from perturbcore.score.task import task_of

SMALL = Protocol(n_components=6)
TIGHT = dict(max_iter=1000, tolerance=1e-10)
QUIET = dict(protocol=SMALL, progress=False)


def labels(n=90, g=24, **options):
    """Labels that follow a latent vector, its embedding with gaps, and a useless one."""

    def deg(X):
        Y = np.where(X > 1.8, 1, np.where(X < -0.8, -1, 0))
        Y[:, 0] = 0  # never changes
        Y[:, 1] = np.minimum(Y[:, 1], 0)  # never goes up
        Y[:, 2] = -(X[:, 2] < 2).astype(int)  # mostly goes down
        return Y

    return world(n, g, 8, **{"lines": ("A",), "gaps": 9, "deg": deg} | options)


def written_out(X, y, C, start, max_iter, dtype):
    """Fit the published classifier as torch users would: a linear layer, autograd, own weights."""
    n, g = y.shape
    layer = torch.nn.Linear(X.shape[1], 3 * g, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(start[:, :-1]).permute(2, 0, 1).reshape(3 * g, -1))
        layer.bias.copy_(torch.tensor(start[:, -1]).T.reshape(-1))
    weight = np.zeros((g, 3))
    for gene in range(g):
        for c in range(3):
            count = (y[:, gene] == c).sum()
            weight[gene, c] = n / (3 * count) if count else 0
    weight, X = (torch.tensor(x, dtype=dtype) for x in (weight, X))
    y = torch.tensor(y).long()
    optimiser = torch.optim.LBFGS(
        layer.parameters(), lr=1, max_iter=max_iter, line_search_fn="strong_wolfe"
    )

    def loss():
        optimiser.zero_grad()
        logits = layer(X).view(n, g, 3)
        each = [
            torch.nn.functional.cross_entropy(logits[:, i], y[:, i], weight=weight[i])
            for i in range(g)
        ]
        value = torch.stack(each).mean() + (layer.weight**2).sum() / C
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        return layer(X).view(n, g, 3).softmax(-1).permute(2, 0, 1).numpy()


def problem(n=60, d=5, g=7, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    score = np.einsum("nd,dcg->ncg", X, rng.normal(size=(d, 3, g))) + 3 * rng.gumbel(size=(n, 3, g))
    return X, score.argmax(axis=1).astype(np.int8)


@pytest.mark.parametrize("C", [1.0, 1e3, 1e7])
def test_the_classifier_is_the_published_one_step_for_step(C):
    X, y = problem()
    y[:, 0] = 1  # one class
    y[:, 1] = np.minimum(y[:, 1], 1)  # two classes
    model, X = Softmax(max_iter=12, seed=3), X.astype(float)
    start = 2 * torch.rand((3, 6, 7), generator=torch.Generator().manual_seed(3)).numpy() - 1
    want = written_out(X, y, C, (start / np.sqrt(5)).astype(float), 12, torch.float64)
    got = model.probabilities(model.fit(X, y, C), X)
    np.testing.assert_allclose(got, want, atol=2e-5)
    np.testing.assert_allclose(got.sum(axis=0), 1, atol=1e-6)


def test_converged_it_does_not_depend_on_the_start_and_by_default_the_seed_decides():
    X, y = problem(n=150)
    a, b = (Softmax(seed=s, **TIGHT).fit(X.astype(float), y, 1e3).numpy() for s in (0, 1))
    np.testing.assert_allclose(a[:, :-1], b[:, :-1], atol=1e-4)
    one, same, other = (Softmax(seed=s, max_iter=3).fit(X, y, 1e7).numpy() for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("share", [0.15, 0.9])
def test_partial_labels_are_fitted_to_the_optimum_of_the_same_objective(share):
    rng = np.random.default_rng(0)
    X, y = problem(n=60, d=20, g=9)
    y = np.minimum(y, 1).astype(np.int8)
    observed = rng.random(y.shape) < share  # fewer labels than coordinates, or more
    observed[:, 0] &= y[:, 0] == 1  # one class
    known = Labels.from_dense(y, observed)
    grid = [1e3, 1.0]
    got = fit_genes(X, known, grid)
    both = np.array([len(set(y[observed[:, g], g])) == 2 for g in range(9)])
    assert not both[0] and both.sum() > 4
    assert (got[:, :, ~both] == 0).all() and (got[:, :, both] != 0).all()
    codes = np.where(observed, y, -1)
    model = Softmax(2, **TIGHT)
    for W, C in zip(got, grid, strict=True):
        want = model.probabilities(model.fit(X.astype(float), codes, C), X.astype(float))[1]
        logit = X.astype(np.float64) @ W[:-1] + W[-1]
        np.testing.assert_allclose(1 / (1 + np.exp(-logit[:, both])), want[:, both], atol=2e-4)


def test_blocks_of_genes_do_not_change_the_fit(monkeypatch):
    X, y = problem()
    model, X = Softmax(), X.astype(float)
    whole = model.fit(X, y, 1e3).numpy()
    monkeypatch.setattr("perturbcore.models.simple.deg._CPU_BLOCK", 3 * 60 * 2)
    np.testing.assert_allclose(model.fit(X, y, 1e3).numpy(), whole, atol=1e-6)


def test_baselines_are_scikit_learn_dummies_with_one_row_of_each_class_added():
    responses, _ = labels()
    train = np.asarray(responses.layers["deg"])[:70]
    padded = np.vstack([train, np.repeat([[-1], [0], [1]], train.shape[1], axis=1)])
    X = np.zeros((len(padded), 1))
    for ours, kind in (
        ("prior", dict(strategy="prior")),
        ("most_frequent", dict(strategy="most_frequent")),
        ("no_change", dict(strategy="constant", constant=np.zeros(train.shape[1], dtype=int))),
    ):
        theirs = DummyClassifier(**kind).fit(X, padded).predict_proba(X[:5])
        np.testing.assert_allclose(
            task_of("deg").floor(train, 5, ours),
            np.stack(theirs, axis=2).transpose(1, 0, 2),
            atol=1e-6,
        )


def test_neighbour_frequencies_and_their_balance_equal_a_loop():
    responses, (_, noise) = labels()
    Y = np.asarray(responses.layers["deg"])
    space = NestedSpace(noise.X[:70], noise.X[70:], 6, inner_shuffle=False)
    near = space.outer.neighbours(4)
    for balance in (0.0, 0.5, 1.0):
        got, chosen = DEGKNN([4], [balance], prior=2.0).predict(space, Targets(Y[:70]))
        assert chosen == f"4, balance {balance:g}"
        for i, gene in ((0, 0), (3, 5), (11, 20)):
            counts = np.array([(Y[:70, gene] == c).sum() + 1 for c in (-1, 0, 1)])
            rate = counts / counts.sum()
            around = [(Y[near[i], gene] == c).sum() for c in (-1, 0, 1)]
            want = (np.array(around) + 2 * rate) / rate**balance
            np.testing.assert_allclose(got[:, i, gene], want / want.sum(), rtol=1e-5)


def test_scores_equal_the_published_procedure_written_out():
    responses, (good, _) = labels(g=12)
    model = DEGLogistic([1.0, 1e3], softmax=dict(max_iter=150, tolerance=1e-8))
    scores = evaluate(responses, [good], [model], controls=["train_mean"], folds=[0], **QUIET)
    X = pd.DataFrame(good.X, index=good.ids)
    Y = pd.DataFrame(responses.layers["deg"], index=responses.obs["perturbation"]).sort_index()
    fold = responses.obs.set_index("perturbation")["fold"].loc[Y.index]

    def fit_predict(X_train, Y_train, X_test, C):
        reduce = make_pipeline(StandardScaler(), PCA(6))
        Z, Z_test = reduce.fit_transform(X_train), reduce.transform(X_test)
        theta = model.model.fit(Z, Y_train.astype(np.int8) + 1, C)
        return model.model.probabilities(theta, Z_test).argmax(axis=0) - 1

    def score(y, called):
        how = dict(average="macro", zero_division=0)
        genes = zip(y.T, called.T, strict=True)
        return np.mean([f1_score(a, b, labels=np.unique(a), **how) for a, b in genes])

    train, test = Y[fold != 0], Y[fold == 0]
    has = train.index.intersection(X.index, sort=True)
    A, B = X.loc[has].to_numpy(), train.loc[has].to_numpy()
    tuned = [
        np.mean([score(B[b], fit_predict(A[a], B[a], A[b], C)) for a, b in KFold(5).split(A)])
        for C in model.grid
    ]
    C = model.grid[int(np.argmax(tuned))]
    common = [np.bincount(train[g] + 1, minlength=3).argmax() - 1 for g in Y]
    called = pd.DataFrame(np.tile(common, (len(test), 1)), index=test.index)
    there = test.index.intersection(X.index)
    assert len(there) < len(test)
    called.loc[there] = fit_predict(A, B, X.loc[there].to_numpy(), C)
    got = scores[(scores["embedding"] == "good") & (scores["metric"] == "f1_score")].iloc[0]
    assert got["value"] == pytest.approx(score(test.to_numpy(), called.to_numpy()))
    assert got["chosen"] == f"{C:g}" and 0.85 < got["coverage"] < 0.95


def test_inner_folds_of_labels_are_in_order_and_can_be_shuffled():
    responses, (good, _) = labels()
    kw = dict(controls=[], metrics=["recall"], progress=False)
    plain, ordered, shuffled = (
        evaluate(responses, [good], ["knn"], protocol=Protocol(6, inner_shuffle=s), **kw)["chosen"]
        for s in (None, False, True)
    )
    assert list(plain) == list(ordered) != list(shuffled)


def test_partial_labels_get_a_classifier_that_reads_only_what_is_known():
    responses, embeddings = labels(n=150)
    # up or not: what a linear classifier can see of a latent effect, up or down it could not
    deg = np.maximum(responses.layers["deg"], 0)
    observed = np.random.default_rng(2).random(deg.shape) < 0.5
    obs, found = responses.obs[["perturbation", "cell_line", "fold"]], []
    kw = dict(controls=["train_mean"], metrics=["auroc_within"], folds=[0, 1, 2], **QUIET)
    for label in (deg, np.where(observed, deg, 1)):
        pairs = make_responses(
            label, obs, responses.var_names, dataset="toy", task="deg_pairs", observed=observed
        )
        found.append(evaluate(pairs, embeddings, [LabelLogistic([1.0, 10.0, 1e3]), "knn"], **kw))
    auc = found[0].groupby(["embedding", "predictor"])["value"].mean()
    assert auc["good", "logistic"] > 0.6 and abs(auc["noise", "logistic"] - 0.5) < 0.1
    np.testing.assert_array_equal(found[0]["value"], found[1]["value"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_scores(monkeypatch):
    responses, (good, _) = labels(n=300, g=100)
    found = []
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        scores = evaluate(responses, [good], [DEGLogistic()], controls=[], **QUIET)
        found.append(scores.loc[scores["metric"].isin(["f1_score", "roc_auc"]), "value"].mean())
    assert found[0] == pytest.approx(found[1], abs=1e-3)
