"""Graph embeddings on planted graphs, and that the two published defects are not here."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.linalg import expm
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch_geometric.nn import GCNConv

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.gcn import (
    Convolution,
    GraphNetwork,
    SymmetricProduct,
    check_held_out,
    normalised,
    pretrain,
    random_pairs,
    sparse_tensor,
    split_edges,
)
from perturbcore.embeddings.graph_network import gnn_embedding, pretrained_network
from perturbcore.embeddings.network import adjacency, wavelet_coefficients, wavelet_embedding
from perturbcore.embeddings.node2vec import cooccurrence, mutual_information, node2vec_embedding
from perturbcore.embeddings.registry import builders
from perturbcore.embeddings.sources import BuildContext, read_edges

OPTIONS = dict(
    dim=16, layers=2, dropout=0.0, lr=1e-2, batch_size=10_000, max_epochs=60, patience=20
)
BUILT = {
    "gnn": lambda edges, **o: gnn_embedding(edges, name="E", **OPTIONS | o),
    "wavelets": lambda edges, **o: wavelet_embedding(edges, name="E", dim=16, **o),
    "node2vec": lambda edges, **o: node2vec_embedding(edges, name="E", dim=16, **o),
}


def planted(n=240, k=6, inside=0.2, outside=0.005, seed=0):
    """Random network with planted communities; returns edges and the community of each node."""
    rng = np.random.default_rng(seed)
    community = np.arange(n) % k
    p = np.where(community[:, None] == community, inside, outside)
    i, j = np.nonzero(np.triu(rng.random((n, n)) < p, 1))
    names = np.array([f"N{v:04d}" for v in range(n)])
    edges = pd.DataFrame(
        {"source": names[i], "target": names[j], "weight": rng.uniform(0.5, 1, len(i))}
    )
    return edges, pd.Series(community, names)


@pytest.fixture(scope="module")
def trained():
    edges, community = planted()
    return edges, community, *pretrained_network(edges, **OPTIONS)


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
def test_same_seed_same_numbers_and_order_of_edges_means_nothing(family):
    edges, _ = planted(80, 4)
    want = BUILT[family](edges)
    turned = edges.rename(columns={"source": "target", "target": "source"}).sample(
        frac=1, random_state=1
    )
    assert BUILT[family](turned).digest == want.digest
    assert want.ids.is_monotonic_increasing and np.isfinite(want.X).all()
    if family != "wavelets":
        assert BUILT[family](edges, seed=1).digest != want.digest


def test_profiles_can_name_them_and_training_is_found_again(tmp_path):
    assert set(BUILT) <= set(builders())
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
    found, ids = pretrained_network(again, models=tmp_path / "cache" / "models", **options)
    np.testing.assert_array_equal(found.vectors(), first.X)
    assert list(ids) == list(first.ids)
    folders = list((tmp_path / "cache" / "models").iterdir())
    assert len(folders) == 1 and (folders[0] / "done.json").exists()


def test_naming_the_builders_does_not_import_torch():
    code = "import sys; from perturbcore.embeddings.registry import builders; builders()"
    code += "; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == "False"


# link prediction


def test_held_out_edges_are_predicted(trained):
    _, _, model, _ = trained
    assert model.auroc > 0.8
    history = model.trained.history
    assert history["val"].min() < history["val"].iloc[0]


def test_nothing_is_learnt_where_edges_are_random():
    rng = np.random.default_rng(0)
    upper = sp.coo_matrix(np.triu(rng.random((200, 200)) < 0.05, 1).astype(float))
    options = {k: v for k, v in OPTIONS.items()}
    model = pretrain(upper + upper.T, weight_decay=0.0, validation=0.2, seed=0, **options)
    assert abs(model.auroc - 0.5) < 0.12


def test_split_takes_each_edge_once():
    edges, _ = planted(80, 4)
    _, A = adjacency(edges)
    train, held = split_edges(A, 0.1, 0)
    both = {tuple(e) for e in np.concatenate([train, held])}
    assert len(both) == len(train) + len(held) == A.nnz // 2
    assert len(held) == round(0.1 * A.nnz / 2) and (train[:, 0] < train[:, 1]).all()
    inside = sp.coo_matrix((np.ones(len(train)), train.T), shape=A.shape)
    check_held_out(inside + inside.T, held)
    pairs = random_pairs(A, 300, np.random.default_rng(0))
    assert (np.asarray(A[pairs[:, 0], pairs[:, 1]]) == 0).all() and (
        pairs[:, 0] != pairs[:, 1]
    ).all()


def test_a_held_out_edge_in_message_passing_is_caught():
    edges, _ = planted(80, 4)
    _, A = adjacency(edges)
    train, held = split_edges(A, 0.1, 0)
    inside = sp.lil_matrix(A.shape)
    inside[train[:, 0], train[:, 1]] = 1
    inside[held[3, 1], held[3, 0]] = 1  # one direction of one edge
    with pytest.raises(LeakError, match="1 of .* held-out edges take part"):
        check_held_out(inside.tocsr(), held)
    with pytest.raises(LeakError):
        check_held_out(A, held)  # the whole graph, as in the published validation


def test_the_published_split_leaks_and_ours_does_not():
    """The loader adds both directions to a list that has both, and splits rows."""
    edges, _ = planted(80, 4)
    _, A = adjacency(edges)
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
        check_held_out(inside + inside.T, held)
    mine, kept = split_edges(A, 0.1, 42)
    assert not {tuple(e) for e in mine} & {tuple(e) for e in kept}


def test_messages_are_weighted_by_their_own_edges():
    edges, _ = planted(60, 3)
    _, A = adjacency(edges)
    dense = A.toarray() + np.eye(60)
    root = 1 / np.sqrt(dense.sum(axis=1))
    np.testing.assert_allclose(
        normalised(A).toarray(), root[:, None] * dense * root, rtol=1e-5, atol=1e-8
    )


# the network


def test_convolution_equals_torch_geometric():
    edges, _ = planted(60, 3)
    _, A = adjacency(edges)
    coo = A.tocoo()
    index, weight = (
        torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64)),
        torch.as_tensor(coo.data),
    )
    torch.manual_seed(0)
    theirs, ours = GCNConv(8, 8), Convolution(8)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(60, 8)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = theirs(inputs[0], index, weight.float()), ours(inputs[1], sparse_tensor(normalised(A)))
    torch.testing.assert_close(*out)
    for one in out:
        (one**2).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(theirs.lin.weight.grad, ours.lin.weight.grad)


def test_gradient_of_the_symmetric_product():
    A = torch.rand(7, 7, dtype=torch.float64)
    A = (A + A.T).to_sparse_csr()
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: SymmetricProduct.apply(A, x), x)


def test_layers_are_the_published_ones():
    edges, _ = planted(40, 2)
    _, A = adjacency(edges)
    P = torch.as_tensor(normalised(A).toarray())
    net = GraphNetwork(40, 5, 2, 0.3).eval()
    x = net.node
    for norm, conv in zip(net.norms, net.convolutions, strict=True):
        x = x + torch.nn.functional.gelu(P @ norm(x) @ conv.lin.weight.T + conv.bias)
    want = x @ net.out.weight.T + net.out.bias
    torch.testing.assert_close(net(sparse_tensor(normalised(A))), want)


@pytest.mark.parametrize(
    ("builder", "wrong"),
    [
        *(("gnn", w) for w in ({"layers": 0}, {"validation": 1.0}, {"lr": 0.0})),
        *(("node2vec", w) for w in ({"p": 0.0}, {"length": 1}, {"window": 0})),
        ("wavelets", {"order": 3}),
    ],
)
def test_options_out_of_range(builder, wrong):
    edges, _ = planted(60, 3)
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        BUILT[builder](edges, **wrong)


def test_too_small_a_network():
    with pytest.raises(InputError, match="too small"):
        gnn_embedding(pd.DataFrame({"source": ["a"], "target": ["b"]}), name="E")


# wavelets


def test_polynomial_equals_the_matrix_function():
    edges, _ = planted(50, 2)
    _, A = adjacency(edges)
    dense = A.toarray()
    root = 1 / np.sqrt(dense.sum(axis=1))
    L = np.eye(50) - root[:, None] * dense * root
    at = np.array([3, 0, 41])
    C = wavelet_coefficients(A, at, [("heat", 2.0), ("mexican_hat", 1.5)], 14)
    np.testing.assert_allclose(C[:, 0], expm(-2 * L)[:, at], atol=1e-4)
    np.testing.assert_allclose(C[:, 1], (1.5 * L @ expm(np.eye(50) - 1.5 * L))[:, at], atol=1e-4)


# walks


def test_cooccurrence_approaches_the_closed_form():
    """With p = q = 1 and many walks: start node uniform, then powers of the random walk."""
    edges, _ = planted(30, 2, inside=0.4)
    _, A = adjacency(edges)
    P = A.toarray() / A.toarray().sum(axis=1, keepdims=True)
    length, window, walks = 5, 2, 3000
    got = (
        cooccurrence(A, walks=walks, length=length, window=window, p=1, q=1, seed=0).toarray()
        / walks
    )
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
    edges, _ = planted(12, 1, inside=0.5, seed=3)
    _, A = adjacency(edges)
    W, p, q, walks = A.toarray(), 0.25, 4.0, 6000
    # window 2, length 3: pairs at distance 2 are (first, third); subtract those at distance 1
    both = cooccurrence(A, walks=walks, length=3, window=2, p=p, q=q, seed=0).toarray()
    near = cooccurrence(A, walks=walks, length=3, window=1, p=p, q=q, seed=0).toarray()
    got = (both - near) / walks
    want = np.zeros_like(W)
    for first in range(12):
        step = W[first] / W[first].sum()
        for second in np.flatnonzero(step):
            alpha = np.where(W[first] > 0, 1.0, 1 / q)
            alpha[first] = 1 / p
            then = alpha * W[second]
            want[first] += step[second] * then / then.sum()
    np.testing.assert_allclose(got, want + want.T, atol=0.06)


def test_mutual_information_by_loops():
    counts = np.array([[0, 6, 1], [6, 0, 2], [1, 2, 4.0]])
    got = mutual_information(sp.csr_matrix(counts)).toarray()
    for i in range(3):
        for j in range(3):
            share = counts[i, j] * counts.sum() / counts[i].sum() / counts[j].sum()
            assert got[i, j] == pytest.approx(max(np.log(share), 0) if share else 0)
