"""Embeddings of networks: against references, on planted graphs, without published defects."""

import copy
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.polynomial.chebyshev import chebval
from scipy.linalg import expm
from scipy.sparse import csgraph
from scipy.special import log_softmax
from scipy.stats import spearmanr
from sklearn.manifold import SpectralEmbedding
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import gelu
from torch_geometric.nn import GCNConv, GINConv
from toys import same_up_to_sign
from worlds import communities as planted

from perturbcore.core.errors import InputError, LeakError
from perturbcore.embeddings import gcn
from perturbcore.embeddings import network as nw
from perturbcore.models.finetuning.graph import neighbourhood, read_nodes

OPTIONS = dict(
    dim=16, layers=2, dropout=0.0, lr=1e-2, batch_size=10_000, max_epochs=60, patience=20
)
BUILT = {
    "laplacian": partial(nw.network_embedding, dim=16),
    "diffusion": partial(nw.network_embedding, dim=16, method="diffusion"),
    "wavelets": partial(nw.wavelet_embedding, dim=16),
    "node2vec": partial(nw.node2vec_embedding, dim=16),
    "gnn": partial(nw.gnn_embedding, **OPTIONS),
    "wavegc": partial(nw.gnn_embedding, **OPTIONS, layer="wavelets", contrast=1.0),
}


@pytest.fixture(scope="module")
def A():
    """Weights of a network of 80 nodes in 4 communities."""
    return nw.adjacency(planted(80, 4)[0])[1]


def varied(module):
    """A module with random numbers for all that learns."""
    with torch.no_grad():
        for k, weight in enumerate(module.parameters()):
            weight.copy_(
                0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(k))
            )
    return module


def laplacian(A):
    return csgraph.laplacian(A, normed=True).toarray()


# every family


@pytest.mark.parametrize("family", BUILT)
def test_neighbours_are_of_one_community_and_the_order_of_edges_means_nothing(family):
    """Nor do direction, repeats and loops; the same seed gives the same numbers."""
    own = partial(BUILT[family], name="E")
    edges, community = planted()
    e = own(edges)
    X = StandardScaler().fit_transform(e.X)
    assert cross_val_score(KNeighborsClassifier(5), X, community[e.ids]).mean() > 0.9
    edges, _ = planted(80, 4)
    want = own(edges)
    turned = edges.rename(columns={"source": "target", "target": "source"})
    weaker = edges.head(20).assign(weight=lambda t: t["weight"] / 2)
    loops = pd.DataFrame({"source": ["N0001"], "target": ["N0001"], "weight": [9.0]})
    mixed = pd.concat([turned, weaker, loops]).sample(frac=1, random_state=1)
    assert own(mixed).digest == want.digest
    assert want.ids.is_monotonic_increasing and np.isfinite(want.X).all()
    if family in ("node2vec", "gnn", "wavegc"):
        assert own(edges, seed=1).digest != want.digest
    if family not in ("gnn", "wavegc"):
        assert own(edges.drop(columns="weight")).digest != want.digest


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("gnn", lambda t: t.rename(columns={"source": "a"}), "no column 'source'.*target"),
        ("gnn", lambda t: t.assign(weight=-1.0), "-1.0.*row 1.*not negative"),
        ("gnn", lambda t: t.assign(weight=np.nan), "row 1.*finite"),
        ("gnn", lambda t: t.assign(target=None), "column 'target' is empty in row 1"),
        ("gnn", lambda t: t.assign(target=t["source"]), "none of.*self-loops"),
        ("gnn", lambda t: t.head(1), "a network of 2 nodes is too small"),
        ("gnn", {"validation": 1.0}, "validation.*should be"),
        ("laplacian", {"method": "x"}, "method.*'x'.* be 'laplacian' or 'diffusion'"),
        ("laplacian", {"dim": True}, "dim.*must be a int"),
        ("node2vec", {"length": 1}, "length.*should be"),
        ("wavelets", {"order": 3}, "order.*known are dim, seed"),
    ],
)
def test_bad_edges_and_options_are_named(family, change, words):
    edges, options = planted(60, 3)[0], change if isinstance(change, dict) else {}
    with pytest.raises(InputError, match=f"embedding 'E'.*{words}"):
        BUILT[family](edges if options else change(edges), name="E", **options)


# eigenvectors and diffusion


@pytest.mark.parametrize("n", [120, 700])  # dense and Lanczos solver
def test_laplacian_equals_scikit_learn(n):
    edges, _ = planted(n, 4, inside=20 / n, outside=4 / n)
    ids, A = nw.adjacency(edges)
    e = nw.network_embedding(edges, name="E", dim=8)
    theirs = SpectralEmbedding(8, affinity="precomputed", eigen_solver="arpack", random_state=0)
    assert e.ids.tolist() == ids.tolist()
    same_up_to_sign(e.X, theirs.fit_transform(A.toarray()))


def test_the_smallest_eigenvalues_over_all_components_are_taken_and_of_long_chains():
    parts = [planted(40, 2, 0.3, 0.01, seed=s)[0] for s in (0, 1)]
    edges = pd.concat([part.replace("N", f"M{s}", regex=True) for s, part in enumerate(parts)])
    _, A = nw.adjacency(edges)
    L = laplacian(A)
    e = nw.network_embedding(edges, name="E", dim=6)
    V = e.X.astype(float) * np.sqrt(np.asarray(A.sum(axis=1)))
    np.testing.assert_allclose(np.diag(V.T @ L @ V), np.linalg.eigvalsh(L)[2:8], atol=1e-5)
    np.testing.assert_allclose(V.T @ V, np.eye(6), atol=1e-5)
    names = [f"N{i:05d}" for i in range(6000)]
    chain = pd.DataFrame({"source": names[:-1], "target": names[1:]})
    e = nw.network_embedding(chain, name="E", dim=3)
    # The first eigenvector of a path is a half wave: it orders the nodes.
    assert abs(spearmanr(e.X[:, 0], np.arange(6000)).statistic) > 0.999


def test_diffusion_equals_the_stationary_walk():
    edges, _ = planted(50, 4, 0.3, 0.02)
    W = nw.adjacency(edges)[1].toarray()
    Q = 0.5 * np.linalg.inv(np.eye(50) - 0.5 * W / W.sum(axis=1, keepdims=True))
    U, S, _ = np.linalg.svd(np.log1p(50 * Q))
    e = nw.network_embedding(edges, name="E", dim=4, method="diffusion")
    same_up_to_sign(e.X, U[:, :4] * np.sqrt(S[:4]), atol=1e-2)


# link prediction


def test_held_out_edges_are_predicted_and_nothing_where_edges_are_random():
    model, _ = nw.pretrained_network(planted()[0], **OPTIONS)
    assert model.auroc > 0.8
    rng = np.random.default_rng(0)
    upper = sp.coo_matrix(np.triu(rng.random((200, 200)) < 0.05, 1).astype(float))
    model = gcn.pretrain(upper + upper.T, weight_decay=0.0, validation=0.2, seed=0, **OPTIONS)
    assert abs(model.auroc - 0.5) < 0.12


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
    assert ((A + sp.identity(80)).tocsr()[pairs[:, 0], pairs[:, 1]] == 0).all()


# the network


@pytest.mark.parametrize("layer", ["gcn", "gin"])
def test_layers_are_those_of_torch_geometric_read_at_all_nodes_or_a_few(A, layer):
    A = A if layer == "gcn" else (A > 0).astype(float)
    coo, nodes = A.tocoo(), np.array([5, 60, 17, 5])
    edges = torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64))
    ours = varied(gcn.GraphNetwork(80, 5, 2, 0.3, layer)).eval()
    theirs, few, M = copy.deepcopy(ours), copy.deepcopy(ours), ours.matrix(A)
    x, weight = theirs.node, [torch.as_tensor(coo.data).float()] if layer == "gcn" else []
    for norm, own in zip(theirs.norms, theirs.convolutions, strict=True):
        conv = GCNConv(5, 5) if layer == "gcn" else GINConv(copy.deepcopy(own.after))
        state = {k.replace("after", "nn"): v for k, v in own.state_dict().items()}
        conv.load_state_dict(state, strict=False)  # GINConv's eps stays 0
        x = x + gelu(conv(norm(x), edges, *weight))
    whole, found = ours(gcn.sparse_tensor(M)), read_nodes(few, **neighbourhood(M, 2, nodes))
    torch.testing.assert_close(whole, theirs.out(x), atol=1e-4, rtol=1e-4)
    for z in (theirs.out(x)[nodes], whole[nodes], found):
        torch.testing.assert_close(z, whole[nodes], atol=1e-4, rtol=1e-4)
        z.square().sum().backward()
    for network in (theirs, few):
        torch.testing.assert_close(network.node.grad, ours.node.grad, atol=1e-3, rtol=1e-3)
    # nothing that is too far is read
    near = neighbourhood(M, 1, np.array([0]))
    assert set(near["start"].tolist()) == {0, *A[0].indices}


def test_the_loss_of_links_against_numpy(A):
    net = varied(gcn.GraphNetwork(80, 4, 2, 0.0, "wavelets"))
    S = gcn.sparse_tensor(net.matrix(A))
    z = net(S).detach().numpy().astype(np.float64)
    edges = np.column_stack(sp.triu(A, 1).nonzero())[:12].astype(np.int64)
    others = edges[:, ::-1] // 2
    near, far = ((z[pairs[:, 0]] * z[pairs[:, 1]]).sum(axis=1) for pairs in (edges, others))
    link = np.logaddexp(0, -near).mean() + np.logaddexp(0, far).mean()
    likeness = cosine_similarity(z[edges[:, 0]], z[edges[:, 1]]) / 0.2
    contrast = -log_softmax(likeness, axis=1).diagonal().mean()
    batch = {"edges": torch.as_tensor(edges), "others": torch.as_tensor(others.copy())}
    for weight in (0.0, 0.7):
        got = gcn.LinkLearner(net, S, 1e-3, 0.0, weight).loss(batch)["loss"].item()
        assert got == pytest.approx(link + weight * contrast, rel=1e-5)


def test_the_search_takes_the_least_loss_of_held_out_edges(monkeypatch):
    edges = planted(120, 4)[0].drop(columns="weight")
    shared = dict(dim=8, max_epochs=4, batch_size=2000, seed=0)
    space = {"layer": ["gcn", "gin"], "lr": [1e-6, 3e-2]}
    monkeypatch.setattr(nw, "PUBLISHED_SPACE", space)
    e = nw.gnn_embedding(edges, name="E", trials=6, **shared)
    assert "best of 6 trials" in e.source
    kinds = [{"layer": a, "lr": b} for a in space["layer"] for b in space["lr"]]
    made = [nw.pretrained_network(edges, **shared, **kind)[0] for kind in kinds]
    best = min(made, key=lambda model: model.trained.history["val"].min())
    np.testing.assert_array_equal(best.vectors(), e.X)


# wavelets and walks


def test_wavelets_are_functions_of_the_eigenvalues(A):
    """The layer against filters on an eigendecomposition, and its gradient against differences."""
    layer = varied(gcn.Wavelets(5)).double()
    M = gcn.normalised(A).astype(np.float64)
    values, U = np.linalg.eigh(np.eye(80) - M.toarray())
    assert values.min() > -1e-6 and values.max() < 2
    low, band, scale = (p.detach().numpy() for p in (layer.low, layer.band, layer.scale))

    def response(weights, first, at):  # the sum of weights (1 - T_i(at - 1)) / 2, i in steps of 2
        coefficients = np.zeros(8)
        coefficients[first::2][: len(weights)] = weights
        return (weights.sum() - chebval(at - 1, coefficients)) / 2

    filters = [response(low, 1, values)]
    filters += [response(band, 2, s * values) for s in 1 / (1 + np.exp(-scale))]
    np.testing.assert_allclose(layer.filters(torch.as_tensor(values)).detach(), filters, atol=1e-12)
    x = torch.randn(80, 5, dtype=torch.float64)
    want = np.tile(layer.bias.detach().numpy(), (80, 1))
    for f, weight in zip(filters, layer.weight.detach().numpy(), strict=True):
        filtered = U * f @ U.T
        want += filtered @ gelu(torch.as_tensor(filtered @ x.numpy() @ weight)).numpy()
    S = gcn.sparse_tensor(gcn.normalised(A)).to(torch.float64)
    np.testing.assert_allclose(layer(x, S).detach(), want, atol=1e-5)
    assert torch.autograd.gradcheck(lambda x: layer(x, S), (x.requires_grad_(),), fast_mode=True)


def test_polynomial_equals_the_matrix_function(A):
    L, at = laplacian(A), np.array([3, 0, 41])
    C = nw.wavelet_coefficients(A, at, [("heat", 2.0), ("mexican_hat", 1.5)], 14)
    np.testing.assert_allclose(C[:, 0], expm(-2 * L)[:, at], atol=1e-4)
    np.testing.assert_allclose(C[:, 1], (1.5 * L @ expm(np.eye(80) - 1.5 * L))[:, at], atol=1e-4)


def test_walks_meet_as_often_as_the_published_probabilities_say():
    """Steps of second order (Grover and Leskovec), by loops; each node is a start."""
    _, A = nw.adjacency(planted(12, 1, inside=0.5, seed=3)[0])
    W, p, q, walks = A.toarray(), 0.25, 4.0, 6000
    then = np.zeros((12, 12, 12))  # of the next node, given the last two
    for last, here in zip(*W.nonzero(), strict=True):
        alpha = np.where(W[last] > 0, 1.0, 1 / q)
        alpha[last] = 1 / p
        then[last, here] = alpha * W[here] / (alpha * W[here]).sum()
    two, want = W / W.sum(axis=1, keepdims=True), np.zeros((12, 12))
    for _ in range(2):  # walks of 4 nodes hold two runs of three
        three = two[:, :, None] * then
        want += two + three.sum(axis=1)
        two = three.sum(axis=0)
    want += two  # the last pair of neighbours
    got = nw.cooccurrence(A, walks=walks, length=4, window=2, p=p, q=q, seed=0).toarray() / walks
    np.testing.assert_allclose(got, want + want.T, atol=0.08)
    counts = np.array([[0, 6, 1], [6, 0, 2], [1, 2, 4.0]])
    with np.errstate(divide="ignore"):
        expected = counts.sum(axis=1)[:, None] * counts.sum(axis=0) / counts.sum()
        mutual = np.log(counts / expected).clip(0)  # its positive part
    np.testing.assert_allclose(nw.mutual_information(sp.csr_matrix(counts)).toarray(), mutual)
