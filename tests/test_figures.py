import io

import numpy as np
import pandas as pd
import pytest
from toys import scores

from perturbcore.core.errors import InputError
from perturbcore.report import figures
from perturbcore.report.comparison import Comparison
from perturbcore.report.figures.methods import method_order, reference_lines
from perturbcore.report.figures.style import (
    MODALITIES,
    PHONE,
    colour,
    display_names,
    narrowed,
)


def svg(figure, **how) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", **how)
    return buffer.getvalue()


def rows_of(axis) -> list[str]:
    """Names of the rows from top to bottom."""
    names = [t.get_text() for t in axis.get_yticklabels()]
    low, high = axis.get_ylim()
    return names if low > high else names[::-1]


def test_boxes_name_every_method_and_draw_the_reference_lines():
    figure = figures.box_by_method(scores(), "L2")
    text = svg(figure)
    for word in ("good", "twin", "Train Mean", "Experimental error", "Prior knowledge"):
        assert word in text
    names = rows_of(figure.axes[0])
    assert names[0] == "Idealized" and names[-1] == "No Change"
    lines = reference_lines(display_names(scores()), lower_is_better=True)
    medians = scores().query("predictor == 'train_mean'").groupby("cell_line")["value"].median()
    drawn = lines[lines["display"] == "Train Mean"].set_index("panel")["value"]
    pd.testing.assert_series_equal(drawn, medians, check_names=False)
    best = lines[~lines["display"].isin(["Train Mean", "Experimental error"])]
    assert set(best["display"]) <= {"good", "twin"} and len(best) == 2


def test_boxes_and_points_are_those_of_the_folds():
    rows = scores()
    axis = figures.box_by_method(rows, "L2").axes[0]
    y = rows_of(axis).index("dull")
    values = rows.query("embedding == 'dull' and cell_line == 'A'")["value"].to_numpy()
    drawn = [line.get_xdata() for line in axis.lines if np.all(line.get_ydata() == y)]
    assert any(len(x) == 5 and np.allclose(np.sort(x), np.sort(values)) for x in drawn)
    quartiles = np.quantile(values, [0.25, 0.75])
    boxes = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 5]
    assert any(np.allclose([x.min(), x.max()], quartiles) for x in boxes)


def test_order_is_from_best_to_worst_by_median():
    data = display_names(scores())
    order = method_order(data, lower_is_better=True)
    assert order[0] == "Idealized" and order[-1] == "No Change"
    assert method_order(data, lower_is_better=False)[-1] == "Idealized"


def test_a_method_without_scores_in_a_panel_is_said_to_be_so():
    rows = scores()
    rows = rows[~((rows["cell_line"] == "B") & (rows["embedding"] == "dull"))]
    assert "not scored" in svg(figures.box_by_method(rows, "L2"))


def test_ranks_and_intervals_have_the_best_at_the_top():
    c = Comparison(scores())
    ranks = figures.rank_plot(c.ranks(), c.rank_table())
    assert rows_of(ranks.axes[0])[-1] == "No Change" and "good" in svg(ranks)
    intervals = c.figure()
    shown = {"good", "twin", "dull", "Random"}  # floors and ceilings are lines, or elsewhere
    assert rows_of(intervals.axes[0]) == [m for m in c.ranking()["method"] if m in shown]
    assert "Train Mean" in svg(intervals)
    gains = c.gains("dull", ("cell_line",))
    drawn = figures.gain_plot(gains, c.gains("dull"), reference="dull", label="Gain")
    assert rows_of(drawn.axes[0]) == list(c.gains("dull")["method"])
    table = pd.DataFrame({"method": ["a", "b"], "origin": ["x", "y"], "A": [0.9, 0.6]})
    dots = figures.dot_plot(table, ["A"], name="method", group="origin", xlabel="AUROC")
    assert rows_of(dots.axes[0]) == ["a", "b"]
    assert [line.get_ydata()[0] for line in dots.axes[0].lines[:2]] == [0, 1]


def test_metrics_and_similarities_are_drawn():
    rows = scores()
    two = pd.concat([rows, rows.assign(metric="MSE", value=rows["value"] ** 2)])
    assert "ρ = 1.000" in svg(figures.metric_scatter(two, "L2", ["MSE"]))
    near = [[1, 0.1, 0.9], [0.1, 1, 0.2], [0.9, 0.2, 1]]
    matrix = pd.DataFrame(near, index=list("abc"), columns=list("abc"))
    figure = figures.similarity_map(matrix, dict.fromkeys("abc", "DNA"), label="R2")
    order = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert "R2" in svg(figure) and abs(order.index("a") - order.index("c")) == 1


def test_an_unknown_metric_or_modality_is_named():
    pytest.raises(InputError, figures.box_by_method, scores(), "l2").match("there are: L2")
    pytest.raises(InputError, colour, "Plants").match("'Plants'")


def test_modalities_of_one_figure_differ_in_colour_and_marker():
    genes = list(MODALITIES)[:8]
    assert len({MODALITIES[m][0] for m in genes}) == len(genes)
    assert len({MODALITIES[m][1] for m in genes}) == len(genes)


OVERLAPS = """() => {
    const texts = [...document.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    return texts.flatMap(([name, a], i) => texts.slice(i + 1).filter(([_, b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2.5).map(([other]) => [name, other])) }"""


@pytest.mark.browser
def test_a_phone_gets_one_column_of_texts_that_fit(browser):
    rows = scores(lines=("A", "a line of cells with a long name that needs two lines", "C"))
    rows["embedding"] = rows["embedding"].replace({"dull": "an embedding with a very long name"})
    names = [f"embedding {i}" for i in range(14)]
    alike = pd.DataFrame(np.eye(14) * 0.5 + 0.25, names, names)
    table = pd.DataFrame({"method": names[:9], "origin": "x", **dict.fromkeys("ABCD", 0.6)})
    drawn = {
        "boxes": figures.box_by_method(rows, "L2"),
        "interval": Comparison(rows).figure(),
        "similar": figures.similarity_map(alike, dict.fromkeys(names, "DNA"), label="R2"),
        "dots": figures.dot_plot(table, "ABCD", name="method", group="origin", xlabel="AUROC"),
        "shares": figures.heat_map(alike.iloc[:4, :9], "share of the range"),
    }
    page = browser.new_page(viewport={"width": 342, "height": 740})
    for name, figure in drawn.items():
        text = svg(narrow := narrowed(figure), bbox_inches="tight")
        assert len({a.get_gridspec().ncols for a in narrow.axes if a.get_gridspec()}) == 1, name
        wide = float(text.split('viewBox="0 0 ')[1].split()[0])
        assert wide < 72 * PHONE * 1.08, (name, wide)
        style = "<style>body { margin: 0 } svg { width: 100%; height: auto }</style>"
        page.set_content(style + text[text.index("<svg") :])
        assert not page.evaluate(OVERLAPS), name
    assert figure.get_figwidth() > PHONE  # the wide one stays as it is
    page.close()
