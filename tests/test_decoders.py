"""Decoders where the answer is known: Gaussians, modes, oracles, couplings; what is refused."""

import numpy as np
import ot
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import ParameterError
from perturbcore.models.decoders import model as model_module
from perturbcore.models.decoders.backbones import MLP, DecoderOptions, DiT, preset
from perturbcore.models.decoders.cells import Latent
from perturbcore.models.decoders.model import Decoder, Pairs, TrainingCells, couple
from perturbcore.models.decoders.processes import Bridge, Diffusion, Flow

L = 3
TINY = {
    "n_components": L, "scaling": "global", "backbone": "mlp", "width": 48, "depth": 2, "frequencies": 16,
    "time_scale": 1000.0, "dropout": 0.0, "batch_size": 256, "patience": None, "max_epochs": 4,
    "epoch_cells": 256 * 65, "ema": 0.9, "ema_every": 5, "learning_rate": 5e-3, "schedule": "cosine",
}  # fmt: skip
KINDS = {
    "diffusion": {"sampler": "ddim", "steps": 40, "targets": "bounded"},
    "flow": {"steps": 20},
    "bridge": {"steps": 40, "sigma": 0.5, "last_noise": False, "targets": "bounded"},
}
MIX = np.array([[1, 0.6, 0], [0, 0.8, -0.3], [0, 0, 0.5]])
SHIFT = np.array([1.5, -1.0, 0.5])
WAYS = ["gaussian", "modes", "identity"]


def options(method, **changes):
    return DecoderOptions(method=method, **{**TINY, **KINDS[method], **changes})


def quick(method="flow", **changes):
    """Options of a training that only has to run."""
    small = {"width": 16, "batch_size": 32, "epoch_cells": 64, "max_epochs": 4}
    return options(method, **{**small, "validation_batches": 2, **changes})


def csr(cells):
    return sp.csr_matrix(np.asarray(cells, dtype=np.float32))


def fitted(o, source, target, labels, vectors, validation=0.1, batches=None, **more):
    """Fit on dense cells; without `batches` of both all come from one."""
    b0, b1 = batches or (np.zeros(len(source)), np.zeros(len(target)))
    data = TrainingCells(csr(source), csr(target), np.asarray(labels), vectors, b0, b1, **more)
    return Decoder(o, validation).fit(data)


def drawn_from(decoder, source, names, index=None, seed=0):
    index = np.zeros(len(source), dtype=int) if index is None else index
    return decoder.sample(csr(source), index, names, seed)


# the seed that sets the perturbation "modes" apart, of the three ways
MODES = next(s for s in range(99) if np.random.default_rng([s, 7]).choice(3, 1)[0] == 2)


def screen(rng, n=900):
    source = rng.normal(size=(n, L))
    modes = np.where(rng.random((n, 1)) < 0.5, -2, 2) * np.array([1, 0.5, 0])
    modes = modes + 0.3 * rng.normal(size=(n, L))
    cells = [rng.normal(size=(n, L)) @ MIX.T + SHIFT, modes, rng.normal(size=(n, L))]
    vectors = pd.DataFrame(np.eye(3), index=WAYS)
    return source, np.concatenate(cells), np.repeat(WAYS, n), vectors


@pytest.fixture(scope="module", params=list(KINDS))
def decoded(request):
    """Cells that each kind of decoder, fitted once, makes of new control cells."""
    rng = np.random.default_rng(0)
    source, target, labels, vectors = screen(rng)
    decoder = fitted(options(request.param), source, target, labels, vectors, validation=0)
    new = rng.normal(size=(1500, L))
    cells = drawn_from(decoder, np.tile(new, (3, 1)), WAYS, np.repeat([0, 1, 2], 1500), seed=3)
    return request.param, new, dict(zip(WAYS, cells.reshape(3, 1500, L), strict=True))


def test_gaussians_modes_and_an_identity_are_drawn_as_planted(decoded):
    method, new, cells = decoded
    found = cells["gaussian"]
    assert np.abs(found.mean(axis=0) - SHIFT).max() < 0.2
    assert np.abs(np.cov(found.T) - MIX @ MIX.T).max() < 0.35
    # the correlation is not there by chance: that of the controls is zero
    assert np.corrcoef(found.T)[0, 1] > 0.4
    assert np.sqrt(np.mean((found - new) ** 2)) > 0.8
    found = cells["modes"]
    upper = found[:, 0] > 0
    assert 0.35 < upper.mean() < 0.65
    assert np.mean(np.abs(found[:, 0]) < 0.7) < 0.12
    for side, sign in ((upper, 1), (~upper, -1)):
        assert np.abs(np.median(found[side], axis=0) - sign * np.array([2, 1, 0])).max() < 0.3
    found = cells["identity"]
    assert np.abs(found.mean(axis=0)).max() < 0.2 and np.abs(found.std(axis=0) - 1).max() < 0.2
    # the flow keeps the cells themselves, the others their distribution
    moved = np.sqrt(np.mean((found - new) ** 2))
    assert moved < 0.3 if method == "flow" else moved > 0.3


class Oracle(torch.nn.Module):
    """Answers in closed form where a network would be trained."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, time, condition):
        return self.answer(x, time)


def normals(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn((n, L), generator=generator)


@pytest.mark.parametrize("targets", ["published", "bounded"])
def test_a_sampler_without_noise_draws_the_gaussian_of_a_perfect_network(targets):
    mean, deviation = torch.tensor([0.5, -0.3, 0.0]), torch.tensor([0.2, 0.4, 0.1])
    process = Diffusion(options("diffusion", targets=targets, sampler="ddim", steps=200))

    def answer(x, time):
        signal, noised = process.signal[time.long()].float()[:, None], x[:, 0]
        gain = signal.sqrt() * deviation**2 / (signal * deviation**2 + 1 - signal)
        clean = mean + gain * (noised - signal.sqrt() * mean)
        noise = (noised - signal.sqrt() * clean) / (1 - signal).sqrt()
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        return (noise if targets == "published" else velocity)[:, None]

    edge, zero = torch.full((L,), 9.0), torch.zeros(4000, L)
    drawn = process.sample(Oracle(answer), zero, zero[:, :1], normals(4000), -edge, edge)
    assert torch.allclose(drawn.mean(dim=0), mean, atol=0.03)
    assert torch.allclose(drawn.std(dim=0), deviation, rtol=0.1)


def test_predicted_cells_stay_in_the_range_of_training():
    process = Diffusion(options("diffusion", targets="published", steps=10))
    wild = Oracle(lambda x, time: -50 * torch.ones_like(x[:, :1]))
    high, zero = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(8, L)
    drawn = process.sample(wild, zero, zero[:, :1], normals(8), -high, high)
    assert torch.allclose(drawn, high.expand(8, L))


@pytest.mark.parametrize("targets", ["published", "bounded"])
def test_each_ddpm_step_draws_from_the_posterior_of_the_step_before(targets):
    """Ho et al. 2020, Eq. 6 and 7: mean and variance of x[t-1] given x[t] and the clean cell."""
    steps, clean = 5, torch.tensor([0.5, -0.3, 0.2])
    process = Diffusion(
        options("diffusion", sampler="ddpm", timesteps=steps, steps=steps, targets=targets)
    )
    share = process.signal
    t = np.arange(steps + 1) / steps  # Nichol & Dhariwal 2021, Eq. 17, largest step 0.999
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(share[:-1], (f / f[0])[1:-1], rtol=1e-6)
    assert np.isclose(share[-1] / share[-2], 1 - 0.999)
    seen, drawn = [], []

    def truth(x, time):
        seen.append(x[:, 0])
        at = share[time.long()][:, None]
        noise = (x[:, 0] - at.sqrt() * clean) / (1 - at).sqrt()
        velocity = at.sqrt() * noise - (1 - at).sqrt() * clean
        return (noise if targets == "published" else velocity).float()[:, None]

    def noise():
        drawn.append(torch.randn(4, L, generator=torch.Generator().manual_seed(len(drawn))))
        return drawn[-1]

    edge, zero = torch.full((L,), 9.0), torch.zeros(4, L)
    end = process.sample(Oracle(truth), zero, zero[:, :1], noise, -edge, edge)
    assert len(seen) == len(drawn) == steps
    for i, t in enumerate(range(steps - 1, 0, -1)):
        beta = 1 - share[t] / share[t - 1]
        mean = share[t - 1].sqrt() * beta * clean + (1 - beta).sqrt() * (1 - share[t - 1]) * seen[i]
        variance = (1 - share[t - 1]) / (1 - share[t]) * beta
        expected = mean / (1 - share[t]) + variance.sqrt() * drawn[i + 1]
        torch.testing.assert_close(seen[i + 1], expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(end, clean.expand(4, L), atol=1e-5, rtol=1e-5)


def test_flow_follows_a_known_field():
    # dx/dt = -2 x has the solution x exp(-2)
    start = torch.randn(50, L)
    field = Oracle(lambda x, time: -2 * x)
    end = Flow(options("flow")).sample(field, start, torch.zeros(50, 1), None, None, None)
    assert torch.allclose(end, start * np.exp(-2), atol=2e-3)


@pytest.mark.parametrize("targets", ["published", "bounded"])
def test_bridge_reaches_the_targets_of_a_perfect_network(targets):
    # from N(0, 1) to N(3, 0.25) by independent pairs: everything is Gaussian, so conditional means
    # are linear
    sigma, mean, deviation = 0.7, 3.0, 0.5
    process = Bridge(options("bridge", targets=targets, sigma=sigma, steps=200))

    def answer(x, time):
        t = (time / 1000)[:, None]
        spread = (t * (1 - t)).sqrt()
        variance = (1 - t) ** 2 + t**2 * deviation**2 + sigma**2 * spread**2
        away = (x[:, 0] - t * mean) / variance
        velocity = mean + (t * deviation**2 - (1 - t)) * away
        noise = sigma * spread * away
        if targets == "published":
            inside = spread.clamp(min=1e-6)
            velocity = velocity + (1 - 2 * t) / (2 * inside) * sigma * noise
            noise = -sigma / (2 * inside) * noise
        return torch.stack([velocity, noise], dim=1)

    start, zero = torch.randn(6000, L), torch.zeros(6000, 1)
    drawn = process.sample(Oracle(answer), start, zero, normals(6000), None, None)
    assert torch.allclose(drawn.mean(dim=0), torch.full((L,), mean), atol=0.04)
    assert torch.allclose(drawn.std(dim=0), torch.full((L,), deviation), atol=0.04)


def test_losses_are_least_at_the_truth():
    rng = torch.Generator().manual_seed(0)
    source, target, noise = (torch.randn((400, L), generator=rng) for _ in range(3))
    time, condition = torch.rand(400, generator=rng), torch.zeros(400, 1)
    t = time[:, None]
    spread = (t * (1 - t)).sqrt()
    velocity = target - source + (1 - 2 * t) / (2 * spread) * 0.5 * noise
    score = -0.5 / (2 * spread) * noise
    truths = {
        Flow: ("flow", (target - source)[:, None]),
        Bridge: ("bridge", torch.stack([velocity, score], dim=1)),
        Diffusion: ("diffusion", noise[:, None]),
    }
    for process, (method, truth) in truths.items():
        at = process(options(method, targets="published"))
        right, wrong = (
            at.loss(Oracle(lambda x, time, out=o: out), source, target, condition, time, noise)
            for o in (truth, truth + 0.1)
        )
        assert right < 1e-4 and wrong > 0.005


def test_source_cell_is_seen_only_where_asked():
    seen = []
    watch = Oracle(lambda x, time: seen.append(x[:, 1].abs().max().item()) or x[:, :1])
    source = torch.full((4, L), 5.0)
    for shown in (True, False):
        process = Diffusion(options("diffusion", source=shown, steps=2))
        zero, edge = torch.zeros(4, L), torch.ones(L)
        process.loss(watch, source, zero, zero[:, :1], torch.rand(4), torch.randn(4, L))
        process.sample(watch, source, zero[:, :1], normals(4), -edge, edge)
    assert seen == [5.0] * 3 + [0.0] * 3


def conditioned(vectors, shifts, n_seen, seed=0):
    """Mean shift that a flow predicts for new perturbations after seeing the first `n_seen`."""
    rng = np.random.default_rng(seed)
    names, each = np.array([f"p{i:02d}" for i in range(len(vectors))]), 40
    source = rng.normal(size=(500, L))
    target = rng.normal(size=(n_seen * each, L)) + np.repeat(shifts[:n_seen], each, axis=0)
    o = options("flow", embedding_scaling="global", epoch_cells=256 * 30, coupling="perturbation")
    labels = np.repeat(names[:n_seen], each)
    decoder = fitted(o, source, target, labels, pd.DataFrame(vectors, names), validation=0)
    asked, new = names[n_seen:], rng.normal(size=(200, L))
    index = np.repeat(np.arange(len(asked)), 200)
    cells = drawn_from(decoder, np.tile(new, (len(asked), 1)), asked, index)
    return cells.reshape(-1, 200, L).mean(axis=1) - new.mean(axis=0)


def test_conditioning_matters_and_shuffled_embeddings_do_no_better_than_the_mean():
    rng = np.random.default_rng(1)
    vectors = rng.uniform(-1, 1, size=(50, 2))
    shifts = 2 * np.stack([vectors[:, 0], vectors[:, 1], vectors.sum(axis=1)], axis=1)
    true, shuffled = (
        np.linalg.norm(conditioned(v, shifts, 40) - shifts[40:], axis=1).mean()
        for v in (vectors, rng.permutation(vectors))
    )
    floor = np.linalg.norm(shifts[:40].mean(axis=0) - shifts[40:], axis=1).mean()
    assert true < 0.4 * floor and shuffled > 0.8 * floor


def test_cells_of_validation_perturbations_are_never_trained_on():
    source, target, labels, vectors = screen(np.random.default_rng(2), n=60)
    poisoned = target.copy()
    poisoned[labels == "modes"] = 1e3
    a, b = (
        fitted(quick(), source, cells, labels, vectors, validation=0.3, seed=MODES)
        for cells in (target, poisoned)
    )
    np.testing.assert_array_equal(a.latent.loadings, b.latent.loadings)
    np.testing.assert_array_equal(a.latent.low, b.latent.low)
    np.testing.assert_array_equal(a.history["train_loss"], b.history["train_loss"])
    assert b.history["val"].min() > 1e3 * a.history["val"].max()
    assert a.validation == ["modes"]
    assert a.chosen == f"epoch {a.history['val'].idxmin() + 1} of 4"


def test_one_call_for_many_perturbations_equals_a_call_for_each_cell(monkeypatch):
    source, target, labels, vectors = screen(np.random.default_rng(4), n=50)
    decoder = fitted(quick(residual="centred"), source, target, labels, vectors)
    index, cells = np.arange(12) % 3, source[:12]
    together = drawn_from(decoder, cells, WAYS, index)
    alone = [drawn_from(decoder, cells[[i]], [WAYS[index[i]]]) for i in range(12)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    monkeypatch.setitem(model_module.CHUNK, "mlp", 5)
    np.testing.assert_allclose(drawn_from(decoder, cells, WAYS, index), together, atol=1e-5)


@pytest.mark.parametrize("method", ["flow", "bridge"])
def test_same_seed_same_cells_and_a_finished_training_is_loaded(tmp_path, monkeypatch, method):
    source, target, labels, vectors = screen(np.random.default_rng(6), n=50)

    def cells(folder, seed=0):
        decoder = fitted(quick(method), source, target, labels, vectors, folder=folder)
        return drawn_from(decoder, source, WAYS[:1], seed=seed)

    whole = cells(None)
    np.testing.assert_array_equal(cells(tmp_path), whole)
    monkeypatch.setattr(Pairs, "make", lambda self, index, rng: 1 / 0)
    np.testing.assert_array_equal(cells(tmp_path), whole)
    # a flow draws no noise
    assert (method == "flow") == np.array_equal(cells(tmp_path, seed=1), whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0.9}, "holds all 3"),
        ({"validation": 1.5}, "a share from 0"),
        ({"patience": 2, "validation": 0}, "needs validation"),
        ({"n_components": 9}, "n_components=9"),
        ({"backbone": "unet"}, "backbone='unet'.*'dit' or 'mlp'"),
        ({"width": 30, "backbone": "dit"}, "multiple"),
        ({"dropout": 1.0}, "dropout"),
        ({"coupling": "perturbation", "batch_size": 7}, "multiple of 16"),
        ({"partners": "same_batch", "coupling": "batch"}, "undoes"),
        ({"learning_rate": 0}, "learning_rate=0.*greater than 0"),
        ({"colour": 3}, "unknown key colour; known are method"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    share = changes.pop("validation", 0.1)
    with pytest.raises(ParameterError, match=message):
        fitted(quick(**changes), *screen(np.random.default_rng(7), n=20), validation=share)
    with pytest.raises(ParameterError, match="preset 'huge' is not one of: published, laptop"):
        preset("huge", "flow")


@pytest.mark.parametrize("method", KINDS)
def test_a_constant_gene_and_a_perturbation_with_one_cell_are_no_trouble(method):
    rng = np.random.default_rng(8)
    source, target, labels, vectors = screen(rng, n=40)
    source, target = (
        np.column_stack([x, np.full(len(x), 0.25), np.zeros(len(x))]) for x in (source, target)
    )
    keep = (labels != "modes") | (np.cumsum(labels == "modes") == 1)
    batches = np.tile(["a", "b"], 20), np.resize(["a", "b", "c"], keep.sum())
    o = quick(method, coupling="perturbation", partners="same_batch")
    decoder = fitted(o, source, target[keep], labels[keep], vectors, batches=batches)
    cells = drawn_from(decoder, source, ["modes"])
    assert np.isfinite(cells).all()
    np.testing.assert_allclose(cells[:, 3], 0.25, atol=1e-6)
    np.testing.assert_allclose(cells[:, 4], 0, atol=1e-6)
    assert decoder.history["train_loss"].notna().all()


@pytest.mark.parametrize("scaling", ["minmax", "global"])
def test_latent_is_scaler_and_pca(scaling):
    rng = np.random.default_rng(9)
    cells = rng.normal(size=(80, 4)) @ rng.normal(size=(4, 12)) + 0.3 * rng.normal(size=(80, 12))
    cells = np.maximum(cells, 0)
    cells[:, 5] = 0.7
    new = np.maximum(rng.normal(size=(7, 12)), 0)
    scaler = StandardScaler().fit(cells)
    pca = PCA(4).fit(scaler.transform(cells))
    expected = scaler.inverse_transform(pca.inverse_transform(pca.transform(scaler.transform(new))))
    expected[:, 5] = 0.7
    latent = Latent(4, scaling).fit(csr(cells))
    z = latent.transform(new)
    np.testing.assert_allclose(z, latent.transform(csr(new)), atol=1e-5)
    np.testing.assert_allclose(latent.inverse(z), expected, atol=1e-4)
    np.testing.assert_allclose(latent.shift(z[1:] - z[0]), expected[1:] - expected[0], atol=1e-4)
    own = latent.transform(cells)
    if scaling == "minmax":
        assert np.isclose(own.min(), -1, atol=1e-5) and np.isclose(own.max(), 1, atol=1e-5)
    else:
        assert np.isclose(own.var(axis=0).mean(), 1, atol=1e-4)
        assert (own >= latent.low - 1e-5).all() and (own <= latent.high + 1e-5).all()


def test_residual_says_what_of_the_unseen_part_of_a_cell_is_kept(monkeypatch):
    # a process that leaves control cells as they are
    monkeypatch.setattr(Flow, "sample", lambda self, network, source, *rest: source)
    source, target, labels, vectors = screen(np.random.default_rng(10), n=40)
    none, centred = (
        fitted(quick(n_components=2, residual=r), source, target, labels, vectors)
        for r in ("none", "centred")
    )
    z0 = none.latent.transform(source)
    none, made = none.latent.inverse(z0), drawn_from(centred, source, WAYS[:1])
    np.testing.assert_allclose(made.mean(axis=0), none.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(made.var(axis=0), source.var(axis=0), rtol=1e-4)
    assert (none.var(axis=0) < 0.9 * source.var(axis=0)).any()


def test_optimal_coupling_is_exact_transport():
    rng = np.random.default_rng(11)
    source, target = (torch.from_numpy(rng.normal(size=(3, 12, 4))) for _ in range(2))
    partner = couple(source, target)
    even = np.full(12, 1 / 12)
    for s, t, p in zip(source.numpy(), target.numpy(), partner.numpy(), strict=True):
        assert sorted(p) == list(range(12))
        cost = ((s[p] - t) ** 2).sum(axis=1).mean()
        np.testing.assert_allclose(cost, ot.emd2(even, even, ot.dist(t, s)))


def test_pairs_are_of_one_perturbation_and_where_asked_of_one_batch():
    rng = np.random.default_rng(13)
    n = 400
    code, batch = rng.integers(1, 4, size=n), rng.integers(0, 3, size=n)
    code[code == 3] = 2
    code[0] = 3  # one cell
    target = np.stack([code, batch, rng.normal(size=n)], axis=1).astype(np.float32)
    own = rng.integers(0, 2, size=60)  # batch 2 has no controls
    source = np.stack([np.zeros(60), own, rng.normal(size=60)], axis=1).astype(np.float32)
    vectors = np.arange(5, dtype=np.float32)[:, None]
    for coupling in ("independent", "perturbation"):
        pairs = Pairs(source, target, code, vectors, own, batch, coupling)
        drawn = [pairs.make(np.arange(256), rng) for _ in range(20)]
        s, t, v = (torch.cat(p).numpy() for p in zip(*drawn, strict=True))
        assert (t[:, 0] == v[:, 0]).all() and set(v[:, 0]) == {1, 2, 3}
        matched = t[:, 1] < 2
        assert (s[matched, 1] == t[matched, 1]).all() and set(s[~matched, 1]) == {0, 1}
        # each perturbation weighs the same, the one with a single cell too
        assert np.abs(np.bincount(v[:, 0].astype(int))[1:] / len(v) - 1 / 3).max() < 0.08


@pytest.mark.parametrize("backbone", ["mlp", "dit"])
def test_backbones_start_at_zero_and_learn_from_every_input(backbone):
    o = options("diffusion", backbone=backbone, width=16, heads=2, frequencies=8)
    torch.manual_seed(0)
    network = {"mlp": MLP, "dit": DiT}[backbone](o, 5, 4, 2, 1)
    x, time, condition = torch.randn(64, 2, 5), torch.rand(64), torch.randn(64, 4)
    assert network(x, time, condition).shape == (64, 1, 5)
    assert not network(x, time, condition).any()
    wanted = x[:, :1] * condition[:, :1, None] + x[:, 1:] * time[:, None, None]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (network(x, time, condition) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    network.eval()
    with torch.no_grad():
        here = network(x, time, condition)
        assert not torch.allclose(here, network(x, time + 0.5, condition))
        assert not torch.allclose(here, network(x, time, -condition))
        changed = x.clone()
        changed[:, 1] = 0
        assert not torch.allclose(here, network(changed, time, condition))


def test_published_sizes_are_those_of_the_protocol():
    diffusion, flow, bridge = (preset("published", m) for m in ("diffusion", "flow", "bridge"))
    for o in (diffusion, flow, bridge):
        assert (o.backbone, o.width, o.depth, o.heads, o.frequencies) == ("dit", 128, 4, 4, 256)
        assert (o.learning_rate, o.batch_size, o.max_epochs, o.patience) == (1e-3, 256, 100, 10)
        assert (o.ema, o.ema_every, o.scaling, o.n_components) == (0.995, 10, "minmax", 50)
        assert o.partners == "any" and o.residual == "none"
    assert not diffusion.source and diffusion.sampler == "ddpm"
    assert flow.steps == 20 and bridge.steps == 250 and bridge.coupling == "batch"
