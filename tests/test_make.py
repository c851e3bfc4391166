"""The Makefile on a whole tiny project: what runs when, and what is never published."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VENV = Path(sys.prefix)


@pytest.fixture
def project(tree):
    """The tiny project with the real Makefile, configuration and package."""
    for name in ("Makefile", "_config.yml", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "book/_static", tree / "book/_static", ignore=shutil.ignore_patterns("mathjax")
    )
    return tree


def make(project, *arguments, old=f"{VENV}/.ready", **environment):
    """Run make in a project with this environment, which is taken as ready."""
    ours = ("MAKE", "MFLAGS", "PROFILE", "PERTURBCORE_", "OMP_", "LOKY_")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        ["make", "-o", old, f"VENV={VENV}", *arguments], cwd=project, text=True,
        capture_output=True, stdin=subprocess.DEVNULL,
        env={**keep, "PYTHONPATH": str(project / "src"), **environment},
    )  # fmt: skip


def would_run(project, *arguments):
    """Names of the chapters that make would run."""
    done = make(project, "-n", "book", *arguments)
    assert done.returncode == 0, done.stderr
    return re.findall(r"perturbcore run (\w+)", done.stdout)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_help_lists_every_verb_and_is_the_default(project):
    text = make(project).stdout
    for verb in "book test data run notebooks serve bench clean distclean help".split():
        assert re.search(rf"^ +{verb} +\w", text, re.M), verb
    assert text == make(project, "help").stdout
    assert not (project / "results").exists()


def test_cores_are_shared_among_kernels_that_run_side_by_side(project):
    cores = len(os.sched_getaffinity(0))
    for flag, jobs in ((), 1), (("-j2",), 2), (("-j",), cores):
        done = make(project, "-n", "book", *flag)
        assert done.returncode == 0, done.stderr
        text = done.stdout
        share = max(1, cores // jobs)
        assert text.count(f'OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{share}}}"') == 2
        assert text.count(f'LOKY_MAX_CPU_COUNT="${{LOKY_MAX_CPU_COUNT:-{share}}}"') == 2


def test_a_wrong_profile_and_a_missing_chapter_are_named(project):
    done = make(project, "book", "PROFILE=dmeo")
    assert done.returncode and "there is no profile dmeo" in done.stdout + done.stderr
    (project / "notebooks/second.py").unlink()
    done = make(project, "book")
    assert done.returncode and "notebooks/ does not have: second" in done.stderr + done.stdout
    assert make(project, "help").returncode == 0


def fake_python(project, body):
    path = project / "fake"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_an_old_python_and_one_without_venv_get_a_clear_error(project):
    new = project / "environment"
    old = fake_python(project, "exit 1")
    done = make(project, "test", old, f"VENV={new}", old="nothing")
    assert done.returncode and "is older than 3.11" in done.stdout
    bare = fake_python(project, 'case "$2" in *ensurepip*) exit 1;; esac; exit 0')
    done = make(project, "test", bare, f"VENV={new}", old="nothing")
    assert done.returncode and "apt-get install python3-venv" in done.stdout
    assert not new.exists()


@pytest.mark.book
def test_the_life_of_a_book(project):
    pages = project / "_build/html"
    done = make(project, "book", "-j2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"first +\d+\.\d s\n +second +\d+\.\d s\n +all chapters", done.stdout)
    assert f"{pages}/index.html" in done.stdout
    first = (pages / "book/chapters/first.html").read_text()
    assert "k is 7" in first and "values.csv" in first and 'alt="a line"' in first
    assert "simulated" in first and "Profile <strong>demo" in first
    assert (pages / "_static/mathjax/tex-svg.js").is_file()
    assert "values.csv" in (pages / "book/chapters/second.html").read_text()
    index = (pages / "book/index.html").read_text()
    assert "The first of all" in index and "a small line" in index and "It rises." in index
    assert '<meta property="og:image" content="../../_images/first.png" />' in first
    assert (pages / "_images/first.png").is_file() and 'rel="icon"' in first
    assert 'content="_static/card.png' in (pages / "index.html").read_text()

    # what runs again, and what does not
    assert make(project, "-q", "_build/html/.built-demo").returncode == 0
    code = project / "src/perturbcore"
    (project / "notebooks/second.py").touch()
    edit(code / "core/errors.py", "The few kinds of error", "The kinds of error")
    edit(code / "score/store.py", "import json", "import json\n\nUNUSED_HERE = 1")
    assert would_run(project) == []
    edit(code / "core/errors.py", "The kinds of error", "The few kinds of error")
    edit(code / "score/store.py", "import json\n\nUNUSED_HERE = 1", "import json")
    edit(project / "notebooks/second.py", "flag: bool = True", "flag: bool = False")
    assert would_run(project) == ["second"]
    edit(project / "notebooks/second.py", "flag: bool = False", "flag: bool = True")
    edit(code / "book/inside.py", "import inspect", "import inspect\n\nUSED_HERE = 1")
    assert would_run(project) == ["first", "second"]
    edit(code / "book/inside.py", "import inspect\n\nUSED_HERE = 1", "import inspect")
    edit(project / "notebooks/profiles/demo.yml", "k: 7", "k: 8")
    assert would_run(project) == ["first", "second"]
    edit(project / "notebooks/profiles/demo.yml", "k: 8", "k: 7")

    # prose alone: no chapter is executed, and only the page of this one is built
    notes = [project / f"results/demo/runs/{name}.json" for name in ("first", "second")]
    ran = [note.read_text() for note in notes]
    edit(project / "notebooks/first.py", "As said before", "As was said before")
    done = make(project, "book")
    assert done.returncode == 0 and [note.read_text() for note in notes] == ran
    assert "0 added, 1 changed, 0 removed" in (project / "_build/build.log").read_text()
    first = (pages / "book/chapters/first.html").read_text()
    assert "As was said before" in first and "k is 7" in first and "values.csv" in first

    # a warning or a failed chapter fails the build and leaves the last good book
    index = project / "book/index.md"
    good = index.read_text()
    for wrong, message in {
        "[broken](nowhere.md)": "nowhere.md",
        '<script src="https://cdn.example.org/x.js"></script>':
            "book/index.html: https://cdn.example.org/x.js",
    }.items():  # fmt: skip
        index.write_text(f"{good}\n{wrong}\n")
        done = make(project, "book")
        assert "running" not in done.stdout and "building the book" in done.stdout
        assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
        assert (pages / "book/chapters/first.html").read_text() == first
    index.write_text(good)
    source = project / "notebooks/second.py"
    source.write_text(source.read_text() + "\n# %%\n1 / 0\n")
    done = make(project, "book")
    assert done.returncode and "ZeroDivisionError" in done.stderr and "1 / 0" in done.stderr
    assert (pages / "book/chapters/first.html").read_text() == first
    assert (project / "results/demo/chapters/second.failed.ipynb").is_file()

    # another profile has its own results, and the book changes over and back
    source.write_text(source.read_text().replace("1 / 0", "1 / 1"))
    assert make(project, "book", "PROFILE=other").returncode == 0
    assert "k is 5" in (pages / "book/chapters/first.html").read_text()
    assert make(project, "-q", "_build/html/.built-other", "PROFILE=other").returncode == 0
    done = make(project, "-n", "book")
    assert re.findall(r"perturbcore (run \w+|book)", done.stdout) == ["run second", "book"]
    assert make(project, "clean").returncode == 0
    assert not pages.exists() and not any((project / "results").iterdir())


def test_pins_cover_what_the_package_asks_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["test"]
    pins = (ROOT / "constraints.txt").read_text()
    pinned = re.findall(r"^([a-z0-9._-]+)==[0-9][0-9a-z.]*$", pins, re.M)
    assert len(pinned) == len([x for x in pins.splitlines() if x and x[0] != "#"])
    for requirement in asked:
        assert re.match(r"[\w.-]+", requirement)[0].lower() in pinned, requirement
    assert "torch==2.13.0" in pins.splitlines() and "://" not in pins


def test_only_scripts_are_sources():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert not [f for f in tracked.stdout.split() if f.endswith((".ipynb", ".h5ad", ".parquet"))]
