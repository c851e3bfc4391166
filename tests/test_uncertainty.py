"""Intervals, paired differences and ranks against independent computations."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from perturbcore.report.paired import PairedScores
from perturbcore.score.uncertainty import holm, t_statistics


def make_scores(values, *, metric="L2", seeds=1, **columns):
    """Scores from a dict (embedding, predictor) -> array (lines, folds)."""
    rows = []
    for (embedding, predictor), table in values.items():
        for (line, fold), value in np.ndenumerate(np.atleast_2d(table)):
            for seed in range(seeds):
                rows.append((f"L{line}", fold, embedding, predictor, seed, float(value)))
    names = ["cell_line", "fold", "embedding", "predictor", "seed", "value"]
    scores = pd.DataFrame(rows, columns=names).assign(
        dataset="toy", task="lfc", metric=metric, modality="Expression", n_train=80, n_test=20
    )
    return scores.assign(**columns)


def random_scores(n_methods=5, lines=3, folds=5, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(lines, folds))
    return {
        (f"e{i}", "knn"): base + 0.3 * i + 0.2 * rng.normal(size=(lines, folds))
        for i in range(n_methods)
    }


def corrected_t(difference, ratio):
    n = len(difference)
    t = difference.mean() / np.sqrt(difference.var(ddof=1) * (1 / n + ratio))
    return t, 2 * stats.t.sf(abs(t), n - 1)


def test_mean_interval_is_that_of_scipy():
    values = np.random.default_rng(0).normal(3, 2, size=7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    for column in (values, [*values, np.nan]):
        found = t_statistics(np.array(column)[:, None])
        assert found["mean"] == pytest.approx(values.mean()) and found["n"] == 7
        assert found["low"] == pytest.approx(expected.low)
        assert found["high"] == pytest.approx(expected.high)


def test_mean_interval_of_one_or_no_value_is_defined_as_unknown():
    one = t_statistics(np.array([[2.5]]))
    assert one["mean"] == 2.5 and one["n"] == 1
    assert np.isnan([one["low"], one["high"], one["sd"]]).all()
    none = t_statistics(np.empty((0, 1)))
    assert none["n"] == 0 and np.isnan([none["mean"], none["low"], none["high"]]).all()
    same = t_statistics(np.ones((3, 1)))
    assert same["low"] == same["high"] == 1


def test_holm_leaves_unknown_p_values_out():
    found = holm([0.01, np.nan, 0.04, 0.9])
    assert np.isnan(found[1]) and np.isnan(holm([np.nan])).all()
    np.testing.assert_allclose(found[[0, 2, 3]], [0.03, 0.08, 0.9])
    p = np.random.default_rng(0).random(20) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


@pytest.mark.parametrize("metric, sign", [("L2", -1), ("auroc_within", 1)])
def test_every_pair_is_compared_on_the_same_folds(metric, sign):
    values = random_scores(3, lines=2)
    scores = PairedScores(make_scores(values, metric=metric), metric)
    for b, line in product(values, range(2)):
        table = scores.gains(b[0], ("cell_line",)).query(f"cell_line == 'L{line}'")
        table = table.set_index("method")
        np.testing.assert_allclose(table["p_holm"], holm(table["p"]))
        for a in values.keys() - {b}:
            check_gain(table.loc[a[0]], values[a][line], values[b][line], sign)


def check_gain(row, x, y, sign):
    _, p = corrected_t(x - y, 0.25)
    assert row["gain"] == pytest.approx(sign * (x - y).mean())
    assert (row["value"], row["reference"]) == pytest.approx((x.mean(), y.mean()))
    assert row["p"] == pytest.approx(p) and row["lines"] == f"{int(row['gain'] > 0)} of 1"
    assert (row["low"] + row["high"]) / 2 == pytest.approx(row["gain"])
    assert (row["low"] > 0 or row["high"] < 0) == (row["p"] < 0.05)
    word = "better" if row["gain"] > 0 else "worse"
    assert row["verdict"] == (word if row["p_holm"] < 0.05 else "tie")


def test_over_all_lines_folds_are_the_units_and_seeds_add_none():
    values = random_scores()
    row = PairedScores(make_scores(values)).between("e0", "e3")
    more = PairedScores(make_scores(values, seeds=3)).between("e0", "e3")
    pd.testing.assert_series_equal(row, more)
    x, y = (values[k].mean(axis=0) for k in (("e0", "knn"), ("e3", "knn")))
    assert row["p"] == pytest.approx(corrected_t(x - y, 0.25)[1])


def test_test_ratio_comes_from_sizes_or_is_that_of_equal_folds():
    values = random_scores(2, 1)
    difference = values["e0", "knn"][0] - values["e1", "knn"][0]
    scores = make_scores(values, n_train=90, n_test=10)
    floor = make_scores({("", "no_change"): np.ones((1, 5))}, n_train=0, n_test=10)
    scores = pd.concat([scores, floor])
    sized = PairedScores(scores).between("e0", "e1")
    assert sized["p"] == pytest.approx(corrected_t(difference, 10 / 90)[1])
    equal = PairedScores(scores.drop(columns=["n_train", "n_test"])).between("e0", "e1")
    assert equal["p"] == pytest.approx(corrected_t(difference, 0.25)[1])


def test_missing_units_are_left_out_pair_by_pair():
    values = random_scores(3, 1)
    scores = make_scores(values)
    scores = scores[~((scores["embedding"] == "e2") & (scores["fold"] >= 3))]
    table = PairedScores(scores).gains("e0").set_index("method")
    x, y = values["e0", "knn"][0, :3], values["e2", "knn"][0, :3]
    assert table.loc["e2", "reference"] == pytest.approx(x.mean())
    assert table.loc["e2", "p"] == pytest.approx(corrected_t(x - y, 0.25)[1])
    assert table.loc["e1", "reference"] == pytest.approx(values["e0", "knn"].mean())


def test_equal_methods_are_not_told_apart_by_rounding():
    base = np.random.default_rng(5).normal(5, 1, size=(1, 5))
    scores = make_scores({("", "train_mean"): base, ("random", "lasso"): base * (1 + 4e-16)})
    row = PairedScores(scores).between("Random", "Train Mean")
    assert row["gain"] == 0 and row["p"] == 1 and row["verdict"] == "tie"


def test_ranks_are_within_line_and_fold_with_shared_ties():
    rows = make_scores({("a", "knn"): [[1, 2]], ("b", "knn"): [[1, 3]], ("c", "knn"): [[5, 1]]})
    found = PairedScores(rows).ranks().set_index(["method", "fold"])["rank"]
    assert found.to_dict() == {
        ("a", 0): 1.5, ("b", 0): 1.5, ("c", 0): 3, ("a", 1): 2, ("b", 1): 3, ("c", 1): 1,
    }  # fmt: skip
    opposite = PairedScores(rows.assign(metric="Pearson"), "Pearson").ranks()
    opposite = opposite.set_index(["method", "fold"])
    np.testing.assert_allclose(opposite["rank"], 4 - found.reindex(opposite.index))
    rows.loc[(rows["embedding"] == "b") & (rows["fold"] == 1), "value"] = np.nan  # has no rank
    found = PairedScores(rows).ranks().set_index(["method", "fold"])["rank"]
    assert len(found) == 5 and found[[("a", 1), ("c", 1)]].tolist() == [2, 1]


def test_rank_interval_is_the_bootstrap_of_units():
    scores = PairedScores(make_scores(random_scores(4, 3)))
    table = scores.rank_table(4000).set_index("method")
    found = scores.ranks().pivot(index=["cell_line", "fold"], columns="method", values="rank")
    rng = np.random.default_rng(1)
    means = [found.to_numpy()[rng.integers(15, size=15)].mean(axis=0) for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(table.loc[found.columns, "low"], low, atol=0.08)
    np.testing.assert_allclose(table.loc[found.columns, "high"], high, atol=0.08)


def test_rank_table_tells_sure_places_from_unsure_ones():
    rng = np.random.default_rng(6)
    base, noise = rng.normal(10, 1, size=(2, 5)), 0.02 * rng.normal(size=(3, 2, 5))
    noise = noise - noise.mean(axis=2, keepdims=True)
    # two equal leaders, and one far behind in every fold
    apart = zip(("first", "second", "third"), (0, 0.001, 1.0), noise, strict=True)
    scores = PairedScores(make_scores({(n, "knn"): base + by + own for n, by, own in apart}))
    table = scores.rank_table(500).set_index("method")
    assert table.loc["third", ["median_rank", "low", "high"]].tolist() == [3, 3, 3]
    assert table["mean_rank"].between(table["low"], table["high"]).all()
    mine = scores.ranks().groupby("method")["rank"]
    np.testing.assert_allclose(table["mean_rank"], mine.mean().reindex(table.index))
    np.testing.assert_allclose(table["median_rank"], mine.median().reindex(table.index))
