"""One comparison for every chapter: who competes, what is better, what is printed is true."""

import numpy as np
import pandas as pd
import pytest

from perturbcore.core.errors import InputError
from perturbcore.report.comparison import Comparison, three_sentences
from perturbcore.report.text import duration, listed, number, p_value, percent, plural, signed
from perturbcore.score.uncertainty.differences import gain_table

# mean score over folds of each method; folds share a small common shift
MEANS = {
    ("good", "knn", "Prior knowledge"): 5.0,
    ("twin", "knn", "Prior knowledge"): 5.01,
    ("dull", "knn", "Protein"): 7.99,
    ("random", "knn", "Negative control"): 8.02,
    ("idealized", "knn", "Positive control"): 3.0,
    ("", "train_mean", "Negative control"): 8.0,
    ("", "no_change", "Negative control"): 9.0,
    ("", "experimental_error", "Positive control"): 4.0,
}


def scores(means=MEANS, metric="L2", task="lfc", noise=0.05, folds=5, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for line in ("A", "B"):
        shift = rng.normal(0, 0.3, folds)
        for (embedding, predictor, modality), mean in means.items():
            fixed = predictor in ("train_mean", "experimental_error")
            for fold in range(folds):
                value = mean + shift[fold] + (0 if fixed else rng.normal(0, noise))
                rows.append((line, fold, embedding, predictor, modality, value))
    columns = ["cell_line", "fold", "embedding", "predictor", "modality", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["coverage"] = np.where(frame["embedding"] == "", np.nan, 1.0)
    return frame.assign(dataset="toy", task=task, metric=metric, seed=0, n_train=80, n_test=20)


def test_floors_and_ceilings_are_shown_but_do_not_compete():
    c = Comparison(scores())
    table = c.ranking().set_index("method")
    assert set(table.index[table["competes"]]) == {"good", "twin", "dull"} == set(c.competitors)
    assert set(table.index[table["with_best"]]) == {"good", "twin"}
    assert (c.floor, c.ceiling) == ("Train Mean", "Experimental error")
    assert table.loc[["Random", "Train Mean", "No Change"], "p_best"].isna().all()
    assert c.unproven() == ["dull"] and c.ties() == [m for m in ("good", "twin") if m != c.best]
    assert table["value"].is_monotonic_increasing


@pytest.mark.parametrize("metric, sign", [("L2", -1), ("auroc_within", 1)])
def test_gains_are_those_of_the_paired_test(metric, sign):
    rows = scores(metric=metric)
    found = Comparison(rows, metric).gains("dull", methods=["good", "twin"]).set_index("method")
    expected = gain_table(
        rows[rows["embedding"].isin(["good", "twin", "dull"])],
        metric,
        reference=("dull", "knn"),
        by=(),
    ).set_index("embedding")
    columns = ["value", "reference", "gain", "low", "high", "p_holm"]
    order = list(expected.index)
    np.testing.assert_allclose(found.loc[order, columns], expected[columns].astype(float))
    assert set(found["verdict"]) == {"better" if sign < 0 else "worse"}
    assert set(found["lines"]) == {"2 of 2" if sign < 0 else "0 of 2"}


def test_every_share_of_the_gap_is_computed_from_the_numbers_in_its_row():
    c = Comparison(scores())
    for table in (c.gap(), c.gap(("cell_line",)), c.ranking()):
        share = (table["value"] - table["floor"]) / (table["ceiling"] - table["floor"])
        np.testing.assert_allclose(table["gap_closed"], share, atol=1e-12)
    wide = c.gap_table().set_index("method")
    assert wide.loc["good", "all lines"] == pytest.approx(0.75, abs=0.03)
    means = c.table().set_index("method")
    low, high = means.loc["Train Mean", "A"], means.loc["Experimental error", "A"]
    assert wide.loc["good", "A"] == pytest.approx((means.loc["good", "A"] - low) / (high - low))


def test_each_use_of_a_representation_is_held_against_knn_on_it():
    means = {**MEANS, ("good", "kernel", "Prior knowledge"): 4.5, ("dull", "ridge", "Protein"): 9.0}
    c = Comparison(scores(means))
    assert {"good, kNN", "good, kernel", "dull, ridge", "twin"} <= set(c.competitors)
    table = c.own_gains().set_index("method")
    assert dict(table["against"]) == {"good, kernel": "good, kNN", "dull, ridge": "dull, kNN"}
    assert dict(table["verdict"]) == {"good, kernel": "better", "dull, ridge": "worse"}
    assert table.loc["good, kernel", "gain"] == pytest.approx(0.5, abs=0.05)


def test_the_ceiling_is_the_error_else_the_best_idealized_predictor():
    bare = {k: v for k, v in MEANS.items() if k[1] != "experimental_error"}
    assert Comparison(scores(bare)).ceiling == "Idealized"
    both = scores({**bare, ("idealized", "kernel", "Positive control"): 2.0})
    c = Comparison(both, predictor="knn")
    assert c.means["Idealized"] == pytest.approx(2.0, abs=0.3)
    assert not (c.methods["predictor"] == "kernel").drop("Idealized").any()
    none = {k: v for k, v in bare.items() if k[0] != "idealized"}
    with pytest.raises(InputError, match="no ceiling"):
        Comparison(scores(none)).ranking()


def test_scores_that_cannot_be_compared_are_refused():
    both = pd.concat([scores(), scores(task="deg_pairs", metric="auroc_within")])
    with pytest.raises(InputError, match="one task"):
        Comparison(both)
    with pytest.raises(InputError, match="one data set"):
        Comparison(pd.concat([scores(), scores().assign(dataset="other")]))
    with pytest.raises(InputError, match="there twice"):
        Comparison(pd.concat([scores(), scores()]))
    with pytest.raises(InputError, match="no metric 'MSE'"):
        Comparison(scores(), "MSE")
    with pytest.raises(InputError, match="no method 'nobody'"):
        Comparison(scores()).gains("nobody")
    controls = {k: v for k, v in MEANS.items() if k[2].endswith("control")}
    with pytest.raises(InputError, match="only controls"):
        Comparison(scores(controls)).answer()


def test_with_one_fold_nothing_is_decided():
    c = Comparison(scores(folds=1))
    assert set(c.gains()["verdict"]) == {"undecidable"}
    assert set(c.ties()) | {c.best} == set(c.competitors) == set(c.unproven())
    assert "interval" not in c.answer()


def test_numbers_are_written_one_way():
    assert [number(v) for v in (None, np.nan, -1.5, 1234, True)] == [
        "–",
        "–",
        "−1.500",
        "1,234",
        "yes",
    ]
    assert [percent(v) for v in (0.75, -0.031, -0.001, np.nan)] == [
        "75 %", "−3 %", "0 %", "an undefined share",
    ]  # fmt: skip
    assert (
        percent(0.0123, 1) == "1.2 %" and signed(-0.5) == "−0.500" and signed(np.nan) == "undefined"
    )
    assert [p_value(p) for p in (0.0001, 0.5, np.nan)] == ["< 0.001", "0.500", "–"]
    assert [listed(n) for n in ([], ["a"], ["a", "b", "c"])] == ["none", "a", "a, b and c"]
    assert listed(["a, kNN", "b"]) == "a, kNN; and b"
    assert [plural(n, "line") for n in (1, 2, ["x"])] == ["line", "lines", "line"]
    assert [duration(s) for s in (0.05, 1.26, 59, 300, np.nan)] == [
        "50 ms", "1.3 s", "59 s", "5 minutes", "an unknown time",
    ]  # fmt: skip


def test_the_first_page_says_what_fusion_adds():
    fused = Comparison(
        scores({**MEANS, ("all", "ridge", "Fusion"): 4.5, ("some", "x", "Fusion"): 6})
    )
    third = three_sentences(Comparison(scores()), simulated=False, fused=fused)[2]
    assert third.endswith("; the best of 2 fusions of them (all) closes 88 %.")
