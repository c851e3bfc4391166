"""Embeddings of networks: against references, on planted graphs, without published defects."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.linalg import expm
from scipy.stats import spearmanr
from sklearn.manifold import SpectralEmbedding
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch_geometric.nn import GCNConv
from toys import same_up_to_sign
from worlds import communities as planted

from perturbcore.core.errors import InputError, LeakError
from perturbcore.embeddings import gcn
from perturbcore.embeddings import network as nw
from perturbcore.embeddings.base import align
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.network import cooccurrence, mutual_information, node2vec_embedding
from perturbcore.embeddings.registry import builders
from perturbcore.embeddings.sources import BuildContext, read_edges

OPTIONS = dict(
    dim=16, layers=2, dropout=0.0, lr=1e-2, batch_size=10_000, max_epochs=60, patience=20
)
WAVES = dict(layer="wavelets", contrast=1.0)
BUILT = {
    "laplacian": lambda edges, **o: nw.network_embedding(edges, **dict(name="E", dim=16) | o),
    "diffusion": lambda edges, **o: nw.network_embedding(
        edges, **dict(name="E", dim=16, method="diffusion") | o
    ),
    "wavelets": lambda edges, **o: nw.wavelet_embedding(edges, name="E", dim=16, **o),
    "node2vec": lambda edges, **o: node2vec_embedding(edges, name="E", dim=16, **o),
    "gnn": lambda edges, **o: nw.gnn_embedding(edges, name="E", **OPTIONS | o),
    "wavegc": lambda edges, **o: nw.gnn_embedding(edges, name="E", **OPTIONS | WAVES | o),
}


@pytest.fixture(scope="module")
def A():
    """Weights of a network of 80 nodes in 4 communities."""
    return nw.adjacency(planted(80, 4)[0])[1]


def random_walk(A):
    return A.toarray() / A.toarray().sum(axis=1, keepdims=True)


def laplacian(A):
    root = 1 / np.sqrt(A.toarray().sum(axis=1))
    return np.eye(A.shape[0]) - root[:, None] * A.toarray() * root


# every family


@pytest.mark.parametrize("family", BUILT)
def test_neighbours_in_the_embedding_are_of_one_community(family):
    edges, community = planted()
    e = BUILT[family](edges)
    X = StandardScaler().fit_transform(e.X)
    share = cross_val_score(KNeighborsClassifier(5), X, community[e.ids]).mean()
    assert share > 0.9
    shuffled = np.random.default_rng(0).permutation(community[e.ids])
    assert cross_val_score(KNeighborsClassifier(5), X, shuffled).mean() < 0.35


@pytest.mark.parametrize("family", BUILT)
def test_same_seed_same_numbers_and_order_direction_repeats_and_loops_mean_nothing(family):
    edges, _ = planted(80, 4)
    want = BUILT[family](edges)
    turned = edges.rename(columns={"source": "target", "target": "source"})
    weaker = edges.head(20).assign(weight=lambda t: t["weight"] / 2)
    loops = pd.DataFrame({"source": ["N0001"], "target": ["N0001"], "weight": [9.0]})
    mixed = pd.concat([turned, weaker, loops]).sample(frac=1, random_state=1)
    assert BUILT[family](mixed).digest == want.digest
    assert want.ids.is_monotonic_increasing and np.isfinite(want.X).all()
    if family in ("node2vec", "gnn", "wavegc"):
        assert BUILT[family](edges, seed=1).digest != want.digest
    if family not in ("gnn", "wavegc"):
        assert BUILT[family](edges.drop(columns="weight")).digest != want.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename(columns={"source": "a"}), ["no column 'source'", "target"]),
        (lambda t: t.assign(weight=-1.0), ["row 1", "-1.0", "not negative"]),
        (lambda t: t.assign(weight=np.nan), ["row 1", "finite"]),
        (lambda t: t.assign(target=None), ["column 'target' is empty in row 1"]),
        (lambda t: t.assign(target=t["source"]), ["none of", "self-loops"]),
    ],
)
def test_bad_edges_are_named(change, words):
    with pytest.raises(InputError) as error:
        nw.network_embedding(change(planted(20, 2, 0.5)[0]), name="E")
    assert all(word in str(error.value) for word in ["'E'", *words])


@pytest.mark.parametrize(
    ("family", "option", "words"),
    [
        ("laplacian", {"method": "x"}, "'x'.* be 'laplacian' or 'diffusion'"),
        ("laplacian", {"dim": 0}, "be greater than or equal to 1"),
        ("laplacian", {"dim": True}, "must be a int"),
        *(("gnn", w, "should be") for w in ({"layers": 0}, {"validation": 1.0}, {"lr": 0.0})),
        *(("node2vec", w, "should be") for w in ({"p": 0.0}, {"length": 1}, {"window": 0})),
        ("wavelets", {"order": 3}, "known are dim, seed"),
    ],
)
def test_options_out_of_range(family, option, words):
    with pytest.raises(InputError, match=f"embedding 'E'.* {next(iter(option))}.*{words}"):
        BUILT[family](planted(60, 3)[0], **option)


def test_profiles_can_name_them_and_training_is_found_again(tmp_path):
    assert {"network", "wavelets", "node2vec", "gnn"} <= set(builders())
    edges, _ = planted(80, 4)
    edges.to_csv(tmp_path / "edges.tsv", sep="\t", index=False)
    options = dict(dim=8, max_epochs=6, batch_size=1000)
    spec = {"name": "G", "builder": "gnn", "file": "edges.tsv", **options}
    context = BuildContext(folder=tmp_path)
    (first,) = build_all([spec], context, cache=tmp_path / "cache")
    (again,) = build_all([spec], context, cache=tmp_path / "cache")
    assert first.digest == again.digest and "AUROC of held-out edges" in first.source
    # a fine-tuning starts from the network that the builder trained: nothing is trained twice
    again = read_edges(tmp_path / "edges.tsv")
    found, ids = nw.pretrained_network(again, models=tmp_path / "cache" / "models", **options)
    np.testing.assert_array_equal(found.vectors(), first.X)
    assert list(ids) == list(first.ids)
    folders = list((tmp_path / "cache" / "models").iterdir())
    assert len(folders) == 1 and (folders[0] / "done.json").exists()


# eigenvectors and diffusion


@pytest.mark.parametrize("n", [120, 700])  # dense and Lanczos solver
def test_laplacian_equals_scikit_learn(n):
    edges, _ = planted(n, 4, inside=20 / n, outside=4 / n)
    ids, A = nw.adjacency(edges)
    e = nw.network_embedding(edges, name="E", dim=8)
    theirs = SpectralEmbedding(8, affinity="precomputed", eigen_solver="arpack", random_state=0)
    assert e.ids.tolist() == ids.tolist()
    same_up_to_sign(e.X, theirs.fit_transform(A.toarray()))


def test_the_smallest_eigenvalues_over_all_components_are_taken():
    parts = [planted(40, 2, 0.3, 0.01, seed=s)[0] for s in (0, 1)]
    edges = pd.concat([part.replace("N", f"M{s}", regex=True) for s, part in enumerate(parts)])
    _, A = nw.adjacency(edges)
    L = laplacian(A)
    e = nw.network_embedding(edges, name="E", dim=6)
    V = e.X.astype(float) * np.sqrt(np.asarray(A.sum(axis=1)))
    np.testing.assert_allclose(np.diag(V.T @ L @ V), np.linalg.eigvalsh(L)[2:8], atol=1e-5)
    np.testing.assert_allclose(V.T @ V, np.eye(6), atol=1e-5)


def test_diffusion_equals_the_stationary_walk():
    edges, _ = planted(50, 4, 0.3, 0.02)
    ids, A = nw.adjacency(edges)
    Q = 0.5 * np.linalg.inv(np.eye(len(ids)) - 0.5 * random_walk(A))
    U, S, _ = np.linalg.svd(np.log1p(len(ids) * Q))
    e = nw.network_embedding(edges, name="E", dim=4, method="diffusion")
    same_up_to_sign(e.X, U[:, :4] * np.sqrt(S[:4]), atol=1e-2)


def test_long_chain_is_solved():
    names = [f"N{i:05d}" for i in range(6000)]
    edges = pd.DataFrame({"source": names[:-1], "target": names[1:]})
    e = nw.network_embedding(edges, name="E", dim=3)
    # The first eigenvector of a path is a half wave: it orders the nodes.
    assert abs(spearmanr(e.X[:, 0], np.arange(6000)).statistic) > 0.999


# link prediction


def test_held_out_edges_are_predicted_and_nothing_where_edges_are_random():
    model, _ = nw.pretrained_network(planted()[0], **OPTIONS)
    assert model.auroc > 0.8
    history = model.trained.history
    assert history["val"].min() < history["val"].iloc[0]
    rng = np.random.default_rng(0)
    upper = sp.coo_matrix(np.triu(rng.random((200, 200)) < 0.05, 1).astype(float))
    model = gcn.pretrain(upper + upper.T, weight_decay=0.0, validation=0.2, seed=0, **OPTIONS)
    assert abs(model.auroc - 0.5) < 0.12
    with pytest.raises(InputError, match="too small"):
        nw.gnn_embedding(pd.DataFrame({"source": ["a"], "target": ["b"]}), name="E")


def test_split_takes_each_edge_once_and_a_held_out_edge_in_message_passing_is_caught(A):
    train, held = gcn.split_edges(A, 0.1, 0)
    both = {tuple(e) for e in np.concatenate([train, held])}
    assert len(both) == len(train) + len(held) == A.nnz // 2
    assert len(held) == round(0.1 * A.nnz / 2) and (train[:, 0] < train[:, 1]).all()
    inside = sp.coo_matrix((np.ones(len(train)), train.T), shape=A.shape)
    gcn.check_held_out(inside + inside.T, held)
    one = sp.coo_matrix(([1.0], ([held[3, 1]], [held[3, 0]])), shape=A.shape)  # one direction
    with pytest.raises(LeakError, match="1 of .* held-out edges take part"):
        gcn.check_held_out((inside + one).tocsr(), held)
    with pytest.raises(LeakError):
        gcn.check_held_out(A, held)  # the whole graph, as in the published validation
    pairs = gcn.random_pairs(A, 300, np.random.default_rng(0))
    assert (np.asarray(A[pairs[:, 0], pairs[:, 1]]) == 0).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_the_published_split_leaks_and_ours_does_not(A):
    """The loader adds both directions to a list that has both, and splits rows."""
    one = np.column_stack(sp.triu(A).nonzero())
    listed = np.concatenate([one, one[:, ::-1]])
    listed = np.concatenate([listed, listed[:, ::-1]])
    rows = listed[listed[:, 0] < listed[:, 1]]
    order = np.random.default_rng(42).permutation(len(rows))
    n = len(rows) // 10
    held, train = rows[order[:n]], rows[order[n:]]
    shared = {tuple(e) for e in held} & {tuple(e) for e in train}
    assert len(shared) > 0.7 * n  # most held-out edges are learnt from as well
    inside = sp.coo_matrix((np.ones(len(train)), train.T), shape=A.shape)
    with pytest.raises(LeakError):
        gcn.check_held_out(inside + inside.T, held)


# the network


def test_convolution_equals_torch_geometric(A):
    coo = A.tocoo()
    index = torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64))
    weight = torch.as_tensor(coo.data).float()
    torch.manual_seed(0)
    theirs, ours = GCNConv(8, 8), gcn.Convolution(8)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(80, 8)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = theirs(inputs[0], index, weight), ours(inputs[1], gcn.sparse_tensor(gcn.normalised(A)))
    torch.testing.assert_close(*out)
    for one in out:
        (one**2).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(theirs.lin.weight.grad, ours.lin.weight.grad)


def test_layers_are_the_published_ones(A):
    dense = A.toarray() + np.eye(80)
    root = 1 / np.sqrt(dense.sum(axis=1))
    P = gcn.normalised(A)
    np.testing.assert_allclose(P.toarray(), root[:, None] * dense * root, rtol=1e-5, atol=1e-8)
    net = gcn.GraphNetwork(80, 5, 2, 0.3).eval()
    x = net.node
    for norm, conv in zip(net.norms, net.convolutions, strict=True):
        messages = torch.as_tensor(P.toarray()) @ norm(x) @ conv.lin.weight.T
        x = x + torch.nn.functional.gelu(messages + conv.bias)
    torch.testing.assert_close(net(gcn.sparse_tensor(P)), x @ net.out.weight.T + net.out.bias)


# wavelets and walks


def test_polynomial_equals_the_matrix_function(A):
    L, at = laplacian(A), np.array([3, 0, 41])
    C = nw.wavelet_coefficients(A, at, [("heat", 2.0), ("mexican_hat", 1.5)], 14)
    np.testing.assert_allclose(C[:, 0], expm(-2 * L)[:, at], atol=1e-4)
    np.testing.assert_allclose(C[:, 1], (1.5 * L @ expm(np.eye(80) - 1.5 * L))[:, at], atol=1e-4)


def test_cooccurrence_approaches_the_closed_form():
    """With p = q = 1 and many walks: start node uniform, then powers of the random walk."""
    _, A = nw.adjacency(planted(30, 2, inside=0.4)[0])
    P, length, window, walks = random_walk(A), 5, 2, 3000
    counts = cooccurrence(A, walks=walks, length=length, window=window, p=1, q=1, seed=0)
    got = counts.toarray() / walks
    want, at = np.zeros((30, 30)), np.ones(30)
    for t in range(length):
        for r in range(1, window + 1):
            if t + r < length:
                want += at[:, None] * np.linalg.matrix_power(P, r)
        at = at @ P
    want = want + want.T
    assert np.abs(got - want).max() < 0.1 and np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.999


def test_second_order_steps_have_the_published_probabilities():
    """Third nodes of walks from one node, against the alpha of Grover and Leskovec by loops."""
    _, A = nw.adjacency(planted(12, 1, inside=0.5, seed=3)[0])
    W, p, q, walks = A.toarray(), 0.25, 4.0, 6000
    # window 2, length 3: pairs at distance 2 are (first, third); subtract those at distance 1
    options = dict(walks=walks, length=3, p=p, q=q, seed=0)
    both, near = (cooccurrence(A, window=w, **options).toarray() for w in (2, 1))
    want = np.zeros_like(W)
    for first in range(12):
        step = W[first] / W[first].sum()
        for second in np.flatnonzero(step):
            alpha = np.where(W[first] > 0, 1.0, 1 / q)
            alpha[first] = 1 / p
            then = alpha * W[second]
            want[first] += step[second] * then / then.sum()
    np.testing.assert_allclose((both - near) / walks, want + want.T, atol=0.06)


def test_mutual_information_by_loops():
    counts = np.array([[0, 6, 1], [6, 0, 2], [1, 2, 4.0]])
    got = mutual_information(sp.csr_matrix(counts)).toarray()
    for i in range(3):
        for j in range(3):
            share = counts[i, j] * counts.sum() / counts[i].sum() / counts[j].sum()
            assert got[i, j] == pytest.approx(max(np.log(share), 0) if share else 0)


def test_components_and_isolated_nodes():
    edges, _ = planted(60, 4, 0.3, 0.01)
    island = {"source": ["X1", "X2", "Y1"], "target": ["X2", "X3", "Y1"], "weight": 1.0}
    alone = nw.network_embedding(edges, name="E", dim=5)
    both = nw.network_embedding(pd.concat([edges, pd.DataFrame(island)]), name="E", dim=5)
    X, present = align(both, ["X1", "X2", "X3", "Y1"])
    assert present.tolist() == [True, True, True, False]  # a lone loop says nothing of Y1
    assert (X[:3] == 0).all()
    same_up_to_sign(align(both, alone.ids)[0], alone.X)
