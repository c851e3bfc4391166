"""Rooms that chapters call: pages, study, noise, leaderboard."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom
from worlds import responses_of

import perturbcore as pc
from perturbcore.book.study import Study
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.sets.base import load
from perturbcore.embeddings.base import Embedding
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.embedding import mask_only
from perturbcore.models.simple.knn import KNN
from perturbcore.report import cards, leaderboard, noise, pages
from perturbcore.report.comparison import Comparison
from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import MASK

MORE = """
embeddings:
  - {name: Interactome, modality: Prior knowledge, builder: network, source: simulated, dim: 16}
  - {name: Text, modality: Prior knowledge, builder: text, source: simulated, dim: 16,
     datasets: [other]}
chapters:
  embedding_ranking: {k: [5, 10], n_components: 10}
"""


@pytest.fixture(scope="module")
def study(study_of):
    return study_of("embedding_ranking", MORE)


def test_a_study_scores_embeddings_with_floor_ceiling_and_random(study):
    limit = study.ceiling("simulated", n_outer=3, n_inner=3)
    models = study.models("lfc", knn=[5, 10], lasso=[0.1])
    scores = study.evaluate("simulated", models, ceiling=limit)
    assert {"Interactome", "random", "idealized", ""} == set(
        scores["embedding"]
    )  # Text serves another set
    assert {"train_mean", "no_change", "experimental_error"} <= set(scores["predictor"])
    exported = pd.read_parquet(study.profile.results / "scores.parquet")
    assert len(exported) == len(scores)
    assert set(exported["key"]) == set(study.store.keys_of("embedding_ranking/simulated"))
    pd.testing.assert_frame_equal(study.claimed("embedding_ranking"), scores)
    pytest.raises(InputError, study.claimed, "noise_ceiling").match("noise_ceiling")
    pytest.raises(ParameterError, study.dataset, "essential").match("simulated")


def test_a_run_with_other_parameters_leaves_the_scores_of_the_book_alone(study, study_of):
    before = pd.read_parquet(study.profile.results / "scores.parquet")
    folders = set()
    for k in (3, 7):
        aside = study_of("embedding_ranking", MORE, k=[k])
        aside._datasets = study._datasets
        scores = aside.evaluate("simulated", [KNN([k])], embeddings=study.embeddings("simulated"))
        assert (scores.loc[scores["predictor"] == "knn", "chosen"] == str(k)).all()
        kept = pd.read_parquet(aside.chapter.folder / "scores.parquet")
        pd.testing.assert_frame_equal(kept, scores)
        folders.add(aside.chapter.folder)
    assert len(folders) == 2 and all(f.parent.name == "runs" for f in folders)
    after = pd.read_parquet(study.profile.results / "scores.parquet")
    pd.testing.assert_frame_equal(before, after)


def test_noise_curves_fall_with_cells_and_are_held_against_the_truth(study):
    data = study.dataset("simulated")
    table = noise.curves_by_cells(data, [5, 12], n_outer=4, n_inner=4, seed=0)
    wide = table.pivot(index="cells", columns="estimate", values="value")
    assert (wide.loc[5] > wide.loc[12]).all()
    assert set(wide.columns) == {
        "published bootstrap", "bootstrap of batches only", "noise floor", "true error"
    }  # fmt: skip
    each = noise.by_line(study.ceiling("simulated", n_outer=3, n_inner=3), data.responses)
    assert len(each) == 60
    first = each.iloc[0]
    row = data.responses[f"{first['cell_line']}|{first['perturbation']}"].X.ravel()
    assert first["effect"] == pytest.approx(np.linalg.norm(row), rel=1e-5)
    limit = study.ceiling("simulated", n_outer=3, n_inner=3)
    said = noise.above_said(limit, data.responses)
    again = noise.by_line(limit, data.responses, estimate="repeated")
    assert f"come nearer to {round(100 * again['above'].mean())} % of the measured" in said
    assert "too few cells" not in said and "published experimental error" in said
    lost = limit.assign(
        value=limit["value"].mask(limit["perturbation"] == again["perturbation"][0])
    )
    assert "1 of 60 have too few cells" in noise.above_said(lost, data.responses)


def test_a_ceiling_is_used_only_where_it_is_near_the_truth(study, monkeypatch):
    data = study.dataset("simulated")
    rows = []
    for control, effect in (("global", 0.0), ("global", 0.6), ("matched", 0.6)):
        far = 1.3 if (control, effect) == ("global", 0.6) else 1.0
        for cells in (5, 20, 60):
            near = {"bootstrap": far, "repeated": 1.04, "noise_floor": 0.97}
            rows += [(effect, control, cells, e, v, v) for e, v in near.items()]
    columns = ["batch_effect", "control", "cells", "estimate", "ratio", "of_its_own"]
    grid = pd.DataFrame(rows, columns=columns)
    assert noise.trusted(grid, data) == ["noise_floor", "repeated_experiment", "idealized"]
    said = noise.trust_said(grid, data)
    assert "Used: repeated experiment and noise floor" in said and "1.00 to 1.30" in said
    wrong = grid.assign(of_its_own=grid["of_its_own"].where(grid["estimate"] == "repeated", 1.2))
    assert noise.trusted(wrong, data) == ["repeated_experiment", "idealized"]
    limit = study.ceiling("simulated", n_outer=2)
    for table, ceiling in ((grid, "Noise floor"), (wrong, "Repeated experiment")):
        monkeypatch.setattr(Study, "truth", lambda self, table=table: table)
        scores = study.evaluate("simulated", ["knn"], ceiling=limit)
        c = Comparison(scores)
        assert c.ceiling == ceiling and ceiling in c.gap_said()
        assert "Experimental error" in c.answer().split("Shown, but no ceiling here: ")[1]
        assert "Experimental error" not in c.gap_said() + c.one_line()
    claimed = noise.calibrated(scores.drop(columns="calibrated"), data, study.truth)
    assert claimed["calibrated"].equals(scores["calibrated"])
    few = grid[grid["cells"] > 20]
    few = few.assign(cells=1000)
    assert noise.trusted(few, data) == ["idealized"]
    assert "idealized embedding" in noise.trust_said(few, data)
    said = noise.causes_said(grid)
    assert "it is 1.30 (0.6)" in said and "stays at 1.00 (0.6)" in said
    assert "0.97 to 0.97 times the true error" in said and "within 5 % everywhere" in said


def test_the_leaderboard_stands_on_published_values_alone_where_there_are_no_labels(study):
    empty = leaderboard.ours(study)
    assert empty.empty and "PROFILE=real" in leaderboard.verdict(empty)
    assert set(leaderboard.combined(empty, empty, "de")["origin"]) == {"Wu et al. 2025"}
    board = leaderboard.board(empty, "de")
    assert board["method"].iloc[0] == "SUMMER (LLM)" and len(board) == 9
    assert board["mean"].is_monotonic_decreasing


AHEAD = [(), ("K562",), ("K562", "RPE1", "HepG2", "Jurkat")]


def ahead_in(ahead, margin=0.022):
    """Scores of ours that are so far ahead of all published ones in some lines, with bounds."""
    rows = []
    for task in leaderboard.TASKS:
        published = leaderboard.board(pd.DataFrame(), task)
        for line in leaderboard.LINES.values():
            value = published[line].max() + (margin if line in ahead else -0.01)
            for name, predictor, v in (("Ours", "kernel", value), ("", "train_mean", 0.5)):
                rows.append((task, leaderboard.METRIC, line, name, predictor, v))
    columns = ["wu_task", "metric", "cell_line", "embedding", "predictor", "value"]
    scores = pd.DataFrame(rows, columns=columns)
    return scores.assign(low=scores["value"] - 0.015, high=scores["value"] + 0.015)


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("margin, counts", [(0.02, True), (0.004, False)])
def test_the_leaderboard_counts_the_lines_in_which_ours_is_ahead(ahead, margin, counts):
    scores, n = ahead_in(ahead, margin), len(ahead) if counts else 0
    mine, theirs, found = leaderboard.standing(scores, "de")
    assert mine["method"] == "Ours, kernel" and len(theirs) == 9 and len(found) == n
    said = leaderboard.verdict(scores.drop(columns=["low", "high"]))
    assert said.count(f"in {n} of 4 lines.") == 2 and "half the width" not in said


def test_the_mask_alone_is_a_control_that_is_shown_and_never_ranked():
    """Where pairs were labelled by the answer, the pattern of labels gives it away."""
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=(120, 1))
    label = np.where(rng.random((120, 40)) < 0.2 + 0.6 * group, 1, 0)
    observed = rng.random(label.shape) < np.where(np.arange(40) % 2 == group, 0.6, 0.2)
    names = [f"P{i}" for i in range(120)]
    responses = responses_of(label, names, ["K562"], task="deg_pairs", observed=observed)
    noise = Embedding("noise", "Protein", names, rng.normal(size=(120, 5)))
    mask = mask_only(responses)
    scores = evaluate_embeddings(responses, [noise], ["knn"], models=mask, progress=False)
    c = Comparison(scores)
    assert c.competitors == ["noise"] and c.best == "noise"
    assert c.means[MASK] > 0.6 > c.means["noise"]
    assert MASK not in c.answer() + c.one_line() + c.ceiling
    said = f"no embedding scores {c.means[MASK]:.3f}, more than 1 of the 1 embedding:"
    assert said in c.answer() and said in Comparison(scores, predictor="knn").answer()
    rows = scores.assign(wu_task="de", metric=leaderboard.METRIC, low=0.5, high=0.9)
    rows = rows[rows["embedding"] == MASK].drop_duplicates("embedding")
    rows = pd.concat([rows.assign(cell_line=x) for x in leaderboard.LINES.values()])
    published = leaderboard.board(pd.DataFrame(), "de")
    table = leaderboard.with_control(published, rows, "de").set_index("origin")
    assert table.loc[leaderboard.CONTROL, "method"] == MASK
    assert len(table) == len(published) + 1 and table["mean"].is_monotonic_decreasing
    both = pd.concat([rows, rows.assign(wu_task="dir")])
    scored = both.assign(embedding="noise", predictor="knn")
    said = leaderboard.one_line(scored, both)
    assert f"and no more: de {rows['value'].iloc[0]:.3f} and dir" in said


def test_the_mask_of_the_benchmark_beats_a_guess(mirror):
    responses = leaderboard.split_responses("HepG2", "dir")
    fold = responses.obs["fold"]
    assert set(fold) == {-1, 0} and 0.15 < (fold == 0).mean() < 0.35
    scores = evaluate(responses, mask_only(responses), folds=[0])
    value = scores.loc[scores["metric"] == leaderboard.METRIC, "value"].item()
    assert 0.7 < value < 0.9


def test_tables_write_all_and_show_what_is_asked(tmp_path, monkeypatch, study):
    shown = []
    monkeypatch.setattr(pages, "display", lambda *a: shown.extend(a))
    table = pd.DataFrame({"a": [1.23456, np.nan], "b": ["<x>", "y"], "hidden": [True, False]})
    pages.show_table(
        study.chapter, table, "t", caption="Cap & tion", keep=["a", "b"], bold="hidden"
    )
    html = shown[0].data
    assert "1.235" in html and "&lt;x&gt;" in html and "Cap &amp; tion" in html and "–" in html
    assert 'class="best"' in html and "hidden" not in html.split("<tbody>")[1]
    written = pd.read_csv(study.profile.results / "tables" / "embedding_ranking" / "t.csv")
    assert list(written.columns) == ["a", "b", "hidden"]
    with pytest.raises(InputError, match="no column 'c'"):
        pages.show_table(study.chapter, table, "t", caption="", keep=["c"])
    n = len(shown)
    for text in ("", "\n\n"):
        pages.say(text)
    assert len(shown) == n
    pages.take_home(study.chapter, "One line.")
    assert (study.profile.results / "answers/embedding_ranking.md").read_text() == "One line."
    pages.show_table(study.chapter, pd.DataFrame({"p_best": [1e-5, 0.2]}), "p", caption="")
    assert ">&lt; 0.001<" in shown[-2].data and ">0.200<" in shown[-2].data


def test_coverage_has_a_row_per_embedding_and_the_file_has_the_counts(tmp_path, monkeypatch, study):
    shown = []
    monkeypatch.setattr(pages, "display", lambda *a: shown.extend(a))
    rows = [("B", "Protein", 8, line, 10, 5 + i) for i, line in enumerate("XY")]
    rows += [("A", "Expression", 4, line, 10, 10) for line in "XY"]
    names = ["embedding", "modality", "dim", "cell_line", "n_perturbations", "n_covered"]
    table = pd.DataFrame(rows, columns=names).assign(
        coverage=lambda t: t["n_covered"] / t["n_perturbations"]
    )
    pages.show_coverage(study.chapter, table, caption="Share.")
    html = shown[0].data
    assert html.count("<tr>") == 3 and html.index(">B<") < html.index(">A<")
    assert all(f">{x}<" in html for x in ("Embedding", "X", "Y", "0.500", "0.600"))
    written = pd.read_csv(study.profile.results / "tables" / "embedding_ranking" / "coverage.csv")
    assert list(written["n_covered"]) == [5, 6, 10, 10]
    many = pd.concat([table.assign(cell_line=table["cell_line"] + str(i)) for i in range(3)])
    pages.show_coverage(study.chapter, many, caption="Share.")
    assert ">least<" in shown[2].data and ">X0<" not in shown[2].data


def test_cards_count_cells_and_name_the_sets_of_perturbed_genes(tmp_path):
    data = load("simulated", n_cell_lines=1, n_perturbations=20, n_genes=120, n_batches=3, seed=1)
    table = cards.cell_quality(data).set_index("who")
    X, control = data.screen.X.toarray(), data.screen.obs["is_control"].to_numpy()
    assert table.loc["control", "cells"] == control.sum()
    assert table.loc["control", "counts"] == int(np.median(X[control].sum(axis=1)))
    assert table.loc["perturbed", "genes"] == int(np.median((X[~control] > 0).sum(axis=1)))
    data.screen.write_h5ad(tmp_path / "cells.h5ad")  # cells that stay on disk are counted as well
    on_disk = replace(data, screen=pc.read_screen(tmp_path / "cells.h5ad", backed=True))
    assert cards.cell_quality(on_disk).set_index("who").equals(table)
    found = cards.perturbed_processes(
        data, [{"name": "a", "builder": "annotation", "source": "simulated"}]
    )
    sets = data.extras["simulation"].knowledge.annotation
    perturbed = set(data.responses.obs["perturbation"])
    known = {g for genes in sets.values() for g in genes}
    row = found.iloc[0]
    inside = perturbed & set(sets[row["Term"]])
    assert row["Overlap"] == f"{len(inside)}/{len(set(sets[row['Term']]))}"
    p = hypergeom.sf(
        len(inside) - 1, len(known), len(set(sets[row["Term"]])), len(perturbed & known)
    )
    assert 0 < p <= row["Adjusted P-value"] <= 1
    assert cards.perturbed_processes(data, []) is None
