"""What is trained without responses: WaveGC, GIN and the GenotypeVAE, against dense loops."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.polynomial.chebyshev import chebval
from torch_geometric.nn import GINConv
from toys import scores
from worlds import communities

from perturbcore.core.errors import InputError
from perturbcore.data import catalogue
from perturbcore.embeddings import gcn, network
from perturbcore.embeddings.network import adjacency, gnn_embedding, pretrained_network
from perturbcore.embeddings.sources import coessential_modules, regulons
from perturbcore.embeddings.vae import Autoencoder
from perturbcore.embeddings.words import genotype_vae, membership
from perturbcore.models.finetuning.graph import neighbourhood, read_nodes
from perturbcore.report.comparison import Comparison
from perturbcore.report.foundation import stand_ins_table


@pytest.fixture(scope="module")
def A():
    return adjacency(communities(80, 4)[0].drop(columns="weight"))[1]


def varied(module):
    """A module with random numbers for all that learns."""
    with torch.no_grad():
        for k, weight in enumerate(module.parameters()):
            weight.copy_(
                0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(k))
            )
    return module


def gelu(x):
    return torch.nn.functional.gelu(torch.as_tensor(x)).numpy()


def test_wavelets_are_functions_of_the_eigenvalues(A):
    """The layer against filters on an eigendecomposition, and its gradient against differences."""
    layer = varied(gcn.Wavelets(5)).double()
    M = gcn.normalised(A).astype(np.float64)
    values, U = np.linalg.eigh(np.eye(80) - M.toarray())
    assert values.min() > -1e-6 and values.max() < 2
    low, band, scale = (p.detach().numpy() for p in (layer.low, layer.band, layer.scale))

    def response(weights, first, at):  # the sum of weights (1 - T_i(at - 1)) / 2, i in steps of 2
        degrees = first + 2 * np.arange(len(weights))
        terms = [(1 - chebval(at - 1, np.eye(8)[i])) / 2 for i in degrees]
        return np.sum(weights[:, None] * terms, axis=0)

    filters = [response(low, 1, values)]
    filters += [response(band, 2, s * values) for s in 1 / (1 + np.exp(-scale))]
    np.testing.assert_allclose(layer.filters(torch.as_tensor(values)).detach(), filters, atol=1e-12)
    x = torch.randn(80, 5, dtype=torch.float64)
    want = np.tile(layer.bias.detach().numpy(), (80, 1))
    for f, weight in zip(filters, layer.weight.detach().numpy(), strict=True):
        want += U * f @ U.T @ gelu(U * f @ U.T @ x.numpy() @ weight)
    S = gcn.sparse_tensor(gcn.normalised(A)).to(torch.float64)
    np.testing.assert_allclose(layer(x, S).detach(), want, atol=1e-5)
    assert torch.autograd.gradcheck(lambda x: layer(x, S), (x.requires_grad_(),), fast_mode=True)
    # the band-passes say nothing of what is the same everywhere
    none = layer.filters(torch.zeros(1, dtype=torch.float64))
    assert none[0].item() == pytest.approx(low.sum()) and none[1:].abs().max() < 1e-12


def test_losses_by_loops(A):
    net = varied(gcn.GraphNetwork(80, 4, 2, 0.0, "wavelets"))
    S = gcn.sparse_tensor(net.matrix(A))
    z = net(S).detach().numpy().astype(np.float64)
    pairs = np.column_stack(sp.triu(A, 1).nonzero())[:12]
    batch = {"edges": torch.as_tensor(pairs).long(), "others": torch.as_tensor(pairs[:, ::-1] // 2)}
    link = np.mean([np.log1p(np.exp(-z[i] @ z[j])) for i, j in pairs])
    link += np.mean([np.log1p(np.exp(z[i] @ z[j])) for i, j in pairs[:, ::-1] // 2])
    unit, contrast = z / np.linalg.norm(z, axis=1, keepdims=True), 0.0
    for i, j in pairs:
        likeness = [np.exp(unit[i] @ unit[other] / 0.2) for _, other in pairs]
        contrast -= np.log(np.exp(unit[i] @ unit[j] / 0.2) / sum(likeness)) / len(pairs)
    for weight in (0.0, 0.7):
        got = gcn.LinkLearner(net, S, 1e-3, 0.0, weight).loss(batch)["loss"].item()
        assert got == pytest.approx(link + weight * contrast, rel=1e-5)


def test_isomorphism_layers_equal_torch_geometric_and_are_read_at_single_nodes(A):
    coo = A.tocoo()
    index = torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64))
    ours, x = gcn.Isomorphism(6), torch.randn(80, 6)
    theirs = GINConv(copy.deepcopy(ours.after))  # which draws its weights anew
    theirs.nn.load_state_dict(ours.after.state_dict())
    plain = sp.csr_matrix((A > 0).astype(float))
    got = ours(x, gcn.sparse_tensor(gcn.Isomorphism.matrix(plain)))
    torch.testing.assert_close(got, theirs(x, index), atol=1e-4, rtol=1e-4)
    net = varied(gcn.GraphNetwork(80, 6, 2, 0.0, "gin"))
    M, nodes = net.matrix(A), np.array([5, 60, 5])
    one = read_nodes(net, **neighbourhood(M, 2, nodes))
    torch.testing.assert_close(one, net(gcn.sparse_tensor(M))[torch.as_tensor(nodes)])


def test_the_search_takes_the_least_loss_of_held_out_edges(monkeypatch):
    edges = communities(120, 4)[0].drop(columns="weight")
    shared = dict(dim=8, max_epochs=4, batch_size=2000, seed=0)
    space = {"layer": ["gcn", "gin"], "lr": [1e-6, 3e-2]}
    monkeypatch.setattr(network, "PUBLISHED_SPACE", space)
    e = gnn_embedding(edges, name="E", trials=6, **shared)
    assert "best of 6 trials" in e.source
    kinds = [{"layer": a, "lr": b} for a in space["layer"] for b in space["lr"]]
    made = [pretrained_network(edges, **shared, **k)[0] for k in kinds]
    loss = {m.trained.history["val"].min(): m.vectors() for m in made}
    found = [v for v in loss.values() if np.array_equal(v, e.X)]
    assert found and np.array_equal(found[0], loss[min(loss)])


def planted_sets(n=300, k=5, per=12, seed=0):
    """Sets of one of k functions: a gene is in many of its function's, and in few others."""
    rng = np.random.default_rng(seed)
    function = np.arange(n) % k
    genes = np.array([f"G{i:03d}" for i in range(n)])
    chance = {f"S{c}.{j}": np.where(function == c, 0.5, 0.03) for c in range(k) for j in range(per)}
    return {s: genes[rng.random(n) < p].tolist() for s, p in chance.items()}, function


QUICK = dict(dim=4, hidden=32, smallest=5, lr=2e-2, batch_size=32, max_epochs=12)


def test_the_autoencoder_finds_planted_functions_of_genes():
    sets, function = planted_sets()
    e = genotype_vae(sets, name="E", **QUICK)
    centre = np.stack([e.X[function == c].mean(axis=0) for c in range(5)])
    near = ((e.X[:, None] - centre) ** 2).sum(axis=2).argmin(axis=1)
    assert (near == function).mean() > 0.9
    taken = float(e.source.split("it takes ")[1].split("%")[0])
    assert taken > 15 and "60 of 60 sets" in e.source
    assert genotype_vae(dict(reversed(sets.items())), name="E", **QUICK).digest == e.digest
    assert genotype_vae(sets, name="E", seed=1, **QUICK).digest != e.digest
    with pytest.raises(InputError, match="3 genes in sets are too few"):
        genotype_vae({"s": ["a", "b", "c"]}, name="E", smallest=2)


def test_the_loss_of_the_autoencoder_by_loops():
    sets, _ = planted_sets(40)
    _, X, _ = membership(sets, 2)
    model = varied(Autoencoder(np.full(X.shape[1], 0.1, np.float32), 3, 6, 1e-3)).eval()
    part = X[:7]
    batch = {
        "start": torch.as_tensor(part.indptr[:-1].astype(np.int64)),
        "row": torch.as_tensor(np.repeat(np.arange(7), np.diff(part.indptr))),
        "members": torch.as_tensor(part.indices.astype(np.int64)),
    }
    weight = {k: v.numpy().astype(np.float64) for k, v in model.state_dict().items()}
    missed, apart = [], []
    for row in part.toarray():
        hidden = np.maximum(row @ weight["first.weight"], 0)
        latent = weight["latent.weight"] @ hidden + weight["latent.bias"]
        mean, spread = latent[:3], np.clip(latent[3:], -10, 10)
        back = np.maximum(weight["back.0.weight"] @ mean + weight["back.0.bias"], 0)
        p = 1 / (1 + np.exp(-(weight["back.2.weight"] @ back + weight["back.2.bias"])))
        missed.append(-np.log(np.where(row > 0, p, 1 - p)).sum())
        apart.append((mean**2 + np.exp(spread) - 1 - spread).sum() / 2)
    got = model.loss(batch)
    assert got["missed"].item() == pytest.approx(np.mean(missed), rel=1e-5)
    assert got["loss"].item() == pytest.approx(np.mean(missed) + np.mean(apart), rel=1e-5)


def test_modules_and_regulons_of_the_real_files(mirror):
    modules = coessential_modules(catalogue.fetch("coessential_modules"))
    assert len(modules) == 1892 and modules["1"][:3] == ["A1BG", "BRSK1", "C19orf18"]
    assert modules["1892"][:3] == ["DOCK3", "NXPE2", "REM2"]
    assert len({g for genes in modules.values() for g in genes}) == 15374
    sets = regulons(catalogue.fetch("dorothea"))
    assert sum(map(len, sets.values())) == 29086  # of 454,504 pairs, those of confidence A to D
    assert {"CDKN1A", "MDM2"} <= set(sets["activated by TP53"])
    assert not any(set(genes) & set(sets["activated by TP53"]) for name, genes in sets.items()
                   if name == "repressed by TP53")  # fmt: skip


def test_trained_embeddings_are_held_against_their_stand_ins():
    c = Comparison(scores(), predictor="knn")
    pairs = {"good": "dull", "twin": "good", "dull": "good", "gone": "good"}
    found = stand_ins_table(c, pairs).set_index("method")["verdict"].to_dict()
    assert found == {"good": "better", "twin": "tie", "dull": "worse"}
    assert stand_ins_table(c, {"gone": "good"}).empty
