import fcntl
import os
import shutil
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings

# a shared machine must not fail a test by being slow, and CI must not draw other examples than we
# did
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")


# what takes longest comes first: each of two workers builds a book, then both have all other files
ORDER = {"test_book.py": 0, "test_real_book.py": 0, "test_authors_parts.py": 1, "test_make.py": 1}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Put files in an order in which no worker waits; mark what asks for mirror or browser."""
    items.sort(key=lambda item: ORDER.get(item.path.name, 2))
    for item in items:
        for name in {"mirror", "browser"} & set(item.fixturenames):
            item.add_marker(name)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder of the real data files, or a skip that says how to get them."""
    folder = os.environ.get("PERTURBCORE_MIRROR", "")
    if not folder:
        pytest.skip("set PERTURBCORE_MIRROR to a folder with the pinned real files")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"PERTURBCORE_MIRROR={folder} is not a folder")
    return Path(folder)


FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


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


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """The authors' layout, small, with raw cells, responses and labels; not to be changed.

    Made once for all workers of a run.
    """
    from authors_files import write_fixture

    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with (shared / "authors.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "authors").exists():
            half = tmp_path_factory.mktemp("authors")
            write_fixture(half, tasks=("lfc", "deg")).rename(shared / "authors")
    return shared / "authors"


HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     name: python3
#     display_name: Python 3
#   perturbcore:
#     after: [{after}]
{more}# ---

"""
CARD = "#     card: {title: The first of all, figure: line, alt: a small line, text: It rises.}\n"
FIRST = (
    HEADER.format(after="", more=CARD)
    + """\
# %% [markdown]
# # First chapter
#
# As said before {cite:p}`someone2026`, $x^2$ grows.

# %% tags=["parameters"]
profile: str = "demo"
k: int = 5  # neighbours
grid: list[float] = [0.1, 1.0]
limit: int | None = None

# %%
from perturbcore.book.inside import open_chapter

chapter = open_chapter("first")
print("k is", k, "grid is", grid)

# %% mystnb={"figure": {"caption": "It rises.", "name": "fig-line"}, "image": {"alt": "a line"}}
import matplotlib.pyplot as plt

figure, ax = plt.subplots()
ax.plot([1, 2, k])
chapter.save_figure(figure, "line");

# %%
import pandas as pd

table = pd.DataFrame({"name": ["a", "b", "c", "d"], "value": [0.5, 10, 9, k]})
chapter.save_table(table, "values")

# %% [markdown]
# Have [the values](tables/first/values.csv), drawn in {numref}`fig-line`.
"""
)
SECOND = (
    HEADER.format(after="first", more="")
    + """\
# %% [markdown]
# # Second chapter

# %% tags=["parameters"]
profile: str = "demo"
flag: bool = True

# %%
from perturbcore.book.inside import open_chapter

chapter = open_chapter("second")
sorted(p.name for p in chapter.profile.results.glob("tables/*/*.csv"))
"""
)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A whole project with two tiny chapters, the second after the first."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "book").mkdir()
    write = {
        "notebooks/first.py": FIRST,
        "notebooks/second.py": SECOND,
        "notebooks/profiles/demo.yml": "title: tiny\nsimulated: true\nchapters:\n  first: {k: 7}\n",
        "notebooks/profiles/other.yml": "title: other\nsimulated: false\n",
        "_toc.yml": "format: jb-book\nroot: book/index\nchapters:\n"
        "  - file: book/chapters/first\n  - file: book/chapters/second\n"
        "  - file: book/sources\n",
        "book/index.md": "# The book\n\nStart with [the first](chapters/first.ipynb).\n\n"
        "```{include} chapters/_cards.md\n```\n",
        "book/sources.md": "# Sources\n\n```{bibliography}\n```\n",
        "book/references.bib": "@misc{someone2026, author={Someone, A.}, title={T}, year={2026}}\n",
    }
    for name, text in write.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PERTURBCORE_ROOT", str(tmp_path))
    monkeypatch.delenv("PERTURBCORE_RESULTS", raising=False)
    return tmp_path


SMALL = """\
title: Small
simulated: true
datasets:
  - name: simulated
    options: {n_cell_lines: 1, n_perturbations: 60, n_genes: 150, n_batches: 3,
              n_control_cells: 120, cells_per_perturbation: [12, 30], n_modules: 6}
"""


@pytest.fixture(scope="module")
def study_of(tmp_path_factory):
    """Make the study of a chapter on a small simulated screen; `more` of its profile, values."""
    from perturbcore.book.inside import OpenChapter
    from perturbcore.book.source import find_chapter
    from perturbcore.book.study import Study
    from perturbcore.core.profile import load_profile

    folder = tmp_path_factory.mktemp("study")
    ratio = {"bootstrap": 1.3, "repeated": 1.0, "noise_floor": 1.0}
    cases = product([0.0], ["global", "matched"], [5, 20, 200], ratio.items())
    # held against the truth for half a minute in a book, and in tests of its own
    rows = [(*case, estimate, r, r, 9) for *case, (estimate, r) in cases]
    columns = "batch_effect control cells estimate ratio of_its_own n_perturbations".split()
    truth = pd.DataFrame(rows, columns=columns)

    def make(name: str, more: str, **given) -> Study:
        (folder / "small.yml").write_text(SMALL + more)
        chapter, profile = find_chapter(name), load_profile(folder / "small.yml")
        values = {k: p.default for k, p in chapter.parameters.items()} | chapter.values(profile)
        return Study(OpenChapter(name, profile, values | given), n_jobs=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERTURBCORE_RESULTS", str(folder / "results"))
        patch.setattr(Study, "truth", lambda self: truth)
        yield make
