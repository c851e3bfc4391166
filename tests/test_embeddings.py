"""Embeddings: the contract, alignment, coverage, controls, conversion of ids, similarity."""

import itertools
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding, align
from perturbcore.embeddings.controls import random_embedding, shuffled
from perturbcore.embeddings.coverage import add_aliases, convert_ids, coverage_table
from perturbcore.embeddings.linalg import cca_matrix


def make(ids, X=None, **kw):
    X = np.arange(2.0 * len(ids)).reshape(-1, 2) if X is None else X
    return Embedding("E", "Protein", pd.Index(list(ids)), X, **kw)


def responses(pairs, identifier="symbol"):
    obs = pd.DataFrame(pairs, columns=["cell_line", "perturbation"])
    obs.index = obs["cell_line"] + "|" + obs["perturbation"]
    adata = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)
    adata.uns["perturbcore"] = {"identifier": identifier}
    return adata


def test_an_embedding_is_float32_read_only_and_named_by_its_content():
    X = np.arange(4, dtype=np.float32).reshape(2, 2)
    e = make(["A", "B"], X)
    assert e.X.dtype == np.float32 and e.dim == 2 and len(e) == 2
    with pytest.raises(ValueError):
        e.X[0, 0] = 1
    X[0, 0] = 5
    assert e.X[0, 0] == 0, "the caller's array is another one"
    assert e.digest == replace(e, name="other", modality="DNA").digest
    assert e.digest != make(["A", "C"]).digest
    assert e.digest != make(["A", "B"], cell_line="K562").digest
    assert e.digest != make(["A", "B"], X=np.eye(2)).digest


@pytest.mark.parametrize(
    ("ids", "X", "words"),
    [
        (["A", "A", "B"], np.ones((3, 2)), ["'E'", "more than once", "A"]),
        (["A", ""], np.ones((2, 2)), ["'E'", "row 1", "empty id"]),
        (["A", 7], np.ones((2, 2)), ["7", "int", "row 1"]),
        ([], np.ones((0, 2)), ["'E'", "no ids"]),
        (["A", "B"], np.ones(2), ["'E'", "shape (2,)"]),
        (["A", "B"], np.ones((2, 0)), ["'E'", "shape (2, 0)"]),
        (["A", "B"], np.ones((3, 2)), ["shape (3, 2)", "2 ids"]),
        (["A", "B"], np.array([[1, 2], [3, np.nan]]), ["'E'", "'B'", "row 1", "dimension 1"]),
        (["A", "B"], np.array([[1, 1e300], [3, 4]]), ["'E'", "'A'", "dimension 1"]),
        (["A", "B"], np.array([[1, None], [3, 4]], object), ["'E'", "not numbers"]),
    ],
)
def test_what_breaks_the_contract_is_named(ids, X, words):
    said = str(pytest.raises(InputError, make, pd.Index(ids, dtype=object), X).value)
    assert all(word in said for word in words), said
    for name, modality, missing in (("", "DNA", "name"), ("E", "", "modality")):
        with pytest.raises(InputError, match=f"needs a {missing}"):
            Embedding(name, modality, pd.Index(["A"]), np.ones((1, 1)))
    with pytest.raises(ParameterError, match="uniprot.*symbol, ensembl, entrez, drug"):
        make(["A"], identifier="uniprot")


def test_align_equals_reindexing_and_ignores_the_order_of_rows():
    rng, ids = np.random.default_rng(0), [*"ABCDEF", "AB", "BA"]
    rows = pd.DataFrame(rng.normal(size=(len(ids), 3)), ids, dtype="f")
    for n in (0, 1, 20, 40):
        turned, wanted = rows.loc[rng.permutation(ids)], rng.choice([*ids, "Z", "ABC"], n)
        got, present = align(make(turned.index, turned.to_numpy()), wanted)
        assert got.dtype == np.float32 and present.tolist() == [w in ids for w in wanted]
        np.testing.assert_array_equal(got, rows.reindex(wanted))


def test_coverage_counts_perturbations_of_each_line_and_near_matches_but_makes_none():
    r = responses([("K562", "A"), ("K562", "B"), ("K562", "Z"), ("RPE1", "A"), ("RPE1", "Y")])
    own = make(["A", "Y"], cell_line="RPE1")
    foreign = make(["A", "Y"], cell_line="K-562")
    table = coverage_table([make(["A", "B"]), own, foreign], r)
    assert table["cell_line"].tolist() == ["K562", "RPE1", "RPE1", "K-562"]
    assert table["n_perturbations"].tolist() == [3, 2, 2, 0]
    assert table["n_covered"].tolist() == [2, 1, 2, 0]
    np.testing.assert_allclose(table["coverage"], [2 / 3, 0.5, 1.0, np.nan])
    assert table["missing"].tolist()[:2] == ["Z", "Y"]
    assert "no responses of cell line 'K-562'" in table.loc[3, "hint"]
    near = make(["ENSG00000000003.15", "ENSG00000000005.6", "tp53", "MYC "], np.eye(4))
    wanted = ["ENSG00000000003", "ENSG00000000005", "TP53", "MYC", "KRAS"]
    assert not align(near, wanted)[1].any()
    hint = coverage_table([near], responses([("K562", w) for w in wanted])).loc[0, "hint"]
    assert "2 more would match without the Ensembl version" in hint
    assert "1 more would match ignoring case; 2 more" in hint and "1 more would match after" in hint
    other = responses([("RPE1", "A")], "ensembl")
    assert "ids are symbol, perturbations ensembl" in coverage_table([own], other).loc[0, "hint"]
    del other.obs["cell_line"]
    pytest.raises(InputError, coverage_table, [own], other).match("cell_line")


def test_random_rows_are_uniform_and_depend_on_seed_and_id_alone():
    a = random_embedding(["A", "B", "C"], 7, seed=3)
    b = random_embedding(["X", "C", "A"], 7, seed=3)
    np.testing.assert_array_equal(align(a, ["A", "C"])[0], align(b, ["A", "C"])[0])
    assert (align(a, ["A"])[0] != random_embedding(["A"], 7, seed=4).X).all()
    assert a.modality == "Negative control"
    X = random_embedding([f"G{i}" for i in range(500)], 100, seed=0).X
    assert X.min() >= 0 and X.max() < 1
    assert abs(X.mean() - 0.5) < 0.01 and abs(X.var() - 1 / 12) < 0.002
    off = np.corrcoef(X)[np.triu_indices(500, 1)]
    assert abs(off.mean()) < 0.005 and abs(off.std() - 0.1) < 0.01


def test_shuffling_keeps_the_vectors_and_ignores_the_order_of_ids():
    e = make([f"G{i}" for i in range(200)], np.arange(200.0)[:, None])
    s, order = shuffled(e, seed=3), np.random.default_rng(0).permutation(200)
    assert sorted(s.X.ravel()) == sorted(e.X.ravel()) and s.ids.equals(e.ids)
    again = shuffled(make(e.ids[order], e.X[order]), seed=3)
    np.testing.assert_array_equal(align(s, e.ids)[0], align(again, e.ids)[0])
    assert (s.X != e.X).mean() > 0.95 and s.digest != shuffled(e, seed=4).digest


def test_conversion_counts_what_is_not_one_to_one(monkeypatch):
    """B has two genes, Q none; older names get the vector of today's."""
    table = pd.DataFrame({"ensembl": [f"ENSG{i}" for i in range(1, 6)], "symbol": list("ABBDE")})
    table = table.assign(entrez=list("12345"), chromosome="1", biotype="")
    monkeypatch.setattr("perturbcore.data.identifiers.gene_table", lambda: table)
    some = make(["A", "B", "Q"], np.array([[1.0], [2], [3]]))
    got = convert_ids(some, "entrez")
    assert got.ids.tolist() == ["1"] and got.identifier == "entrez" and got.X.tolist() == [[1.0]]
    assert "1 not in the map, 1 ambiguous" in got.source
    e = make(["2", "3", "4"], np.array([[1.0], [3], [7]]), identifier="entrez")
    with pytest.raises(InputError, match=r"'E': 1 symbol ids .* B \(2, 3\).*duplicates="):
        convert_ids(e, "symbol")
    got = convert_ids(e, "symbol", duplicates="mean")
    assert dict(zip(got.ids, got.X[:, 0], strict=True)) == {"B": 2.0, "D": 7.0}
    assert "1 averaged" in got.source
    with pytest.raises(InputError, match="none of its 2 ensembl ids.*declared rightly"):
        convert_ids(make(["A", "B"], identifier="ensembl"), "symbol")
    with pytest.raises(ParameterError, match="duplicates 'first' is not one of"):
        convert_ids(some, "entrez", duplicates="first")
    got = add_aliases(some, pd.Series({"OLDA": "A", "B": "A", "OLDX": "X"}))
    assert got.ids.tolist() == ["A", "B", "Q", "OLDA"] and got.X[:, 0].tolist() == [1, 2, 3, 1]
    assert "1 older ids added" in got.source


# canonical correlation, against scikit-learn's iteration


def related(n=300, d=12, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 6))
    ids = pd.Index([f"G{i}" for i in range(n)])
    made = []
    for name, noise in [("b", 0.3), ("a", 0.5), ("c", 3.0)]:
        vectors = shared @ rng.normal(size=(6, d)) + noise * rng.normal(size=(n, d))
        made.append(Embedding(name, "DNA", ids, vectors))
    return made


def test_cca_matrix_equals_the_published_steps():
    """One after another, with scikit-learn's iteration run to its end."""
    b, a, c = related()
    got = cca_matrix([b, a, c], 5)
    assert got.index.tolist() == ["b", "a", "c"] and got.attrs["common_ids"] == 300
    steps = make_pipeline(StandardScaler(), PCA(5, svd_solver="full"))
    reduced = {e.name: steps.fit_transform(e.X.astype(float)) for e in (a, b, c)}
    for one, other in itertools.combinations("abc", 2):
        both = reduced[one], reduced[other]
        want = CCA(5, max_iter=20_000, tol=1e-13).fit(*both).score(*both)
        assert got.loc[one, other] == got.loc[other, one] == pytest.approx(want, abs=1e-5)
    assert (np.diag(got) == 1).all() and got.loc["a", "b"] > got.loc["a", "c"]
    order = np.random.default_rng(1).permutation(300)
    turned = Embedding("c", "DNA", c.ids[order], c.X[order])
    pd.testing.assert_frame_equal(cca_matrix([b, a, turned], 5), got)
    part = Embedding("c", "DNA", c.ids[:50], c.X[:50])
    assert cca_matrix([a, b, part], 5).attrs["common_ids"] == 50


def test_cca_refuses_what_cannot_be_compared():
    a, b, c = related()
    tiny = Embedding("tiny", "DNA", a.ids[:11], a.X[:11])
    own, entrez = (
        replace(a, name="own", cell_line="K562"),
        replace(a, name="x", identifier="entrez"),
    )
    for compared, words in (
        ([a, b, tiny], "share 11 ids.*at least 12.*'tiny' with 11 ids"),
        ([a, a], "several embeddings are named"),
        ([a, own], "give cell_line"),
        ([a, entrez], "identifiers differ"),
    ):
        pytest.raises(InputError, cca_matrix, compared).match(words)
    assert cca_matrix([a, own], 5, cell_line="K562").shape == (2, 2)
