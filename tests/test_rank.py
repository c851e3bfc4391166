"""The verb for an own screen: from tables or cells to a ranking, a report and clear refusals."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

from perturbcore.book.cli import main
from perturbcore.core.errors import InputError
from perturbcore.data.identifiers import check_names
from perturbcore.data.sets.from_files import read_own
from perturbcore.report.comparison import Comparison
from perturbcore.score.store import NO_EMBEDDING

NAMES = [f"AB{i}" for i in range(40)]
GENES = [f"G{i}" for i in range(30)]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Responses that follow from two numbers per gene, a file of these, and one of noise."""
    monkeypatch.setenv("PERTURBCORE_RESULTS", str(tmp_path / "results"))
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(40, 2))
    X = hidden @ rng.normal(size=(2, 30)) + rng.normal(size=(40, 30)) / 10
    table = pd.DataFrame(X, pd.Index(NAMES, name="perturbation"), GENES)
    table.to_csv(tmp_path / "lfc.csv")
    for name, vectors in {"good": hidden, "noise": rng.normal(size=(40, 2))}.items():
        pd.DataFrame(vectors, NAMES, ["x", "y"]).to_csv(tmp_path / f"{name}.csv")
    return table


def rank(folder, *files, kind="lfc", out="report", vectors=("good.csv", "noise.csv"), more=()):
    given = ["--embeddings", *(str(folder / v) if "." in v else v for v in vectors)]
    paths = [str(folder / f) for f in files]
    return main(["rank", *paths, "--kind", kind, *given, "--out", str(folder / out), *more])


def test_a_table_becomes_a_ranking_and_a_page_of_its_own(world, tmp_path, capsys):
    assert rank(tmp_path, "lfc.csv") == 0
    said = capsys.readouterr().out
    assert "lfc.csv: 40 perturbations x 30 genes (log fold-changes); cell lines: lfc; 5" in said
    assert "the best of 2 embeddings is good (your own)" in said
    for word in ("Train Mean", "Idealized", "Random", "Coverage", "95 % low"):
        assert word in said
    assert "Without cells or replicates, no noise floor can be estimated" in said
    table = pd.read_csv(tmp_path / "report/ranking.csv").set_index("method")
    assert table["value"].idxmin() in ("good", "Idealized")
    assert table.loc["good", "against_floor"] == "better"
    assert table.loc["noise", "against_best"] == "worse"
    page = (tmp_path / "report/index.html").read_text()
    assert "<svg" in page and "good (your own) is best of 2" in page
    assert not re.search(r'(src|href)="(?!ranking|coverage|scores|#)[^"]', page)
    assert not re.search(
        r"\bnan\b|\bNone\b|\$\w|  \.",
        re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.S),
    )
    table = pd.read_csv(tmp_path / "report/scores.csv").replace(NO_EMBEDDING, "")
    kept = Comparison(table)
    assert kept.answer("lfc.csv").split("\n\n")[0].replace("*", "") in said
    assert rank(tmp_path, "lfc.csv", out="lasso", more=["--predictor", "lasso"]) == 0
    said = capsys.readouterr().out
    assert "is good (your own)" in said and "Idealized is scored with kNN" in said
    assert rank(tmp_path, "lfc.csv") == 2
    assert "is there already: name another, or give --force" in capsys.readouterr().err


def test_each_way_of_writing_responses_gives_the_same_numbers(world, tmp_path):
    long = world.melt(ignore_index=False, var_name="gene").reset_index()
    long.sample(frac=1, random_state=1).to_csv(tmp_path / "long.csv", index=False)
    world.to_parquet(tmp_path / "wide.parquet")
    world.to_csv(tmp_path / "wide.tsv", sep="\t")
    obs = pd.DataFrame(index=pd.Index(NAMES))
    ad.AnnData(world.to_numpy(), obs, pd.DataFrame(index=GENES)).write_h5ad(tmp_path / "x.h5ad")
    two = pd.concat([world.assign(cell_line="A"), world.assign(cell_line="B")])
    two.to_csv(tmp_path / "two.csv")
    for name in ("long.csv", "wide.parquet", "wide.tsv", "x.h5ad"):
        read, said = read_own([tmp_path / name], "lfc")
        got = pd.DataFrame(read.X, read.obs["perturbation"], read.var_names)
        np.testing.assert_allclose(got.loc[NAMES, GENES], world, rtol=1e-6)
        assert set(read.obs["cell_line"]) == {name.split(".")[0]} and not said
    assert read_own([tmp_path / "two.csv"], "lfc")[0].obs["cell_line"].value_counts().to_dict() == {
        "A": 40, "B": 40,
    }  # fmt: skip
    world.iloc[:, 3:].to_csv(tmp_path / "few.csv")
    read, said = read_own([tmp_path / "few.csv", tmp_path / "wide.tsv"], "lfc")
    assert read.shape == (80, 27) and said.startswith("3 genes are not in all files")


def test_labels_and_gaps_choose_the_task(world, tmp_path, capsys):
    labels = np.sign(world).where(world.abs() > 0.8, 0).astype(int)
    labels.to_csv(tmp_path / "labels.csv")
    assert rank(tmp_path, "labels.csv", kind="labels") == 0
    assert "good" in capsys.readouterr().out
    partial = labels.astype(object)
    partial.iloc[::3, ::2] = ""
    partial.to_csv(tmp_path / "partial.csv")
    read, _ = read_own([tmp_path / "partial.csv"], "labels")
    assert read.uns["perturbcore"]["task"] == "deg_pairs"
    assert (~read.layers["observed"]).sum() == 14 * 15
    assert rank(tmp_path, "partial.csv", kind="labels", out="pairs") == 0
    with pytest.raises(InputError, match=r"it has the value -?\d.*; labels are -1, 0, 1"):
        read_own([tmp_path / "lfc.csv"], "labels")


def test_cells_in_a_layer_or_a_10x_folder_have_a_noise_floor(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PERTURBCORE_RESULTS", str(tmp_path / "results"))
    rng = np.random.default_rng(0)
    cells = [f"cell{i}" for i in range(41 * 24)]
    table = pd.DataFrame({"perturbation": np.tile(["ctrl", *NAMES], 24)}, index=cells)
    table["batch"] = np.repeat(["one", "two"], 41 * 12)
    effect = {n: rng.normal(size=8) for n in NAMES} | {"ctrl": np.zeros(8)}
    rate = np.exp(2 + 0.3 * np.array([effect[n] for n in table["perturbation"]]))
    counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    table.to_csv(tmp_path / "cells.csv", index_label="barcode")
    vectors = pd.DataFrame([effect[n] for n in NAMES], NAMES)
    vectors.add_prefix("d").to_csv(tmp_path / "good.csv")
    adata = ad.AnnData(counts.multiply(0.5).tocsr(), table, pd.DataFrame(index=GENES[:8]))
    adata.layers["counts"] = counts
    adata.write_h5ad(tmp_path / "screen.h5ad")
    folder = tmp_path / "tenx"
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", counts.T.astype(int))
    (folder / "barcodes.tsv").write_text("\n".join(cells) + "\n")
    rows = [f"ENSG{i:011d}\t{g}\n" for i, g in enumerate(GENES[:8])]
    (folder / "genes.tsv").write_text("".join(rows))
    how = ["--control", "ctrl", "--scale", "counts", "--cell-line-value", "K", "--outer", "2"]
    how += ["--inner", "2"]
    given = dict(kind="cells", vectors=["good.csv"])
    near = ["noise_floor", "idealized"]
    monkeypatch.setattr("perturbcore.book.rank.kept_truth", lambda *_: None)
    monkeypatch.setattr("perturbcore.report.noise.trusted", lambda *_: near)
    assert rank(tmp_path, "screen.h5ad", **given, more=[*how, "--layer", "counts"]) == 0
    first = capsys.readouterr().out
    assert "ceiling (Noise floor, " in first and "cell lines: K" in first
    assert "Shown, but no ceiling here: Experimental error" in first
    more = [*how, "--cells", str(tmp_path / "cells.csv")]
    assert rank(tmp_path, "tenx", **given, out="second", more=more) == 0
    said = capsys.readouterr().out
    assert said.split("\n\n")[1:4] == [
        p.replace("screen.h5ad", "tenx") for p in first.split("\n\n")[1:4]
    ]
    assert rank(tmp_path, "screen.h5ad", **given, out="x", more=[*how, "--layer", "raw"]) == 2
    assert "no layer 'raw'; it has: counts" in capsys.readouterr().err
    (tmp_path / "cells.csv").write_text("barcode,perturbation\ncell_0,ctrl\n")
    assert rank(tmp_path, "tenx", **given, out="x", more=more) == 2
    assert (
        "984 of 984 cells have no row, such as 'cell0' (the table has 'cell_0')"
        in capsys.readouterr().err
    )


def test_built_in_embeddings_come_by_name(world, tmp_path, mirror, capsys):
    given = dict(vectors=["good.csv", "CORUM"])
    known = [f"PSM{x}" for x in "A1 A2 A3 B1 B2 B3 C1 C2 C3 D1 D2 D3".split()]
    for n, sentence in {
        12: "fewer than 50 % of the perturbations have a vector: CORUM (30 %)",
        6: "CORUM was left out: only 15 % of the perturbations have a vector.",
    }.items():
        world.set_axis(known[:n] + NAMES[n:]).to_csv(tmp_path / "lfc.csv")
        vectors = pd.read_csv(tmp_path / "good.csv", index_col=0)
        vectors.set_axis(known[:n] + NAMES[n:]).to_csv(tmp_path / "good.csv")
        assert rank(tmp_path, "lfc.csv", **given, out=f"report{n}") == 0
        assert sentence in capsys.readouterr().out
    world.index = ["Trp53", "Psma1", *(f"Abc{i}" for i in range(38))]
    world.to_csv(tmp_path / "lfc.csv")
    assert rank(tmp_path, "lfc.csv", **given, out="x") == 2
    assert (
        "'Abc0' are written as mouse genes are; the vectors of 'CORUM'" in capsys.readouterr().err
    )


WRONG = {
    "perturbation,G1,G2\nA1,0.5,\nA2,1,2\n": "column 'G2' is empty in the row of 'A1'",
    "perturbation,G1,G2\nA1,0.5,many\nA2,1,2\n": "column 'G2' has 'many', which is no number",
    "perturbation,G1,G1\nA1,0.5,1\nA2,1,2\n": "gene 'G1' is there twice",
    "perturbation,G1,G2\nA1,0.5,1\nA1,1,2\n": "two rows have perturbation 'A1', cell_line 'f'",
    "perturbation,G1,G2\nA1,0,0\nA2,0,0\n": "every value is 0",
    "perturbation,G1,G2\nA1,1e20,0\nA2,0,0\n": "it has the value 1e+20; log fold-changes",
    "A1,0.5,0.1\nA2,1.5,2.5\n": "the first line holds numbers",
    "perturbation,gene,value\nA1,G1,1\nA1,G1,2\n": "two rows have perturbation 'A1', gene 'G1'",
    "perturbation,gene,value\nA1,G1,1\nA2,G2,2\n": "is empty in the row of 'A",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_table_is_refused_by_column_and_row(tmp_path, text):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(WRONG[text])) as error:
        read_own([tmp_path / "f.csv"], "lfc")
    assert "f.csv" in str(error.value)


@pytest.mark.parametrize(
    "names, identifier, message",
    [
        (["TP53", "tp53"], "symbol", "['TP53', 'tp53'] differ by case or blanks only"),
        (["TP53", "TP53 "], "symbol", "differ by case or blanks only"),
        (["TP53", "ntc"], "symbol", "'ntc' names control cells ('ntc'): drop it"),
        (["TP53", "non-targeting_12"], "symbol", "names control cells"),
        (["aspirin", "DMSO"], "drug", "names control cells"),
        (["TP53", "KLF1+ctrl"], "symbol", "rename it 'KLF1'"),
        (["ENSG00000141510", "ENSG00000136997"], "symbol", "look like ensembl ids, but symbol"),
        (["7157", "4609"], "symbol", "look like entrez ids, but symbol"),
        (["TP53", "MYC"], "entrez", "look like symbol ids, but entrez"),
        (["ENSG00000141510.18", "ENSG00000136997.1"], "ensembl", "cut it off ('ENSG00000141510')"),
    ],
)
def test_names_are_checked_never_guessed(names, identifier, message):
    pytest.raises(InputError, check_names, names, identifier, "here").match(re.escape(message))
    check_names(["TP53", "NTRK1", "CTRL1A", "MOCS1", "KLF1+BAK1"], "symbol", "here")


@pytest.mark.parametrize(
    "vectors, more, message",
    [
        (["STRNG"], [], "no embedding 'STRNG' (did you mean 'STRING'?)"),
        (["other.csv"], [], "40 more would match ignoring case"),
        (["good.csv"], ["--identifier", "ensembl"], "declare the identifier symbol"),
        (["good.csv"], ["--jobs", "0"], "--jobs 0"),
        (["good.csv"], ["--predictor", "boosting"], "predictor 'boosting' is not one of"),
    ],
)
def test_a_wrong_embedding_or_option_is_one_clean_line(
    world, tmp_path, capsys, vectors, more, message
):
    table = pd.read_csv(tmp_path / "good.csv", index_col=0)
    table.set_axis([n.lower() for n in NAMES]).to_csv(tmp_path / "other.csv")
    assert rank(tmp_path, "lfc.csv", vectors=vectors, more=more) == 2
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].startswith("error: ") and message in errors
    assert not (tmp_path / "report/index.html").exists()
