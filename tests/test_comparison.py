"""One comparison for every chapter: who competes, what is better, what is printed is true."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import MEANS, scores
from worlds import responses_of

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.models import simple
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.embedding import OnEmbedding
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.space import Protocol
from perturbcore.report.comparison import Comparison, predictor_agreement, three_sentences
from perturbcore.report.figures.methods import reference_lines
from perturbcore.report.text import percent, plural
from perturbcore.score.model import Fold, fit_predict
from perturbcore.score.task import task_of


def test_every_share_of_the_gap_is_computed_from_the_numbers_in_its_row():
    c = Comparison(scores())
    for table in (c.gap(), c.gap(("cell_line",)), c.ranking()):
        share = (table["value"] - table["floor"]) / (table["ceiling"] - table["floor"])
        np.testing.assert_allclose(table["gap_closed"], share, atol=1e-12)
    wide = c.table("gap_closed").set_index("method")
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
    pytest.raises(InputError, Comparison(scores(none)).ranking).match("no ceiling")
    without = Comparison(scores(none), needs_ceiling=False)
    assert without.ranking()["gap_closed"].isna().all() and "no ceiling" in without.answer()
    assert without.figure() is not None and "no gap to close" in without.one_line()
    flat = scores({k: 5.0 for k in none})
    assert "ceiling lies at –" in Comparison(flat, needs_ceiling=False).one_line()


def test_scores_that_cannot_be_compared_are_refused():
    both = pd.concat([scores(), scores(task="deg_pairs", metric="auroc_within")])
    pytest.raises(InputError, Comparison, both).match("one task")
    with pytest.raises(InputError, match="one data set"):
        Comparison(pd.concat([scores(), scores().assign(dataset="other")]))
    pytest.raises(InputError, Comparison, pd.concat([scores(), scores()])).match("there twice")
    pytest.raises(InputError, Comparison, scores(), "MSE").match("no metric 'MSE'")
    pytest.raises(InputError, Comparison(scores()).gains, "nobody").match("no method 'nobody'")
    controls = {k: v for k, v in MEANS.items() if k[2].endswith("control")}
    pytest.raises(InputError, Comparison(scores(controls)).answer).match("only controls")


def test_the_first_page_says_what_fusion_adds():
    fused = Comparison(
        scores({**MEANS, ("all", "ridge", "Fusion"): 4.5, ("some", "x", "Fusion"): 6})
    )
    third = three_sentences(Comparison(scores()), simulated=False, fused=fused)[2]
    assert third.endswith("; the best of 2 fusions of them (all) closes 88 %.")


def test_neighbours_are_compared_one_by_one():
    table = Comparison(scores()).neighbours()
    assert list(table["method"][1:]) == list(table["next"][:-1])
    assert list(table["verdict"][:-1]) == ["tie", "worse"] and table["behind"][1] > 2.5
    assert table.iloc[-1][["next", "behind", "p_holm"]].isna().all()


@pytest.mark.parametrize("second, better", [(2.0, 3), (9.0, 0)])
def test_predictors_are_held_against_each_other(second, better):
    more = {(e, "ridge", m): second + i for i, (e, p, m) in enumerate(MEANS) if p == "knn"}
    said = predictor_agreement(scores({**MEANS, **more}), "L2", "knn", "ridge")
    assert said.startswith("Over 3 embeddings, the mean scores of kNN and ridge have a rank")
    assert f"ridge is the better predictor for {better} of them" in said


def test_an_embedding_of_low_coverage_is_shown_but_does_not_win():
    """Where the Train Mean wins, every perturbation without a vector is a good prediction."""
    means = {**MEANS, ("good", "knn", "Prior knowledge"): 8.3, ("twin", "knn", "Protein"): 8.4}
    means = {k: v for k, v in means.items() if k != ("twin", "knn", "Prior knowledge")}
    means["dull", "knn", "Protein"] = 8.6
    table = scores({**means, ("sparse", "knn", "Protein"): 8.02})
    table.loc[table["embedding"] == "sparse", "coverage"] = 0.26
    c = Comparison(table)
    row = c.ranking().set_index("method").loc["sparse"]
    assert c.best == "good" and row["coverage"] == 0.26 and not row["with_best"]
    assert c.means["sparse"] < c.means["good"]
    assert set(c.gains()["against"]) == {"good"} and "sparse" not in set(c.neighbours()["method"])
    assert "sparse" not in c.one_line() + "".join(three_sentences(c, simulated=True))
    lines = reference_lines(c.scores.assign(display=c.scores["method"]), lower_is_better=True)
    assert "sparse" not in set(lines["display"])


@pytest.fixture(scope="module")
def screen():
    """Responses of 80 perturbations that follow 4 numbers, and embeddings that know these."""
    rng = np.random.default_rng(0)
    names, latent = pd.Index([f"P{i:02d}" for i in range(80)]), rng.normal(size=(80, 4))
    X = np.tanh(latent) @ rng.normal(size=(4, 30)) + 0.4 * rng.normal(size=(80, 30))
    responses = responses_of(X, names)

    def embedding(name, noise, n=80):
        own = latent @ rng.normal(size=(4, 12)) + noise * rng.normal(size=(80, 12))
        rows = rng.permutation(80)[:n]
        return Embedding(name, "Protein", names[rows], own[rows].astype(np.float32))

    known = [embedding("clear", 0.1, 48), embedding("vague", 1.6), embedding("vaguer", 1.8)]
    copy = Embedding("copy", "Protein", names, X.astype(np.float32))

    def scored(embeddings):
        return evaluate_embeddings(
            responses, embeddings, [KNN([3, 5])], protocol=Protocol(n_components=8), progress=False
        )

    return known, copy, scored


def test_the_order_where_all_have_vectors_stands_beside_the_ranking(screen):
    (clear, *rest), _, scored = screen
    c = Comparison(scored([clear, *rest]))
    alone = scored([rest[0]])
    l2 = alone[(alone["metric"] == "L2") & (alone["embedding"] == "vague")]
    np.testing.assert_allclose(l2["common"], l2["value"], rtol=1e-5)
    table = c.ranking().set_index("method")
    assert table["value"].idxmin() != "clear"
    assert (
        c.best == "vague"
        and c.best_on_common == "clear" == table["common"].drop("Idealized").idxmin()
    )
    assert "the order is another" in c.answer() and "best there is clear" in c.answer()
    assert "the order is another" not in Comparison(scored(rest)).answer()
    assert "common" in c.columns() and "common" not in Comparison(scores()).columns()


@pytest.mark.parametrize("task, metric", [("deg", "f1_score"), ("deg_pairs", "auroc_within")])
def test_labels_are_scored_again_where_all_embeddings_have_vectors(task, metric):
    """An embedding of 26 % coverage decides on which perturbations the others are compared."""
    rng = np.random.default_rng(3)
    names, latent = pd.Index([f"P{i:03d}" for i in range(200)]), rng.normal(size=(200, 3))
    label = np.digitize(latent @ rng.normal(size=(3, 20)), [-1.2, 1.2]) - 1
    known = {} if task == "deg" else {"observed": rng.random(label.shape) < 0.7}
    responses = responses_of(label, names, task=task, **known)
    some = rng.permutation(200)[:52]
    # one knows just those perturbations well, the other all the rest
    noise = np.where(np.isin(np.arange(200), some), 0.1, 4.0)[:, None]
    here, rest, few = (
        Embedding(name, "Protein", names[at], (latent + n * rng.normal(size=(200, 3)))[at])
        for name, n, at in [
            ("here", noise, slice(None)), ("rest", 4.1 - noise, slice(None)), ("few", 1.0, some),
        ]
    )  # fmt: skip

    def scored(embeddings):
        return evaluate_embeddings(responses, embeddings, ["knn"], progress=False)

    table = scored([here, rest, few])
    mine = table[(table["metric"] == metric) & (table["embedding"] == "here")].set_index("fold")
    for fold, row in mine.iterrows():
        model = OnEmbedding(here, simple.predictor("knn", task))
        said = fit_predict(model, Fold.of(responses, fold)).values
        test = responses[responses.obs["fold"] == fold]
        at = test.obs["perturbation"].isin(names[some]).to_numpy()
        truth = task_of(task).truth(test[at])
        score, _ = task_of(task).score(truth, said[..., at, :], [metric], train=None, memo={})
        assert row["common"] == pytest.approx(score[metric], abs=1e-9)
        assert abs(row["common"] - row["value"]) > 0.01
    c = Comparison(table)
    assert (c.best, c.best_on_common) == ("rest", "here") and "few" not in c.competitors
    assert "the order is another" in c.answer() and "best there is here" in c.answer()
    whole = scored([here, rest])
    np.testing.assert_array_equal(whole["common"], whole["value"])


def test_a_copy_of_the_responses_looks_too_good(screen):
    known, copy, scored = screen
    assert "copy looks too good" in Comparison(scored([*known, copy])).answer()
    for usual in (Comparison(scored(known)), Comparison(scores())):
        assert not usual.too_good and "too good" not in usual.answer()


# every sentence against the table, whoever wins

FLOOR = 8.0
PLAUSIBLE = st.fixed_dictionaries(
    {
        "levels": st.lists(st.sampled_from([4.0, 5.0, 7.9, 8.0, 9.0]), min_size=1, max_size=5),
        "coverage": st.lists(st.sampled_from([1.0, 0.26]), min_size=5, max_size=5),
        "ceiling": st.sampled_from([3.0, 4.5, 8.0, 9.5]),
        "noise": st.sampled_from([0.01, 0.3, 3.0]),
        "folds": st.sampled_from([1, 2, 5]),
        "higher": st.booleans(),
        "seed": st.integers(0, 1000),
    }
)


def drawn(case) -> Comparison:
    """Embeddings E0, E1, ... at planted levels; where higher is better, everything is mirrored."""
    means = {(f"E{i}", "knn", "Protein"): v for i, v in enumerate(case["levels"])}
    means["random", "knn", "Negative control"] = 3.5  # even the best control does not compete
    means["", "train_mean", "Negative control"] = FLOOR
    means["", "experimental_error", "Positive control"] = case["ceiling"]
    metric, task = ("auroc_within", "deg_pairs") if case["higher"] else ("L2", "lfc")
    table = scores(means, metric, task, case["noise"], case["folds"], case["seed"])
    if case["higher"]:
        table["value"] = 1 - table["value"] / 20
    for i, share in enumerate(case["coverage"]):
        table.loc[table["embedding"] == f"E{i}", "coverage"] = share
    return Comparison(table)


def truth(c: Comparison) -> dict:
    """Best, ties and unproven by loops over the raw scores, without the code under test."""
    sign = 1 if c.metric == "auroc_within" else -1
    raw = c.scores.assign(
        name=c.scores["embedding"].where(c.scores["embedding"] != "", c.scores["predictor"])
    )
    fold = sign * raw.groupby(["name", "fold"])["value"].mean().unstack("fold")
    share = raw.groupby("name")["coverage"].mean()
    names = [n for n in fold.index if n.startswith("E")]
    names = [n for n in names if share[n] >= 0.5] or names
    best = max(names, key=lambda n: fold.loc[n].mean())

    def told(reference, others):
        p = {}
        for name in others:
            d = (fold.loc[name] - fold.loc[reference]).to_numpy()
            n = len(d)
            se = d.std(ddof=1) * np.sqrt(1 / n + 0.25) if n > 1 else np.nan
            p[name] = 2 * stats.t.sf(abs(d.mean() / se), n - 1) if n > 1 else np.nan
        out, worst = {}, 0.0
        for i, name in enumerate(sorted(p, key=p.get)):
            worst = max(worst, min(1.0, (len(p) - i) * p[name]))
            out[name] = worst < 0.05 if np.isfinite(p[name]) else False
        return out

    rivals, floor = told(best, [n for n in names if n != best]), told("train_mean", names)
    beats = {n for n in names if floor[n] and fold.loc[n].mean() > fold.loc["train_mean"].mean()}
    mean = sign * fold.mean(axis=1)
    way = mean["experimental_error"] - mean["train_mean"]
    gap = (mean[best] - mean["train_mean"]) / way if sign * way > 0 else np.nan
    return dict(
        names=names, best=best, mean=mean, gap=gap,
        ties={n for n, apart in rivals.items() if not apart}, unproven=set(names) - beats,
    )  # fmt: skip


def named(pattern: str, text: str) -> set | None:
    found = re.search(pattern, text)
    return set(re.split(", | and ", found[1])) if found else None


# the Train Mean wins; it ties with all; embeddings of which no pair differs; none covers enough
HARD = [dict(levels=[9.0, 9.0, 9.0], noise=0.01), dict(levels=[8.0, 8.0, 8.0], noise=0.3)]
HARD.append(dict(levels=[5.0, 5.0, 5.0], noise=3.0))
HARD.append(dict(levels=[5.0, 7.0], noise=0.01, coverage=[0.26] * 5))
HARD = [dict(coverage=[1.0] * 5, ceiling=4.5, folds=5, higher=False, seed=1) | h for h in HARD]


@settings(max_examples=25, deadline=None)
@example(HARD[0])
@example(HARD[1])
@example(HARD[2])
@example(HARD[3])
@given(PLAUSIBLE)
def test_every_sentence_is_true_of_the_table(case):
    c = drawn(case)
    t = truth(c)
    n, best = len(t["names"]), t["best"]
    answer, line = c.answer("Toy"), c.one_line()
    three = three_sentences(c, simulated=True)
    share = percent(t["gap"]) if np.isfinite(t["gap"]) else None
    # the best is the best embedding, with its score beside the floor's
    assert f"the best of {n} {plural(n, 'embedding')} is **{best}**" in answer
    assert (
        f"{t['mean'][best]:.3f}" in answer
        and f"{t['mean']['train_mean']:.3f} for the Train" in answer
    )
    for text in (answer, line, three[0]):
        partial = case["coverage"][int(best[1:])] < 1
        assert ("with a vector for 26 % of the perturbations" in text) == partial
    # who ties with it
    ties, others = t["ties"], n - 1
    every = "every other embedding is distinguishably worse"
    none = "no other embedding can be told apart from it"
    assert (every in answer.lower()) == (others > 0 and not ties)
    assert (none in answer.lower()) == (0 < others == len(ties))
    listed_ties = named("of the others, (.*?) cannot be told apart", answer.replace("Of", "of"))
    assert listed_ties == (ties if 0 < len(ties) < others else None)
    if best not in t["unproven"]:
        count = re.search(r"\((\d+) others? ties? with it\)", line)
        assert int(count[1] if count else 0) == len(ties)
    # who beats the Train Mean
    unproven = t["unproven"]
    assert ("every embedding beats the Train Mean" in answer.replace("E", "e")) == (not unproven)
    assert ("no embedding can be shown to beat" in answer.replace("N", "n")) == (len(unproven) == n)
    some = named("(?:and |\n\n)((?:E\\d(?:, | and )?)+) cannot be shown to beat", answer)
    assert some == (unproven if 0 < len(unproven) < n else None)
    some = f"{len(c.competitors) - len(unproven)} of {len(c.competitors)} embeddings, the best by score not among"
    none = "No embedding can be shown to beat the Train Mean"
    said = none if len(unproven) == len(c.competitors) else some
    assert line.startswith(said) == (best in unproven)
    assert ("predicts unseen perturbations best" in three[0]) == (best not in unproven)
    assert three[1] == answer.split("\n\n")[2]
    # the share of the gap, one number everywhere
    for text in (answer.split("\n\n")[1], three[2]):
        assert ("no better than the Train Mean" in text) == (share is None)
        if share is not None:
            assert share in text
            assert ("closes nothing" in text) == (t["gap"] <= 0)
            assert ("reaches the ceiling" in text) == (t["gap"] >= 1)
    if best not in unproven and share is not None:
        assert share in line

    # controls are never best, tied or counted
    table = c.ranking().set_index("method")
    controls = table["modality"].str.endswith("control")
    assert not table.loc[controls, ["competes", "with_best"]].to_numpy().any()
    assert table.loc[controls, ["p_best", "p_floor", "behind"]].isna().to_numpy().all()
    assert len(c.neighbours()) == len(c.competitors) == table["competes"].sum()
    assert (c.floor, c.ceiling) == ("Train Mean", "Experimental error")
    way = 1 if case["higher"] else -1
    assert (way * table["value"]).is_monotonic_decreasing
    assert set(c.competitors) == set(t["names"])
    assert "Random" not in answer + line + " ".join(three)
