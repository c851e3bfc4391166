"""The house: imports go one way, what is imported is declared, and the front door opens."""

import ast
import doctest
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import perturbcore as pc

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src/perturbcore").rglob("*.py"))
# not imported by name: programs, themes, kernels, file formats and the backends of others
BY_NAME = {
    "ipykernel", "jupyter-book", "pyarrow", "pydata-sphinx-theme", "sphinx-book-theme",
    "sphinx-design", "sphinx-mathjax-offline",
}  # fmt: skip
# a user's own installation, never needed by the book
OPTIONAL = {"gears"}


def test_imports_go_from_later_wings_to_earlier_ones_and_in_no_circle():
    spec = importlib.util.spec_from_file_location("house", ROOT / "scripts/house.py")
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    assert {p.parent.name for p in (ROOT / "src/perturbcore").glob("*/__init__.py")} == {*pc.WINGS}
    files = house.modules()
    assert house.WINGS == [*pc.WINGS] and not house.against_the_order(files)
    assert not house.circles(files)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", r)[0].lower() for r in project["dependencies"]}
    known, used = packages_distributions(), set()
    for path in [*SOURCES, *(ROOT / "notebooks").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops = {n.split(".")[0] for n in names} - sys.stdlib_module_names - {"perturbcore", ""}
            used |= {known.get(t, [t])[0].lower().replace("_", "-") for t in tops}
    assert not used - declared - OPTIONAL
    assert not declared - used - BY_NAME


def test_the_front_door_opens_fast_and_names_what_it_has():
    code = (
        "import sys, perturbcore as pc\n"
        "assert not {'numpy', 'pandas', 'torch'} & set(sys.modules)\n"
        "import perturbcore.book.cli, perturbcore.core.profile\n"
        "assert not {'pandas', 'torch'} & set(sys.modules)\n"
        "assert pc.assign_folds(['A', 'B', 'C'], n_folds=3, seed=0).nunique() == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for verb in pc.VERBS:
        assert callable(getattr(pc, verb)) and verb in dir(pc)
    with pytest.raises(AttributeError, match="has no 'evalute'; it has: assign_folds"):
        _ = pc.evalute
    assert (ROOT / "src/perturbcore/py.typed").is_file()


@pytest.mark.parametrize("verb", pc.VERBS)
def test_the_example_of_each_verb_runs(verb):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    (example,) = finder.find(getattr(pc, verb), verb, globs={"pc": pc})
    runner.run(example)
    assert runner.tries and not runner.failures


def test_types_are_right_in_core_score_and_report():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", os.devnull],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
