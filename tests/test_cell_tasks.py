"""Six tasks on embeddings of cells: planted cases, brute force, leaks, and what the page draws."""

from itertools import product
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.neighbors import KNeighborsClassifier
from worlds import cells_of

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.published.tables import facts
from perturbcore.data.sets.base import load
from perturbcore.embeddings import cells as emb
from perturbcore.embeddings.vae import autoencode_counts, log_likelihood, scvi_means
from perturbcore.report import cell_tasks as page
from perturbcore.report import trained_cells as trained
from perturbcore.report.figures import place_maps
from perturbcore.score import cell_tasks as sc
from perturbcore.score.metrics import cell_tasks as m
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.store import ScoreStore


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def cells():
    """Counts in which each of 12 perturbations raises two of 30 genes; batches shift all genes."""
    rng, n = np.random.default_rng(0), 600
    target, batch = rng.integers(-3, 12, n), rng.integers(0, 4, n)  # below zero: controls
    rate = 2 + rng.normal(0, 0.3, 30) + rng.normal(0, 0.2, (4, 30))[batch]
    for k in range(2):
        raised = np.where(target < 0, 0, 2 * target + k)
        rate[np.arange(n), raised] += 1.5 * (target >= 0)
    who, batch = np.where(target < 0, "ctrl", [f"g{t}" for t in target]), [f"b{b}" for b in batch]
    screen = cells_of(rng.poisson(np.exp(rate)), who, batch=batch)
    screen.X, screen.obsm["X_mine"] = screen.X.toarray(), rng.normal(size=(n, 4))
    return emb.cells_of(screen, 500, 0)


def test_lisi_is_that_of_an_independent_solver(rng):
    X, batch = rng.normal(size=(300, 3)), rng.integers(0, 3, 300)
    far = np.sort(cdist(X, X), axis=1)[:, 1:249]
    near = np.argsort(cdist(X, X), axis=1)[:, 1:249]
    expected = []
    for d, b in zip(far, batch[near], strict=True):

        def entropy(log_beta, d=d):
            p = np.exp(-np.exp(log_beta) * (d - d[0]))
            p /= p.sum()
            return -(p * np.log(np.maximum(p, 1e-300))).sum() - np.log(83)

        p = np.exp(-np.exp(brentq(entropy, -10, 10)) * (d - d[0]))
        p /= p.sum()
        expected.append(1 / sum(p[b == c].sum() ** 2 for c in range(3)))
    np.testing.assert_allclose(m.lisi(X, batch)[0], expected, rtol=1e-3)


def test_batch_mixing_of_separate_shuffled_and_coincident_cells(rng):
    batch, label = np.repeat([0, 1], 400), rng.choice(list("abcd"), 800)
    apart = rng.normal(size=(800, 2)) + 100 * batch[:, None]
    np.testing.assert_allclose(m.lisi(apart, batch)[0], 1, rtol=1e-6)
    assert m.batch_mixing(apart, batch, label).between(0.49, 0.52).all()
    mixed = m.batch_mixing(rng.normal(size=(800, 2)), batch, label)
    assert mixed.index.tolist() == list("abcd") and abs(mixed.mean() - 1) < 0.02
    assert np.isfinite(m.lisi(np.zeros((50, 2)), batch[::16])[0]).all()  # all cells on one point
    assert m.batch_mixing(apart, 0 * batch, label, published=True).empty


def test_similarity_within_is_the_mean_cosine_of_pairs(rng):
    X, label = rng.normal(size=(40, 5)), np.repeat(["a", "b", "c", "d"], [20, 17, 2, 1])
    found = m.similarity_within(X, label)
    assert found.index.tolist() == ["a", "b", "c"]  # one cell has no pair
    for name, value in found.items():
        cosine = 1 - cdist(X[label == name], X[label == name], "cosine")
        assert value == pytest.approx(cosine[np.triu_indices(len(cosine), 1)].mean())


def test_consistency_finds_what_is_planted_and_not_what_a_batch_shares(rng):
    label, batch = np.repeat([f"p{i:02}" for i in range(40)], 20), np.tile(np.arange(4), 200)
    noise = rng.normal(size=(800, 10))
    assert m.consistency(noise, label, batch).mean() < 0.2
    planted = noise.copy()
    for k in range(5):
        planted[label == f"p{k:02}", k] += 4
    found = m.consistency(planted, label, batch)
    assert (found.iloc[:5] == 1).all() and found.iloc[5:].mean() < 0.2
    # perturbations that are each in one batch, and alike only by it: nothing of their own
    place = np.repeat(np.arange(4), 200)
    assert m.consistency(noise + 5 * np.eye(10)[place], label, place).mean() < 0.2


def test_published_consistency_needs_unexpressed_perturbations(rng):
    label = np.repeat([f"g{i}" for i in range(40)], 10)
    X = rng.normal(size=(400, 5)) + 8 * (label == "g39")[:, None]
    low = pd.Series(0.0, [f"g{i}" for i in range(30)])
    options = dict(published=True, batch=np.zeros(400))
    score = m.consistency(X, label, expression=low, **options)
    assert 0.1 <= score[m.ALL] <= 0.3  # one of ten beyond doubt, and chance
    assert m.consistency(X, label, expression=low[:10], **options).empty


def test_published_neighbours_measure_the_share_of_controls(rng):
    X = rng.normal(size=(900, 4))
    y = np.where(rng.random(900) < 0.4, "", rng.choice(list("abcdefgh"), 900))
    known, new = slice(0, 600), slice(600, None)
    told = m.retrieval(X[known], y[known], X[new], y[new], published=True)["knn_top1"]
    assert told[m.ALL] == pytest.approx((y[new] == "").mean())  # the majority everywhere
    treated = y != ""
    args = [a[:600][treated[:600]] for a in (X, y)] + [a[600:][treated[600:]] for a in (X, y)]
    honest = m.retrieval(*args)["knn_top1"]
    assert "" not in honest.index and honest.mean() < 0.25


@pytest.mark.parametrize("published", [False, True])
def test_probe_and_neighbours_tell_planted_classes_apart(rng, published):
    y = rng.choice(list("abcdefg"), 700)
    X = 6 * np.eye(7)[np.unique(y, return_inverse=True)[1]] + rng.normal(size=(700, 7))
    parts = X[:500], y[:500], X[500:], y[500:]
    for found in (m.linear_probe(*parts, published=published), m.retrieval(*parts)):
        top1, top5 = ([v.mean() for k, v in found.items() if e in k][0] for e in ("top1", "top5"))
        # as published, the linear layer has hardly left its start after so few steps
        assert top1 > (0.2 if published else 0.95) and top5 >= top1
    alone = np.full(700, "a")
    assert m.linear_probe(X, alone, X, y) == {} == m.retrieval(X, alone, X, y)


def test_recall_of_planted_pairs_and_of_chance(rng):
    names = np.array([f"g{i:02}" for i in range(60)])
    X = rng.normal(size=(60, 20))
    X[1:30:2] = X[0:30:2]
    pairs = pd.DataFrame({"source": names[1:30:2], "target": names[0:30:2]})
    turned = pairs.rename(columns={"source": "target", "target": "source"})
    odd = pd.DataFrame({"source": ["g00", "g01"], "target": ["g00", "other"]})
    untidy = pd.concat([pairs, turned, odd])
    assert len(m.pairs_among(untidy, names)) == 15
    found = m.relation_recall(X, names, untidy)
    assert (found == 1).all() and len(found) == 30
    assert m.relation_recall(X, names, untidy, published=True)[m.ALL] == 1
    i, j = np.triu_indices(60, 1)
    every = pd.DataFrame({"source": names[i], "target": names[j]})
    chance = m.relation_recall(rng.normal(size=(60, 20)), names, every, published=True)
    assert chance[m.ALL] == pytest.approx(0.1, abs=0.003)  # both tails of 5 %
    assert m.relation_recall(X, names, pairs[:9]).empty
    assert set(m.relation_recall(X, names, pairs, among=names[:24]).index) == set(names[:24])


def test_structural_integrity_is_half_without_effect_and_one_if_perfect(rng):
    T = rng.normal(size=(90, 6))
    batch, label = np.repeat([0, 1, 2], 30), np.tile(["", "a", "b"], 30)
    about = (batch, label, label == "")
    same = np.stack([T[(batch == b) & (label == "")].mean(axis=0) for b in range(3)])[batch]
    for published, (said, value) in product((False, True), ((T, 1), (0 * T, 0.5))):
        found = m.structural_integrity(T, said, *about, published=published)
        assert found.to_numpy() == pytest.approx(value)
    assert (m.structural_integrity(T, 4 * same - 4 * T, *about) < 0).all()
    # a batch without controls: its level is scored as published, and left out here
    lone = (label == "") & (batch < 2)
    bare = np.where((batch == 2) & (label == ""), "a", label)
    said = same + 100 * (batch == 2)[:, None]
    assert m.structural_integrity(T, said, batch, bare, lone).to_numpy() == pytest.approx(0.5)
    assert m.structural_integrity(T, said, batch, bare, lone, published=True)[m.ALL] < 0


def test_decoding_and_gene_correlation(rng):
    X = rng.normal(size=(400, 5))
    Y = X @ rng.normal(size=(5, 12)) + 0.1 * rng.normal(size=(400, 12))
    Y[:, 3] = 1.0
    said = m.decoded(X[:300], Y[:300], X[300:])
    found = m.gene_correlation(Y[300:], said, range(12))
    assert found.min() > 0.9 and 3 not in found.index
    assert found[0] == pytest.approx(spearmanr(Y[300:, 0], said[:, 0])[0])
    assert m.gene_correlation(Y[300:], said, range(12), published=True)[m.ALL] == pytest.approx(
        found.sum() / 12
    )
    assert m.decoded(X[:300], Y[:300], X[300:], decoder="mlp").shape == said.shape
    pytest.raises(ParameterError, m.decoded, X, Y, X, decoder="tree").match("ridge, mlp")


def test_post_processing_aligns_the_controls_of_each_batch(rng):
    X = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3))
    place, control = np.repeat(["u", "v"], 200), np.tile([True, False], 200)
    X[place == "v"] = 3 * X[place == "v"] + 7
    np.testing.assert_array_equal(emb.post_process(X, place, control, "raw"), X)
    for how, spread in (("centred", None), ("scaled", 1.0)):
        Z = emb.post_process(X, place, control, how)
        for b in ("u", "v"):
            own = Z[(place == b) & control]
            np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-12)
            if spread:
                np.testing.assert_allclose(own.std(axis=0), spread)
    one = emb.post_process(X, np.full(400, "u"), control, "TVN")  # whitened, then (1 + 0.5)^(-1/2)
    # np.cov divides by n - 1, the scaling by n
    np.testing.assert_allclose(
        np.cov(one[control].T), np.eye(3) * (200 / 199) / (200 / 199 + 0.5), atol=1e-9
    )
    bare = control & (place == "u")
    Z = emb.post_process(X, place, bare, "centred")
    np.testing.assert_allclose(Z[place == "v"], X[place == "v"] - X[bare].mean(axis=0))
    with pytest.raises(ParameterError, match="raw, centred, scaled, TVN"):
        emb.post_process(X, place, control, "combat")


def test_embeddings_learn_from_training_cells_only(cells):
    train = np.arange(cells.n_obs) < 300
    other = cells.copy()
    other.X[~train] *= 0.5
    other.layers["counts"][~train] = 1
    other.obs["label"] = np.random.default_rng(1).permutation(other.obs["label"])
    for name in ("PCA of counts", "PCA of logs", "Random projection"):
        a, b = (emb.cell_embedding(name, c, train, dim=5) for c in (cells, other))
        np.testing.assert_allclose(a[train], b[train], atol=1e-4)
        assert a.shape == (cells.n_obs, 5) and not np.allclose(a[~train], b[~train])
    mine = emb.cell_embedding("obsm X_mine", cells, train)
    assert mine.shape == (cells.n_obs, 4)  # kept by declare_screen and cells_of
    moved = emb.cell_embedding("Transfer PCA", cells, train, dim=3, other=other)
    assert moved.shape == (cells.n_obs, 3)
    assert emb.cell_embedding("Cell transformer", cells, train, dim=8).shape == (cells.n_obs, 8)
    shuffled, own = (
        emb.cell_embedding(n, cells, train, dim=5) for n in ("shuffled", "PCA of logs")
    )
    np.testing.assert_allclose(np.sort(shuffled[:, 0]), np.sort(own[:, 0]))


def test_likelihoods_of_counts_are_those_of_scipy(rng):
    x, mean, size = rng.integers(0, 9, 50), rng.uniform(0.1, 8, 50), rng.uniform(0.2, 5, 50)
    odds = rng.normal(size=50)
    nb = stats.nbinom(size, size / (size + mean)).pmf(x)
    absent = 1 / (1 + np.exp(-odds))
    want = {"Poisson": stats.poisson(mean).pmf(x), "NB": nb}
    want["ZINB"] = absent * (x == 0) + (1 - absent) * nb
    for kind in emb.LIKELIHOODS:
        found = log_likelihood(*(torch.tensor(v) for v in (x, mean)), kind,
                               *(torch.tensor(v) for v in (odds, size)))  # fmt: skip
        np.testing.assert_allclose(found, np.log(want[kind]), rtol=1e-5)


@pytest.mark.parametrize(
    "fitted, kinds", [(autoencode_counts, emb.LIKELIHOODS), (scvi_means, ["NB"])]
)
def test_an_autoencoder_of_counts_finds_planted_groups_on_new_batches(rng, fitted, kinds):
    group, place = rng.integers(0, 3, 600), rng.choice(["u", "v", "w"], 600)
    rate = np.exp(rng.normal(1, 0.5, (3, 40)))[group] * np.where(place == "v", 2.0, 1.0)[:, None]
    X, train = rng.poisson(rate).astype(np.float32), place != "w"
    how = dict(place=place, train=train, dim=4, seed=1, steps=120)
    torch.set_num_threads(1)  # sums of more threads are rounded in another order
    found = {kind: fitted(X, likelihood=kind, **how) for kind in kinds}
    for Z in found.values():
        probe = KNeighborsClassifier(9).fit(Z[train], group[train])
        assert Z.shape == (600, 4) and probe.score(Z[~train], group[~train]) > 0.95
    # in threads side by side as alone, and nothing of other cells is learnt
    hidden = X.copy()
    hidden[~train] = 1
    jobs = [joblib.delayed(fitted)(Y, likelihood="NB", **how) for Y in (X, hidden)]
    for Z in joblib.Parallel(2, prefer="threads")(jobs):
        np.testing.assert_allclose(Z[train], found["NB"][train], atol=1e-5)


def test_a_share_of_the_training_cells_is_within_a_larger_one():
    train = np.arange(200) % 2 == 0
    few, more = (emb.learnt_from(f"PCA of logs, {n} % of cells", train, 3)[1] for n in (10, 40))
    assert few.sum() == 10 and more.sum() == 40 and (few <= more).all() and (more <= train).all()
    assert emb.learnt_from("PCA of logs", train, 3) == ("PCA of logs", pytest.approx(train))


@pytest.mark.parametrize(
    "name, error, said",
    [
        ("UMAP", ParameterError, "PCA of counts, PCA of logs"),
        ("PCA of counts", InputError, "log values only"),
        ("Transfer PCA", InputError, "transfer_from"),
        ("Transfer PCA", InputError, "only 1 genes"),
        ("obsm X_none", InputError, "it has: X_mine"),
        ("obsm X_mine", InputError, "holds NaN"),
        ("VAE NB", InputError, "log values only"),
        ("VAE Gauss on logs", ParameterError, "ZINB, NB, Poisson"),
    ],
)
def test_what_an_embedding_of_cells_lacks_is_said(cells, name, error, said):
    bare = AnnData(
        cells.X, obs=cells.obs, var=cells.var, obsm={"X_mine": np.full((cells.n_obs, 2), np.nan)}
    )
    bare.uns = cells.uns
    with pytest.raises(error, match=said):
        other = AnnData(np.ones((9, 2), np.float32), var=pd.DataFrame(index=["g1", "x"]))
        other = other if said == "only 1 genes" else None
        emb.cell_embedding(name, bare, np.ones(cells.n_obs, bool), other=other)


def test_splits_keep_batches_and_perturbations_apart(cells):
    obs = cells.obs
    s = sc.split_cells(obs, 3)
    place, label = obs["place"].to_numpy(str), obs["label"].to_numpy(str)
    assert not set(place[s.train]) & (set(place[s.test]) | set(place[s.held_out]))
    assert set(label[s.test]) <= set(label[s.train])
    assert set(label[s.train]) & set(label[s.held_out]) == {""}
    assert abs(s.half[label == ""].mean() - 0.5) < 0.2
    assert len(set(label[s.half])) == 1 + 6 and not set(label[s.half]) & set(label[~s.half]) - {""}
    one = obs.assign(label=np.where(label == "", "", "drug"))
    split = sc.split_cells(one, 0)
    assert (split.held_out == ~np.isin(place, place[split.train])).all()
    pytest.raises(InputError, sc.split_cells, obs[place == "b0"], 0).match("batch 'b0'.*needs two")


@pytest.fixture(scope="module")
def run(cells):
    names = cells.obs["label"].unique()
    pairs = pd.DataFrame({"source": ["g0"] * 11, "target": sorted(set(names) - {"", "g0"})})
    tasks = sc.CellTasks(cells, {"network": pairs})
    store = ScoreStore()
    options = dict(store=store, scope="s", dataset="toy", seeds=[0, 1], dim=6)
    names = ["PCA of logs", "Random projection", "Transfer PCA", "shuffled", "idealized"]
    keys, left_out = sc.score_tasks(tasks, names, **options)
    found = dict(tasks=tasks, store=store, keys=keys, left_out=left_out)
    return SimpleNamespace(**found, options=options, names=names)


def test_units_are_kept_and_found_again(run, monkeypatch):
    scores = run.store.scores(run.keys)
    assert set(scores["task"]) == {"cell_tasks", "cell_tasks_published"}
    corrected = scores[scores["task"] == "cell_tasks"]
    per = corrected.drop_duplicates("key").groupby("embedding").size()
    many, few = ["PCA of logs", "Random projection"], ["idealized", "shuffled"]
    assert per.to_dict() == dict.fromkeys(many, 8) | dict.fromkeys(few, 2)
    assert set(corrected["metric"]) <= set(metrics_of("cell_tasks"))
    detail = run.store.per_perturbation(run.keys, "knn_top1").groupby("key")["value"].mean()
    told = corrected[corrected["metric"] == "knn_top1"].set_index("key")["value"]
    np.testing.assert_allclose(detail[told.index], told, atol=1e-6)
    assert "transfer_from" in run.left_out["Transfer PCA"]
    monkeypatch.setattr(sc, "_units", lambda *_: pytest.fail("computed again"))
    again, _ = sc.score_tasks(run.tasks, run.names, **run.options)
    assert sorted(again) == sorted(run.keys)


def test_no_test_label_moves_what_post_processing_is_chosen_by(cells):
    split = sc.split_cells(cells.obs, 0)
    hidden = cells.copy()
    label = hidden.obs["label"].to_numpy(dtype=object)
    # the labels of all that is neither training cell nor of the half to choose by
    rows = np.flatnonzero(~split.train & ~split.half & (label != ""))
    label[rows] = np.roll(label[rows], 1)
    hidden.obs["label"] = label.astype(str)
    X = emb.cell_embedding("PCA of logs", cells, split.train, dim=6)
    found = []
    for these in (cells, hidden):
        tasks = sc.CellTasks(these, {})
        found.append(tasks.score(X, tasks.validation(split, 1), split.half, 1))
    for name in ("linear_top1", "knn_top1", "spearman", "structural_integrity", "ilisi_norm"):
        pd.testing.assert_series_equal(found[0][name], found[1][name])


@pytest.fixture(scope="module")
def study(study_of):
    made = study_of("representation_tasks", "")
    sizes = dict(n_cell_lines=1, n_perturbations=24, n_genes=80, n_batches=4, n_control_cells=150)
    made._datasets["toy"] = load(
        "simulated", **sizes, cells_per_perturbation=(12, 20), n_modules=4, effect_size=0.9, seed=1
    )
    return made


def test_the_page_draws_places_intervals_and_sentences(study):
    options = dict(transfer_from={}, splits=2, max_cells=500, dim=8, n_boot=400)
    found = page.run_cells(
        study, "toy", embeddings=["PCA of counts", "Transfer PCA", "Random projection"], **options
    )
    assert found.rivals == ["PCA of counts", "PCA of logs", "Random projection"]
    table = found.table.set_index(["metric", "embedding"])
    assert table.loc[("knn_top1", "idealized"), "value"] > 0.99
    assert table.loc[("structural_integrity", "shuffled"), "value"] == pytest.approx(0.5, abs=0.01)
    assert (found.table["low"].fillna(-9) <= found.table["value"] + 1e-9).all()
    places = found.wide("place")
    assert places[found.rivals].min(axis=1).eq(1).all() and places[
        ["shuffled", "idealized"]
    ].isna().all(axis=None)
    # an interval of the difference, by hand: a paired bootstrap over perturbations
    row = found.against.set_index(["metric", "method"]).loc[("knn_top5", "Random projection")]
    wide, count = found.sums("knn_top5")
    each = wide["PCA of logs"] - wide["Random projection"]
    assert row["gain"] == pytest.approx(each.sum() / count.sum())
    assert row["low"] <= row["gain"] <= row["high"]
    said = page.one_line([found])
    assert (
        f"{len(found.rows)} rows of 1 data set" in said
        and "24 perturbations, 4 batches" in page.carries(found)
    )
    assert "transfer_from" in page.carries(found)
    assert "read from 0.5" in page.variants_said(
        found
    ) and "percentage points" in page.optimism_said([found])
    assert page.answer(found).count("PCA of logs against") == 2
    assert place_maps({"ours": (found.wide(), places)}).axes


def test_the_page_says_what_likelihood_and_number_of_cells_do(study):
    names = ["VAE NB", "VAE Poisson", "VAE NB on logs"]
    options = dict(splits=2, max_cells=500, dim=6, n_boot=400)
    run, gains = trained.run_trained(study, "toy", names, [5], **options)
    n = len(run.rows)
    assert set(run.scores["predictor"]) == {"centred", "raw"} and set(run.rows) <= set(
        trained.ASKED
    )
    assert gains["what"].value_counts().to_dict() == {
        "likelihood": n, "logs": n, "floor": 3 * n, "cells": 2 * n
    }  # fmt: skip
    # an interval by hand: the same draws for both
    row = gains[gains["what"] == "cells"].iloc[0]
    value, drawn, _ = run.draws[row["metric"]]
    apart = drawn[row["embedding"]] - drawn[row["method"]]
    assert row["gain"] == pytest.approx(value[row["embedding"]] - value[row["method"]])
    assert row["low"] == pytest.approx(apart.quantile(0.025))
    cells = trained.by_cells(run).set_index("embedding")["cells"]
    few, every = cells["VAE NB, 5 % of cells"].iloc[0], cells["VAE NB"].iloc[0]
    assert few == pytest.approx(every / 20, abs=1)
    said = trained.likelihoods_said(run, gains)
    assert f"Of {n} comparisons" in said and f"of {3 * n} pairs of model and task" in said
    floor = gains[gains["what"] == "floor"]
    assert f"beyond doubt: {(floor['verdict'] == 'better').sum()} of" in said
    assert f"{every} training cells instead of {few}" in trained.amount_said(run, gains)
    assert trained.likelihood_figure(run, names).axes
    assert len(trained.amount_figure(run).axes) >= n
    table = trained.published_recall(run, "VAE NB").set_index("Task")
    assert table.loc[metric("CORUM").label, "scVI as printed, Replogle2022"] == 0.501


def test_published_places_are_those_of_table_2():
    values, place = page.published_table("Replogle2022")
    printed = facts("bendidi2024_table2").query("dataset == 'Replogle2022' and metric == 'CORUM'")
    assert (
        values.loc[metric("CORUM").label].to_dict() == printed.set_index("model")["value"].to_dict()
    )
    assert place.loc[metric("CORUM").label, "scVI"] == 1 and place["Rand. Labels"].isna().all()
    assert len(values) == 13
