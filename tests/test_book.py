"""The demo book, end to end and opened in a browser from disk; the real one is in test_real_book."""

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from books import Visit, broken, build, check_pages, pages_of
from toys import ROOT

from perturbcore.book.source import find_chapter
from perturbcore.core.profile import load_profile, results_root

pytestmark = pytest.mark.book


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """HTML of the demo book."""
    return build("demo", tmp_path_factory.mktemp("books"))


@pytest.mark.browser
def test_every_page_of_the_demo_opens_without_a_complaint(demo, browser):
    check_pages(browser, demo, "are <strong>simulated</strong>")


@pytest.mark.browser
def test_search_finds_pages(demo, browser):
    with Visit(browser, (demo / "search.html").as_uri() + "?q=embedding", settle=1500) as visit:
        results = visit.page.locator("#search-results li a")
        assert results.count() >= 2
        assert not broken([results.nth(i).evaluate("a => a.href") for i in range(results.count())])
        assert not visit.trouble


OPEN = """b => { for (let d = b.closest('details'); d; d = d.parentElement.closest('details'))
    d.open = true }"""


@pytest.mark.browser
def test_tables_sort_by_a_click_and_by_the_keyboard(demo, browser):
    path = next(p for p in pages_of(demo) if "<table" in p.read_text() and "ranking" in p.stem)
    with Visit(browser, path.as_uri()) as visit:
        table = visit.page.locator("article table:has(button.sort)").first
        heads = table.locator("thead th")
        columns = [i for i in range(heads.count()) if heads.nth(i).locator("button").count()]
        assert columns
        for column in columns:
            button = heads.nth(column).locator("button")
            cells = table.locator(f"tbody tr > :nth-child({column + 1})")
            before = sorted(cells.all_inner_texts())
            button.evaluate(OPEN)
            button.click()
            up = cells.all_inner_texts()
            button.press("Enter")
            down = cells.all_inner_texts()
            assert sorted(up) == sorted(down) == before
            assert heads.nth(column).get_attribute("aria-sort") == "descending"
            numbers = pd.to_numeric(pd.Series([up, down]).explode().str.replace(
                "\u2212", "-").str.replace(",", ""), errors="coerce")  # fmt: skip
            if numbers.notna().all():
                assert numbers[0].is_monotonic_increasing and numbers[1].is_monotonic_decreasing


@pytest.mark.browser
def test_formulas_are_drawn_from_a_local_file(demo, browser):
    drawn = 0
    for path in pages_of(demo):
        if 'class="math' in path.read_text():
            with Visit(browser, path.as_uri(), settle=1500) as visit:
                drawn += visit.page.locator("mjx-container svg").count()
                assert visit.page.locator("mjx-merror").count() == 0, path
    assert drawn


@pytest.mark.browser
def test_pages_fit_paper_and_the_dark(demo, browser, tmp_path):
    path = pages_of(demo)[1]
    with Visit(browser, path.as_uri()) as visit:
        visit.page.emulate_media(media="print")
        assert not visit.page.locator(".bd-sidebar-primary").is_visible()
        assert visit.page.locator("h1:visible").count() == 1
        sheet = visit.page.pdf(path=tmp_path / "page.pdf")
        assert len(sheet) > 10_000
        visit.page.emulate_media(media="screen")
        for theme in ("dark", "light"):
            visit.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
            assert contrast(visit.page, "article p") >= 4.5


def contrast(page, selector: str) -> float:
    """Contrast ratio of an element's text against the page (WCAG 2)."""
    colours = page.evaluate(
        """s => [getComputedStyle(document.querySelector(s)).color,
                 getComputedStyle(document.body).backgroundColor]""",
        selector,
    )
    parts = np.array([re.findall(r"[\d.]+", c)[:3] for c in colours], float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    light = linear @ [0.2126, 0.7152, 0.0722]
    return (light.max() + 0.05) / (light.min() + 0.05)


def test_every_chapter_has_its_tables_and_vector_figures(demo):
    profile = load_profile("demo")
    for page in sorted((demo / "book/chapters").glob("*.html")):
        text = page.read_text()
        if why := find_chapter(page.stem).missing(profile):
            assert f"Left out of this build:</strong> {why}" in text
            continue
        assert not re.search(r"(&lt;|<)[\w.]+ (object|at 0x)", text), (
            f"{page.name}: a printed object"
        )
        figures = re.findall(r'<img[^>]+src="[^"]*_images/([^"]+)"', text)
        assert all(f.endswith(".svg") for f in figures), (page.name, figures)
        source = (ROOT / "notebooks" / f"{page.stem}.py").read_text()
        drawn = len(re.findall(r"show_figure\(", source)) + ("present(" in source)
        assert len(figures) >= drawn, (page.name, figures)
        tables = list((ROOT / "results/demo/tables" / page.stem).glob("*.csv"))
        assert tables and ".csv" in text, page.name


def test_every_number_of_the_first_page_is_recomputed_from_its_tables(demo, tmp_path):
    """And a number that the tables do not give is found."""
    spec = importlib.util.spec_from_file_location("first_page", ROOT / "scripts/first_page.py")
    first_page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(first_page)
    folder = results_root() / "demo"
    found = first_page.trace(folder)
    assert len(found) > 40 and set(found["chapter"]) >= {"answer", "fusion", "embedding_ranking"}
    assert found[found["recomputed"] == ""].empty
    copy = shutil.copytree(
        folder, tmp_path / "demo", ignore=shutil.ignore_patterns("*.sqlite", "*.h5*")
    )
    answer = copy / "answers" / "embedding_ranking.md"
    wrong = re.sub(r"(\d+) %", lambda m: f"{int(m[1]) + 1} %", answer.read_text())
    answer.write_text(wrong)
    lost = first_page.trace(copy).query("recomputed == ''")
    assert set(lost["chapter"]) == {"embedding_ranking"} and len(lost) == wrong.count(" %")


def test_chapters_are_prose_and_calls_not_programs():
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        import jupytext

        cells = [c for c in jupytext.read(path).cells if c.cell_type == "code"]
        assert len(cells) <= 12, f"{path.name}: {len(cells)} code cells"
        for cell in cells:
            source = cell.source
            # a list of parameters is no program: one a line, and a screenful of them at most
            most = 18 if "parameters" in cell.metadata.get("tags", []) else 14
            assert len(source.splitlines()) <= most, f"{path.name}: a long cell\n{source}"
            assert not re.search(r"^\s*(def|class) ", source, re.M), f"{path.name}\n{source}"
