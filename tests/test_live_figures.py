"""Figures whose points say more: what the SVG carries, and what a reader can do with it."""

import re
from functools import partial

import pytest
from books import DRAWN, Visit
from toys import ROOT, scores

from perturbcore.book.build import _DRAWN, _drawn
from perturbcore.data.published.tables import load_published, medians
from perturbcore.report import figures
from perturbcore.report.comparison import Comparison
from perturbcore.report.figures.style import narrowed
from perturbcore.report.marks import svg
from perturbcore.report.published.claims.audit import audit
from perturbcore.report.published.draw import every_model


def titles(text: str) -> list[str]:
    return re.findall(r"<title>([^<]*)</title></use>", text)


def test_each_point_says_its_facts_and_a_still_figure_says_none():
    compared = Comparison(scores(), predictor="knn")
    table = compared.ranking().set_index("method")
    shown = [t.split("\n") for t in titles(svg(compared.figure(), live=True))]
    for name, *facts in shown:
        assert f"score: {table['value'][name]:.3f}" in facts and "95 % interval: " in str(facts)
    assert len(shown) > 2 and "mark:" not in (still := svg(compared.figure())) and not titles(still)
    boxes = svg(figures.box_by_method(scores(), "L2"), live=True)
    assert len(titles(boxes)) == (scores()["metric"] == "L2").sum()
    assert "cell line: A" in boxes and "fold: 4" in boxes


def test_every_published_model_and_claim_is_a_point():
    models = every_model(load_published())
    best = models[models["data"] == "Essential, LFC"].set_index("display")["gain"]
    assert len(models) > 100 and best.idxmax() == "Fusion (Full)"
    drawing = figures.strips(models, x="gain", row="data", look="modality", xlabel="gain")
    assert len(titles(svg(drawing, live=True))) == len(models)
    table = audit(medians()).rename(columns={"id": "display"})
    drawing = figures.strips(table, row="paper", look="verdict", xlabel="Claims")
    assert len(titles(svg(drawing, live=True))) == len(table)


@pytest.mark.browser
@pytest.mark.parametrize("width, theme", [(1400, "light"), (390, "dark")])
def test_a_reader_points_at_chooses_and_searches(browser, tmp_path, width, theme):
    (tmp_path / "_images").mkdir()
    drawn = figures.box_by_method(scores(), "L2")
    wide, narrow = (svg(f, live=True) for f in (drawn, narrowed(drawn)))
    wide, narrow = (text[text.index("<svg") :].strip() for text in (wide, narrow))
    (tmp_path / "_images/x.svg").write_text(wide)
    twice = 2 * '<p><img alt="a" src="_images/x.svg"></p>'
    laid = _DRAWN.sub(partial(_drawn, tmp_path, set(), {wide: narrow}), twice)
    image = '<img alt="a" src="_images/x.svg"></picture><template class="live-figure" '
    assert image in laid and (tmp_path / "_images/x-phone.svg").read_text() == narrow
    assert laid.count("<svg") == laid.count("<template") == laid.count("<picture>") == 2
    static = (ROOT / "book/_static").as_uri()
    head = f'<link rel="stylesheet" href="{static}/perturbcore.css">'
    laid = f'<!doctype html><html data-theme="{theme}"><article class="bd-article">{head}{laid}'
    (tmp_path / "with.html").write_text(f'{laid}<script src="{static}/figures.js"></script>')
    with Visit(browser, (tmp_path / "with.html").as_uri(), width) as visit:
        there, tip = visit.page, visit.page.locator(".live-tip")
        assert there.locator("svg:visible").count() == 2
        shown = [url.rpartition("/")[2] for url, _ in there.evaluate(DRAWN)]
        assert shown == 2 * ["x.svg" if width > 576 else "x-phone.svg"]
        for other in (1790 - width, width):  # a phone that is turned
            there.set_viewport_size({"width": other, "height": 900})
            there.wait_for_timeout(100)
            (shown, _), *_ = there.evaluate(DRAWN)
            assert shown.endswith("x.svg" if other > 576 else "x-phone.svg")
        assert there.locator("svg:visible").count() == 2
        there.evaluate("document.querySelector('p').remove()")
        assert not there.locator("img").is_visible() and there.locator("svg").is_visible()
        there.locator(".marks use").last.hover(force=True)
        assert tip.is_visible() and "score: " in tip.inner_text()
        there.mouse.move(1, 1)
        assert not tip.is_visible()
        there.get_by_label("show only: cell line").select_option("A")
        there.get_by_label("search the points").fill("twin")
        assert there.locator(".live-count").inner_text().startswith("5 of ")
        there.locator("svg").press("ArrowRight")
        assert tip.inner_text().startswith("twin") and "cell line: A" in tip.inner_text()
        assert not there.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
        there.emulate_media(media="print")
        assert not there.locator(".table-filters").is_visible()
        assert there.locator("svg").is_visible() and not visit.trouble
