"""Every chapter of the authors' data is executed with a part of them.

PERTURBCORE_PARTS=all tries all sets, each alone, and each missing; otherwise one is missing.
"""

import contextlib
import io
import os
from pathlib import Path

import authors_files as fixture
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from toys import ROOT, smaller

from perturbcore.book.source import find_chapter, published
from perturbcore.core.profile import load_profile
from perturbcore.data.authors.layout import LAYOUTS, VARIABLE

SMALL = dict(n_control_cells=80)
# files of embeddings that are kept: two of knowledge, one of each cell line
KEPT = ("WaveGC", "Genotype", "AIDOcell")
# these read no data set of the authors, start kernels of their own, or tell of runs of kernels
ALIKE = {
    "noise_ceiling",
    "published_results",
    "claims",
    "run_one_chapter",
    "add_your_own",
    "run_record",
}
ALONE = [{name} for name in LAYOUTS]
PARTS = [set(LAYOUTS) - {"essential"}]
if os.environ.get("PERTURBCORE_PARTS") == "all":
    PARTS = [set(LAYOUTS), *ALONE, *(set(LAYOUTS) - one for one in ALONE)]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """All four data sets in the authors' layout, smaller than the fixture of the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fixture._ABOUT, "sizes", fixture._ABOUT["sizes"] | SMALL)
        root = fixture.write_fixture(tmp_path_factory.mktemp("all"), tasks=("lfc", "deg"))
    for path in (root / "gene_embeddings").iterdir():
        if not any(word in path.name for word in KEPT):
            path.unlink()
    return root


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """One folder for all parts: what a part computed serves the next."""
    return tmp_path_factory.mktemp("results")


def in_order(names: list[str]) -> list[str]:
    """Chapters, each after those that it reads."""
    done = []
    while left := [n for n in names if n not in done]:
        done.append(next(n for n in left if not set(find_chapter(n).after) & set(left) - {n}))
    return done


def execute(chapter, values: dict) -> None:
    """Run the cells of a chapter here, with these parameters; a kernel takes seconds to start."""
    shell, said = InteractiveShell(), io.StringIO()
    cells = [c for c in chapter.notebook.cells if c.cell_type == "code"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for cell in cells:
            done = shell.run_cell(cell.source)
            if "parameters" in cell.metadata.get("tags", []):
                shell.push(values)
            done.raise_error()


@pytest.mark.parametrize("there", PARTS, ids=lambda names: " ".join(sorted(names)))
def test_every_chapter_runs_with_any_part_of_the_data(
    there, files, results, mirror, tmp_path, monkeypatch
):
    for path in [files / "gene_embeddings", *(files / name for name in there)]:
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(ROOT)
    for name, value in ((VARIABLE, tmp_path), ("PERTURBCORE_RESULTS", results)):
        monkeypatch.setenv(name, str(value))
    path = results / "parts.yml"
    path.write_text(yaml.safe_dump(smaller("paper", path.name), sort_keys=False))
    profile = load_profile(path)
    for name in in_order([n for n in published() if n not in ALIKE]):
        chapter = find_chapter(name)
        if not chapter.missing(profile):
            execute(chapter, chapter.values(profile))
