"""What the chapter on fusion says is held against scores with known differences."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from toys import scores

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.choice import SET, SINGLE
from perturbcore.report import leaderboard
from perturbcore.report.figures import gain_plot
from perturbcore.report.fusion import page
from perturbcore.report.fusion import scores as fs
from perturbcore.score.store import ScoreStore, UnitResult

RIDGE, ANY = "Best source, ridge", "Best source, any predictor"


def toy_scores():
    """Ridge beats kNN by 0.5 in one source, and by 0.7 more in all; the transformer is worse."""
    low, fused = "Negative control", "Fusion"
    table = scores({
        ("", "train_mean", low): 9.0, ("random", "knn", low): 9.1,
        ("idealized", "knn", "Positive control"): 4.0,
        ("S", "knn", "Protein"): 7.0, ("T", "knn", "Protein"): 8.0,
        ("Best source", "knn", SINGLE): 7.2, ("Best source", "ridge", SINGLE): 6.7,
        ("Best source", "any predictor", SINGLE): 6.8, ("One network", "knn", SET): 6.9,
        ("One network", "ridge", SET): 6.4, ("Averaged kNN", "average", fused): 6.7,
        ("Multi-kernel ridge", "ridge", fused): 6.0, ("Simple fusion", "transformer", fused): 8.5,
        ("Stacking", "stack", fused): 8.6, ("Concatenation + PCA", "knn", fused): 8.7,
    }, noise=0.01)  # fmt: skip
    noted = [("S", 0.75), ("T", 0.25)]
    weights = [("Multi-kernel ridge", x, f, s, w) for x in "AB" for f in range(5) for s, w in noted]
    columns = ["method", "cell_line", "fold", "source", "weight"]
    data = SimpleNamespace(title="Toy", task="lfc")
    sources = [SimpleNamespace(name="S"), SimpleNamespace(name="T")]
    weights = pd.DataFrame(weights, columns=columns)
    return fs.FusionScores(data, sources, table, weights, [], {"One network": ["S"], "None": ["U"]})


@pytest.fixture
def toy():
    return toy_scores()


def shifted(toy, name, by, folds=range(5)):
    """The same with some scores of a method moved."""
    moved = toy.scores.copy()
    moved.loc[(moved["embedding"] == name) & moved["fold"].isin(folds), "value"] += by
    return replace(toy, scores=moved)


def test_fusions_are_held_against_the_best_source_under_any_predictor_chosen_in_training(toy):
    assert toy.best_single == ANY
    table = toy.gains.set_index("method")
    assert table.loc["Multi-kernel ridge", "gain"] == pytest.approx(0.8, abs=0.02)
    assert table.loc["Simple fusion", "gain"] == pytest.approx(-1.7, abs=0.02)
    assert list(table["verdict"]) == ["better"] * 2 + ["worse"] * 3
    assert list(table["lines"]) == ["2 of 2"] * 2 + ["0 of 2"] * 3
    # not against what the test folds name best
    assert shifted(toy, "S", -2.0).best_single == ANY


def test_the_main_table_has_a_row_per_predictor_and_a_column_per_choice_of_sources(toy):
    assert toy.cells.loc["ridge"].to_dict() == {
        "One network": "One network, ridge", "Best source": RIDGE,
        "All sources": "Multi-kernel ridge",
    }  # fmt: skip
    table = page.cells_text(toy)
    assert list(table["Predictor"]) == ["kernel ridge", "kNN"]  # the best fusion first
    ranking = toy.every.ranking().set_index("method").loc["One network, ridge"]
    value, low, high = ranking[["value", "low", "high"]]
    assert table["One network"][0] == f"{value:.3f} ({low:.3f} to {high:.3f})"
    # a fusion without a single-source run stays out, and a set that a predictor lacks is a dash
    less = toy.scores[
        ~((toy.scores["embedding"] == "One network") & (toy.scores["predictor"] == "knn"))
    ]
    assert page.cells_text(replace(toy, scores=less))["One network"][1] == "–"


VERDICTS = {1: "better", -1: "worse", 0: "tie"}
WORDS = {1: "adds +0.", -1: "costs: −0.", 0: "adds nothing that can be told from zero: "}


@pytest.mark.parametrize("predictor", VERDICTS)
@pytest.mark.parametrize("fusion", VERDICTS)
def test_predictor_and_fusion_are_told_apart_whichever_way_they_fall(toy, predictor, fusion):
    best = 7.0 - 0.5 * predictor
    table = scores({
        ("", "train_mean", "Negative control"): 9.0, ("Best source", "knn", SINGLE): 7.0,
        ("Averaged kNN", "average", "Fusion"): 8.5, ("Best source", "any predictor", SINGLE): best,
        ("Best source", "ridge", SINGLE): best,
        ("Multi-kernel ridge", "ridge", "Fusion"): best - 0.6 * fusion,
    }, noise=0.01)  # fmt: skip
    rng, ridge = np.random.default_rng(1), table["predictor"] == "ridge"
    for name, sign in (("Best source", predictor), ("Multi-kernel ridge", fusion)):
        noisy = ridge & (table["embedding"] == name) & (sign == 0)  # a tie is lost in noise
        table.loc[noisy, "value"] += 0.3 * rng.standard_normal(noisy.sum())
    f = replace(toy, scores=table)
    parts = f.parts[f.parts["kind"] == "ridge"].set_index("what")
    assert parts.loc["predictor", "verdict"] == VERDICTS[predictor]
    assert parts.loc["fusion, any predictor", "verdict"] == VERDICTS[fusion]
    for said in (page.parts_said(f), page.one_line(f)):
        assert f"the predictor {WORDS[predictor]}" in said
        assert f"fusion {WORDS[fusion]}" in said
        for what in ("fusion", "fusion, any predictor"):
            assert page.effect("fusion", parts.loc[what]) in said


def test_equal_differences_have_equal_verdicts(toy):
    same = toy.scores["predictor"].isin(["ridge", "any predictor"])
    rest = toy.scores[~((toy.scores["embedding"] == "Best source") & same)]
    alone = scores({("Best source", "ridge", SINGLE): 6.03}, noise=0.01)
    f = replace(toy, scores=pd.concat([rest, alone, alone.assign(predictor="any predictor")]))
    parts = f.parts[f.parts["kind"] == "ridge"].set_index("what")
    own, other = parts.loc["fusion"], parts.loc["fusion, any predictor"]
    assert own["gain"] == other["gain"] and own["verdict"] == other["verdict"]
    assert "which is the best under any predictor too" in page.one_line(f)


def test_one_fold_decides_nothing(toy):
    f = replace(toy, scores=toy.scores[toy.scores["fold"] == 0])
    assert "fusion changes the score by +0." in page.one_line(f) and "undecidable" in page.answer(f)


def test_gains_line_by_line_add_up_and_keep_their_sign(toy):
    table, lines = toy.gains, toy.lines
    assert list(lines["method"].unique()) == list(table["method"])
    assert list(lines["cell_line"][:2]) == ["A", "B"]
    assert (lines["low"] < lines["gain"]).all() and (lines["gain"] < lines["high"]).all()
    np.testing.assert_allclose(lines.groupby("method", sort=False)["gain"].mean(), table["gain"])
    text = page.by_line_text(toy.lines, toy.gains, toy.best_single).set_index("method")
    one = lines.iloc[0]
    assert text.loc[ANY, "A"] == f"{one['reference']:.3f}"
    cell = text.loc["Multi-kernel ridge", "A"]
    assert cell.startswith(f"{one['value']:.3f}: +{one['gain']:.3f} (+")
    assert "−1.7" in text.loc["Simple fusion", "B"]
    figure = gain_plot(lines, table, reference=toy.best_single, label="Gain")
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == list(table["method"])
    np.testing.assert_allclose(axis.lines[0].get_xdata(), lines[lines["cell_line"] == "A"]["gain"])


def test_folds_that_were_looked_at_are_left_out_of_a_second_comparison(toy):
    # all that the transformer gains, it gains in the fold that was looked at
    flattered = shifted(toy, "Simple fusion", -20.0, [0])
    assert flattered.gains.set_index("method").loc["Simple fusion", "gain"] > 0
    said = page.without_folds(flattered, [0])
    assert "with fold 0 in view" in said and "−1.7" in said
    assert f"over {ANY}" in said and "over Multi-kernel ridge" in said
    assert said in page.answer(flattered, [0])
    assert page.without_folds(toy, []) == ""


def test_what_is_shown_has_floor_and_ceiling_and_few_single_sources(toy):
    table = toy.shown.ranking()
    assert {"Train Mean", "Idealized", "Random"} <= set(table["method"])
    best = table[table["competes"]].iloc[0]
    assert best["method"] == "Multi-kernel ridge" and best["with_best"]
    more = scores({(f"U{i}", "knn", "Protein"): 8.1 for i in range(3)})
    crowded = replace(toy, scores=pd.concat([toy.scores, more]))
    assert len(crowded.singles) == 8
    assert set(crowded.shown.methods.index) == set(toy.shown.methods.index)


def test_weights_ablation_and_growth(toy):
    assert page.learnt(toy).to_dict("list") == {
        "source": ["S", "T"],
        "Multi-kernel ridge": [0.75, 0.25],
    }
    table = pd.DataFrame(
        [("A", 0, "all", "", 2, 6.0),
         ("A", 0, "alone", "S", 1, 7.0), ("A", 0, "alone", "T", 1, 8.0),
         ("A", 0, "without", "S", 1, 8.0), ("A", 0, "without", "T", 1, 5.5),
         ("A", 0, "greedy", "S", 1, 7.0), ("A", 0, "greedy", "T", 2, 6.0)],
        columns=["cell_line", "fold", "kind", "source", "n_sources", "value"],
    )  # fmt: skip
    lost = page.ablation_table(table, higher_is_better=False)
    assert lost["source"].tolist() == ["S", "T"] and lost["lost"].tolist() == [2.0, -0.5]
    curve = page.growth(table)
    assert len(page.growth_figure(curve, "L2").axes[0].lines) == 2
    # no greedy folds: nothing to draw, and nothing said of it
    none = page.growth(table[table["kind"] != "greedy"])
    on = "On fold 0: one source chosen on training perturbations gives L2 error 7.000, all 2 give 6.000"
    missed = "most missed is S (−2.000 without it), least T (+0.500: leaving it out helps)."
    missed = f"Over all folds, {missed}"
    assert page.growth_said(toy, none, lost) == missed
    every = f"{on}; the best mean is reached with 2. {missed}"
    assert page.growth_said(toy, curve, lost) == every


def test_weights_come_from_the_notes_of_units():
    store = ScoreStore()
    about = {"dataset": "toy", "task": "lfc", "cell_line": "A", "fold": 0, "embedding": "Stacking",
             "modality": "Fusion", "predictor": "stack", "seed": 0}  # fmt: skip
    store.put([UnitResult("k", about, {"L2": 1.0}, note={"weights": {"S": 3, "T": 1}})])
    table = fs.weights_of(store, store.scores(["k"]))
    assert dict(zip(table["source"], table["weight"], strict=True)) == {"S": 0.75, "T": 0.25}


def test_one_source_is_refused_and_a_transformer_names_its_preset():
    one = SimpleNamespace(name="S", modality="Protein")
    study = SimpleNamespace(
        dataset=lambda n: SimpleNamespace(task="lfc", title="Toy"), embeddings=lambda n, seed: [one]
    )
    pytest.raises(ParameterError, fs.score_fusions, study, "toy").match("at least two")
    with pytest.raises(ParameterError, match="preset"):
        fs.fusion_transformers(study, None, [one], {"X": {"layers": 2}})
    study.profile = SimpleNamespace(results=Path("nowhere"))
    space = {"layers": [1, 2]}
    wanted = {"X": dict(preset="lfc_simple", layers=2, seed=7, trials=3, space=space)}
    (made,), left_out = fs.fusion_transformers(study, None, [one], wanted)
    assert (made.seed, made.trials, made.settings.layers, left_out) == (7, 3, 2, [])


def board_scores(name, predictor, modality, value):
    """Scores of one method on PerturbQA's split, the same in every line."""
    return pd.DataFrame(
        {"wu_task": t, "metric": leaderboard.METRIC, "embedding": name, "predictor": predictor,
         "modality": modality, "cell_line": x, "value": value}
        for t in leaderboard.TASKS for x in leaderboard.LINES.values()
    )  # fmt: skip


@pytest.mark.parametrize(("value", "ahead"), [(0.95, 4), (0.4, 0)])
def test_the_board_counts_the_lines_in_which_a_fusion_is_ahead(value, ahead):
    fused = board_scores("Stacking", "stack", "Fusion", value)
    single = board_scores("STRING", "kernel", "Prior knowledge", 0.6)
    said = leaderboard.verdict(fused, single)
    assert said.count(f"ahead of every published method in {ahead} of 4 lines") == 2
    assert "**Stacking, stack** has the best mean" in said and "(STRING, kernel)" in said
    assert f"de {value:.3f} against" in leaderboard.record(fused)
    table = leaderboard.combined(single, fused, "dir").set_index("method")
    assert table.loc["Stacking, stack", "origin"] == "fusion (this book)"
    assert table.loc["STRING, kernel", "origin"] == "single source (this book)"
