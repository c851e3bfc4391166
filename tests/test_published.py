"""Published tables: parsing, errors, figures and the medians kept offline."""

import re
import runpy

import numpy as np
import pandas as pd
import pytest
from toys import ROOT

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.published.tables import (
    Published,
    facts,
    load_published,
    medians,
    methods_of,
    parse_method,
    read_scores,
    without_line,
)
from perturbcore.report.figures.methods import reference_lines
from perturbcore.report.published.claims.audit import HOLDS, claims, decide
from perturbcore.report.published.claims.page import (
    neighbours,
    ranking_certainty,
    run_choice,
    unused_rows,
)
from perturbcore.report.published.draw import caption, describe, draw, figure_table, not_drawn, page
from perturbcore.report.published.figures import FIGURES, figure_data

REPOSITORY = "genbio-ai/foundation-models-perturbation/e5b4caf734fd81b24bee004eb2d55d2f675cd4a2"
WAVEGC = "knn_baseline_KG_WaveGC_G_StringDB_combined_0.0_(D=128)"
SCGPT = "scGPT_essential_{}_controls_(D=512)"
DRAWN = [name for name, spec in FIGURES.items() if not spec.missing]


def test_a_table_becomes_scores(tmp_path):
    names = ["no change baseline", WAVEGC, "Experimental error (quantile 0.9)"]
    raw = pd.DataFrame({"name": np.repeat(names, 5), "fold": [f"K-562.{f}" for f in range(5)] * 3})
    raw["L2"] = np.random.default_rng(0).uniform(1, 5, len(raw))
    raw["Pearson"] = np.where(raw["name"] == "no change baseline", None, 0.3)
    error = raw["name"].str.startswith("Experimental")
    raw["dataset"] = np.where(error, None, "expression/pert-prediction-norman-regression")
    raw.to_csv(tmp_path / "norman_lfc.csv")
    scores = read_scores(tmp_path / "norman_lfc.csv", dataset="norman", task="lfc")
    l2 = scores[scores["metric"] == "L2"]
    np.testing.assert_allclose(l2["value"], raw["L2"], rtol=1e-15)
    assert l2["fold"].tolist() == [0, 1, 2, 3, 4] * 3 and set(l2["cell_line"]) == {"K-562"}
    assert set(l2["perturbation_set"]) == {"full"} and set(l2["source"]) == {"published"}
    assert scores[(scores["metric"] == "Pearson") & (scores["predictor"] == "no_change")].empty
    one = l2.loc[l2["method"] == WAVEGC, ["predictor", "display", "modality"]].drop_duplicates()
    assert one.to_numpy().tolist() == [["knn", "STRING WaveGC", "Prior knowledge"]]


def test_method_names():
    aligned = "AIDOcell_100M_Norman_Aligned_(D=640)"
    # the same file has a display name where a figure shows it, and its own name elsewhere
    for dataset, line, name, embedding, display in (
        ("essential", "Hep-G2", SCGPT.format("Hep-G2"), SCGPT.format("CELL_LINE"), "scGPT"),
        ("norman", "K-562", aligned, aligned, "AIDO.Cell 100M"),
        ("essential", "K-562", aligned, aligned, aligned),
    ):
        about = dict(dataset=dataset, task="lfc", cell_line=line)
        found = parse_method(f"lasso_baseline_{name}", **about)
        assert found == ("lasso", embedding, display, "Expression")
    found = parse_method("ecfp:2", dataset="tahoe", task="deg", cell_line="CVCL_0023")
    assert found == ("logistic", "ecfp:2", "ECFP:2", "Molecule structure")


def test_facts_have_a_source_and_the_right_size():
    assert len(facts("bendidi2024_table2")) == 26 * 9
    assert set(facts("bendidi2024_tables3_10")["table"]) == set(range(3, 11))
    assert {"Adamson", "Norman", "Replogle K562"} <= set(facts("csendes2025")["dataset"])
    assert facts("wu2025_table1")["auc_per_gene"].between(0, 1).all()
    pytest.raises(InputError, facts, "nothing").match("no facts")


def test_figures_from_medians_alone():
    published = medians()
    for name in set(FIGURES) - set(DRAWN):
        with pytest.raises(ParameterError, match=re.escape(FIGURES[name].missing[:40])):
            figure_data(name, published)
    for name in DRAWN:
        data = figure_data(name, published)
        assert data.level == "medians" and set(data.order) == set(data.scores["display"])
        assert set(figure_table(data)["method"]) == set(data.order) and describe(data).endswith(".")
    assert list(not_drawn(published)["figure"]) == ["Figure 3", "Figure S5", "Figure S6"]
    assert "make data" in published.note


def test_tahoe_lfc_is_drawn_and_judged_where_its_table_is_at_hand():
    """Scores in which every embedding equals the Train Mean."""
    kept = medians().scores
    rows = methods_of("tahoe_lfc").assign(key=lambda t: t["method"].str.replace("CELL_LINE", "x"))
    error = rows["display"] == "Experimental Error"
    new = rows.assign(
        dataset="tahoe", task="lfc", cell_line="mean of 45 lines", fold=-1, metric="L2",
        perturbation_set="full", value=np.where(error, 4.0, 6.0), source="made up",
        embedding="", predictor="knn",
    )  # fmt: skip
    published = Published(pd.concat([kept, new[kept.columns]]), None, "medians")
    assert "S5" not in " ".join(not_drawn(published)["figure"])
    assert describe(figure_data("S5", published)).startswith("Lowest median L2")
    (claim,) = [c for c in claims() if c.id == "cole-36"]
    found = decide(claim, published)
    assert found.verdict == HOLDS and found.number == "best closes 0.0 % of the gap"


@pytest.mark.parametrize("name", ["1", "2", "S11", "S12", "S14"])
def test_figures_are_drawn_with_caption_and_alt_text(name):
    data = figure_data(name, medians())
    drawn = {t.get_text() for axis in draw(data).axes for t in axis.get_yticklabels()}
    if data.spec.kind != "scatter":
        assert set(data.order) <= drawn
    text = page(data, "chapter", "stem")
    assert ":alt: Cole et al. 2026" in text and ":name: fig-chapter-stem" in text
    assert text.count("\n| ") == 2 + len(figure_table(data))
    assert "medians" in caption(data) or data.spec.kind in ("rank", "bars")


@pytest.fixture(scope="module")
def published(mirror):
    loaded = load_published()
    assert loaded.level == "folds"
    return loaded


def raw_table(mirror, name):
    return pd.read_csv(mirror / REPOSITORY / "results" / "scores" / f"{name}.csv", index_col=0)


PRINTED = {
    "1": {"K-562": 4.570, "Hep-G2": 6.440, "Jurkat": 6.345, "hTERT-RPE1": 5.944},
    "S1": {"K-562": 1.9495},
    "S8": {"A549": 8.18, "K562": 8.51, "MCF7": 5.77},
    "S14": {"K-562": 4.533, "Hep-G2": 6.501, "Jurkat": 6.483, "hTERT-RPE1": 6.044},
}


@pytest.mark.parametrize("figure", PRINTED)
def test_experimental_error_lines(published, figure):
    data = figure_data(figure, published)
    lines = reference_lines(data.scores, lower_is_better=True)
    lines = lines[lines["display"] == "Experimental Error"].set_index("panel")["value"]
    printed = PRINTED[figure]
    last = 0.01 if figure == "S8" else 0.001
    assert lines[list(printed)].to_dict() == pytest.approx(printed, abs=0.6 * last)


def test_published_rows_are_means_of_quantiles(published):
    table = published.ceilings.query("dataset == 'norman' and metric == 'L2' and quantile == 0.9")
    rows = published.scores.query(
        "dataset == 'norman' and metric == 'L2' and predictor == 'experimental_error'"
    )
    # Norman folds have 21 perturbations each, so the mean over folds is the mean over all.
    assert rows["value"].mean() == pytest.approx(table["value"].mean(), rel=1e-12)


def test_rank_medians_of_figure_2(published, mirror):
    raw = raw_table(mirror, "essential_lfc")
    line = raw["fold"].str.rsplit(".", n=1).str[0]
    names = zip(raw["name"], line, strict=True)
    raw["method"] = [without_line(name, own) for name, own in names]
    wanted = methods_of("essential_lfc").set_index("method")["display"]
    rows = raw[raw["method"].isin(wanted.index)]
    ranks = rows.assign(value=rows.groupby("fold")["L2"].rank())
    expected = ranks.groupby(ranks["method"].map(wanted))["value"].median()
    data = figure_data("2", published)
    got = data.scores.groupby("display")["value"].median()
    pd.testing.assert_series_equal(got, expected, check_names=False)
    assert data.order[0] == "No Change" and data.order[-1] == "Idealized Baseline"


def test_metric_correlations_of_figure_s11(published):
    data = figure_data("S11", published)
    rows = data.scores.pivot_table(index=["display", "fold"], columns="metric", values="value")
    assert len(rows) == 135
    rho = [rows["L2"].corr(rows[m], method="spearman") for m in data.spec.panels]
    np.testing.assert_allclose(rho, [0.992, 0.994, -0.822, -0.824], atol=6e-4)


def test_tahoe_is_averaged_over_lines_within_a_fold(published, mirror):
    raw = raw_table(mirror, "tahoe_deg")
    raw["number"] = raw["fold"].astype(str).str.extract(r"(\d+)$")[0].astype(int)
    expected = raw[raw["name"] == "ecfp:2"].groupby("number")["f1_score"].mean()
    got = figure_data("S7", published).folds()["ECFP:2"].droplevel("cell_line")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_kept_medians_are_those_of_the_tables(published):
    fresh = runpy.run_path(str(ROOT / "scripts/write_medians.py"))["median_rows"](published)
    keys = ["dataset", "task", "cell_line", "perturbation_set", "method", "metric"]
    kept = facts("cole2026_medians").set_index(keys).sort_index()
    fresh = fresh.replace("", np.nan).set_index(keys).sort_index()
    pd.testing.assert_frame_equal(kept, fresh[list(kept)])


def test_what_is_not_reported(published):
    table = neighbours("5", published)
    folds = figure_data("5", published).folds().groupby("fold").mean()
    rivals = folds.drop(columns=["Experimental Error", "Idealized Baseline"]).mean().sort_values()
    assert list(table["method"]) == list(rivals.index)
    np.testing.assert_allclose(table["behind"][:-1], rivals.diff()[1:], rtol=1e-9)
    certainty = ranking_certainty(published)
    assert (certainty["distinguishable"] <= certainty["neighbours"]).all()
    run = run_choice(published).set_index(["model", "cell_line"]).loc["Latent Diffusion", "Hep-G2"]
    assert run["drawn"] == pytest.approx(run["run_R2"])
    unused = unused_rows(published).set_index("method")
    assert unused.loc["Diffusion_Feb2_2026", ["ahead", "n"]].tolist() == [17, 20]
    assert "Final Full Fusion" not in unused.index
