from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student_t
from scipy.stats import ttest_ind
from statsmodels.stats.multitest import multipletests
from worlds import cells_of, logged

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.deg import call_genes, deg_labels, majority
from perturbcore.data.folds import add_folds
from perturbcore.data.screens import values
from perturbcore.data.screens.declare import read_screen
from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.score.ceiling.deg import LabelSampler, Source, deg_ceiling
from perturbcore.score.ceiling.label_floor import label_noise_floor
from perturbcore.score.ceiling.sampler import (
    child,
    control_stream,
    drawn_cells,
    perturbation_stream,
)
from perturbcore.score.limits import ceiling_scores
from perturbcore.score.metrics.deg import deg_metrics, one_hot

QUIET = dict(progress=False)
HOW = dict(test="welch", alpha=0.05, min_cells=10, strict=True)


def screen(n=1500, g=60, k=5, batches=3, seed=0, effect=2.5):
    """Two lines, effects on a tenth of the genes, a gene never seen."""
    rng = np.random.default_rng(seed)
    level = rng.lognormal(0, 0.8, g)
    level[0] = 0
    pert = np.where(rng.random(n) < 0.3, k, rng.integers(0, k, n))
    fold = np.where(rng.random((k, g)) < 0.1, effect, 1.0) ** rng.choice([-1, 1], (k, g))
    fold = np.vstack([fold, np.ones(g)])
    library = rng.lognormal(0, 0.3, (n, 1))
    X = rng.poisson(library * level * fold[pert]).astype(np.float32)
    X[:, 1] += X.sum(axis=1) == 0
    names = np.array([f"P{i}" for i in range(k)] + ["ctrl"])
    batch = rng.integers(0, batches, n).astype(str)
    return cells_of(X, names[pert], batch=batch, cell_line=np.where(rng.random(n) < 0.5, "A", "B"))


def compared(a, b, test="welch"):
    """Adjusted p-value and label of every gene, of scipy and statsmodels."""
    t, p = ttest_ind(a, b, equal_var=test == "student")
    p = multipletests(np.where(np.isnan(p), 1, p), method="fdr_bh")[1]
    return p, (np.sign(np.nan_to_num(t)) * (p < 0.05)).astype(int)


def rows_where(cells, **where):
    keep = np.ones(cells.n_obs, dtype=bool)
    for column, value in where.items():
        keep &= (cells.obs[column] == value).to_numpy()
    return np.flatnonzero(keep)


def by_scipy(cells, test="welch"):
    """The tests of each perturbation of a line against the line's controls."""
    Y, found = logged(cells.X), {}
    for (line, name), rows in cells.obs.groupby(["cell_line", "perturbation"]).indices.items():
        if name != "ctrl":
            controls = rows_where(cells, cell_line=line, perturbation="ctrl")
            found[f"{line}|{name}"] = compared(Y[rows], Y[controls], test)
    return found


def assert_same(out, cells, *how):
    want = by_scipy(cells, *how)
    assert set(out.obs_names) == set(want)
    for name, (p, label) in want.items():
        row = out.obs_names.get_loc(name)
        assert ((out.layers["deg"][row] == label) | (np.abs(p - 0.05) < 1e-5)).all()


@pytest.mark.parametrize("test", ["welch", "student"])
def test_pooled_labels_agree_with_scipy_however_cells_are_stored(tmp_path, monkeypatch, test):
    cells = screen()
    out = deg_labels(cells, test=test, min_cells=10, **QUIET)
    assert_same(out, cells, test)
    assert 20 < (out.layers["deg"] != 0).sum() < 200
    assert set(np.unique(out.layers["deg"])) == {-1, 0, 1}
    np.testing.assert_array_equal(out.X, out.layers["deg"])
    # columns, a file on disk and small blocks give the same
    by_column = cells.copy()
    by_column.X = cells.X.tocsc()
    cells.write_h5ad(tmp_path / "s.h5ad")
    backed = read_screen(tmp_path / "s.h5ad", backed=True)
    for other, stored in ((by_column, values.BLOCK_VALUES), (backed, 2000)):
        monkeypatch.setattr(values, "BLOCK_VALUES", stored)
        again = deg_labels(other, test=test, min_cells=10, **QUIET)
        np.testing.assert_array_equal(again.layers["deg"], out.layers["deg"])


def loop_majority(votes):
    """The published rule, word for word."""
    counts = {c: votes.count(c) for c in (-1, 0, 1)}
    tied = [c for c in counts if counts[c] == max(counts.values())]
    return tied[0] if len(tied) == 1 else int(np.sign(sum(tied)))


def test_votes_per_batch_agree_with_scipy_and_a_loop():
    cells = screen(n=2400, batches=4, seed=3)
    out = deg_labels(cells, variant="per_batch", min_cells=12, **QUIET)
    n = cells.obs.groupby(["batch", "cell_line", "perturbation"]).size()
    votes: dict = {}
    for batch in sorted(cells.obs["batch"].unique()):
        for key, (_, label) in by_scipy(cells[cells.obs["batch"] == batch]).items():
            line, name = key.split("|")
            if n[batch, line, name] > 12 and n[batch, line, "ctrl"] > 12:
                votes.setdefault(key, []).append(label)
    for key, found in votes.items():
        row, table = out.obs_names.get_loc(key), np.array(found)
        assert out.obs["n_batches"].iloc[row] == len(table)
        want = [loop_majority(list(v)) for v in table.T]
        np.testing.assert_array_equal(out.layers["deg"][row], want)
    assert sum((np.ptp(np.array(v), axis=0) > 0).sum() for v in votes.values()) > 20


@pytest.mark.parametrize("n", range(1, 8))
def test_majority_of_all_votes_that_there_can_be(n):
    for votes in combinations_with_replacement((-1, 0, 1), n):
        up, down, flat = (np.array([[votes.count(c)]]) for c in (1, -1, 0))
        assert majority(up, down, flat)[0, 0] == loop_majority(list(votes))


def counted(sizes):
    """A screen with the given number of cells of each (perturbation, batch)."""
    perturbation, batch = zip(*(at for at, n in sizes.items() for _ in range(n)), strict=True)
    X = np.random.default_rng(0).poisson(4.0, (len(batch), 10)) + 1.0
    return cells_of(X, perturbation, batch=batch)


def test_minimum_cells_strict_or_not_pooled_and_per_batch():
    cells = counted(
        {("ctrl", "1"): 50, ("ctrl", "2"): 15, ("P", "1"): 30}
        | {("Q", "1"): 16, ("Q", "2"): 15, ("R", "2"): 40}
    )
    code = deg_labels(cells, **QUIET)
    assert list(code.obs["perturbation"]) == ["Q", "R"]
    assert list(code.obs["n_cells"]) == [31, 40] and list(code.obs["n_batches"]) == [2, 1]
    paper = deg_labels(cells, strict=False, **QUIET)
    assert list(paper.obs["perturbation"]) == ["P", "Q", "R"]
    # batch 2 has too few controls at 15, enough at 14
    voted = deg_labels(cells, variant="per_batch", min_cells=15, **QUIET)
    assert list(voted.obs["perturbation"]) == ["P", "Q"] and list(voted.obs["n_batches"]) == [1, 1]
    voted = deg_labels(cells, variant="per_batch", min_cells=14, **QUIET)
    assert list(voted.obs["n_batches"]) == [1, 2, 1] and list(voted.obs["n_cells"]) == [30, 31, 40]


def test_one_cell_groups_constant_genes_and_zero_variance():
    cells = counted({("ctrl", "1"): 40, ("P", "1"): 1, ("Q", "1"): 2, ("R", "1"): 40})
    out = deg_labels(cells, min_cells=0, **QUIET)
    assert list(out.obs["perturbation"]) == ["Q", "R"]
    # log1p values, so that genes can be constant: one everywhere, one within groups
    rng = np.random.default_rng(0)
    obs = cells.obs[["perturbation", "batch", "cell_line"]].copy()
    X = rng.random((len(obs), 4)).astype(np.float32)
    X[:, 0], X[:, 1] = 0.3, np.where(obs["perturbation"] == "R", np.float32(0.7), np.float32(0.1))
    X[:, 2] = 0
    cells = cells_of(X, **obs, scale="log1p")
    for test in ("welch", "student"):
        out = deg_labels(cells, test=test, **QUIET)
        assert list(out.layers["deg"][0][:3]) == [0, 1, 0]


@given(st.integers(0, 100_000), st.integers(1, 40), st.sampled_from([0.01, 0.05, 0.3]))
def test_false_discovery_rate_is_that_of_statsmodels(seed, g, alpha):
    rng = np.random.default_rng(seed)
    t = rng.standard_t(3, (4, g)) * rng.choice([0, 1, 3], (4, g))
    t[0] = np.round(t[0])  # ties
    df = rng.uniform(1, 60, (4, g))
    called = call_genes(t, df, alpha)
    for i in range(4):
        want = multipletests(2 * student_t.sf(np.abs(t[i]), df[i]), method="fdr_bh")[1]
        np.testing.assert_array_equal(called[i], np.sign(t[i]) * (want < alpha))


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        (dict(variant="batch"), ParameterError, "per_batch"),
        (dict(test="t"), ParameterError, "welch"),
        (dict(alpha=0), ParameterError, "alpha"),
        (dict(min_cells=-1), ParameterError, "min_cells"),
        (dict(min_cells=2.5), ParameterError, "min_cells"),
        (dict(min_cells=10_000), InputError, "control cells"),
        (dict(min_cells=150), InputError, "no perturbation has more than 150 cells"),
        (dict(variant="per_batch", min_cells=90), InputError, "control cells in any one batch"),
    ],
)
def test_bad_requests_are_named(how, error, message):
    pytest.raises(error, deg_labels, screen(), **how, **QUIET).match(message)


# the noise ceiling of labels


def test_pooled_trials_are_the_tests_of_the_drawn_cells():
    cells = screen(n=500, g=25, k=3)
    how = HOW | dict(variant="pooled")
    sampler, Y = LabelSampler(Source(cells, cells.var_names, how), "A", (1, 4), 7), logged(cells.X)
    got = sampler.labels("P1")
    rows = rows_where(cells, cell_line="A", perturbation="P1")
    controls = rows_where(cells, cell_line="A", perturbation="ctrl")
    drawn = drawn_cells(len(rows), perturbation_stream(7, 1), 0, 0, 0, 4)
    of_control = drawn_cells(len(controls), child(control_stream(7), 0), 0, 0, 1, 4)
    for i in range(4):
        want = compared(Y[rows[drawn[i]]], Y[controls[of_control[i]]])[1]
        np.testing.assert_array_equal(got[i], want)
    assert len({tuple(row) for row in got}) > 1


def test_trials_per_batch_are_the_votes_of_the_drawn_batches():
    cells = screen(n=900, g=25, k=2, batches=3, effect=4.0)
    how = HOW | dict(variant="per_batch")
    sampler, Y = LabelSampler(Source(cells, cells.var_names, how), "A", (4, 2), 7), logged(cells.X)
    got = sampler.labels("P0")
    drawn = sampler._drawn("P0")
    assert max(copy for *_, copy in drawn) > 0  # a batch was drawn twice
    for trial in range(4):
        for inner in range(2):
            votes = []
            for _, position, place, copy in [d for d in drawn if d[0] == trial]:
                batch = str(sorted(sampler.controls).index(place))
                rows = rows_where(cells, cell_line="A", batch=batch, perturbation="P0")
                controls = rows_where(cells, cell_line="A", batch=batch, perturbation="ctrl")
                a = drawn_cells(len(rows), perturbation_stream(7, 0), trial, position, 0, 2)[inner]
                stream = child(control_stream(7), int(batch))
                b = drawn_cells(len(controls), stream, trial, copy, 1, 2)[inner]
                votes.append(compared(Y[rows[a]], Y[controls[b]])[1])
            want = [loop_majority(list(v)) for v in np.array(votes).T]
            np.testing.assert_array_equal(got[trial * 2 + inner], want)


@pytest.mark.parametrize("variant", ["pooled", "per_batch"])
def test_the_noise_floor_of_labels_is_what_the_true_effects_score(variant):
    """Held against planted effects, and against an experiment that really was repeated."""
    sizes = dict(n_cell_lines=1, n_perturbations=60, n_genes=150, n_modules=6, n_batches=4)
    made = simulate_screen(
        **sizes, n_control_cells=1600, cells_per_perturbation=(160, 360), batch_effect=0.0, seed=5
    )
    half = np.zeros(made.screen.n_obs, dtype=bool)
    keys = made.screen.obs[["perturbation", "batch"]].astype(str)
    for rows in keys.groupby(["perturbation", "batch"]).indices.values():
        half[rows[::2]] = True
    first, second = (made.screen[at].copy() for at in (half, ~half))
    labels, again = (
        add_folds(deg_labels(cells, variant=variant, min_cells=8, **QUIET), 2)
        for cells in (first, second)
    )
    table = label_noise_floor(first, labels, truth=made.true_effects)
    mean = table.groupby(["metric", "estimate"])["value"].mean().unstack()
    np.testing.assert_allclose(mean["noise_floor"], mean["true"], rtol=0.05)
    assert (mean.loc[["f1_score", "roc_auc"], "true"] < 0.97).all()  # there is noise to see
    said = [
        deg_metrics(labels[at].layers["deg"], one_hot(again[at].layers["deg"]), ["f1_score"])
        for at in (labels.obs["fold"] == fold for fold in (0, 1))
    ]
    repeated = np.mean([each["f1_score"] for each in said])
    assert mean.loc["f1_score", "repeated"] == pytest.approx(repeated, rel=0.05)
    if variant == "pooled":  # drawing the cells of one experiment again says too much
        boot = deg_ceiling(first, labels, n_trials=6, **QUIET).query("metric == 'f1_score'")
        assert boot.loc[np.isclose(boot["quantile"], 0.5), "value"].mean() > 1.05 * repeated
    pd.testing.assert_frame_equal(
        table[table["estimate"] != "true"].reset_index(drop=True), label_noise_floor(first, labels)
    )


def test_the_ceiling_follows_genes_and_options_of_the_labels():
    cells = screen(n=2400, batches=3)
    labels = deg_labels(cells, variant="per_batch", min_cells=10, **QUIET)
    labels = add_folds(labels[:, [f"g{i}" for i in range(30, 4, -1)]].copy(), 2)
    how = dict(n_outer=2, n_inner=2, **QUIET)
    table = deg_ceiling(cells, labels, **how)
    f1 = table.loc[table["metric"] == "f1_score", "value"]
    assert f1.between(0.6, 1).all() and f1.nunique() > 2
    pd.testing.assert_frame_equal(table, deg_ceiling(cells, labels, n_jobs=2, **how))
    labels.uns["perturbcore"]["min_cells"] = 60
    pytest.raises(InputError, deg_ceiling, cells, labels, **QUIET).match("cannot be tested")
    pytest.raises(InputError, ceiling_scores, table, labels, 0.85).match("quantile 0.15")
    labels.uns["perturbcore"]["task"] = "lfc"
    pytest.raises(InputError, deg_ceiling, cells, labels, **QUIET).match("task 'deg'")
