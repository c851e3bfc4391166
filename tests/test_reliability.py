"""What a kill, a full folder or a stale state leaves: the old whole thing, or a clear sentence."""

import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import nbformat
import pytest
from worlds import world

from perturbcore.book import build, runner
from perturbcore.book.cli import main
from perturbcore.book.rules import write_rules
from perturbcore.book.runner import ChapterError, run_for_book
from perturbcore.book.source import find_chapter
from perturbcore.core.errors import InputError
from perturbcore.core.files import STALE_SECONDS, replaced, write_atomically
from perturbcore.core.profile import load_profile
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.score import evaluate
from perturbcore.score.store import ScoreStore

ROOT = Path(__file__).parents[1]


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, old = child.pid, (0, 0)
    left = {f".a.{dead}.ipynb": True, f".a.{dead}-77.ipynb": True, f".bashrc.{dead}": False}
    left |= {f".a.{os.getpid()}.ipynb": False, ".a.mine.ipynb": False, "a.1.ipynb": False}
    for name in left:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, old)
    young = tmp_path / f".a.{dead}-78.ipynb"
    young.write_text("x")
    write_atomically(tmp_path / "a.ipynb", b"whole")
    assert {n for n, swept in left.items() if swept} == {
        n for n in left if not (tmp_path / n).exists()
    }
    assert young.exists() and STALE_SECONDS >= 600


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "scores.csv"
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as partial:
        partial.write_bytes(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["scores.csv"]


def test_a_book_takes_the_place_of_the_old_one_in_one_step(tmp_path, monkeypatch):
    new, final, old = (tmp_path / n for n in ("new", "final", "old"))
    for folder, text in ((new, "new"), (final, "old")):
        folder.mkdir()
        (folder / "index.html").write_text(text)
    build.put_in_place(new, final, old)
    assert (final / "index.html").read_text() == "new" and not new.exists()
    assert (old / "index.html").read_text() == "old"
    fresh = tmp_path / "fresh"
    build.put_in_place(old, fresh, tmp_path / "none")
    assert (fresh / "index.html").read_text() == "old"


def test_other_versions_of_the_packages_that_compute_are_other_units(monkeypatch):
    responses, (good, _) = world(n=60, g=8)
    store = ScoreStore()
    how = dict(store=store, progress=False)
    first = evaluate_embeddings(responses, [good], ["knn"], **how)
    again = evaluate_embeddings(responses, [good], ["knn"], **how)
    assert set(first["key"]) == set(again["key"])
    newer = {**evaluate.computing(), "scikit-learn": "99.0"}
    monkeypatch.setattr(evaluate, "computing", lambda: newer)
    other = evaluate_embeddings(responses, [good], ["knn"], **how)
    assert not set(first["key"]) & set(other["key"])


def test_a_cell_that_never_ends_is_stopped_and_the_way_out_named(tree):
    path = tree / "notebooks" / "first.py"
    text = path.read_text().replace("after: []", "after: []\n#     cell_seconds: 2")
    path.write_text(
        text.replace(
            "chapter = open_chapter", "import time; time.sleep(60)\nchapter = open_chapter"
        )
    )
    with pytest.raises(ChapterError, match="longer than 2 s.*cell_seconds"):
        run_for_book(find_chapter("first"), load_profile("demo"))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["run", "first", "--out", "{}/out.txt"], "written as .ipynb"),
        (["run", "first", "--out", "{}/file/out.ipynb"], "its folder cannot be made"),
        (["notebook", "first", "--out", "{}/file/out.ipynb"], "file"),
    ],
)
def test_an_output_that_cannot_be_is_one_line_before_any_work(tree, capsys, arguments, said):
    (tree / "file").write_text("no folder")
    assert main([a.format(tree) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def killed_at(n: int, tree, work) -> bool:
    """Do some work in a process that dies, as by SIGKILL, at its n-th step.

    A step is a change of a file or folder; of many in one place only the first two count.
    """
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), "the work failed by itself"
        return status == 9
    steps: list = []

    def hook(event, given):
        writes = event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+")
        moves = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        path = Path(str(given[0])) if writes or moves else None
        if path is not None and path.is_relative_to(tree):
            steps.append((event, *path.relative_to(tree).parts[:2]))
        elif event == "ctypes.call_function":
            steps.append((event, len(steps)))
        else:
            return
        if len(steps) > 2 and len({*steps[-3:]}) == 1:
            steps.pop()
        elif len(steps) == n:
            os._exit(9)

    sys.addaudithook(hook)
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def content(folder) -> dict:
    """Return all that is in a folder but hidden files, which killed processes leave."""
    there = [p for p in folder.rglob("*") if p.is_file() and p.name[0] != "."]
    return {p.relative_to(folder): p.read_bytes() for p in there}


@pytest.fixture
def told(tree, monkeypatch) -> dict:
    """Make chapters and pages say what is told, without a kernel and without Sphinx."""
    shutil.copy(ROOT / "_config.yml", tree)
    shutil.copytree(ROOT / "book" / "_static", tree / "book" / "_static")
    said = {"chapter": "old", "page": "old"}

    def execute(chapter, values, partial):
        table = tree / "results" / "demo" / "tables" / chapter.name / "values.csv"
        write_atomically(table, said["chapter"].encode())
        nbformat.write(chapter.notebook, partial)

    def sphinx(stage, *_, anew):
        for name in ("index.html", "book/index.html", "book/first.html", "_static/theme.css"):
            path = stage / "_build" / "html" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"<head></head><h1>{said['page']}</h1><main><p>text</p></main>")

    monkeypatch.setattr(runner, "_execute", execute)
    monkeypatch.setattr(build, "run_sphinx", sphinx)
    for name in ("first", "second"):
        run_for_book(find_chapter(name), load_profile("demo"))
    return said


def test_a_kill_at_any_step_of_a_build_leaves_one_whole_book(tree, told, capsys):
    """The old one or the new one; the next build mends what is left."""
    profile, html, books = load_profile("demo"), tree / "_build" / "html", {}
    for told["page"] in ("new", "old"):
        build.build(profile)
        books[told["page"]] = content(html)
    assert books["new"] != books["old"] == content(html)
    told["page"], n = "new", 1
    while killed_at(n, tree, lambda: build.build(profile)):
        assert content(html) in books.values()
        n += 1
    assert content(html) == books["new"] and n > 20
    with capsys.disabled():
        print(f" {n - 1} kills of a build: one whole book after each", end=" ")


def test_a_run_that_was_cut_off_is_no_run(tree, told, capsys):
    """Its tables may be new and its page old: no book is made of it, and Make runs it again."""
    profile, chapter = load_profile("demo"), find_chapter("first")
    note, page = (profile.results / p for p in ("runs/first.json", "chapters/first.ipynb"))
    whole, told["chapter"], n = content(profile.results / "tables"), "new", 1
    first = note.stat().st_mtime_ns  # two runs in one second say the same
    while killed_at(n, tree, lambda: run_for_book(chapter, profile)):
        if note.is_file():
            old = note.stat().st_mtime_ns == first
            assert (content(profile.results / "tables") == whole) == old
        else:
            with pytest.raises(InputError, match="not run to its end with profile demo: first;"):
                build.build(profile)
            write_rules(profile)
            stamp = profile.results / "stamps" / "first"
            assert stamp.stat().st_mtime >= page.stat().st_mtime
        n += 1
    build.build(profile)
    assert content(profile.results / "tables") != whole and n > 5
    with capsys.disabled():
        print(f" {n - 1} kills of a run: none of them in a book", end=" ")
