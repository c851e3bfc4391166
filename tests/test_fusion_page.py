"""What the chapter on fusion says is held against scores with known differences."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion import board, contributions, page
from perturbcore.report.figures import gain_plot
from perturbcore.report.fusion.contest import Contest, contest, fusion_transformers, weights_of
from perturbcore.score.store import COLUMNS, ScoreStore, UnitResult

LINES = ("A", "B")


def rows(name, predictor, modality, level, metric="L2", jitter=0.01):
    rng = np.random.default_rng(len(name))
    out = []
    for line in LINES:
        for fold in range(5):
            value = level + 0.3 * fold + jitter * rng.standard_normal()
            one = dict.fromkeys(COLUMNS, "")
            out.append(one | {
                "dataset": "toy", "task": "lfc", "cell_line": line, "fold": fold, "embedding": name,
                "modality": modality, "predictor": predictor, "seed": 0, "metric": metric, "value": value,
                "n_train": 80, "n_test": 20, "coverage": 1.0, "seconds": 0.5,
                "key": f"{name}{predictor}{line}{fold}",
            })  # fmt: skip
    return out


@pytest.fixture
def toy():
    """Stacking clearly beats the best single source; the transformer is clearly worse."""
    singles = pd.DataFrame(
        rows("", "train_mean", "Negative control", 9.0)
        + rows("random", "knn", "Negative control", 9.1)
        + rows("idealized", "knn", "Positive control", 4.0)
        + rows("S", "knn", "Protein", 7.0)
        + rows("T", "knn", "Protein", 8.0)
    )
    fused = pd.DataFrame(
        rows("Stacking", "stack", "Fusion", 6.0)
        + rows("Simple fusion", "transformer", "Fusion", 8.5)
    )
    weights = pd.DataFrame(
        [
            ("Stacking", line, f, s, w)
            for line in LINES
            for f in range(5)
            for s, w in (("S", 0.75), ("T", 0.25))
        ],
        columns=["method", "cell_line", "fold", "source", "weight"],
    )
    data = SimpleNamespace(title="Toy", task="lfc")
    sources = [SimpleNamespace(name="S"), SimpleNamespace(name="T")]
    return Contest(data, sources, singles, fused, weights)


def test_the_best_single_source_is_the_yardstick(toy):
    assert toy.best_single == ("S", "knn")
    table = page.gains(toy).set_index("method")
    assert table.loc["Stacking", "gain"] == pytest.approx(1.0, abs=0.02)
    assert table.loc["Simple fusion", "gain"] == pytest.approx(-1.5, abs=0.02)
    assert (
        table.loc["Stacking", "verdict"] == "better"
        and table.loc["Simple fusion", "verdict"] == "worse"
    )
    assert (
        table.loc["Stacking", "lines"] == "2 of 2"
        and table.loc["Simple fusion", "lines"] == "0 of 2"
    )


def test_gains_line_by_line_add_up_and_keep_their_sign(toy):
    table = page.gains(toy)
    lines = page.by_line(toy, table)
    assert list(lines["method"].unique()) == list(table["method"]) and list(
        lines["cell_line"][:2]
    ) == ["A", "B"]
    assert (lines["low"] < lines["gain"]).all() and (lines["gain"] < lines["high"]).all()
    np.testing.assert_allclose(lines.groupby("method", sort=False)["gain"].mean(), table["gain"])
    text = page.by_line_text(lines, "S, knn").set_index("method")
    one = lines.iloc[0]
    assert text.loc["S, knn", "A"] == f"{one['reference']:.3f}"
    assert text.loc["Stacking", "A"].startswith(f"{one['value']:.3f}: +{one['gain']:.3f} (+")
    assert "−1.5" in text.loc["Simple fusion", "B"]
    figure = gain_plot(lines, table, reference="S, knn", label="Gain")
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["Simple fusion", "Stacking"]
    drawn = axis.lines[0]
    np.testing.assert_allclose(drawn.get_xdata(), lines[lines["cell_line"] == "A"]["gain"])
    assert (table["low"] <= table["gain"]).all() and (table["gain"] <= table["high"]).all()


def test_the_chapter_leads_with_what_is_best(toy):
    said = page.answer(toy, page.gains(toy))
    assert said.startswith("**Stacking** does best of 2 fusions")
    assert "the simple fusion is better" in said and "Simple fusion" in said.split("Worse than")[1]
    table = page.gains(toy)
    value = table.set_index("method").loc["Stacking", "value"]
    assert page.one_line(toy, table).startswith(f"Stacking: L2 error {value:.3f} against")
    assert page.one_line(toy, page.gains(toy), "on a board 0.7").endswith("; on a board 0.7.")


def test_folds_that_were_looked_at_are_left_out_of_a_second_comparison(toy):
    fused = toy.fused.copy()
    # all that the transformer gains, it gains in the fold that was looked at
    here = (fused["embedding"] == "Simple fusion") & (fused["fold"] == 0)
    fused.loc[here, "value"] -= 20.0
    flattered = replace(toy, fused=fused)
    table = page.gains(flattered).set_index("method")
    assert table.loc["Simple fusion", "gain"] > 0
    said = page.without_folds(flattered, page.gains(flattered), [0])
    assert (
        "with fold 0 in view" in said
        and "−1.4" in said
        and "over S, knn" in said
        and "over Stacking" in said
    )
    assert said in page.answer(flattered, page.gains(flattered), [0])
    assert page.without_folds(toy, page.gains(toy), []) == ""


def test_ranking_has_floor_and_ceiling(toy):
    table = page.ranking(toy)
    assert {"Train Mean", "Idealized", "Random"} <= set(table["display"])
    best = table[table["competes"]].iloc[0]
    assert best["embedding"] == "Stacking" and best["with_best"]


def test_weights_and_ablation():
    table = pd.DataFrame(
        [("A", 0, "all", "", 2, 6.0), ("A", 0, "alone", "S", 1, 7.0), ("A", 0, "alone", "T", 1, 8.0),
         ("A", 0, "without", "S", 1, 8.0), ("A", 0, "without", "T", 1, 5.5),
         ("A", 0, "greedy", "S", 1, 7.0), ("A", 0, "greedy", "T", 2, 6.0)],
        columns=["cell_line", "fold", "kind", "source", "n_sources", "value"],
    )  # fmt: skip
    lost = contributions.lost(contributions.ablation_table(table), higher_is_better=False)
    assert lost["source"].tolist() == ["S", "T"] and lost["lost"].tolist() == [2.0, -0.5]
    said = contributions.growth_said(contributions.growth(table), lost, "L2")
    assert "7.000" in said and "leaving it out helps" in said


def test_learnt_weights_have_a_column_a_fusion(toy):
    table = contributions.learnt(toy)
    assert table["source"].tolist() == ["S", "T"] and table["Stacking"].tolist() == [0.75, 0.25]


def test_weights_come_from_the_notes_of_units():
    store = ScoreStore()
    about = {"dataset": "toy", "task": "lfc", "cell_line": "A", "fold": 0, "embedding": "Stacking",
             "modality": "Fusion", "predictor": "stack", "seed": 0}  # fmt: skip
    store.put([UnitResult("k", about, {"L2": 1.0}, note={"weights": {"S": 3, "T": 1}})])
    table = weights_of(store, store.scores(["k"]))
    assert dict(zip(table["source"], table["weight"], strict=True)) == {"S": 0.75, "T": 0.25}


def test_one_source_is_refused_and_a_transformer_names_its_preset():
    one = SimpleNamespace(name="S", modality="Protein")
    study = SimpleNamespace(
        dataset=lambda n: SimpleNamespace(task="lfc", title="Toy"), embeddings=lambda n, seed: [one]
    )
    with pytest.raises(ParameterError, match="at least two"):
        contest(study, "toy")
    with pytest.raises(ParameterError, match="preset"):
        fusion_transformers(study, None, [one], {"X": {"layers": 2}})
    study.profile = SimpleNamespace(results=Path("nowhere"))
    wanted = {
        "X": {
            "preset": "lfc_simple",
            "layers": 2,
            "seed": 7,
            "trials": 3,
            "space": {"layers": [1, 2]},
        }
    }
    (made,), without = fusion_transformers(study, None, [one], wanted)
    assert (made.seed, made.trials, made.settings.layers, without) == (7, 3, 2, [])


def test_without_labels_the_board_shows_the_published_methods():
    table = board.combined(pd.DataFrame(), pd.DataFrame(), "de")
    assert set(table["origin"]) == {"Wu et al. 2025"}
    assert "PROFILE=real" in board.verdict(pd.DataFrame(), pd.DataFrame())
