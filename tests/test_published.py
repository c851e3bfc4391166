"""Published tables: parsing, errors, figures and the medians kept offline."""

import re

import numpy as np
import pandas as pd
import pytest

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.published.facts import facts
from perturbcore.data.published.names import parse_method
from perturbcore.data.published.read import read_ceiling, read_scores
from perturbcore.data.published.tables import load_published, medians
from perturbcore.report.published.draw import (
    caption,
    describe,
    draw,
    figure_table,
    not_drawn,
    page,
)
from perturbcore.report.published.figures import FIGURES, figure_data
from perturbcore.report.published.unreported import (
    neighbours,
    ranking_certainty,
    run_choice,
    unused_rows,
)
from perturbcore.report.published.write_facts import median_rows

REPOSITORY = "genbio-ai/foundation-models-perturbation/e5b4caf734fd81b24bee004eb2d55d2f675cd4a2"
WAVEGC = "knn_baseline_KG_WaveGC_G_StringDB_combined_0.0_(D=128)"


def small_table(path, *, line="K-562", label="expression/pert-prediction-norman-regression"):
    """Write a table in the published layout: six methods, five folds."""
    rng = np.random.default_rng(0)
    names = [
        "no change baseline",
        "context mean baseline",
        "knn_baseline_random",
        "knn_baseline_pca",
        WAVEGC,
        "Experimental error (quantile 0.9)",
    ]
    rows = []
    for name in names:
        for fold in range(5):
            l2 = rng.uniform(1, 5)
            last = name.startswith("Experimental")
            rows.append(
                {
                    "dataset": None if last else label,
                    "fold": f"{line}.{fold}",
                    "metrics": None if last else f"{{'L2': {l2}, 'MSE': 0.1}}",
                    "name": name,
                    "primary_metric": None if last else "L2",
                    "L2": l2,
                    "MSE": 0.1,
                    "Pearson": None if name == "no change baseline" else 0.3,
                    "cell_line": None if last else line,
                }
            )
    table = pd.DataFrame(rows)
    table.to_csv(path)
    return table


def small_ceiling(path, n=6):
    """Write an experimental-error table in the published layout."""
    rng = np.random.default_rng(1)
    rows = [
        {"quantile": q, "L2": rng.uniform(1, 2), "pert_id": f"G{i}", "n_batches_pert": 3}
        for i in range(n)
        for q in (0.5, 0.9)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(path, index=False)
    return table


def test_a_table_becomes_scores(tmp_path):
    raw = small_table(tmp_path / "norman_lfc.csv")
    scores = read_scores(tmp_path / "norman_lfc.csv", dataset="norman", task="lfc")
    l2 = scores[scores["metric"] == "L2"]
    assert len(l2) == len(raw)
    np.testing.assert_allclose(np.sort(l2["value"]), np.sort(raw["L2"]), rtol=1e-15)
    assert set(l2["fold"]) == set(range(5)) and set(l2["cell_line"]) == {"K-562"}
    assert set(l2["perturbation_set"]) == {"full"} and set(l2["source"]) == {"published"}
    missing = scores[(scores["metric"] == "Pearson") & (scores["predictor"] == "no_change")]
    assert missing.empty
    one = l2[l2["method"] == WAVEGC].iloc[0]
    assert (one["predictor"], one["display"]) == ("knn", "STRING WaveGC")
    assert one["modality"] == "Prior knowledge"


@pytest.mark.parametrize(
    ("name", "dataset", "task", "line", "expected"),
    [
        (
            "knn_baseline_scGPT_essential_Hep-G2_controls_(D=512)",
            "essential",
            "lfc",
            "Hep-G2",
            ("knn", "scGPT_essential_CELL_LINE_controls_(D=512)", "scGPT", "Expression"),
        ),
        (
            "lasso_baseline_pca",
            "norman",
            "lfc",
            "K-562",
            ("lasso", "idealized", "Idealized Baseline", "Positive control"),
        ),
        ("prior", "sciplex", "deg", "A549", ("prior", "", "Train Mean", "Negative control")),
        (
            "ecfp:2",
            "tahoe",
            "deg",
            "CVCL_0023",
            ("logistic", "ecfp:2", "ECFP:2", "Molecule structure"),
        ),
        (
            "experimental_error",
            "tahoe",
            "deg",
            "CVCL_0023",
            ("experimental_error", "", "Experimental Error", "Positive control"),
        ),
        (
            "Final Full Fusion",
            "essential",
            "lfc",
            "Jurkat",
            ("fusion_full", "all sources", "Fusion (Full)", "Fusion"),
        ),
        # The same file has a display name where a figure shows it, and its own name elsewhere.
        (
            "knn_baseline_AIDOcell_100M_Norman_Aligned_(D=640)",
            "norman",
            "lfc",
            "K-562",
            ("knn", "AIDOcell_100M_Norman_Aligned_(D=640)", "AIDO.Cell 100M", "Expression"),
        ),
        (
            "knn_baseline_AIDOcell_100M_Norman_Aligned_(D=640)",
            "essential",
            "lfc",
            "K-562",
            (
                "knn",
                "AIDOcell_100M_Norman_Aligned_(D=640)",
                "AIDOcell_100M_Norman_Aligned_(D=640)",
                "Expression",
            ),
        ),
    ],
)
def test_method_names(name, dataset, task, line, expected):
    assert tuple(parse_method(name, dataset=dataset, task=task, cell_line=line)) == expected


def test_renamed_column_is_named(tmp_path):
    path = tmp_path / "norman_lfc.csv"
    small_table(path).rename(columns={"L2": "l2_error"}).to_csv(path)
    with pytest.raises(InputError, match=r"norman_lfc\.csv.*'L2'"):
        read_scores(path, dataset="norman", task="lfc")


def test_text_in_a_metric_is_named(tmp_path):
    path = tmp_path / "norman_lfc.csv"
    table = small_table(path).astype({"MSE": object})
    table.loc[7, "MSE"] = "<html>"
    table.to_csv(path)
    with pytest.raises(InputError, match=r"norman_lfc\.csv.*'MSE'.*row 8.*<html>"):
        read_scores(path, dataset="norman", task="lfc")


@pytest.mark.parametrize("keep", range(5, 100, 6))
def test_truncation_never_passes(tmp_path, keep):
    path = tmp_path / "norman_lfc.csv"
    small_table(path)
    text = path.read_text()
    path.write_text(text[: len(text) * keep // 100])
    with pytest.raises(InputError, match=r"norman_lfc\.csv"):
        read_scores(path, dataset="norman", task="lfc")


def test_a_table_cut_between_rows_is_refused(tmp_path):
    path = tmp_path / "norman_lfc.csv"
    small_table(path).iloc[:-1].to_csv(path)
    with pytest.raises(InputError, match="'fold'.*experimental_error.*truncated"):
        read_scores(path, dataset="norman", task="lfc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(fold="K-562"), "'fold'.*'<cell line>.<fold>'"),
        (lambda t: t.assign(cell_line="Jurkat"), "disagree"),
        (lambda t: t.assign(fold=t["fold"].str.replace("K-562", "HeLa"), cell_line=None), "'HeLa'"),
        (lambda t: pd.concat([t, t.iloc[[0]]]), "two rows"),
        (lambda t: t.assign(name=None), "'name'.*empty"),
        (lambda t: t.iloc[:0], "no rows"),
    ],
)
def test_malformed_tables(tmp_path, change, message):
    path = tmp_path / "norman_lfc.csv"
    change(small_table(path)).to_csv(path, index=False)
    with pytest.raises(InputError, match=message):
        read_scores(path, dataset="norman", task="lfc")


def test_absent_file_and_unknown_task(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "x.csv", dataset="norman", task="lfc")
    with pytest.raises(ParameterError, match="task"):
        read_scores(tmp_path / "x.csv", dataset="norman", task="regression")


def test_perturbation_sets_are_kept_apart(tmp_path):
    path = tmp_path / "essential_lfc.csv"
    parts = []
    for line in ("K-562", "Hep-G2", "Jurkat", "hTERT-RPE1"):
        label = "expression/pert_prediction_essential_regression"
        parts.append(small_table(path, line=line, label=label))
    older = pd.concat(parts)
    older.to_csv(path)
    scores = read_scores(path, dataset="essential", task="lfc")
    assert set(scores["perturbation_set"]) == {"older"}
    mixed = older.copy()
    mixed.loc[mixed["name"] == WAVEGC, "dataset"] += "_all"
    mixed.to_csv(path)
    with pytest.raises(InputError, match="'dataset' mixes"):
        read_scores(path, dataset="essential", task="lfc")


def test_malformed_experimental_error(tmp_path):
    path = tmp_path / "e.csv"
    table = small_ceiling(path)
    table.iloc[:-1].to_csv(path, index=False)
    with pytest.raises(InputError, match="'quantile'.*'G5'"):
        read_ceiling(path, dataset="norman", cell_line="K-562")
    table.drop(columns="L2").to_csv(path, index=False)
    with pytest.raises(InputError, match="'L2'"):
        read_ceiling(path, dataset="norman", cell_line="K-562")
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match="'cell_line'"):
        read_ceiling(path, dataset="sciplex")


def test_facts_have_a_source_and_the_right_size():
    table2, appendix = facts("bendidi2024_table2"), facts("bendidi2024_tables3_10")
    assert len(table2) == 26 * 9 and set(appendix["table"]) == set(range(3, 11))
    assert set(facts("csendes2025")["dataset"]) >= {
        "Adamson",
        "Norman",
        "Replogle K562",
        "Replogle RPE1",
    }
    assert (
        set(facts("wu2025_table1")["task"]) == {"de", "dir"}
        and facts("wu2025_table1")["auc_per_gene"].between(0, 1).all()
    )
    with pytest.raises(InputError, match="no facts"):
        facts("nothing")


def test_figures_from_medians_alone():
    published = medians()
    for name, spec in FIGURES.items():
        if spec.missing:
            with pytest.raises(ParameterError, match=re.escape(spec.missing[:40])):
                figure_data(name, published)
            continue
        data = figure_data(name, published)
        assert data.level == "medians" and len(data.scores) > 0
        assert set(data.order) == set(data.scores["display"])
        assert describe(data).endswith(".")
        assert set(figure_table(data)["method"]) == set(data.order)
    assert list(not_drawn(published)["figure"]) == ["Figure 3", "Figure S5", "Figure S6"]
    assert "make data" in published.note


@pytest.mark.parametrize("name", ["1", "2", "4", "S11", "S12", "S14"])
def test_figures_are_drawn_with_caption_and_alt_text(name):
    data = figure_data(name, medians())
    figure = draw(data)
    drawn = {t.get_text() for axis in figure.axes for t in axis.get_yticklabels()}
    if data.spec.kind != "scatter":
        assert set(data.order) <= drawn
    text = page(data, "chapter", "stem")
    assert ":alt: Cole et al. 2026" in text and ":name: fig-chapter-stem" in text
    assert text.count("\n| ") == 2 + len(figure_table(data))
    assert "medians" in caption(data) or data.spec.kind in ("rank", "bars")


def test_folds_are_asked_for_where_they_decide():
    for function in (ranking_certainty, run_choice, unused_rows):
        with pytest.raises(InputError, match="make data"):
            function(medians())


@pytest.fixture(scope="module")
def published(mirror):
    loaded = load_published()
    assert loaded.level == "folds"
    return loaded


def raw_table(mirror, name):
    return pd.read_csv(mirror / REPOSITORY / "results" / "scores" / f"{name}.csv", index_col=0)


@pytest.mark.mirror
def test_wavegc_folds_on_k562(published):
    folds = figure_data("1", published).folds().loc["K-562", "STRING WaveGC"]
    np.testing.assert_allclose(folds, [4.6658, 4.6427, 4.5533, 4.7282, 4.6603], atol=5e-5)


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("figure", "line", "value"),
    [
        ("1", "K-562", 4.5701),
        ("1", "Hep-G2", 6.4403),
        ("1", "Jurkat", 6.3446),
        ("1", "hTERT-RPE1", 5.9443),
        ("S1", "K-562", 1.9495),
        ("S8", "A549", 8.18),
        ("S8", "K562", 8.51),
        ("S8", "MCF7", 5.77),
        ("S14", "K-562", 4.533),
        ("S14", "Hep-G2", 6.501),
        ("S14", "Jurkat", 6.483),
        ("S14", "hTERT-RPE1", 6.044),
    ],
)
def test_experimental_error_lines(published, figure, line, value):
    lines = figure_data(figure, published).lines
    here = lines[(lines["panel"] == line) & (lines["display"] == "Experimental Error")]
    digits = len(str(value).split(".")[1])
    assert here["value"].item() == pytest.approx(value, abs=0.6 * 10**-digits)


@pytest.mark.mirror
def test_published_rows_are_means_of_quantiles(published):
    rows = published.ceilings
    rows = rows[(rows["dataset"] == "norman") & (rows["quantile"] == 0.9)]
    rows = rows.groupby("metric")["value"].mean()
    table = published.scores
    table = table[(table["dataset"] == "norman") & (table["predictor"] == "experimental_error")]
    folds = table.groupby("metric")["value"].mean()
    # Norman folds have 21 perturbations each, so the mean over folds is the mean over all.
    assert folds["L2"] == pytest.approx(rows["L2"], rel=1e-12)


@pytest.mark.mirror
def test_norman_experimental_error_fold_by_fold(published, mirror):
    """Folds rebuilt by the documented rule give the published rows."""
    table = published.ceilings
    table = table[(table["dataset"] == "norman") & (table["metric"] == "L2")]
    path = mirror / "caiyufei8" / "Understanding-the-LLM-based-gene-embeddings"
    info = next(path.glob("*/embeddings/gene_info_table.csv"))
    names = pd.read_csv(info).drop_duplicates("ensembl_id").set_index("ensembl_id")["gene_name"]
    # The screen's own name of one gene; its categories are in natural order (KIF2C before KIF18B).
    names = names.to_dict() | {"ENSG00000143674": "KIAA1804"}
    genes = table["perturbation"].unique()
    if not set(genes) <= set(names):
        pytest.skip("symbols of some genes are not in the mirror")

    def natural(gene):
        parts = re.split(r"(\d+)", names[gene])
        return [int(p) if p.isdigit() else p for p in parts]

    ordered = sorted(genes, key=natural)
    order = np.random.RandomState(42).permutation(len(ordered))
    folds = {ordered[i]: f for f, part in enumerate(np.array_split(order, 5)) for i in part}
    table = table[table["quantile"] == 0.9].set_index("perturbation")["value"]
    rebuilt = table.groupby(table.index.map(folds)).mean()
    rows = published.scores
    rows = rows[
        (rows["dataset"] == "norman")
        & (rows["predictor"] == "experimental_error")
        & (rows["metric"] == "L2")
    ]
    np.testing.assert_allclose(
        rebuilt.sort_index(), rows.set_index("fold")["value"].sort_index(), rtol=1e-9
    )


@pytest.mark.mirror
def test_rank_medians_of_figure_2(published, mirror):
    raw = raw_table(mirror, "essential_lfc")
    wanted = facts("cole2026_methods")
    wanted = wanted[wanted["section"] == "essential_lfc"]
    ranks = {}
    for fold, group in raw.groupby("fold"):
        line = fold.rsplit(".", 1)[0]
        by_name = group.set_index("name")["L2"]
        values = pd.Series(
            {
                row.display: by_name[
                    row.method.replace("HEAD_TYPE", "knn").replace("CELL_LINE", line)
                ]
                for row in wanted.itertuples()
            }
        )
        # Independent ranking: one plus the number smaller, plus half of the ties.
        ranks[fold] = values.map(
            lambda v, values=values: 1 + (values < v).sum() + 0.5 * ((values == v).sum() - 1)
        )
    expected = pd.DataFrame(ranks).median(axis=1)
    data = figure_data("2", published)
    got = data.scores.groupby("display")["value"].median()
    pd.testing.assert_series_equal(got.sort_index(), expected.sort_index(), check_names=False)
    assert data.order[0] == "No Change" and data.order[-1] == "Idealized Baseline"


@pytest.mark.mirror
def test_gap_closed_by_single_embedding_and_fusion(published, mirror):
    raw = raw_table(mirror, "essential_lfc")
    median = raw.groupby(["name", "cell_line"])["L2"].median()
    ceiling = raw[raw["name"].str.startswith("Experimental")].groupby("cell_line")["L2"].median()
    figure = figure_data("5", published).medians()
    names = {
        "STRING WaveGC": WAVEGC,
        "Fusion (Simple)": "Final Simple Fusion",
        "Fusion (Full)": "Final Full Fusion",
    }
    gaps = {}
    for display, name in names.items():
        for line in figure.index:
            floor = median["context mean baseline", line]
            expected = (floor - median[name, line]) / (floor - ceiling[line])
            row = figure.loc[line]
            got = (row["Train Mean"] - row[display]) / (
                row["Train Mean"] - row["Experimental Error"]
            )
            assert got == pytest.approx(expected, rel=1e-12)
            gaps[display, line] = round(100 * got)
    assert gaps["STRING WaveGC", "K-562"] == 77
    assert gaps["Fusion (Full)", "Hep-G2"] == 86
    assert gaps["Fusion (Full)", "hTERT-RPE1"] == 53


@pytest.mark.mirror
def test_metric_correlations_of_figure_s11(published):
    data = figure_data("S11", published)
    rows = data.scores.pivot_table(index=["display", "fold"], columns="metric", values="value")
    assert len(rows) == 135
    rho = [rows["L2"].corr(rows[m], method="spearman") for m in data.spec.panels]
    np.testing.assert_allclose(rho, [0.992, 0.994, -0.822, -0.824], atol=6e-4)


@pytest.mark.mirror
def test_tahoe_is_averaged_over_lines_within_a_fold(published, mirror):
    raw = raw_table(mirror, "tahoe_deg")
    raw["number"] = raw["fold"].astype(str).str.extract(r"(\d+)$")[0].astype(int)
    expected = raw[raw["name"] == "ecfp:2"].groupby("number")["f1_score"].mean()
    got = figure_data("S7", published).folds()["ECFP:2"].droplevel("cell_line")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.mirror
def test_kept_medians_are_those_of_the_tables(published):
    keys = ["dataset", "task", "cell_line", "perturbation_set", "method", "metric"]
    kept = facts("cole2026_medians").set_index(keys)["value"].sort_index()
    fresh = median_rows(published).set_index(keys)["value"].sort_index()
    pd.testing.assert_series_equal(kept, fresh)


@pytest.mark.mirror
def test_older_set_never_enters_a_figure_of_the_full_set(published):
    for name, spec in FIGURES.items():
        if not spec.missing:
            sets = set(figure_data(name, published).scores["perturbation_set"])
            assert sets == {spec.perturbation_set}


@pytest.mark.mirror
def test_what_is_not_reported(published):
    table = neighbours("5", published)
    folds = figure_data("5", published).folds().groupby("fold").mean()
    assert list(table["method"]) == list(
        folds.drop(columns=["Experimental Error", "Idealized Baseline"]).mean().sort_values().index
    )
    first = table.iloc[0]
    difference = (folds[first["next_method"]] - folds[first["method"]]).mean()
    assert first["behind"] == pytest.approx(difference, rel=1e-9)
    certainty = ranking_certainty(published).set_index("figure")
    assert (certainty["distinguishable"] <= certainty["neighbours"]).all()
    runs = run_choice(published).set_index(["model", "cell_line"])
    assert runs.loc[("Latent Diffusion", "Hep-G2"), "drawn"] == pytest.approx(
        runs.loc[("Latent Diffusion", "Hep-G2"), "run_R2"]
    )
    unused = unused_rows(published).set_index("method")
    assert unused.loc["Diffusion_Feb2_2026", ["ahead", "n"]].tolist() == [17, 20]
    assert "Final Full Fusion" not in unused.index
