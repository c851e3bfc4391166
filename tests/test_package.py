"""The house: imports go one way, what is imported is declared, and the front door opens."""

import ast
import doctest
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import nbformat
import pytest
import yaml
from toys import ROOT

import perturbcore as pc
from perturbcore.book.build import outside_references
from perturbcore.book.cli import main
from perturbcore.book.previews import preview, site
from perturbcore.book.source import find_chapter
from perturbcore.book.start import PARTS, start_files

SOURCES = sorted((ROOT / "src/perturbcore").rglob("*.py"))
# not imported by name: programs, themes, kernels, file formats and the backends of others
BY_NAME = {
    "ipykernel", "jupyter-book", "pyarrow", "pydata-sphinx-theme", "sphinx-book-theme",
    "sphinx-design", "sphinx-mathjax-offline",
}  # fmt: skip
# a user's own installation, never needed by the book
OPTIONAL = {"gears", "scvi-tools"}


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
        "assert pc.assign_folds(['A', 'B', 'C'], n_folds=3, seed=0).nunique() == 3\n"
        "from perturbcore.embeddings.registry import builders\n"
        "assert len(builders()) > 9 and 'torch' not in sys.modules"
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


# what a reader starts with: previews of links, a working folder from the package, a container

PAGE = """<html><head><title>Which is “best” — The book</title></head><body>
<article><h1>Which is best<a href="#x">#</a></h1><p>Why this is asked.</p>
<p><strong>In one line.</strong> <em>STRING</em> is best &amp; closes 40&nbsp;%.</p></article>"""


def tags(text: str) -> dict[str, str]:
    return dict(re.findall(r'property="([^"]+)" content="([^"]*)"', text))


def test_a_link_shows_title_answer_and_picture(tmp_path):
    found = tags(preview(PAGE, "book/chapters/x.html", picture="_images/x.png", title="The book"))
    assert found["og:title"] == "Which is “best”" and found["og:site_name"] == "The book"
    assert found["og:description"] == "STRING is best &amp; closes 40 %."
    assert found["og:image"] == "../../_images/x.png" and "og:url" not in found
    plain = PAGE.replace("In one line.", "Else.").replace("asked.", "asked " + "again " * 99)
    found = tags(preview(plain, "index.html", base="https://book.org/"))
    assert found["og:image"] == "https://book.org/_static/card.png"
    assert found["og:url"] == "https://book.org/index.html" and len(found["og:description"]) <= 300
    (tmp_path / "_config.yml").write_text("title: T\nhtml: {baseurl: https://book.org/b}\n")
    assert site(tmp_path / "_config.yml") == ("T", "https://book.org/b/")


def test_the_package_writes_a_working_folder_and_replaces_nothing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mine"
    assert main(["start", str(folder)]) == 0
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    wheel = tool["hatch"]["build"]["targets"]["wheel"]
    to, written = {**wheel["sources"], **wheel["force-include"]}, start_files(folder)
    assert {p: to[p] for p in PARTS} == {p: f"perturbcore/start/{p}" for p in PARTS}
    assert written == start_files(ROOT) and f"{len(written)} files" in capsys.readouterr().out
    monkeypatch.chdir(folder)
    assert main(["chapters"]) == 0 and "run_record" in capsys.readouterr().out
    command = ["make", "-n", "data", f"VENV={sys.prefix}"]
    above = ("MAKE", "MFLAGS", "ARGS")  # the Make that runs the tests
    own = {k: v for k, v in os.environ.items() if not k.startswith(above)}
    said = subprocess.check_output(command, text=True, env=own)
    # nothing is set up: the package is installed already
    assert said.strip() == f"{sys.prefix}/bin/perturbcore data fetch --profile demo"
    (folder / "notebooks/claims.py").write_text("mine")
    assert main(["start", str(folder)]) == 2 and "already" in capsys.readouterr().err
    assert (folder / "notebooks/claims.py").read_text() == "mine"


def test_the_container_calls_what_exists_with_the_pinned_python_and_torch():
    text, pins = ((ROOT / name).read_text() for name in ("Dockerfile", "constraints.txt"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"on Python {re.search('ARG PYTHON=(.+)', text)[1]};" in pins
    (torch,) = (d for d in project["dependencies"] if d.startswith("torch="))
    assert f"\n{torch}\n" in pins and "ARG TORCH=cpu\nENV UV_TORCH_BACKEND=${TORCH}\n" in text
    for verb in re.findall(r'(?:RUN |")make"?,? "?(\w+)', text):
        assert f"\n.PHONY: {verb}\n" in (ROOT / "Makefile").read_text(), verb
    assert (ROOT / f"notebooks/{re.search(r'CHAPTER=(.+?) ', text)[1]}.py").is_file()
    needed = project["readme"], project["license"]["file"], *PARTS[2:]  # of the installation
    assert set(needed) <= set(text.partition("RUN make .venv")[0].split())
    ignored = (ROOT / ".dockerignore").read_text().split()
    for place in " ".join(re.findall(r"^COPY (.+) \S+$", text, re.M)).split():
        assert (ROOT / place).exists() and place not in ignored, place


def test_binder_has_each_chapter_where_its_button_leads(tmp_path):
    where = re.search(r"notebook --all --out (\S+)", (ROOT / "binder/postBuild").read_text())[1]
    python = re.search("ARG PYTHON=(.+)", (ROOT / "Dockerfile").read_text())[1]
    assert (ROOT / "binder/runtime.txt").read_text() == f"python-{python}\n"
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("chapters"))
    (tmp_path / where).mkdir()
    nbformat.write(find_chapter("claims").notebook, tmp_path / where / "claims.ipynb")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/chapters/claims\n")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["repository"]["url"] = "https://github.com/someone/somewhere"
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "perturbcore.book.sphinx", "build", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    page = tmp_path / "_build/html/book/chapters/claims.html"
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    link = (
        f"https://mybinder.org/v2/gh/someone/somewhere/main?urlpath=lab/tree/{where}/claims.ipynb"
    )
    assert f'href="{link}"' in page.read_text() and not outside_references(page.parents[2])
