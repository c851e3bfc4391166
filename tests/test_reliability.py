"""What a kill, a full folder or a stale state leaves: the old whole thing, or a clear sentence."""

import os
import subprocess
import sys

import pytest
from worlds import world

from perturbcore.book import build
from perturbcore.book.cli import main
from perturbcore.book.runner import ChapterError, run_for_book
from perturbcore.book.source import find_chapter
from perturbcore.core.files import STALE_SECONDS, replaced, write_atomically
from perturbcore.core.profile import load_profile
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.score import evaluate
from perturbcore.score.store import ScoreStore


def gone() -> int:
    """Number of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    dead, old = gone(), (0, 0)
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
