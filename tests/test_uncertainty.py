from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.score.uncertainty.differences import (
    gain_table,
    indistinguishable,
    neighbour_table,
    paired_differences,
    verdicts,
)
from perturbcore.score.uncertainty.gap import gap_closed
from perturbcore.score.uncertainty.intervals import holm, mean_ci, paired_bootstrap, sign_flip_p
from perturbcore.score.uncertainty.ranking import friedman, rank_table, ranks


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
    found = mean_ci(values, 0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.mean == pytest.approx(values.mean()) and found.n == 7
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert mean_ci([*values, np.nan], 0.9) == pytest.approx(found)


def test_mean_interval_of_one_or_no_value_is_defined_as_unknown():
    one = mean_ci([2.5])
    assert one.mean == 2.5 and one.n == 1 and np.isnan([one.low, one.high, one.sd]).all()
    none = mean_ci([])
    assert none.n == 0 and np.isnan([none.mean, none.low, none.high]).all()
    same = mean_ci([1.0, 1.0, 1.0])
    assert (same.low, same.high) == (1.0, 1.0)
    with pytest.raises(ParameterError, match="confidence"):
        mean_ci([1, 2], 95)
    with pytest.raises(ParameterError, match="test_ratio"):
        mean_ci([1, 2], test_ratio=-1)


def test_overlapping_training_widens_the_interval_by_the_known_factor():
    values = np.random.default_rng(1).normal(size=5)
    plain, wide = mean_ci(values), mean_ci(values, test_ratio=0.25)
    assert (wide.high - wide.low) / (plain.high - plain.low) == pytest.approx(1.5)


def test_plain_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for sample in rng.normal(1.0, 1.0, size=(2000, 5)):
        found = mean_ci(sample, 0.8)
        hits += found.low <= 1.0 <= found.high
    assert hits / 2000 == pytest.approx(0.8, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p):
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_leaves_unknown_p_values_out():
    found = holm([0.01, np.nan, 0.04])
    assert np.isnan(found[1])
    np.testing.assert_allclose(found[[0, 2]], [0.02, 0.04])


def test_sign_flips_are_counted_one_by_one():
    rng = np.random.default_rng(3)
    values = rng.normal(0.4, 1, size=(6, 4))
    for column, p in zip(values.T, sign_flip_p(values), strict=True):
        means = [abs(np.dot(s, column)) for s in product((1, -1), repeat=6)]
        expected = np.mean(np.array(means) >= abs(column.sum()) - 1e-12)
        assert p == pytest.approx(expected)
    assert sign_flip_p(np.ones((5, 1)))[0] == pytest.approx(2 / 32)


def test_random_sign_flips_agree_with_scipy():
    values = np.random.default_rng(4).normal(0.3, 1, size=20)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20000, rng=0
    ).pvalue
    assert sign_flip_p(values[:, None])[0] == pytest.approx(expected, abs=0.02)


def test_every_pair_is_compared_on_the_same_folds():
    values = random_scores()
    scores = make_scores(values)
    table = paired_differences(scores, "L2")
    assert len(table) == 3 * 10 and (table["n"] == 5).all()
    for line in range(3):
        part = table[table["cell_line"] == f"L{line}"]
        p = []
        for (a, b), row in zip(combinations(values, 2), part.itertuples(), strict=True):
            assert (row.embedding_a, row.embedding_b) == (a[0], b[0])
            x, y = values[a][line], values[b][line]
            t, p_corrected = corrected_t(x - y, 0.25)
            assert row.difference == pytest.approx((x - y).mean())
            assert (row.mean_a, row.mean_b) == pytest.approx((x.mean(), y.mean()))
            assert (row.t, row.p) == pytest.approx((t, p_corrected))
            assert row.p_t == pytest.approx(stats.ttest_rel(x, y).pvalue)
            assert (row.low + row.high) / 2 == pytest.approx(row.difference)
            assert (row.low > 0 or row.high < 0) == (row.p < 0.05)
            assert row.better == ("a" if x.mean() < y.mean() else "b")
            p.append(p_corrected)
        np.testing.assert_allclose(part["p_holm"], multipletests(p, method="holm")[1])
        assert (part["distinguishable"] == (part["p_holm"] < 0.05)).all()


def test_over_all_lines_folds_are_the_units_and_seeds_add_none():
    values = random_scores()
    table = paired_differences(make_scores(values), "L2", by=())
    more = paired_differences(make_scores(values, seeds=3), "L2", by=())
    pd.testing.assert_frame_equal(table, more)
    x, y = (values[k].mean(axis=0) for k in (("e0", "knn"), ("e3", "knn")))
    row = table[(table["embedding_a"] == "e0") & (table["embedding_b"] == "e3")].iloc[0]
    assert row["n"] == 5
    assert (row["t"], row["p"]) == pytest.approx(corrected_t(x - y, 0.25))
    finer = paired_differences(make_scores(values), "L2", by=(), units=("cell_line", "fold"))
    assert (finer["n"] == 15).all()


def test_test_ratio_comes_from_sizes_or_is_given_or_is_that_of_equal_folds():
    values = random_scores(2, 1)
    difference = values["e0", "knn"][0] - values["e1", "knn"][0]
    scores = make_scores(values, n_train=90, n_test=10)
    floor = make_scores({("", "no_change"): np.ones((1, 5))}, n_train=0, n_test=10)
    scores = pd.concat([scores, floor])
    sized = paired_differences(scores, "L2", exclude=("no_change",))
    assert sized["p"][0] == pytest.approx(corrected_t(difference, 10 / 90)[1])
    given_ratio = paired_differences(scores, "L2", test_ratio=0.0, exclude=("no_change",))
    assert given_ratio["p"][0] == pytest.approx(given_ratio["p_t"][0])
    bare = scores.drop(columns=["n_train", "n_test"])
    equal = paired_differences(bare, "L2", exclude=("no_change",))
    assert equal["p"][0] == pytest.approx(corrected_t(difference, 0.25)[1])


def test_missing_units_are_left_out_pair_by_pair():
    values = random_scores(3, 1)
    scores = make_scores(values)
    scores = scores[~((scores["embedding"] == "e2") & (scores["fold"] >= 3))]
    table = paired_differences(scores, "L2").set_index(["embedding_a", "embedding_b"])
    assert table["n"].to_dict() == {("e0", "e1"): 5, ("e0", "e2"): 3, ("e1", "e2"): 3}
    x, y = values["e0", "knn"][0, :3], values["e2", "knn"][0, :3]
    assert table.loc[("e0", "e2"), "mean_a"] == pytest.approx(x.mean())
    assert table.loc[("e0", "e2"), "p"] == pytest.approx(corrected_t(x - y, 0.25)[1])


def test_equal_methods_are_not_told_apart_by_rounding():
    base = np.random.default_rng(5).normal(5, 1, size=(1, 5))
    scores = make_scores({("", "train_mean"): base, ("random", "lasso"): base * (1 + 4e-16)})
    row = paired_differences(scores, "L2").iloc[0]
    assert row["difference"] == 0 and row["p"] == 1 and row["better"] == ""
    assert not row["distinguishable"]


def test_one_fold_gives_differences_without_certainty():
    scores = make_scores({("a", "knn"): [[1.0]], ("b", "knn"): [[2.0]]})
    row = paired_differences(scores, "L2").iloc[0]
    assert row["difference"] == -1 and row["n"] == 1 and np.isnan(row["p"])
    assert not row["distinguishable"]
    assert not indistinguishable(scores, "L2")["distinguishable"].any()
    assert not neighbour_table(scores, "L2")["distinguishable"].any()


def planted(gap=1.0):
    """Two equal leaders, and one method far behind in every fold."""
    rng = np.random.default_rng(6)
    base = rng.normal(10, 1, size=(2, 5))
    noise = 0.02 * rng.normal(size=(3, 2, 5))
    centred = noise - noise.mean(axis=2, keepdims=True)
    return {
        ("first", "knn"): base + centred[0],
        ("second", "knn"): base + 0.001 + centred[1],
        ("third", "knn"): base + gap + centred[2],
        ("", "experimental_error"): base - 5,
    }


@pytest.mark.parametrize("higher", [False, True])
def test_who_is_not_distinguishable_from_the_best(higher):
    values = {k: -v if higher else v for k, v in planted().items()}
    scores = make_scores(values)
    table = indistinguishable(scores, "L2", higher_is_better=higher)
    assert len(table) == 6
    for _, part in table.groupby("cell_line"):
        part = part.set_index("embedding")
        assert list(part.index) == ["first", "second", "third"]
        assert list(part["place"]) == [1, 2, 3] and list(part["best"]) == [True, False, False]
        assert list(part["distinguishable"]) == [False, False, True]
        assert part.loc["third", "behind"] == pytest.approx(1.0)
        assert part.loc["third", "low"] < 1.0 < part.loc["third", "high"]
        assert part.loc["second", "low"] < 0 < part.loc["second", "high"]
        assert np.isnan(part.loc["first", "behind"])
    with_ceiling = indistinguishable(scores, "L2", higher_is_better=higher, exclude=(), by=())
    assert with_ceiling["predictor"][0] == "experimental_error"


@pytest.mark.parametrize("higher", [False, True])
def test_neighbours_in_the_ranking(higher):
    values = {k: -v if higher else v for k, v in reversed(planted().items())}
    table = neighbour_table(make_scores(values), "L2", higher_is_better=higher, by=())
    assert list(table["embedding"]) == ["first", "second", "third"]
    assert list(table["next_embedding"][:2]) == ["second", "third"]
    assert list(table["behind"][:2]) == pytest.approx([0.001, 0.999])
    assert (table["low"][:2] < table["behind"][:2]).all()
    assert (table["behind"][:2] < table["high"][:2]).all()
    assert list(table["distinguishable"]) == [False, True, False]
    assert pd.isna(table["next_embedding"][2]) and np.isnan(table["p"][2])
    np.testing.assert_allclose(table["p_holm"][:2], multipletests(table["p"][:2], method="holm")[1])


def test_reference_is_found_by_name_or_refused_with_what_there_is():
    scores = make_scores(planted())
    for name in ("third", ("third", "knn")):
        table = paired_differences(scores, "L2", reference=name)
        assert set(table["embedding_a"]) == {"third"} and len(table) == 4
        assert (table["better"] == "b").all()
    with pytest.raises(InputError, match="3 methods are called 'knn'.*third/knn"):
        paired_differences(scores, "L2", reference="knn")
    with pytest.raises(InputError, match="0 methods"):
        paired_differences(scores, "L2", reference="fourth")


def test_direction_comes_from_the_registered_metric():
    values = planted()
    table = indistinguishable(make_scores(values, metric="Pearson"), "Pearson", by=())
    assert table["embedding"][0] == "third"
    with pytest.raises(ParameterError, match="higher_is_better"):
        ranks(make_scores(values, metric="my_own"), "my_own")


def test_bad_tables_are_refused():
    scores = make_scores(planted())
    with pytest.raises(InputError, match="no metric 'MAE'; it has: L2"):
        paired_differences(scores, "MAE")
    with pytest.raises(InputError, match="no column predictor"):
        paired_differences(scores.drop(columns="predictor"), "L2")
    with pytest.raises(InputError, match="twice.*fold=0"):
        ranks(pd.concat([scores, scores]), "L2")
    with pytest.raises(ParameterError, match="by='cell_line'"):
        paired_differences(scores, "L2", by="cell_line")
    with pytest.raises(ParameterError, match="test='z'"):
        paired_differences(scores, "L2", test="z")
    with pytest.raises(InputError, match="no method"):
        ranks(scores.assign(value=np.nan), "L2")


def test_ranks_are_within_line_and_fold_with_shared_ties():
    scores = make_scores({("a", "knn"): [[1, 2]], ("b", "knn"): [[1, 3]], ("c", "knn"): [[5, 1]]})
    found = ranks(scores, "L2").set_index(["embedding", "fold"])["rank"]
    assert found.to_dict() == {
        ("a", 0): 1.5, ("b", 0): 1.5, ("c", 0): 3, ("a", 1): 2, ("b", 1): 3, ("c", 1): 1,
    }  # fmt: skip
    opposite = ranks(scores, "L2", higher_is_better=True).set_index(["embedding", "fold"])
    np.testing.assert_allclose(opposite["rank"], 4 - found.reindex(opposite.index))


def test_a_method_without_a_score_is_not_ranked():
    scores = make_scores({("a", "knn"): [[1, 2]], ("b", "knn"): [[2, np.nan]]})
    found = ranks(scores, "L2")
    assert list(found["n_methods"]) == [2, 2, 1] and len(found) == 3
    all_missing = make_scores({("a", "knn"): [[1, 2]], ("b", "knn"): [[np.nan, np.nan]]})
    table = rank_table(all_missing, "L2", n_boot=20)
    assert table["n_units"].tolist() == [2, 0] and np.isnan(table["mean_rank"][1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3))
def test_ranks_of_a_unit_sum_to_a_constant_and_do_not_see_the_order_of_rows(seed, k, lines):
    scores = make_scores(random_scores(k, lines, 3, seed))
    found = ranks(scores, "L2")
    sums = found.groupby(["cell_line", "fold"])["rank"].sum()
    np.testing.assert_allclose(sums, k * (k + 1) / 2)
    shuffled = ranks(scores.sample(frac=1, random_state=seed), "L2")
    pd.testing.assert_frame_equal(found, shuffled)
    scaled = ranks(scores.assign(value=np.exp(scores["value"])), "L2")
    np.testing.assert_array_equal(found["rank"], scaled["rank"])


@pytest.mark.parametrize("resample", ["units", "lines"])
def test_rank_table_tells_sure_places_from_unsure_ones(resample):
    scores = make_scores(planted())
    table = rank_table(scores, "L2", resample=resample, n_boot=500).set_index("embedding")
    assert table.loc["third", ["median_rank", "low", "high"]].tolist() == [3, 3, 3]
    assert table.loc["third", "first_share"] == 0
    assert 0 < table.loc["first", "first_share"] < 1
    assert table["first_share"].sum() == pytest.approx(1)
    assert (table["low"] <= table["mean_rank"]).all()
    assert (table["mean_rank"] <= table["high"]).all()
    assert table.loc["first", "n_units"] == 10
    mine = ranks(scores, "L2").groupby("embedding")["rank"]
    np.testing.assert_allclose(table["mean_rank"], mine.mean().reindex(table.index))
    np.testing.assert_allclose(table["median_rank"], mine.median().reindex(table.index))
    per_line = rank_table(scores, "L2", by=("cell_line",), n_boot=50)
    assert len(per_line) == 6 and (per_line["n_units"] == 5).all()
    with pytest.raises(ParameterError, match="resample"):
        rank_table(scores, "L2", resample="folds")


def test_rank_interval_is_the_bootstrap_of_units():
    scores = make_scores(random_scores(4, 3))
    table = rank_table(scores, "L2", n_boot=4000).set_index("embedding")
    found = ranks(scores, "L2").pivot(
        index=["cell_line", "fold"], columns="embedding", values="rank"
    )
    rng = np.random.default_rng(1)
    means = [found.to_numpy()[rng.integers(15, size=15)].mean(axis=0) for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(table.loc[found.columns, "low"], low, atol=0.08)
    np.testing.assert_allclose(table.loc[found.columns, "high"], high, atol=0.08)


def test_friedman_is_that_of_scipy():
    values = random_scores(4, 2)
    row = friedman(make_scores(values), "L2").iloc[0]
    expected = stats.friedmanchisquare(*(v.ravel() for v in values.values()))
    assert row["statistic"] == pytest.approx(expected.statistic)
    assert row["p"] == pytest.approx(expected.pvalue)
    # Demsar 2006, Table 5: q_0.05 for 4 methods is 2.569.
    assert row["critical_difference"] == pytest.approx(2.569 * np.sqrt(20 / 60), abs=2e-3)
    two = friedman(make_scores(random_scores(2, 2)), "L2").iloc[0]
    assert np.isnan(two["p"])


def test_gap_closed_on_medians_as_published():
    # Medians over 5 folds as in the paper's claim for K-562: 77 % of the gap.
    base = np.array([[4.9, 5.0, 4.96, 4.8, 5.1]])
    scores = make_scores(
        {
            ("", "train_mean"): base,
            ("WaveGC", "knn"): base - 0.3,
            ("", "experimental_error"): base - 0.39,
            ("idealized", "knn"): base - 0.5,
        }
    )
    table = gap_closed(scores, "L2").set_index("embedding")
    assert table.loc["WaveGC", "gap_closed"] == pytest.approx(0.3 / 0.39)
    assert table.loc["WaveGC", ["floor", "ceiling"]].tolist() == pytest.approx([4.96, 4.57])
    assert table.loc["idealized", "gap_closed"] > 1
    assert table.loc["WaveGC", "fold_mean"] == pytest.approx(0.3 / 0.39)
    assert table.loc["WaveGC", "reason"] == "" and table.loc["WaveGC", "n"] == 5


def test_gap_interval_is_that_of_the_folds():
    rng = np.random.default_rng(7)
    floor = rng.normal(5, 0.1, size=(2, 5))
    method, top = floor - rng.uniform(0.1, 0.5, (2, 5)), floor - 1
    scores = make_scores(
        {("", "train_mean"): floor, ("m", "knn"): method, ("", "experimental_error"): top}
    )
    table = gap_closed(scores, "L2", aggregate="mean")
    for line, row in table.iterrows():
        shares = floor[line] - method[line]
        expected = mean_ci(shares, test_ratio=0.25)
        assert (row["fold_mean"], row["low"], row["high"]) == pytest.approx(expected[:3])
    higher = scores.assign(value=-scores["value"])
    mirrored = gap_closed(higher, "L2", aggregate="mean", higher_is_better=True)
    np.testing.assert_allclose(mirrored["gap_closed"], table["gap_closed"])
    overall = gap_closed(scores, "L2", by=())
    assert len(overall) == 1 and overall["n"][0] == 5


def test_a_ceiling_no_better_than_the_floor_gives_a_reason_not_a_number():
    floor = np.array([[5.0, 5, 5, 5, 5], [5, 5, 5, 5, 5]])
    top = np.array([[6.0, 6, 6, 6, 6], [4, 4, 4, 5, 4]])
    scores = make_scores(
        {
            ("", "train_mean"): floor,
            ("m", "knn"): floor - 0.5,
            ("gone", "knn"): np.full((2, 5), np.nan),
            ("", "experimental_error"): top,
        }
    )
    table = gap_closed(scores, "L2").set_index(["cell_line", "embedding"])
    past = table.loc[("L0", "m")]
    assert np.isnan(past["gap_closed"]) and np.isnan(past["fold_mean"]) and past["n"] == 0
    assert past["reason"] == "ceiling is not better than floor"
    partly = table.loc[("L1", "m")]
    assert partly["gap_closed"] == pytest.approx(0.5) and partly["n"] == 4
    assert partly["reason"].startswith("1 of 5 units")
    assert table.loc[("L1", "gone"), "reason"] == "method has no score"
    with pytest.raises(InputError, match="0 methods are called 'experimental_error'"):
        gap_closed(scores[scores["predictor"] != "experimental_error"], "L2")
    with pytest.raises(ParameterError, match="aggregate"):
        gap_closed(scores, "L2", aggregate="mode")


def test_paired_bootstrap_agrees_with_the_t_interval_on_many_pairs():
    rng = np.random.default_rng(8)
    a = rng.normal(size=400)
    b = a + rng.normal(0.1, 0.5, size=400)
    found = paired_bootstrap(a, b, n=4000)
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert found.mean == pytest.approx((a - b).mean()) and found.n == 400
    assert found.p < 0.01 and paired_bootstrap(a, a).p == 1
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    swapped = paired_bootstrap(b, a, n=4000)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    with pytest.raises(InputError, match="400 values and b 3"):
        paired_bootstrap(a, b[:3])
    with pytest.raises(InputError, match="NaN"):
        paired_bootstrap([1.0, np.nan], [1.0, 2.0])


def test_verdicts_say_where_only_the_adjustment_takes_a_difference_away():
    table = pd.DataFrame(
        {
            "better": ["b", "a", "b", "a", "b"],
            "low": [-3.0, 1.0, -3.0, 1.0, -1.0],
            "high": [-1.0, 2.0, -1.0, 2.0, 1.0],
            "distinguishable": [True, True, False, False, False],
        }
    )
    late = ", not after adjustment"
    assert list(verdicts(table)) == [
        "better",
        "worse",
        f"better{late}",
        f"worse{late}",
        "not told apart",
    ]


@pytest.mark.parametrize("metric, sign", [("L2", -1), ("auroc_within", 1)])
def test_a_gain_is_positive_where_a_method_is_better_than_the_reference(metric, sign):
    rng = np.random.default_rng(0)
    values = {
        ("ref", "knn"): rng.normal(5, 0.1, (2, 5)),
        ("other", "knn"): rng.normal(6, 0.1, (2, 5)),
    }
    scores = make_scores(values, metric=metric)
    (row,) = gain_table(scores, metric, reference=("ref", "knn"), by=()).to_dict("records")
    expected = sign * (values["other", "knn"].mean() - values["ref", "knn"].mean())
    assert row["gain"] == pytest.approx(expected) and row["low"] < row["gain"] < row["high"]
    assert (row["embedding"], row["verdict"]) == ("other", "better" if sign > 0 else "worse")
