"""The books of the demo and real profiles, end to end and opened in a browser from disk."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
import yaml
from toys import ROOT, smaller

from perturbcore.core.profile import results_root

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

pytestmark = pytest.mark.book


def build(profile: str, copy_to: Path) -> Path:
    """Run ``make book`` in the checkout and keep a copy of the HTML."""
    venv = Path(sys.prefix)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PROFILE"))}
    done = subprocess.run(
        ["make", "-j2", "-o", f"{venv}/.ready", "book", f"PROFILE={profile}", f"VENV={venv}"],
        cwd=ROOT, env=keep, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return Path(shutil.copytree(ROOT / "_build/html", copy_to / Path(profile).stem))


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """HTML of the demo book."""
    return build("demo", tmp_path_factory.mktemp("books"))


@pytest.fixture(scope="session")
def real(tmp_path_factory, mirror, demo) -> Path:
    """HTML of the real book, from the mirrored files, with less work in every chapter."""
    folder = tmp_path_factory.mktemp("books")
    (folder / "quick.yml").write_text(yaml.safe_dump(smaller("real", "quick.yml"), sort_keys=False))
    return build(str(folder / "quick.yml"), folder)


@pytest.fixture(scope="session")
def browser():
    """Chromium, or a skip that says how to get it."""
    path = os.environ.get("PERTURBCORE_CHROMIUM") or shutil.which("chromium")
    if not path:
        pytest.skip("install Chromium, or name it in PERTURBCORE_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


def pages_of(html: Path) -> list[Path]:
    """Every page of the table of contents, and those the theme adds."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [toc["root"], *re.findall(r"'file': '([^']+)'", str(toc))]
    pages = [html / f"{name}.html" for name in names]
    return [*pages, html / "index.html", html / "search.html", html / "genindex.html"]


class Visit:
    """One page opened in the browser, with everything it complained about."""

    def __init__(self, browser, url: str, width: int = 1280, settle: int = 300):
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.trouble: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.trouble.append(f"script: {error}"))
        self.page.on("requestfailed", lambda r: self.trouble.append(f"failed: {r.url}"))
        self.page.on("request", self._request)
        self.page.goto(url)
        self.page.wait_for_load_state("load")
        self.page.wait_for_timeout(settle)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.trouble.append(f"{message.type}: {message.text}")

    def _request(self, request):
        if urlsplit(request.url).scheme not in ("file", "data", "blob"):
            self.trouble.append(f"leaves the machine: {request.url}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()


LINKS = """() => [...document.querySelectorAll('a[href], img[src], source[src], link[rel=stylesheet]')]
    .map(e => e.href || e.src)"""
IMAGES = """() => [...document.querySelectorAll('article img')]
    .filter(i => !i.complete || !i.naturalWidth || !(i.alt || '').trim()
                 || /^(\\.\\.\\/)*_images/.test(i.alt))
    .map(i => i.getAttribute('src') + ' alt: ' + i.alt)"""
TOO_WIDE = """() => [...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1
                 && !e.closest('.table-frame, pre, mjx-container, .math, .cell_output'))
    .slice(0, 5).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 60))"""

# rows that a caption calls bold, and glued sentences that are none of a heading's
WEIGHT = """() => [
    ...[...document.querySelectorAll('article tr.best td')]
        .filter(e => +getComputedStyle(e).fontWeight < 600).map(e => 'not bold: ' + e.textContent),
    ...[...document.querySelectorAll('article p > .pasted-text')]
        .filter(e => +getComputedStyle(e).fontWeight >= 600).map(e => 'bold: ' + e.textContent)
    ].slice(0, 5)"""


@cache
def anchors(path: str) -> set[str]:
    return set(re.findall(r"""\b(?:id|name)=["']([^"']+)""", Path(path).read_text()))


def broken(urls: list[str]) -> list[str]:
    """Links to files or anchors that are not there."""
    bad = []
    for url in set(urls):
        parts = urlsplit(url)
        if parts.scheme != "file":
            continue
        path = Path(unquote(parts.path))
        part = unquote(parts.fragment) if path.suffix == ".html" else ""
        if not path.is_file() or (part and part not in anchors(str(path))):
            bad.append(url)
    return sorted(bad)


def check_pages(browser, html: Path, banner: str) -> None:
    """Open every page from disk, wide and on a phone; collect what is wrong on any."""
    wrong = {}
    for path in pages_of(html):
        assert path.is_file(), path
        assert banner in path.read_text() or path in pages_of(html)[-3:], path
        with Visit(browser, path.as_uri()) as visit:
            found = visit.trouble + [f"broken link {u}" for u in broken(visit.page.evaluate(LINKS))]
            found += [f"image {i}" for i in visit.page.evaluate(IMAGES)]
            found += visit.page.evaluate(WEIGHT)
            if path.name not in ("index.html", "search.html", "genindex.html"):
                found += [] if visit.page.locator("article h1").count() == 1 else ["not one h1"]
            visit.page.set_viewport_size({"width": 375, "height": 740})
            if visit.page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"):
                found.append(f"wider than a phone: {visit.page.evaluate(TOO_WIDE)}")
        if found:
            wrong[path.relative_to(html).as_posix()] = found
    assert not wrong, "\n".join(
        f"{page}: {what}" for page, all_of in wrong.items() for what in all_of
    )


@pytest.mark.browser
def test_every_page_of_the_demo_opens_without_a_complaint(demo, browser):
    check_pages(browser, demo, "are <strong>simulated</strong>")


@pytest.mark.browser
@pytest.mark.mirror
def test_every_page_of_the_real_book_opens_without_a_complaint(real, browser):
    check_pages(browser, real, "The cells on these pages are real.")


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
    for page in sorted((demo / "book/chapters").glob("*.html")):
        text = page.read_text()
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
