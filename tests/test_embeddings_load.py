"""Reading and writing embeddings: every format, and every way a file can be wrong."""

import json
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from safetensors.numpy import save_file

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.controls import random_embedding
from perturbcore.embeddings.load import SUFFIXES, load_embedding, save_embedding

IDS = ["TP53", "MYC", "NA"]  # a gene id that table readers like to take for missing
X = np.array([[1.5, -2.25], [0.1, 3e-8], [7.0, 1e10]], np.float32)


def write(path, frame):
    """Write vectors by the library of the format."""
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".h5ad":
        ad.AnnData(frame).write_h5ad(path)
    elif path.suffix == ".safetensors":
        save_file({"m": frame.to_numpy()}, path, {"ids": json.dumps(list(frame.index))})
    elif path.suffix == ".npz":
        np.savez(path, ids=frame.index.to_numpy().astype(str), X=frame.to_numpy())
    else:
        frame.to_csv(path, sep="," if path.suffix == ".csv" else "\t", float_format="%.9g")


def test_round_trip_keeps_everything(tmp_path):
    embedding = Embedding("E", "Protein", pd.Index(IDS), X, "symbol", "K562", "made for a test")
    got = load_embedding(save_embedding(embedding, tmp_path / "file.npz"))
    assert got.digest == embedding.digest
    for field in ("name", "modality", "identifier", "cell_line", "source"):
        assert getattr(got, field) == getattr(embedding, field)
    assert load_embedding(tmp_path / "file.npz", name="N").name == "N"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_keeps_every_bit_and_is_refused_when_cut_off(tmp_path, suffix):
    e, path = random_embedding([f"G{i}" for i in range(300)], 20), tmp_path / f"file{suffix}"
    write(path, pd.DataFrame(e.X, e.ids, [f"d{k}" for k in range(20)]))
    got = load_embedding(path)
    np.testing.assert_array_equal(got.X, e.X)
    assert got.ids.tolist() == e.ids.tolist() and got.name == "file"
    whole = path.read_bytes()
    for share in (0.4, 0.9) if suffix not in (".csv", ".tsv") else ():
        path.write_bytes(whole[: int(share * len(whole))])
        pytest.raises(InputError, load_embedding, path).match(rf"file{suffix}.*fetch it again")


@pytest.mark.parametrize(
    ("text", "options", "ids"),
    [
        ("TP53,0.1,0.2\nMYC,0.3,0.4\n", {}, ["TP53", "MYC"]),  # no header
        ("gene,0,1\nTP53,0.1,0.2\n", {}, ["TP53"]),  # numbered columns are one
        (",a,b\n007,1,2\n1017,3,4\n", {"identifier": "entrez"}, ["007", "1017"]),
        ("gene,a,b\nNA,1,2\nnull,3,4\n", {}, ["NA", "null"]),
        ("a,gene,b\n1,TP53,2\n", {"id_column": "gene"}, ["TP53"]),
    ],
)
def test_text_ids_stay_text_with_a_header_or_without(tmp_path, text, options, ids):
    path = tmp_path / "v.csv"
    path.write_text(text)
    got = load_embedding(path, **options)
    assert got.ids.tolist() == ids and got.dim == 2


def test_parquet_has_ids_in_a_column_or_an_index_of_whole_numbers(tmp_path):
    path = tmp_path / "v.parquet"
    pd.DataFrame({"a": X[:, 0], "gene": IDS, "b": X[:, 1]}).to_parquet(path)
    np.testing.assert_array_equal(load_embedding(path).X, X)
    pd.DataFrame(X, index=[7157, 4609, 5], columns=["a", "b"]).to_parquet(path)
    assert load_embedding(path, identifier="entrez").ids.tolist() == ["7157", "4609", "5"]
    a, both = X[:, 0], pd.DataFrame(X, columns=["a", "b"])
    for frame, options, words in (
        (both, {}, "neither an index of ids nor a text column"),
        (both, {"id_column": "gene"}, r"no column 'gene' \(it has: a, b\)"),
        ({"gene": IDS, "a": a, "note": ["u", "v", "w"]}, {}, "'note' is not numeric.*'TP53'.*'u'"),
        ({"gene": IDS, "a": [1.0, None, 2.0]}, {}, "'MYC' .row 1, dimension 0"),
    ):
        pd.DataFrame(frame).to_parquet(path)
        pytest.raises(InputError, load_embedding, path, **options).match(words)


def test_h5ad_keeps_vectors_of_rows_or_columns_anywhere_and_safetensors_one_by_one(tmp_path):
    """The layouts in which others keep vectors, beside their cells too."""
    path, cells, single = (tmp_path / name for name in ("v.h5ad", "c.h5ad", "v.safetensors"))
    adata = ad.AnnData(sp.csr_matrix(X), obs=pd.DataFrame({"g": ["A", "B", "C"]}, index=IDS))
    adata.obsm["fp"] = np.eye(3)
    adata.write_h5ad(path)
    np.testing.assert_array_equal(load_embedding(path, obsm="fp").X, np.eye(3))
    assert load_embedding(path, id_column="g").ids.tolist() == ["A", "B", "C"]
    adata = ad.AnnData(np.zeros((2, 3)), var=pd.DataFrame(index=IDS))
    adata.varm["model"], each = X, dict(zip(IDS, X, strict=True))
    adata.uns |= {"table": pd.DataFrame(X, IDS, ["a", "b"]), "dict": each, "rows": X, "odd": X[:1]}
    adata.uns["shapes"] = {"a": X[0], "b": X}
    adata.write_h5ad(cells)
    save_file(each, single)
    in_uns = [(cells, {"uns": key}) for key in ("table", "dict", "rows")]
    for file, key in [(path, {}), (single, {}), (cells, {"varm": "model"}), *in_uns]:
        got = load_embedding(file, **key)
        assert sorted(got.ids) == sorted(IDS)
        np.testing.assert_array_equal(got.X[got.ids.get_indexer(IDS)], X)
    save_file({"m": X, "n": X}, single)
    for file, key, words in (
        (path, {"obsm": "no"}, "no obsm key 'no'; it has fp"),
        (path, {"id_column": "no"}, "no obs column 'no'; it has g"),
        (cells, {"varm": "no"}, "no varm key 'no'; it has model"),
        (cells, {"uns": "odd"}, r"shape \(1, 2\), and no ids for its rows"),
        (cells, {"uns": "shapes"}, "vectors of shapes"),
        (cells, {"uns": "rows", "varm": "model"}, "give one of obsm, varm and uns"),
        (single, {}, "holds m, n: one vector per id"),
    ):
        pytest.raises(InputError, load_embedding, file, **key).match(words)


CSV = {
    "gene,a,b\nTP53,1,x\nMYC,2,3\n": ["column 'b' is not numeric", "'TP53'", "'x'"],
    "gene,a,b\nTP53,1,2\nMYC,,3\n": ["'MYC'", "dimension 0", "gaps"],
    "gene,a,b\nTP53,1,inf\nMYC,2,3\n": ["'TP53'", "dimension 1"],
    "gene,a,b\nTP53,1,2\nMYC,2\n": ["'MYC'", "dimension 1", "cut off"],
    "gene,a,b\nTP53,1,2\nMYC,2,3,4\n": ["cannot be read"],
    "gene,a,b\nTP53,1,2\nTP53,2,3\n": ["TP53", "more than once"],
    "gene,a,b\n": ["no ids: it is empty"],
    "gene;a;b\nTP53;1;2\n": ["single column", "commas"],
    "gene,a,b\nENSG00000141510,1,2\n": ["ENSG00000141510", "like ensembl", "symbol is declared"],
    "gene,a,b\n7157,1,2\n4609,1,2\n": ["look like entrez", "declare the identifier entrez"],
    "": ["is empty"],
}


@pytest.mark.parametrize("text", CSV)
def test_a_bad_table_is_refused_by_name(tmp_path, text):
    (tmp_path / "bad.csv").write_text(text)
    said = str(pytest.raises(InputError, load_embedding, tmp_path / "bad.csv").value)
    assert all(word in said for word in ["bad.csv", *CSV[text]]), said


def test_symbols_declared_ensembl_are_refused_and_versions_stripped_on_request(tmp_path):
    path, bare = tmp_path / "v.csv", {"identifier": "ensembl", "strip_versions": True}
    path.write_text("gene,a\nTP53,1\nMYC,2\n")
    with pytest.raises(InputError, match="look like symbol ids, but ensembl is declared"):
        load_embedding(path, identifier="ensembl")
    path.write_text("gene,a\nENSG00000141510.18,1\nENSG00000136997.21,2\n")
    assert load_embedding(path, identifier="ensembl").ids[0] == "ENSG00000141510.18"
    assert load_embedding(path, **bare).ids[0] == "ENSG00000141510"
    path.write_text("gene,a\nENSG00000141510.18,1\nENSG00000141510.2,2\n")
    pytest.raises(InputError, load_embedding, path, **bare).match("more than once")


def test_missing_unknown_and_pickled_files(tmp_path):
    for path in (tmp_path, tmp_path / "no.csv"):
        pytest.raises(InputError, load_embedding, path).match("does not exist, or is a folder")
    pickled = dict.fromkeys((".pkl", ".pt", ".npy"), "never opened.*to_parquet")
    for suffix, words in (pickled | {".xlsx": "'.xlsx'; known: .parquet, .csv"}).items():
        path = tmp_path / f"v{suffix}"
        path.write_bytes(pickle.dumps(_Trap()))
        pytest.raises(InputError, load_embedding, path).match(words)


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


NPZ = [
    (dict(ids=np.array([_Trap()] * 3, object), X=X), r"holds pickled objects.*astype\(str\)"),
    (dict(genes=np.array(IDS), X=X), "lacks the array ids; it has genes, X"),
    (dict(ids=np.array(IDS)[:2], X=X), r"shape \(3, 2\), not 2 ids"),
    (dict(ids=np.array([IDS]), X=X), r"ids has shape \(1, 3\)"),
    (dict(ids=np.array(IDS), X=np.where(X > 5, np.nan, X)), r"first 'NA' \(row 2, dimension 0\)"),
]


@pytest.mark.parametrize(("arrays", "message"), NPZ)
def test_a_bad_npz_is_refused_unopened(tmp_path, arrays, message):
    path = tmp_path / "v.npz"
    np.savez(path, **arrays)
    pytest.raises(InputError, load_embedding, path).match(f"v.npz.*{message}")
    path.write_bytes(pickle.dumps(_Trap()))
    pytest.raises(InputError, load_embedding, path).match("pickled objects|damaged")
