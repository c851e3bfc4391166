"""Builders against independent references, and the way from a profile's entry to an embedding."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.manifold import SpectralEmbedding
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data import catalogue
from perturbcore.embeddings.base import align
from perturbcore.embeddings.build import build, build_all
from perturbcore.embeddings.controls import random_embedding
from perturbcore.embeddings.coverage import coverage_table
from perturbcore.embeddings.expression import expression_embeddings
from perturbcore.embeddings.load import save_embedding
from perturbcore.embeddings.network import adjacency, network_embedding
from perturbcore.embeddings.registry import builders, register
from perturbcore.embeddings.sources import BuildContext, read_edges, read_fasta, read_gmt
from perturbcore.embeddings.words import annotation_embedding, sequence_embedding, text_embedding

METHODS = ("laplacian", "diffusion")


def same_up_to_sign(A, B, atol=1e-4):
    assert A.shape == B.shape
    scale = np.abs(B).max(axis=0)
    signs = np.sign((A * B).sum(axis=0))
    np.testing.assert_allclose(A / scale, B * signs / scale, atol=atol)


def modular(n=120, k=4, inside=0.3, outside=0.01, seed=0):
    """Random network with planted modules; returns edges and module of each node."""
    rng = np.random.default_rng(seed)
    module = np.arange(n) % k
    p = np.where(module[:, None] == module, inside, outside)
    i, j = np.nonzero(np.triu(rng.random((n, n)) < p, 1))
    names = np.array([f"N{v:04d}" for v in range(n)])
    weight = rng.uniform(0.5, 1, len(i))
    return pd.DataFrame({"source": names[i], "target": names[j], "weight": weight}), pd.Series(
        module, names
    )


# networks


@pytest.mark.parametrize("n", [120, 700])  # dense and Lanczos solver
def test_laplacian_equals_scikit_learn(n):
    edges, _ = modular(n, inside=20 / n, outside=4 / n)
    ids, A = adjacency(edges)
    e = network_embedding(edges, name="E", dim=8)
    want = SpectralEmbedding(
        8, affinity="precomputed", eigen_solver="arpack", random_state=0
    ).fit_transform(A.toarray())
    assert e.ids.tolist() == ids.tolist()
    same_up_to_sign(e.X, want)


@pytest.mark.parametrize("method", METHODS)
def test_planted_modules_are_recovered(method):
    edges, module = modular()
    # Of k modules k - 1 contrasts are left, next to the level that diffusion keeps.
    e = network_embedding(edges, name="E", dim=4 if method == "diffusion" else 3, method=method)
    found = KMeans(4, n_init=5, random_state=0).fit_predict(StandardScaler().fit_transform(e.X))
    assert adjusted_rand_score(module[e.ids], found) > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_network_ignores_order_direction_repeats_and_loops(method):
    edges, _ = modular(60)
    want = network_embedding(edges, name="E", dim=5, method=method)
    turned = edges.rename(columns={"source": "target", "target": "source"})
    weaker = edges.head(20).assign(weight=lambda t: t["weight"] / 2)
    loops = pd.DataFrame({"source": ["N0001"], "target": ["N0001"], "weight": [9.0]})
    mixed = pd.concat([turned, weaker, loops]).sample(frac=1, random_state=1)
    assert network_embedding(mixed, name="E", dim=5, method=method).digest == want.digest


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.randoms())
def test_network_of_any_small_graph_is_finite_and_ignores_order(seed, random):
    rng = np.random.default_rng(seed)
    pairs = [f"N{v}" for v in rng.integers(0, 9, 24)]
    edges = pd.DataFrame({"source": pairs[:12], "target": pairs[12:]})
    rows = list(range(12))
    random.shuffle(rows)
    try:
        e = network_embedding(edges, name="E", dim=4)
    except InputError as error:  # only loops, or only single pairs
        assert "left after" in str(error) or "too few edges" in str(error)
        return
    assert e.dim <= 4 and np.isfinite(e.X).all()
    assert network_embedding(edges.iloc[rows], name="E", dim=4).digest == e.digest


def test_weights_matter():
    edges, _ = modular(60)
    flat = network_embedding(edges.drop(columns="weight"), name="E", dim=5)
    assert network_embedding(edges, name="E", dim=5).digest != flat.digest


def test_components_and_isolated_nodes():
    edges, _ = modular(60)
    island = pd.DataFrame(
        {"source": ["X1", "X2", "Y1"], "target": ["X2", "X3", "Y1"], "weight": 1.0}
    )
    alone = network_embedding(edges, name="E", dim=5)
    both = network_embedding(pd.concat([edges, island]), name="E", dim=5)
    X, present = align(both, ["X1", "X2", "X3", "Y1"])
    assert present.tolist() == [True, True, True, False]  # a lone loop says nothing of Y1
    assert (X[:3] == 0).all()
    same_up_to_sign(align(both, alone.ids)[0], alone.X)


def test_the_smallest_eigenvalues_over_all_components_are_taken():
    edges = pd.concat([modular(40, 2, seed=s)[0].replace("N", f"M{s}", regex=True) for s in (0, 1)])
    ids, A = adjacency(edges)
    degree = np.asarray(A.sum(axis=1)).ravel()
    L = np.eye(len(ids)) - A.toarray() / np.sqrt(np.outer(degree, degree))
    values, _ = np.linalg.eigh(L)
    e = network_embedding(edges, name="E", dim=6)
    V = e.X.astype(float) * np.sqrt(degree)[:, None]
    np.testing.assert_allclose(np.diag(V.T @ L @ V), values[2:8], atol=1e-5)
    np.testing.assert_allclose(V.T @ V, np.eye(6), atol=1e-5)


def test_diffusion_equals_the_stationary_walk():
    edges, _ = modular(50)
    ids, A = adjacency(edges)
    P = A.toarray() / A.toarray().sum(axis=1, keepdims=True)
    Q = 0.5 * np.linalg.inv(np.eye(len(ids)) - 0.5 * P)
    U, S, _ = np.linalg.svd(np.log1p(len(ids) * Q))
    e = network_embedding(edges, name="E", dim=4, method="diffusion")
    same_up_to_sign(e.X, U[:, :4] * np.sqrt(S[:4]), atol=1e-2)


def test_long_chain_is_solved():
    names = [f"N{i:05d}" for i in range(6000)]
    e = network_embedding(
        pd.DataFrame({"source": names[:-1], "target": names[1:]}), name="E", dim=3
    )
    # The first eigenvector of a path is a half wave: it orders the nodes.
    assert abs(spearmanr(e.X[:, 0], np.arange(6000)).statistic) > 0.999


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename(columns={"source": "a"}), ["lack column ['source']", "'target'"]),
        (lambda t: t.assign(weight=-1.0), ["edge 0", "-1.0", "not negative"]),
        (lambda t: t.assign(weight=np.nan), ["edge 0", "finite"]),
        (lambda t: t.assign(target=None), ["edge 0 has no target"]),
        (lambda t: t.assign(target=t["source"]), ["none of", "self-loops"]),
    ],
)
def test_bad_edges_are_named(change, words):
    with pytest.raises(InputError) as error:
        network_embedding(change(modular(20)[0]), name="E")
    for word in ["'E'", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"method": "x"}, "'method' .* must be 'laplacian' or 'diffusion', got 'x'"),
        ({"dim": 0}, "'dim' .* must be greater than or equal to 1"),
        ({"dim": True}, "'dim' .* must be a valid integer"),
    ],
)
def test_bad_network_options(option, words):
    with pytest.raises(InputError, match=f"embedding 'E': .*{words}"):
        network_embedding(modular(20)[0], name="E", **option)


# sets, texts, sequences


def random_sets(n_genes=500, n_sets=450, seed=0):
    rng = np.random.default_rng(seed)
    genes = np.array([f"G{i:03d}" for i in range(n_genes)])
    return {
        f"S{k:03d}": genes[rng.choice(n_genes, 8, replace=False)].tolist() for k in range(n_sets)
    }


@pytest.mark.parametrize("size", [{}, {"n_genes": 60, "n_sets": 40}])
def test_annotation_equals_tfidf_and_svd_of_scikit_learn(size):
    sets = random_sets(**size)
    e = annotation_embedding(sets, name="E", dim=6)
    genes = sorted({g for s in sets.values() for g in s})
    table = np.array([[g in set(s) for s in sets.values()] for g in genes], float)
    tfidf = TfidfTransformer().fit_transform(table)
    assert e.ids.tolist() == genes
    want = TruncatedSVD(6, algorithm="arpack", random_state=1).fit_transform(tfidf)
    same_up_to_sign(e.X, want)


def test_annotation_ignores_order_repeats_and_sets_of_one():
    sets = random_sets(60, 40)
    mixed = {k: [*reversed(v), v[0]] for k, v in reversed(sets.items())} | {"lone": ["G999"]}
    want = annotation_embedding(sets, name="E", dim=6)
    got = annotation_embedding(mixed, name="E", dim=6)
    assert got.digest == want.digest and "40 of 41 sets" in got.source
    with pytest.raises(InputError, match="none of 1 sets has at least 2"):
        annotation_embedding({"lone": ["G1"]}, name="E")


def test_rank_limits_the_dimensions():
    sets = {"a": ["A", "B"], "b": ["C", "D"], "c": ["D", "C"]}
    assert annotation_embedding(sets, name="E", dim=50).dim == 2


def test_gmt_is_read_and_faults_are_placed(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("S1\tabout\tA\tB\t\n\nS2\t\tC\tD,1\n")
    assert read_gmt(path) == {"S1": ["A", "B"], "S2": ["C", "D,1"]}
    for text, word in [
        ("S1\tx\tA\nS2\tx\n", r"sets.gmt:2: .*2 cells and 0 genes"),
        ("S1\tx\tA\nS1\tx\tB\n", r"sets.gmt:2: an earlier line has set 'S1'"),
        ("S1\tx\tA\n\tx\tB\n", r"sets.gmt:2: the set has no name"),
        ("S1 x A B\n", r"sets.gmt:1: .*1 cells"),
        ("\n", "holds no gene set"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            read_gmt(path)
    with pytest.raises(InputError, match="does not exist"):
        read_gmt(tmp_path / "no.gmt")


def test_text_equals_scikit_learn_and_leaves_out_empty_texts():
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(80)]
    texts = {f"G{i}": f"G{i}: " + " ".join(rng.choice(words, 9)) for i in range(60)}
    e = text_embedding(texts | {"G999": "unheard-of"}, name="E", dim=5)
    ids = sorted(texts)
    matrix = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, stop_words="english"
    ).fit([*[texts[i] for i in ids], "unheard-of"])
    want = TruncatedSVD(5, algorithm="arpack", random_state=1).fit_transform(
        matrix.transform([texts[i] for i in ids])
    )
    assert e.ids.tolist() == ids and "1 ids without a usable word" in e.source
    same_up_to_sign(e.X, want)
    with pytest.raises(InputError, match="no word occurs"):
        text_embedding({"A": "x y", "B": "u v"}, name="E")
    with pytest.raises(InputError, match="description of 'B' is float"):
        text_embedding({"A": "x y", "B": np.nan}, name="E")


def test_sequence_families_lie_together_and_isoforms_are_averaged():
    rng = np.random.default_rng(0)
    residues = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    ancestors = [rng.choice(residues, 150) for _ in range(3)]
    sequences, family = {}, {}
    for i in range(30):
        own = ancestors[i % 3].copy()
        hit = rng.random(150) < 0.2
        own[hit] = rng.choice(residues, hit.sum())
        sequences[f"G{i:02d}"], family[f"G{i:02d}"] = "".join(own), i % 3
    e = sequence_embedding(sequences, name="E", dim=3)
    found = KMeans(3, n_init=5, random_state=0).fit_predict(e.X)
    assert adjusted_rand_score([family[i] for i in e.ids], found) == 1
    twice = sequence_embedding(
        {k: [v, v.lower()] for k, v in sequences.items()}, name="E", dim=3, min_df=4
    )
    assert twice.ids.equals(e.ids) and e.modality == "Protein"
    for bad, word in [("MK1", "'1'"), (["MK", None], "None")]:
        with pytest.raises(InputError, match=f"sequence of 'BAD' holds {word}"):
            sequence_embedding(sequences | {"BAD": bad}, name="E")
    with pytest.raises(ParameterError, match="'k' .* must be less than or equal to 5"):
        sequence_embedding(sequences, name="E", k=9)
    short = sequence_embedding(sequences | {"ZZ": "MK"}, name="E", dim=3)
    assert "1 ids without a kept word" in short.source and "ZZ" not in short.ids


def test_fasta_is_read_and_faults_are_placed(tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">A one\nMK\nLV\n>B\nMM\n>A two\nMKL\n")
    assert read_fasta(path) == {"A": ["MKLV", "MKL"], "B": ["MM"]}
    for text, word in [
        ("MK\n>A\nMK\n", "p.fasta:1: residues before"),
        (">A\n>B\nMK\n", "p.fasta:1: 'A' has no residues"),
        (">\nMK\n", "p.fasta:1: the header has no id"),
        ("", "holds no sequence"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            read_fasta(path)


# control cells


def small_screen(n_genes=40, n_cells=90, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(1.0, 2.0, n_genes), (n_cells, n_genes))
    counts[:, 3] = 0
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {
            "perturbation": np.where(np.arange(n_cells) % 3 == 0, "G0005", "control"),
            "batch": "b1",
            "cell_line": np.where(np.arange(n_cells) % 2 == 0, "K562", "RPE1"),
        },
        index=[f"c{i}" for i in range(n_cells)],
    )
    obs["is_control"] = obs["perturbation"] == "control"
    var = pd.DataFrame(index=[f"G{i:04d}" for i in rng.permutation(n_genes)])
    screen = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
    about = {"scale": "counts", "dataset": "test", "identifier": "symbol", "simulated": True}
    screen.uns["perturbcore"] = about
    return screen


@pytest.mark.parametrize("n_genes", [40, 900])  # dense and sparse solver
def test_expression_equals_pca_of_control_cells(n_genes):
    screen = small_screen(n_genes, 90 if n_genes == 40 else 1700)
    made = expression_embeddings(screen, name="E", dim=6)
    assert [e.cell_line for e in made] == ["K562", "RPE1"]
    for e in made:
        cells = screen[(screen.obs["cell_line"] == e.cell_line) & screen.obs["is_control"]]
        X = cells.X.toarray()
        X = np.log1p(1e4 * X / X.sum(axis=1, keepdims=True))
        seen = X.any(axis=0)
        assert e.ids.tolist() == sorted(screen.var_names[seen]) and not seen.all()
        genes = pd.DataFrame(X.T[seen], index=screen.var_names[seen]).sort_index()
        same_up_to_sign(e.X, PCA(6, svd_solver="full").fit_transform(genes), atol=1e-3)


def test_expression_never_looks_at_perturbed_cells_and_draws_by_seed():
    screen = small_screen()
    want = expression_embeddings(screen, name="E", dim=4, cell_line="K562")
    changed = screen.copy()
    cells = screen.X.toarray()
    cells[~screen.obs["is_control"]] = 7
    changed.X = sp.csr_matrix(cells)
    assert expression_embeddings(changed, name="E", dim=4, cell_line="K562")[0].digest == (
        want[0].digest
    )
    few = [
        expression_embeddings(screen, name="E", dim=4, max_cells=12, seed=s)[0] for s in (0, 0, 1)
    ]
    assert few[0].digest == few[1].digest != few[2].digest
    assert "12 of 30 cells" in few[0].source


def test_expression_from_a_backed_screen_is_the_same(tmp_path):
    screen = small_screen()
    screen.write_h5ad(tmp_path / "s.h5ad")
    backed = ad.read_h5ad(tmp_path / "s.h5ad", backed="r")
    made = [expression_embeddings(cells, name="E", dim=4) for cells in (screen, backed)]
    assert [e.digest for e in made[0]] == [e.digest for e in made[1]]


def test_expression_needs_controls():
    screen = small_screen()
    screen.obs.loc[screen.obs["cell_line"] == "RPE1", "is_control"] = False
    with pytest.raises(InputError, match="'RPE1' has 0 control cells"):
        expression_embeddings(screen, name="E")
    with pytest.raises(ParameterError, match="no cell line 'A549'; it has K562, RPE1"):
        expression_embeddings(screen, name="E", cell_line="A549")


# from specification to embedding


@pytest.fixture
def context():
    edges, _ = modular(60)
    genes = sorted(set(edges["source"]) | set(edges["target"]))
    rng = np.random.default_rng(0)
    simulation = SimpleNamespace(
        network=edges,
        annotation={f"S{k}": [str(g) for g in rng.choice(genes, 6)] for k in range(20)},
        descriptions={g: " ".join(rng.choice(["alpha", "beta", "gamma"], 4)) for g in genes},
        sequences={g: "".join(rng.choice(list("ACDE"), 40)) for g in genes},
    )
    dataset = SimpleNamespace(
        screen=small_screen(), responses=None, extras={"simulation": simulation}
    )
    return BuildContext(dataset=dataset)


SPECS = [
    {"name": "Interactome", "builder": "network", "source": "simulated", "dim": 8},
    {"name": "shuffled", "builder": "shuffled", "of": "PCA", "options": {"seed": 3}},
    {"name": "Pathways", "builder": "annotation", "source": "simulated", "modality": "DNA"},
    {"name": "Text", "builder": "text", "source": "simulated", "options": {"dim": 3}},
    {"name": "Sequence", "builder": "sequence", "source": "simulated", "k": 2},
    {"name": "PCA", "builder": "expression", "dim": 4},
    {"name": "random", "builder": "random", "dim": 5},
]


def test_all_builders_from_specifications_and_from_the_cache(context, tmp_path, monkeypatch):
    made = build_all(SPECS, context, cache=tmp_path)
    lines = {"shuffled": ["K562", "RPE1"], "PCA": ["K562", "RPE1"]}
    want = [(s["name"], line) for s in SPECS for line in lines.get(s["name"], [None])]
    assert [(e.name, e.cell_line) for e in made] == want
    by_name = {(e.name, e.cell_line): e for e in made}
    assert by_name["Pathways", None].modality == "DNA"
    assert by_name["Interactome", None].dim == 8 and by_name["random", None].ids.tolist() == [
        "G0005"
    ]
    plain = build_all(SPECS, context)
    # Nothing is built a second time: the builders are broken, the answer is the same.
    monkeypatch.setattr("perturbcore.embeddings.registry.Builder.make", lambda *a, **b: 1 / 0)
    again = build_all(SPECS, context, cache=tmp_path)
    for a, b, c in zip(made, again, plain, strict=True):
        assert a.digest == b.digest == c.digest
        assert (a.name, a.modality, a.source) == (b.name, b.modality, b.source)
    with pytest.raises(ZeroDivisionError):
        build_all([SPECS[0] | {"dim": 7}], context, cache=tmp_path)


def test_the_cache_follows_the_content_and_survives_damage(context, tmp_path):
    spec = [SPECS[0]]
    first = build_all(spec, context, cache=tmp_path)[0]
    (kept,) = tmp_path.iterdir()
    file = next(kept.glob("*.npz"))
    file.write_bytes(file.read_bytes()[:200])
    assert build_all(spec, context, cache=tmp_path)[0].digest == first.digest
    context.dataset.extras["simulation"].network.loc[0, "weight"] = 0.123
    assert build_all(spec, context, cache=tmp_path)[0].digest != first.digest
    assert len(list(tmp_path.iterdir())) == 2


def test_catalogue_files_and_own_files(tmp_path, monkeypatch):
    (tmp_path / "pairs.txt").write_text("entity1,entity2\nA,B\nB,A\nB,C\nC,D\nD,A\nA,C\n")
    (tmp_path / "sets.gmt").write_text("S1\t\tA\tB\nS2\t\tB\tC\nS3\t\tA\tC\tD\n")
    (tmp_path / "texts.csv").write_text("gene,note\nA,big red\nB,big blue\nC,red blue\n")
    (tmp_path / "p.fasta").write_text(">A\nMKLM\n>B\nMKLV\n>C\nLMKL\n")
    save_embedding(random_embedding(["1", "2", "9"], 4, identifier="entrez"), tmp_path / "mine.npz")
    files = {"pairs": "pairs.txt", "sets": "sets.gmt", "mine": "mine.npz"}
    monkeypatch.setattr(catalogue, "fetch", lambda name, **_: tmp_path / files[name])
    about = SimpleNamespace(description="pairs", citations=[], sha256="0")
    monkeypatch.setattr(catalogue, "entry", lambda name: about)
    id_map = {"symbol": ["A", "B"], "entrez": ["1", "2"], "ensembl": ["ENSG1", "ENSG2"]}
    id_map = pd.DataFrame(id_map | {"chromosome": "1", "biotype": ""})
    monkeypatch.setattr("perturbcore.data.identifiers.gene_table", lambda: id_map)
    old = pd.Series({"OLD": "A"})
    monkeypatch.setattr("perturbcore.embeddings.build.previous_symbols", lambda: old)
    context = BuildContext(folder=tmp_path)
    net = build({"name": "n", "builder": "network", "source": "pairs", "dim": 2}, context)
    assert net.ids.tolist() == list("ABCD") and "pairs []; 5 edges" in net.source
    assert build({"name": "a", "builder": "annotation", "source": "sets"}, context).dim == 3
    text = build({"name": "t", "builder": "text", "file": "texts.csv"}, context)
    assert text.ids.tolist() == ["A", "B", "C"]
    assert len(build({"name": "p", "builder": "sequence", "file": "p.fasta"}, context)) == 3
    monkeypatch.setenv("MY_FOLDER", str(tmp_path))
    renamed = {"identifier": "entrez", "convert_to": "symbol"}
    spec = {"name": "Mine", "modality": "DNA", "file": "$MY_FOLDER/mine.npz"}
    mine = build(spec | renamed | {"aliases": "previous_symbols"}, context)
    assert (mine.name, mine.modality, mine.identifier) == ("Mine", "DNA", "symbol")
    assert mine.ids.tolist() == ["A", "B", "OLD"] and "1 not in the map" in mine.source
    spec = {"name": "M", "builder": "file", "source": "mine"} | renamed
    cached = build_all([spec], context, cache=tmp_path / "cache")
    assert cached[0].ids.tolist() == ["A", "B"]


def test_one_file_a_cell_line(tmp_path, context):
    for line in ("K562", "RPE1"):
        save_embedding(random_embedding(["A", line], 3), tmp_path / f"PCA_{line}_(D=3).npz")
    here = BuildContext(dataset=context.dataset, folder=tmp_path)
    made = build_all([{"name": "PCA", "file": "PCA_{cell_line}_(D=3).npz"}], here)
    assert [(e.cell_line, e.ids[1]) for e in made] == [("K562", "K562"), ("RPE1", "RPE1")]
    with pytest.raises(InputError, match="'PCA': the file .*PCA_HepG2.* does not exist"):
        build({"name": "PCA", "file": "PCA_{cell_line}_(D=3).npz", "cell_line": "HepG2"}, here)


NET = {"name": "E", "builder": "network", "source": "simulated"}


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ({"builder": "network"}, ParameterError, ["needs a name"]),
        ({"name": "E"}, ParameterError, ["'E'", "give builder: or file:"]),
        ({"name": "E", "builder": "gcn"}, ParameterError, ["'gcn'", "annotation", "network"]),
        (NET | {"dims": 3}, ParameterError, ["'dims'", "dim, method"]),
        (NET | {"dim": "3"}, ParameterError, ["'dim'", "must be a valid integer", "'3'"]),
        (NET | {"options": [1]}, ParameterError, ["options must be a valid dictionary"]),
        (NET | {"file": "x"}, ParameterError, ["either source or file"]),
        (NET | {"of": "F"}, ParameterError, ["no use for of"]),
        (NET | {"duplicates": "mean"}, ParameterError, ["convert_to"]),
        (NET | {"aliases": "all"}, ParameterError, ["previous_symbols"]),
        ({"name": "E", "builder": "network"}, ParameterError, ["give source"]),
        (NET | {"source": "nowhere"}, ParameterError, ["catalogue", "'nowhere'"]),
        ({"name": "E", "builder": "shuffled"}, ParameterError, ["needs of"]),
        ({"name": "E", "builder": "shuffled", "of": "F"}, ParameterError, ["no embedding 'F'"]),
        ({"name": "E", "builder": "expression", "source": "x"}, ParameterError, ["leave source"]),
        (
            {"name": "E", "builder": "expression", "identifier": "ensembl"},
            ParameterError,
            ["symbol ids, not ensembl"],
        ),
        ({"name": "E", "file": "no.csv"}, InputError, ["'E'", "no.csv does not exist"]),
        ({"name": "E", "file": "$NOT_SET/x.csv"}, InputError, ["environment variable"]),
        ({"name": "E", "file": "x.csv", "dim": 3}, ParameterError, ["'dim'", "id_column"]),
    ],
)
def test_a_wrong_specification_is_refused_by_name(context, spec, error, words):
    with pytest.raises(error) as caught:
        build_all([spec], context)
    for word in words:
        assert word in str(caught.value)


def test_circles_repeats_and_missing_parts_are_refused(context):
    circle = [
        {"name": "a", "builder": "shuffled", "of": "b"},
        {"name": "b", "builder": "shuffled", "of": "a"},
    ]
    with pytest.raises(ParameterError, match="made from itself"):
        build_all(circle, context)
    with pytest.raises(ParameterError, match="'Interactome' is specified twice"):
        build_all([SPECS[0], SPECS[0]], context)
    with pytest.raises(InputError, match="needs a simulated data set"):
        build_all([NET])
    with pytest.raises(InputError, match="no screen"):
        build_all([SPECS[5]])
    with pytest.raises(InputError, match="need a data set"):
        build_all([SPECS[6]])


def test_a_new_builder_is_one_function_and_its_options_are_checked(monkeypatch, tmp_path):
    """One file and one line: the function stands for the file, the family's name for the line."""
    import sys
    from types import ModuleType

    from perturbcore.embeddings import registry

    @register("lengths", kind="texts", modality="LLM")
    def lengths(texts: dict, *, power: int = 1):
        return list(texts), np.array([[len(t) ** power] for t in texts.values()]), "lengths"

    monkeypatch.setitem(sys.modules, "perturbcore.embeddings.mine", ModuleType("mine"))
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, "mine"))
    (tmp_path / "t.csv").write_text("gene,note\nA,aa\nB,bbb\n")
    spec = {"name": "L", "builder": "lengths", "file": "t.csv", "power": 2}
    try:
        (made,) = build_all([spec], BuildContext(folder=tmp_path), cache=tmp_path / "cache")
        assert made.X.tolist() == [[4], [9]] and made.modality == "LLM"
        assert made.source == "t.csv; lengths" and "lengths" in builders()
        with pytest.raises(ParameterError, match="'power' .* valid integer, got 'x' .default: 1"):
            build(spec | {"power": "x"}, BuildContext(folder=tmp_path))
    finally:
        registry._BUILDERS.pop("lengths")


# real files


def catalogue_context(mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("PERTURBCORE_MIRROR", str(mirror))
    monkeypatch.setenv("PERTURBCORE_DATA", str(tmp_path))
    return BuildContext()


@pytest.mark.mirror
def test_real_networks_cover_what_they_did(mirror, monkeypatch, tmp_path):
    context = catalogue_context(mirror, monkeypatch, tmp_path)
    line = next(mirror.glob("Genentech/PerturbQA/*/perturbqa/datasets/k562-de.csv"))
    genes = pd.read_csv(line, usecols=["pert"], keep_default_na=False)["pert"].unique()
    obs = pd.DataFrame({"perturbation": genes, "cell_line": "K562"}, index=genes)
    responses = ad.AnnData(np.zeros((len(genes), 1), np.float32), obs=obs)
    specs = [
        {"name": n, "builder": "network", "source": s, "dim": 16}
        for n, s in [("HuMAP", "humap"), ("CORUM", "corum"), ("SIGNOR", "signor")]
    ]
    specs.append({"name": "GO", "builder": "annotation", "source": "go_bp_2021", "dim": 16})
    specs.append({"name": "Hallmark", "builder": "annotation", "source": "hallmark"})
    made = build_all(specs, context, cache=tmp_path)
    assert [len(e) for e in made] == [7368, 3505, 4544, 14937, 4384]
    table = coverage_table(made, responses).set_index("embedding")["coverage"]
    np.testing.assert_allclose(table, [0.745, 0.487, 0.263, 0.902, 0.309], atol=6e-4)


@pytest.mark.mirror
def test_real_string_neighbours_lie_together(mirror):
    edges = read_edges(next(mirror.glob("recursionpharma/*/*/*/*/StringDB.txt")))
    assert list(edges) == ["source", "target"] and len(edges) == 116118
    e = network_embedding(edges, name="STRING", dim=32)
    Z = StandardScaler().fit_transform(e.X)
    nearest = np.argsort(((Z - Z[e.ids.get_loc("RPS9")]) ** 2).sum(axis=1))[:11]
    assert sum(g.startswith(("RPS", "RPL", "UBA52", "FAU")) for g in e.ids[nearest]) >= 8


@pytest.mark.mirror
def test_real_tables_load(mirror):
    from perturbcore.embeddings.load import load_embedding

    deepce = load_embedding(next(mirror.glob("pth1993/DeepCE/*/DeepCE/data/gene_vector.csv")))
    assert (len(deepce), deepce.dim) == (978, 128) and "DDR1" in deepce.ids
    gtex = next(mirror.glob("niklasbuehler/*/*/data/embeddings/rna_PCs*.tsv"))
    assert len(load_embedding(gtex, identifier="ensembl")) == 18831
    with pytest.raises(InputError, match="look like ensembl"):
        load_embedding(gtex)
