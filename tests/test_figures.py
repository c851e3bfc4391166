import importlib.util
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perturbcore.core.errors import InputError
from perturbcore.report import figures, summary
from perturbcore.report.figures.style import MODALITIES

# the scores that test_summary.py makes serve here as well
_spec = importlib.util.spec_from_file_location(
    "scores_of_summary", Path(__file__).with_name("test_summary.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
scores = _module.scores


def svg(figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_boxes_name_every_method_and_draw_the_reference_lines():
    text = svg(figures.box_by_method(scores(), "L2", lower_is_better=True))
    for word in (
        "good",
        "twin",
        "Train Mean",
        "Experimental error",
        "Idealized",
        "Prior knowledge",
    ):
        assert word in text
    lines = figures.reference_lines(
        figures.display_names(scores()).query("metric == 'L2'"), lower_is_better=True
    )
    medians = scores().query("predictor == 'train_mean'").groupby("cell_line")["value"].median()
    drawn = lines[lines["display"] == "Train Mean"].set_index("panel")["value"]
    pd.testing.assert_series_equal(drawn, medians, check_names=False)
    best = lines[~lines["display"].isin(["Train Mean", "Experimental error"])]
    assert set(best["display"]) <= {"good", "twin"} and len(best) == 2


def test_order_is_from_worst_to_best_by_median():
    data = figures.display_names(scores())
    order = figures.method_order(data, lower_is_better=True)
    assert order[0] == "No Change" and order[-1] == "Idealized"
    assert figures.method_order(data, lower_is_better=False)[0] == "Idealized"


def test_a_method_without_scores_in_a_panel_is_said_to_be_so():
    rows = scores()
    rows = rows[~((rows["cell_line"] == "B") & (rows["embedding"] == "dull"))]
    assert "not scored" in svg(figures.box_by_method(rows, "L2", lower_is_better=True))


def test_other_figures_draw():
    from perturbcore.score.uncertainty.ranking import rank_table, ranks

    rows = scores()
    table = rank_table(rows, "L2")
    assert "good" in svg(figures.rank_plot(ranks(rows, "L2"), table))
    assert "Train Mean" in svg(figures.interval_plot(summary.ranking_table(rows), label="L2"))
    two = pd.concat([rows, rows.assign(metric="MSE", value=rows["value"] ** 2)])
    assert "ρ = 0.9" in svg(figures.metric_scatter(two, "L2", ["MSE"])) or "ρ = 1" in svg(
        figures.metric_scatter(two, "L2", ["MSE"])
    )
    matrix = pd.DataFrame(np.eye(3), index=list("abc"), columns=list("abc"))
    assert "R2" in svg(figures.similarity_map(matrix, dict.fromkeys("abc", "DNA"), label="R2"))


def test_an_unknown_metric_or_modality_is_named():
    with pytest.raises(InputError, match="there are: L2"):
        figures.box_by_method(scores(), "l2", lower_is_better=True)
    with pytest.raises(InputError, match="'Plants'"):
        figures.colour("Plants")


def test_modalities_of_one_figure_differ_in_colour_and_marker():
    genes = list(MODALITIES)[:8]
    assert len({MODALITIES[m][0] for m in genes}) == len(genes)
    assert len({MODALITIES[m][1] for m in genes}) == len(genes)
