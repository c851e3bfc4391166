import subprocess
import sys

import anndata as ad
import nbformat
import numpy as np
import pandas as pd
import pytest

from perturbcore import __version__
from perturbcore.book.cli import main


def test_help_answers_without_loading_the_heavy_libraries():
    code = (
        "import sys; from perturbcore.book.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'numpy', 'pandas', 'scanpy', 'torch', 'sklearn', 'papermill', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in "run notebook chapters book data check effects ceiling evaluate".split():
        assert f"\n    {verb} " in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "perturbcore.book.cli", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"perturbcore {__version__}\n"


def test_chapters_are_listed(tree, capsys):
    assert main(["chapters"]) == 0
    text = capsys.readouterr().out
    assert "first: First chapter\n    profile: str = 'demo'\n    k: int = 5  # neighbours\n" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "first", "-p", "kk", "3"], "unknown parameter kk; this chapter has profile: str"),
        (["run", "first", "-p", "k", "many"], "k must be int, not 'many'"),
        (["run", "frist"], "there is no chapter 'frist'"),
        (["run", "first", "--profile", "dmeo"], "no profile named 'dmeo'"),
        (["run", "first", "--for-book", "-p", "k", "3"], "takes its values from the profile"),
        (["notebook", "--out", "x"], "name a chapter, or give --all"),
        (["book"], "not run to its end with profile demo: first, second"),
        (["check", "nowhere.h5ad"], "nowhere.h5ad"),
        (["data", "list", "no_such_entry"], "no_such_entry"),
    ],
)
def test_wrong_input_is_one_clean_line(tree, capsys, arguments, message):
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors and "Traceback" not in errors


def test_plain_notebooks_have_a_kernel_and_no_outputs(tree, capsys):
    assert main(["notebook", "--all", "--out", str(tree / "plain")]) == 0
    assert main(["notebook", "first", "--out", str(tree / "one.ipynb")]) == 0
    assert [p.name for p in sorted((tree / "plain").iterdir())] == ["first.ipynb", "second.ipynb"]
    assert (tree / "plain/first.ipynb").read_text() == (tree / "one.ipynb").read_text()
    notebook = nbformat.read(tree / "one.ipynb", as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(c.get("outputs") for c in notebook.cells)


def test_data_of_a_profile_is_listed_with_its_licence(tree, capsys):
    assert main(["data", "fetch"]) == 0
    assert "needs no files from elsewhere" in capsys.readouterr().out
    (tree / "notebooks/profiles/demo.yml").write_text(
        "title: t\nsimulated: false\ndata: [stringdb]\n"
    )
    assert main(["data", "list", "--profile", "demo"]) == 0
    assert "stringdb: 1.4 MB, " in capsys.readouterr().out


NAMES = [f"P{i}" for i in range(40)]


def screen(path, counts=True):
    rng = np.random.default_rng(0)
    n = 492
    lanes, cells = np.repeat(["one", "two"], n // 2), [f"cell{i}" for i in range(n)]
    obs = pd.DataFrame({"gene": np.tile(["ctrl", *NAMES], n // 41), "lane": lanes}, index=cells)
    obs["line"] = "K562"
    X = rng.poisson(5, (n, 8)).astype(np.float32)
    if not counts:
        X += 0.5
    ad.AnnData(X, obs, pd.DataFrame(index=[f"gene{i}" for i in range(8)])).write_h5ad(path)
    columns = "--perturbation gene --batch lane --cell-line line --control ctrl --scale counts"
    return [str(path), *columns.split()]


def test_a_screen_becomes_responses_a_ceiling_and_scores(tmp_path, capsys):
    declared, vectors = screen(tmp_path / "screen.h5ad"), tmp_path / "mine.csv"
    assert main(["check", *declared]) == 0
    said = "492 cells x 8 genes, 40 perturbations, 12 control cells, 2 batches, cell lines: K562"
    assert said in capsys.readouterr().out
    responses, ceiling, scores = (
        str(tmp_path / n) for n in ("responses.h5ad", "c.parquet", "s.csv")
    )
    assert main(["effects", *declared, "--out", responses, "--folds", "5"]) == 0
    read = ad.read_h5ad(responses)
    assert read.shape == (40, 8) and sorted(set(read.obs["fold"])) == [0, 1, 2, 3, 4]
    assert main(["ceiling", *declared, "--out", ceiling, "--outer", "2", "--inner", "2"]) == 0
    assert set(pd.read_parquet(ceiling)["perturbation"]) == set(NAMES)
    rng = np.random.default_rng(1)
    pd.DataFrame(rng.normal(size=(40, 3)), index=NAMES).to_csv(vectors)
    given = ["evaluate", responses, str(vectors), "--out", scores]
    kept = ["--store", str(tmp_path / "store.db")]
    assert main([*given, "--ceiling", ceiling, *kept]) == 0
    table = pd.read_csv(scores).query("metric == 'L2'")
    found = table[table["predictor"].isin(["knn", "experimental_error"])]
    assert (found["value"] > 0).all() and set(found["fold"]) == set(range(5))

    def refused(*arguments, said):
        assert main([*arguments]) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("error: ") and said in error

    for out, said in {
        declared[0]: "is a file that is read",  # a screen was once replaced by its effects
        responses: "is there already: name another, or give --force",
        str(tmp_path / "x.csv"): "written as .h5ad",
        str(tmp_path): "written as .h5ad",
    }.items():
        refused("effects", *declared, "--out", out, said=said)
    assert ad.read_h5ad(declared[0]).n_obs == 492
    assert main(["effects", *declared, "--out", responses, "--force"]) == 0
    given[-1] = str(tmp_path / "other.csv")
    refused(*given, "--ceiling", str(vectors), said="mine.csv: no column 'perturbation'")
    (tmp_path / "no.parquet").write_text("no table")
    refused(*given, "--ceiling", str(tmp_path / "no.parquet"), said="no.parquet cannot be read")
    refused(*given, "--jobs", "0", said="--jobs 0")
    out = ["--out", str(tmp_path / "c.xlsx")]
    refused("ceiling", *declared, *out, said="written as .parquet or .csv")
    wrong = ["control" if x == "ctrl" else x for x in declared]
    refused("effects", *wrong, "--out", str(tmp_path / "x.h5ad"), said="control")
    assert not (tmp_path / "x.h5ad").exists()
    refused("check", declared[0], "--control", "ctrl", said="--scale counts or --scale log1p")
    refused("check", *screen(tmp_path / "screen.h5ad", counts=False), said="screen.h5ad")
