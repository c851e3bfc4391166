"""One comparison for every chapter: who competes, what is better, what is printed is true."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from toys import MEANS, scores
from worlds import responses_of

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.models import simple
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.embedding import OnEmbedding
from perturbcore.report.comparison import Comparison, predictor_agreement, three_sentences
from perturbcore.report.figures.methods import reference_lines
from perturbcore.report.text import percent, plural
from perturbcore.score.model import Fold, fit_predict
from perturbcore.score.task import task_of


def without(*dropped, means=MEANS):
    """Means of the methods, those of some embeddings or predictors left out."""
    return {key: mean for key, mean in means.items() if not {*key[:2]} & {*dropped}}


def test_every_share_of_the_gap_is_computed_from_the_numbers_in_its_row():
    c = Comparison(scores())
    for table in (c.gap(), c.gap(("cell_line",)), c.ranking()):
        share = (table["value"] - table["floor"]) / (table["ceiling"] - table["floor"])
        np.testing.assert_allclose(table["gap_closed"], share, atol=1e-12)
    wide = c.table("gap_closed").set_index("method").loc["good"]
    by_line = c.gap(("cell_line",)).set_index(["method", "cell_line"])["gap_closed"]["good"]
    assert wide[["A", "B"]].tolist() == by_line.tolist()
    assert wide["all lines"] == pytest.approx(0.75, abs=0.03)


def test_each_use_of_a_representation_is_held_against_knn_on_it():
    means = {**MEANS, ("good", "kernel", "Prior knowledge"): 4.5, ("dull", "ridge", "Protein"): 9.0}
    table = Comparison(scores(means)).own_gains().set_index("method")
    assert dict(table["against"]) == {"good, kernel": "good, kNN", "dull, ridge": "dull, kNN"}
    assert dict(table["verdict"]) == {"good, kernel": "better", "dull, ridge": "worse"}
    assert table.loc["good, kernel", "gain"] == pytest.approx(0.5, abs=0.05)


def test_the_ceiling_is_the_error_else_the_best_idealized_predictor():
    bare = without("experimental_error")
    assert Comparison(scores(bare)).ceiling == "Idealized"
    both = scores({**bare, ("idealized", "kernel", "Positive control"): 2.0})
    c = Comparison(both, predictor="knn")
    assert c.means["Idealized"] == pytest.approx(2.0, abs=0.3)
    assert not (c.methods["predictor"] == "kernel").drop("Idealized").any()
    none = without("idealized", means=bare)
    pytest.raises(InputError, Comparison(scores(none)).ranking).match("no ceiling")
    c = Comparison(scores(none), needs_ceiling=False)
    assert c.ranking()["gap_closed"].isna().all() and "no ceiling" in c.answer()
    assert c.figure() is not None and "no gap to close" in c.one_line()
    flat = scores({k: 5.0 for k in none})
    assert "ceiling lies at –" in Comparison(flat, needs_ceiling=False).one_line()


CONTROLS = scores(without("good", "twin", "dull"))
REFUSED = {
    "one task": lambda: Comparison(pd.concat([scores(), scores(task="deg", metric="f1_score")])),
    "one data set": lambda: Comparison(pd.concat([scores(), scores().assign(dataset="other")])),
    "there twice": lambda: Comparison(pd.concat([scores(), scores()])),
    "no metric 'MSE'": lambda: Comparison(scores(), "MSE"),
    "method 'nobody' is not one of": lambda: Comparison(scores()).gains("nobody"),
    "only controls": lambda: Comparison(CONTROLS).answer(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_scores_that_cannot_be_compared_are_refused(message):
    pytest.raises(InputError, REFUSED[message]).match(message)


def test_the_first_page_says_what_fusion_adds():
    fusions = {("all", "ridge", "Fusion"): 4.5, ("some", "x", "Fusion"): 6}
    fused = Comparison(scores(MEANS | fusions))
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
    levels = {"good": 8.3, "twin": 8.4, "dull": 8.6, "sparse": 8.02}
    means = {(name, "knn", "Protein"): mean for name, mean in levels.items()}
    table = scores(without(*levels) | means)
    table.loc[table["embedding"] == "sparse", "coverage"] = 0.26
    c = Comparison(table)
    row = c.ranking().set_index("method").loc["sparse"]
    assert c.best == "good" and row["coverage"] == 0.26 and not row["with_best"]
    assert c.means["sparse"] < c.means["good"]
    assert set(c.gains()["against"]) == {"good"} and "sparse" not in set(c.neighbours()["method"])
    lines = reference_lines(c.scores.assign(display=c.scores["method"]), lower_is_better=True)
    assert "sparse" not in set(lines["display"])


def planted(task="lfc"):
    """Responses of 200 perturbations that follow 3 numbers; embeddings that know these; some 52."""
    rng = np.random.default_rng(3)
    names, latent = pd.Index([f"P{i:03d}" for i in range(200)]), rng.normal(size=(200, 3))
    X = latent @ rng.normal(size=(3, 20))
    X = X if task == "lfc" else np.digitize(X, [-1.2, 1.2]) - 1
    known = {"observed": rng.random(X.shape) < 0.7} if task == "deg_pairs" else {}

    def embedding(name, noise, at=slice(None)):
        vectors = latent + noise * rng.normal(size=latent.shape)
        return Embedding(name, "Protein", names[at], vectors[at])

    some = np.isin(np.arange(200), rng.permutation(200)[:52])
    return responses_of(X, names, task=task, **known), embedding, some


TASKS = [("lfc", "L2"), ("deg", "f1_score"), ("deg_pairs", "auroc_within")]


@pytest.mark.parametrize("task, metric", TASKS)
def test_all_are_scored_again_where_all_have_vectors_and_another_order_is_said(task, metric):
    """An embedding of 26 % coverage decides on which perturbations the others are compared."""
    responses, embedding, some = planted(task)

    def scored(*embeddings):
        return evaluate_embeddings(responses, embeddings, ["knn"], progress=False)

    # one knows just those perturbations well, the other all the rest
    here = embedding("here", np.where(some, 0.1, 4.0)[:, None])
    rest = embedding("rest", np.where(some, 4.0, 0.1)[:, None])
    table = scored(here, rest, embedding("few", 1.0, some))
    mine = table[(table["metric"] == metric) & (table["embedding"] == "here")].set_index("fold")
    for fold, row in mine.iterrows():
        model = OnEmbedding(here, simple.predictor("knn", task))
        said = fit_predict(model, Fold.of(responses, fold)).values
        test = (responses.obs["fold"] == fold).to_numpy()
        truth, train = (task_of(task).truth(responses[at]) for at in (test & some, ~test))
        about = dict(train=train, memo={})
        score, _ = task_of(task).score(truth, said[..., some[test], :], [metric], **about)
        assert row["common"] == pytest.approx(score[metric], rel=1e-6)
        assert abs(row["common"] - row["value"]) > 0.01
    c = Comparison(table)
    assert (c.best, c.best_on_common) == ("rest", "here") and "few" not in c.competitors
    assert "the order is another" in c.answer() and "best there is here" in c.answer()
    whole = scored(here, rest)
    same = whole[whole["metric"] == metric]
    np.testing.assert_allclose(same["common"], same["value"], rtol=1e-6)
    assert "the order is another" not in Comparison(whole).answer()
    assert "common" in c.columns() and "common" not in Comparison(scores()).columns()


def test_a_copy_of_the_responses_looks_too_good():
    responses, embedding, _ = planted()
    usual = [embedding(f"E{i}", noise) for i, noise in enumerate([1.0, 1.6, 1.8])]
    copy = Embedding("copy", "Protein", responses.obs["perturbation"], responses.X)
    for embeddings, said in ((usual, False), ([*usual, copy], True)):
        c = Comparison(evaluate_embeddings(responses, embeddings, ["knn"], progress=False))
        assert ("copy looks too good" in c.answer()) == said == c.too_good


# what is said against the raw scores, whoever wins

CHOICES = dict(ceiling=[3.0, 4.5, 8.0, 9.5], noise=[0.01, 0.3, 3.0], folds=[1, 2, 5])


def drawn(seed) -> Comparison:
    """Embeddings E0, E1, ... at planted levels; where higher is better, everything is mirrored."""
    rng = np.random.default_rng(seed)
    levels = rng.choice([4.0, 5.0, 7.9, 8.0, 9.0], rng.integers(1, 6))
    ceiling, noise, folds = (rng.choice(values) for values in CHOICES.values())
    means = {(f"E{i}", "knn", "Protein"): v for i, v in enumerate(levels)}
    means["random", "knn", "Negative control"] = 3.5  # even the best control does not compete
    means["", "train_mean", "Negative control"] = 8.0
    means["", "experimental_error", "Positive control"] = ceiling
    metric, task = ("auroc_within", "deg_pairs") if seed % 2 else ("L2", "lfc")
    table = scores(means, metric, task, noise, folds, seed)
    if seed % 2:
        table["value"] = 1 - table["value"] / 20
    share = {f"E{i}": rng.choice([1.0, 0.26]) for i in range(len(levels))}
    return Comparison(table.assign(coverage=table["embedding"].map(share)))


def truth(c: Comparison) -> dict:
    """Best, ties and unproven by loops over the raw scores, without the code under test."""
    sign = 1 if c.metric == "auroc_within" else -1
    raw = c.scores.assign(
        name=c.scores["embedding"].where(lambda e: e != "", c.scores["predictor"])
    )
    fold = sign * raw.groupby(["name", "fold"])["value"].mean().unstack("fold")
    mean, share = fold.mean(axis=1), raw.groupby("name")["coverage"].mean()
    names = [n for n in fold.index if n.startswith("E")]
    names = [n for n in names if share[n] >= 0.5] or names
    best = mean[names].idxmax()

    def told(reference, others):
        gain = fold.loc[others] - fold.loc[reference]
        n = gain.shape[1]
        t = gain.mean(axis=1) / (gain.std(axis=1) * np.sqrt(1 / n + 0.25))
        p, worst, out = 2 * stats.t.sf(abs(t), n - 1), 0.0, {}
        for i, k in enumerate(np.argsort(p)):
            worst = np.maximum(worst, (len(p) - i) * p[k])  # NaN, of one fold, stays NaN
            out[others[k]] = worst < 0.05
        return out

    rivals, floor = told(best, [n for n in names if n != best]), told("train_mean", names)
    beats = {n for n in names if floor[n] and mean[n] > mean["train_mean"]}
    way = mean["experimental_error"] - mean["train_mean"]
    gap = (mean[best] - mean["train_mean"]) / way if way > 0 else np.nan
    ties = {n for n, apart in rivals.items() if not apart}
    unproven = set(names) - beats
    return dict(names=names, best=best, mean=sign * mean, gap=gap, ties=ties, unproven=unproven)


# by 71 a verdict turns on the adjustment for many comparisons
@pytest.mark.parametrize("seed", [*range(40), 71])
def test_who_is_best_ties_or_fails_is_that_of_the_raw_scores_and_said(seed):
    """`test_sentences.py` has the words for each of these; here they rest on what is true."""
    c = drawn(seed)
    t = truth(c)
    best, ties, unproven = t["best"], t["ties"], t["unproven"]
    assert (c.best, set(c.ties()), set(c.unproven())) == (best, ties, unproven)
    table = c.ranking().set_index("method")
    found = table.loc[best, ["value", "floor", "gap_closed"]].astype(float)
    np.testing.assert_allclose(found, [t["mean"][best], t["mean"]["train_mean"], t["gap"]])
    answer, line, three = c.answer("Toy"), c.one_line(), three_sentences(c, simulated=True)
    assert (
        f"the best of {len(t['names'])} {plural(t['names'], 'embedding')} is **{best}**" in answer
    )
    partial = c.coverage[best] < 1
    for text in (answer, line, three[0]):
        assert ("with a vector for 26 % of the perturbations" in text) == partial
    assert three[1] == answer.split("\n\n")[2]
    # the share of the gap, one number everywhere
    share = percent(t["gap"]) if np.isfinite(t["gap"]) else "no better than the Train Mean"
    assert share in answer.split("\n\n")[1] and share in three[2]
    assert ("predicts unseen perturbations best" in three[0]) == (best not in unproven)
    assert line.startswith(f"{best} (") == (best not in unproven)
    if best not in unproven:
        count = re.search(r"\((\d+) others? ties? with it\)", line)
        assert int(count[1] if count else 0) == len(ties) and share in line
    # controls are never best, tied or counted
    controls = table["modality"].str.endswith("control")
    assert not table.loc[controls, ["competes", "with_best"]].to_numpy().any()
    assert table.loc[controls, ["p_best", "p_floor", "behind"]].isna().to_numpy().all()
    assert (c.floor, c.ceiling) == ("Train Mean", "Experimental error")
    assert (c.sign * table["value"]).is_monotonic_decreasing
    assert set(c.competitors) == set(t["names"]) == set(table.index[table["competes"]])
    assert "Random" not in answer + line + " ".join(three)
