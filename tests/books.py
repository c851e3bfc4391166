"""Books built for the tests, and what is looked at on each of their pages."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from toys import ROOT


def build(profile: str, copy_to: Path, root: Path = ROOT) -> Path:
    """Run ``make book`` in the checkout or a working folder, and keep a copy of the HTML."""
    venv = Path(sys.prefix)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PROFILE"))}
    with (root / "Makefile").open() as file:  # one at a time
        fcntl.flock(file, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "-j2", "-o", f"{venv}/.ready", "book", f"PROFILE={profile}", f"VENV={venv}"],
            cwd=root, env=keep, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:]
        return Path(shutil.copytree(root / "_build/html", copy_to / Path(profile).stem))


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
        self.loaded: set[str] = set()
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
        parts = urlsplit(request.url)
        if parts.scheme == "file":
            self.loaded.add(unquote(parts.path))
        elif parts.scheme not in ("data", "blob"):
            self.trouble.append(f"leaves the machine: {request.url}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()


LINKS = """() => [...document.querySelectorAll('a[href], img[src], source, link[rel=stylesheet]')]
    .map(e => e.href || e.src || new URL(e.srcset, location.href).href)"""
# the browser may put off decoding what it does not show, without end
DECODE = """Promise.all(images.map(i => Promise.race(
    [i.decode().catch(() => 0), new Promise(done => setTimeout(done, 2000))])))"""
IMAGES = f"""async () => {{
    const images = [...document.querySelectorAll('article img')];
    images.forEach(i => i.loading = 'eager');
    await {DECODE};
    return images.filter(i => !i.complete || !i.naturalWidth || !(i.alt || '').trim()
                              || /^(\\.\\.\\/)*_images/.test(i.alt))
        .map(i => i.getAttribute('src') + ' alt: ' + i.alt) }}"""
TOO_WIDE = """() => [...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1
                 && !e.closest('.table-frame, pre, mjx-container, .math, .cell_output'))
    .slice(0, 5).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 60))"""

# figures with the width that they have on the page; a card of the first page shows a thumbnail
DRAWN = """() => [
    ...[...document.querySelectorAll('article img[src$=".svg"]:not(.sd-card-img-top, [hidden])')]
        .map(i => [i.currentSrc, i.clientWidth]),
    ...[...document.querySelectorAll('.live-drawing')]
        .map(d => [d.dataset.of, d.shadowRoot.querySelector('svg').getBoundingClientRect().width])
    ]"""
DECODED = f"() => {{ const images = [...document.images]; return {DECODE} }}"
SMALLEST = {1400: 10, 390: 9}  # pixels of text, by those of the window

# the answer of a chapter and its main figure begin on the first screen
FIRST_SCREEN = """() => [...document.querySelectorAll(
    '.result-box, .result-box :is(img:not([hidden]), .live-drawing)')]
    .filter(e => e.getBoundingClientRect().top + scrollY > 900)
    .map(e => 'not on the first screen: ' + (e.className || e.alt))"""

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


def small_texts(page) -> list[str]:
    """Figures with text that is too small to read on a desktop or on a phone."""
    found = []
    for window, smallest in SMALLEST.items():
        page.set_viewport_size({"width": window, "height": 900})
        page.wait_for_timeout(100)  # an image chooses its source
        page.evaluate(DECODED)
        for url, width in page.evaluate(DRAWN):
            svg = Path(unquote(urlsplit(url).path)).read_text()
            sizes = [float(n) for n in re.findall(r"font(?:-size)?: (?:[a-z]+ )*([\d.]+)px", svg)]
            wide = float(re.search(r'viewBox="\S+ \S+ (\S+)', svg)[1])
            if sizes and (least := min(sizes) * width / wide) < smallest:
                found.append(f"text of {least:.1f} px in {Path(url).name} at {window} px")
    return found


def check_pages(browser, html: Path, banner: str) -> None:
    """Open every page from disk, wide and on a phone; collect what is wrong on any."""
    wrong = {}
    for path in pages_of(html):
        assert path.is_file(), path
        assert banner in path.read_text() or path in pages_of(html)[-3:], path
        with Visit(browser, path.as_uri()) as visit:
            weight = sum(Path(f).stat().st_size for f in visit.loaded) / 1e6
            found = [f"{weight:.2f} MB"] if path.name == "index.html" and weight > 1 else []
            found += visit.trouble
            found += [f"broken link {u}" for u in broken(visit.page.evaluate(LINKS))]
            found += [f"image {i}" for i in visit.page.evaluate(IMAGES)]
            found += visit.page.evaluate(WEIGHT)
            found += small_texts(visit.page) + visit.page.evaluate(FIRST_SCREEN)
            if "/mathjax/" in (text := path.read_text()) and 'class="math' not in text:
                found.append("MathJax without a formula")
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
