"""Builders against independent references, and the way from a profile's entry to an embedding."""

import sys
from types import ModuleType, SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import MultiLabelBinarizer
from toys import same_up_to_sign
from worlds import cells_of, logged

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data import catalogue
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings import registry
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.controls import random_embedding
from perturbcore.embeddings.expression import expression_embeddings
from perturbcore.embeddings.load import save_embedding
from perturbcore.embeddings.sources import BuildContext, read_gmt, read_sequences
from perturbcore.embeddings.words import annotation_embedding, sequence_embedding, text_embedding

# sets, texts, sequences


@pytest.mark.parametrize(("n_genes", "n_sets"), [(500, 450), (60, 40)])  # sparse, dense solver
def test_annotation_equals_scikit_learn_and_ignores_order_repeats_and_sets_of_one(n_genes, n_sets):
    rng = np.random.default_rng(0)
    genes = np.array([f"G{i:03d}" for i in range(n_genes)])
    draws = (rng.choice(n_genes, 8, replace=False) for _ in range(n_sets))
    sets = {f"S{k:03d}": genes[drawn].tolist() for k, drawn in enumerate(draws)}
    e = annotation_embedding(sets, name="E", dim=6)
    table = MultiLabelBinarizer().fit(sets.values())
    tfidf = TfidfTransformer().fit_transform(table.transform(sets.values()).T)
    assert e.ids.tolist() == table.classes_.tolist()
    want = TruncatedSVD(6, algorithm="arpack", random_state=1).fit_transform(tfidf)
    same_up_to_sign(e.X, want)
    mixed = {k: [*reversed(v), v[0]] for k, v in reversed(sets.items())} | {"lone": ["G999"]}
    got = annotation_embedding(mixed, name="E", dim=6)
    assert got.digest == e.digest and f"{len(sets)} of {len(mixed)} sets" in got.source
    sets = {"a": ["A", "B"], "b": ["C", "D"], "c": ["D", "C"]}
    assert annotation_embedding(sets, name="E", dim=50).dim == 2, "their rank"
    with pytest.raises(InputError, match="none of 1 sets has at least 2"):
        annotation_embedding({"lone": ["G1"]}, name="E")


def test_text_equals_scikit_learn_and_leaves_out_empty_texts():
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(80)]
    texts = {f"G{i:02d}": f"G{i}: " + " ".join(rng.choice(words, 9)) for i in range(60)}
    e = text_embedding(texts | {"G999": "unheard-of"}, name="E", dim=5)
    published = dict(ngram_range=(1, 2), min_df=2, sublinear_tf=True, stop_words="english")
    counted = TfidfVectorizer(**published).fit([*texts.values(), "unheard-of"])
    want = TruncatedSVD(5, algorithm="arpack", random_state=1)
    same_up_to_sign(e.X, want.fit_transform(counted.transform(texts.values())))
    assert e.ids.tolist() == list(texts) and "1 ids without a usable word" in e.source
    with pytest.raises(InputError, match="no word occurs"):
        text_embedding({"A": "x y", "B": "u v"}, name="E")


def test_sequence_families_lie_together_and_isoforms_are_averaged():
    rng = np.random.default_rng(0)
    residues, family = np.array(list("ACDEFGHIKLMNPQRSTVWY")), np.arange(30) % 3
    own = rng.choice(residues, (3, 150))[family]
    own = np.where(rng.random(own.shape) < 0.2, rng.choice(residues, own.shape), own)
    sequences = {f"G{i:02d}": "".join(letters) for i, letters in enumerate(own)}
    e = sequence_embedding(sequences | {"ZZ": "MK"}, name="E", dim=3)
    assert e.ids.tolist() == list(sequences) and "1 ids without a kept word" in e.source
    found = KMeans(3, n_init=5, random_state=0).fit_predict(e.X)
    assert adjusted_rand_score(family, found) == 1
    isoforms = {k: [v, v.lower()] for k, v in sequences.items()}
    twice = sequence_embedding(isoforms, name="E", dim=3, min_df=4)
    assert twice.ids.equals(e.ids) and twice.modality == "Protein"
    for bad, word in [("MK1", "'1'"), (["MK", None], "None")]:
        with pytest.raises(InputError, match=f"sequence of 'BAD' holds {word}"):
            sequence_embedding(sequences | {"BAD": bad}, name="E")


@pytest.mark.parametrize(
    ("read", "text", "want", "faults"),
    [
        (
            read_gmt,
            "S1\tabout\tA\tB\t\n\nS2\t\tC\tD,1\n",
            {"S1": ["A", "B"], "S2": ["C", "D,1"]},
            {
                "S1\tx\tA\nS2\tx\n": "2: .*2 cells and 0 genes",
                "S1\tx\tA\nS1\tx\tB\n": "2: an earlier line has set 'S1'",
                "S1\tx\tA\n\tx\tB\n": "2: the set has no name",
                "S1 x A B\n": "1: .*1 cells",
                "\n": " holds no gene set",
            },
        ),
        (
            read_sequences,
            ">sp|P1|X some GN=TP53 PE=1\nMK\nLV\n>B one\nMM\n>sp|P2|Y GN=TP53\nMKL\n",
            {"TP53": ["MKLV", "MKL"], "B": ["MM"]},
            {
                "MK\n>A\nMK\n": "1: residues before",
                ">A\n>B\nMK\n": "1: 'A' has no residues",
                ">\nMK\n": "1: the header has no id",
                "": " holds no sequence",
            },
        ),
    ],
)
def test_sets_and_sequences_are_read_and_faults_are_placed(tmp_path, read, text, want, faults):
    path = tmp_path / "file.txt"
    path.write_text(text)
    assert read(path) == want
    for bad, message in faults.items():
        path.write_text(bad)
        pytest.raises(InputError, read, path).match(f"file.txt:?{message}")
    pytest.raises(InputError, read, tmp_path / "no.txt").match("no such file")
    rows = pd.DataFrame({"sequence": ["MKTA", "MM"]}, index=["TP53", "TP53"])
    rows.to_parquet(tmp_path / "p.parquet")
    assert read_sequences(tmp_path / "p.parquet") == {"TP53": ["MKTA", "MM"]}


# control cells


def small_screen(n_genes=40, n_cells=90):
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 2.0, n_genes), (n_cells, n_genes))
    counts[:, 3] = 0
    counts[:, 0] += 1
    at, genes = np.arange(n_cells), [f"G{i:04d}" for i in rng.permutation(n_genes)]
    about = dict(perturbation=np.where(at % 3 == 0, "G0005", "control"), control="control")
    lines = np.where(at % 2 == 0, "K562", "RPE1")
    return cells_of(counts, **about, genes=genes, cell_line=lines)


@pytest.mark.parametrize(("n_genes", "n_cells"), [(40, 90), (900, 1700)])  # dense, sparse solver
def test_expression_equals_pca_of_control_cells(n_genes, n_cells):
    screen = small_screen(n_genes, n_cells)
    made = expression_embeddings(screen, name="E", dim=6)
    assert [e.cell_line for e in made] == ["K562", "RPE1"]
    for e in made:
        cells = screen[(screen.obs["cell_line"] == e.cell_line) & screen.obs["is_control"]]
        genes = pd.DataFrame(logged(cells.X).T, index=screen.var_names).sort_index()
        seen = genes[genes.any(axis=1)]
        assert e.ids.tolist() == seen.index.tolist() and len(seen) < n_genes
        same_up_to_sign(e.X, PCA(6, svd_solver="full").fit_transform(seen), atol=1e-3)


def test_expression_never_looks_at_perturbed_cells_and_draws_by_seed(tmp_path):
    def made(cells, **options):
        return expression_embeddings(cells, name="E", dim=4, cell_line="K562", **options)[0]

    screen = small_screen()
    cells = screen.X.toarray()
    cells[~screen.obs["is_control"]] = 7
    changed = screen.copy()
    changed.X = sp.csr_matrix(cells)
    screen.write_h5ad(tmp_path / "s.h5ad")
    backed = ad.read_h5ad(tmp_path / "s.h5ad", backed="r")
    assert made(changed).digest == made(backed).digest == made(screen).digest
    few = [made(screen, max_cells=12, seed=s) for s in (0, 0, 1)]
    assert few[0].digest == few[1].digest != few[2].digest and "12 of 30 cells" in few[0].source
    screen.obs.loc[screen.obs["cell_line"] == "RPE1", "is_control"] = False
    with pytest.raises(InputError, match="'RPE1' has 0 control cells"):
        expression_embeddings(screen, name="E")
    with pytest.raises(ParameterError, match="cell line 'A549' is not one of: K562, RPE1"):
        expression_embeddings(screen, name="E", cell_line="A549")


# from specification to embedding


@pytest.fixture
def context():
    genes, rng = [f"N{i:02d}" for i in range(60)], np.random.default_rng(0)
    simulation = SimpleNamespace(
        network=pd.DataFrame(rng.choice(genes, (300, 2)), columns=["source", "target"]),
        annotation={f"S{k}": [str(g) for g in rng.choice(genes, 6)] for k in range(20)},
        descriptions={g: " ".join(rng.choice(["alpha", "beta", "gamma"], 4)) for g in genes},
        sequences={g: "".join(rng.choice(list("ACDE"), 40)) for g in genes},
    )
    simulation.network["weight"] = rng.uniform(0.5, 1, 300)
    extras = {"simulation": simulation}
    return BuildContext(
        dataset=Dataset("d", "D", "lfc", pd.DataFrame(), screen=small_screen(), extras=extras)
    )


SPECS = [
    {"name": "Interactome", "builder": "network", "source": "simulated", "dim": 8},
    {"name": "shuffled", "builder": "shuffled", "of": "PCA", "seed": 3},
    {"name": "Pathways", "builder": "annotation", "source": "simulated", "modality": "DNA"},
    {"name": "Text", "builder": "text", "source": "simulated", "dim": 3},
    {"name": "Sequence", "builder": "sequence", "source": "simulated", "k": 2},
    {"name": "PCA", "builder": "expression", "dim": 4},
]


def test_all_builders_from_specifications_and_from_the_cache(context, tmp_path, monkeypatch):
    made, plain = build_all(SPECS, context, cache=tmp_path), build_all(SPECS, context)
    lines = {"shuffled": ["K562", "RPE1"], "PCA": ["K562", "RPE1"]}
    want = [(s["name"], line) for s in SPECS for line in lines.get(s["name"], [None])]
    assert [(e.name, e.cell_line) for e in made] == want
    by_name = {e.name: e for e in made}
    assert by_name["Pathways"].modality == "DNA" and by_name["Interactome"].dim == 8
    # Nothing is built a second time: the builders are broken, the answer is the same.
    with monkeypatch.context() as broken:
        broken.setattr("perturbcore.embeddings.registry.Builder.make", lambda *a, **b: 1 / 0)
        again = build_all(SPECS, context, cache=tmp_path)
        with pytest.raises(ZeroDivisionError):
            build_all([SPECS[0] | {"dim": 7}], context, cache=tmp_path)
    for a, b, c in zip(made, again, plain, strict=True):
        assert a.digest == b.digest == c.digest
        assert (a.name, a.modality, a.source) == (b.name, b.modality, b.source)
    # a damaged file is built anew, and so is what is made of other content
    for file in tmp_path.rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:200])
    first = build_all(SPECS[:1], context, cache=tmp_path)[0]
    assert first.digest == made[0].digest
    context.dataset.extras["simulation"].network.loc[0, "weight"] = 0.123
    assert build_all(SPECS[:1], context, cache=tmp_path)[0].digest != first.digest


def test_catalogue_files_and_own_files(tmp_path, monkeypatch):
    (tmp_path / "pairs").write_text("entity1,entity2\nA,B\nB,A\nB,C\nC,D\nD,A\nA,C\n")
    (tmp_path / "sets.gmt").write_text("S1\t\tA\tB\nS2\t\tB\tC\nS3\t\tA\tC\tD\n")
    (tmp_path / "texts.csv").write_text("gene,note\nA,big red\nB,big blue\nC,red blue\n")
    (tmp_path / "p.fasta").write_text(">A\nMKLM\n>B\nMKLV\n>C\nLMKL\n")
    save_embedding(random_embedding(["1", "2", "9"], 4, identifier="entrez"), tmp_path / "mine.npz")
    monkeypatch.setattr(catalogue, "fetch", lambda name, **_: tmp_path / name)
    about = SimpleNamespace(description="pairs", citations=[], sha256="0")
    monkeypatch.setattr(catalogue, "entry", lambda name: about)
    id_map = {"symbol": ["A", "B"], "entrez": ["1", "2"], "ensembl": ["ENSG1", "ENSG2"]}
    id_map = pd.DataFrame(id_map | {"chromosome": "1", "biotype": ""})
    monkeypatch.setattr("perturbcore.data.identifiers.gene_table", lambda: id_map)
    old = pd.Series({"OLD": "A"})
    monkeypatch.setattr("perturbcore.embeddings.build.previous_symbols", lambda: old)
    monkeypatch.setenv("MY_FOLDER", str(tmp_path))
    renamed = {"name": "Mine", "modality": "DNA", "identifier": "entrez", "convert_to": "symbol"}
    specs = [
        {"name": "net", "builder": "network", "source": "pairs", "dim": 2},
        {"name": "sets", "builder": "annotation", "source": "sets.gmt"},
        {"name": "texts", "builder": "text", "file": "texts.csv"},
        {"name": "proteins", "builder": "sequence", "file": "p.fasta"},
        renamed | {"file": "$MY_FOLDER/mine.npz", "aliases": "previous_symbols"},
        renamed | {"name": "M", "builder": "file", "source": "mine.npz"},
    ]
    made = build_all(specs, BuildContext(folder=tmp_path), cache=tmp_path / "cache")
    assert ["".join(e.ids) for e in made] == ["ABCD", "ABCD", "ABC", "ABC", "ABOLD", "AB"]
    assert "pairs []; 5 edges" in made[0].source and made[1].dim == 3
    mine = made[4]
    assert (mine.name, mine.modality, mine.identifier) == ("Mine", "DNA", "symbol")
    assert "1 not in the map" in mine.source


def test_one_file_a_cell_line(tmp_path, context):
    for line in ("K562", "RPE1"):
        save_embedding(random_embedding(["A", line], 3), tmp_path / f"PCA_{line}_(D=3).npz")
    here = BuildContext(dataset=context.dataset, folder=tmp_path)
    spec = {"name": "PCA", "file": "PCA_{cell_line}_(D=3).npz"}
    made = build_all([spec], here)
    assert [(e.cell_line, e.ids[1]) for e in made] == [("K562", "K562"), ("RPE1", "RPE1")]
    with pytest.raises(InputError, match="'PCA': the file .*PCA_HepG2.* does not exist"):
        build_all([spec | {"cell_line": "HepG2"}], here)


NET = {"name": "E", "builder": "network", "source": "simulated"}
EXPRESSION = {"name": "E", "builder": "expression"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"builder": "network"}, ["'name' is missing"]),
        ({"name": "E"}, ["'E'", "give builder: or file:"]),
        ({"name": "E", "builder": "gcn"}, ["'gcn'", "annotation", "network"]),
        (NET | {"dims": 3}, ["dims", "'network'", "dim, method"]),
        (NET | {"dim": "3"}, ["dim must be a int", "'3'"]),
        (NET | {"file": "x"}, ["either source or file"]),
        (NET | {"of": "F"}, ["no use for of"]),
        (NET | {"duplicates": "mean"}, ["convert_to"]),
        (NET | {"aliases": "all"}, ["previous_symbols"]),
        ({"name": "E", "builder": "network"}, ["give source"]),
        (NET | {"source": "nowhere"}, ["catalogue", "'nowhere'"]),
        ({"name": "E", "builder": "shuffled"}, ["needs of"]),
        ({"name": "E", "builder": "shuffled", "of": "F"}, ["no embedding 'F'"]),
        (EXPRESSION | {"source": "x"}, ["leave source"]),
        (EXPRESSION | {"identifier": "ensembl"}, ["symbol ids, not ensembl"]),
        ({"name": "E", "file": "no.csv"}, ["'E'", "no.csv does not exist"]),
        ({"name": "E", "file": "$NOT_SET/x.csv"}, ["environment variable"]),
        ({"name": "E", "file": "x.csv", "dim": 3}, ["unknown key dim", "id_column"]),
    ],
)
def test_a_wrong_specification_is_refused_by_name(context, spec, words):
    said = str(pytest.raises(InputError, build_all, [spec], context).value)
    assert all(word in said for word in words), said


def test_circles_repeats_and_missing_parts_are_refused():
    circle = [{"name": a, "builder": "shuffled", "of": b} for a, b in ("ab", "ba")]
    for message, specs in {
        "made from itself": circle,
        "'E' is specified twice": [NET, NET],
        "needs a simulated data set": [NET],
        "need control cells": [EXPRESSION],
    }.items():
        pytest.raises(InputError, build_all, specs).match(message)


def test_a_new_builder_is_one_function_and_its_options_are_checked(monkeypatch, tmp_path):
    """One file and one line: the function stands for the file, the family's name for the line."""

    @registry.register("lengths", kind="texts", modality="LLM")
    def lengths(texts: dict, *, power: int = 1):
        return list(texts), np.array([[len(t) ** power] for t in texts.values()]), "lengths"

    monkeypatch.setitem(sys.modules, "perturbcore.embeddings.mine", ModuleType("mine"))
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, "mine"))
    (tmp_path / "t.csv").write_text("gene,note\nA,aa\nB,bbb\n")
    spec = {"name": "L", "builder": "lengths", "file": "t.csv", "power": 2}
    try:
        (made,) = build_all([spec], BuildContext(folder=tmp_path), cache=tmp_path / "cache")
        assert made.X.tolist() == [[4], [9]] and made.modality == "LLM"
        assert made.source == "t.csv; lengths" and "lengths" in registry.builders()
        with pytest.raises(ParameterError, match="power must be a int"):
            build_all([spec | {"power": "x"}], BuildContext(folder=tmp_path))
    finally:
        registry._BUILDERS.pop("lengths")
