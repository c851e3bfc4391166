"""Generative decoders: what a training step and a generated cell cost, side by side.

Each row compares two ways to the same end on the same data: the small network against the published
transformer, few deterministic diffusion steps against all of them, one call for many cells against
a loop over cells, pairs drawn by index against drawing them one by one, assignment against general
optimal transport. On a machine with a GPU the network rows are repeated there.
"""

import time

import numpy as np
import ot
import pandas as pd
import scipy.sparse as sp
import torch
from reporter import farthest, main, row

from perturbcore.models.decoders.backbones import preset
from perturbcore.models.decoders.model import Decoder, DecoderLearner, Pairs, TrainingCells, couple

N_CONDITION = 64
METHODS = ("diffusion", "flow", "bridge")
NAMES = [f"p{i}" for i in range(8)]


def mean_seconds(work, device="cpu", least=0.5):
    """Mean seconds of a call, the first one left out."""
    work()
    n, start = 0, time.perf_counter()
    while n < 2 or time.perf_counter() - start < least:
        work()
        n += 1
        if device == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - start) / n


def trained_step(options, n_latent, batch, device):
    """A training step on one fixed batch."""
    torch.manual_seed(0)
    learner = DecoderLearner(options, n_latent, N_CONDITION, 100).to(device)
    optimizer = learner.optimizer()
    data = [torch.randn(batch, n, device=device) for n in (n_latent, n_latent, N_CONDITION)]

    def step():
        optimizer.zero_grad()
        learner.loss(data)["loss"].backward()
        optimizer.step()

    return mean_seconds(step, device)


def step_row(method, n_latent, batch, device):
    small, published = (
        trained_step(preset(size, method), n_latent, batch, device)
        for size in ("laptop", "published")
    )
    task = f"training step, {method}, MLP, {n_latent} components, {batch} cells, {device}"
    return row(task, "transformer (published)", small, published)


def cells(n, seed=1):
    return sp.csr_matrix(np.random.default_rng(seed).normal(size=(n, 60)).astype(np.float32))


def small_decoder(method, n_cells=400, **changes):
    """A decoder on random cells, trained for a moment: sampling costs the same."""
    vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(8, N_CONDITION)), NAMES)
    quick = {"max_epochs": 2, "epoch_cells": 1024, "patience": None, "partners": "any"}
    o, batch = preset("laptop", method, **quick, **changes), np.zeros(n_cells)
    data = TrainingCells(
        cells(n_cells), cells(n_cells, 2), np.resize(NAMES, n_cells), vectors, batch, batch
    )
    return Decoder(o, 0).fit(data)


def seconds_of(decoder, source, index, names=NAMES):
    start = time.perf_counter()
    made = decoder.sample(source, index, names, 0)
    return time.perf_counter() - start, made


def diffusion(n):
    index = np.zeros(n, dtype=int)
    fast, slow = (
        seconds_of(small_decoder("diffusion", sampler=s, steps=50), cells(n), index)[0]
        for s in ("ddim", "ddpm")
    )
    return row(f"sampling, diffusion, {n} cells, DDIM, 50 steps", "DDPM, 1000 steps", fast, slow)


def together(method, n):
    decoder, source = small_decoder(method), cells(n)
    index, one = np.arange(n) % 8, np.zeros(1, dtype=int)
    fast, a = seconds_of(decoder, source, index)
    alone = [seconds_of(decoder, source[i], one, [NAMES[index[i]]]) for i in range(n)]
    slow, b = sum(s for s, _ in alone), np.concatenate([made for _, made in alone])
    # the bridge draws other noise for each call: only the flow can agree cell by cell
    apart = farthest(a, b) if method == "flow" else None
    return row(
        f"sampling, {method}, {n} cells in a call", "a call for each cell", fast, slow, apart
    )


def drawing(n, batch):
    rng = np.random.default_rng(0)
    n_perturbations = 300
    source, target = (rng.normal(size=(n, 50)).astype(np.float32) for _ in range(2))
    code = rng.integers(n_perturbations, size=n)
    vectors = rng.normal(size=(n_perturbations, N_CONDITION)).astype(np.float32)
    batches = np.zeros(n, dtype=int)
    pairs = Pairs(source, target, code, vectors, batches, batches, "independent")
    by_name = {p: np.flatnonzero(code == p) for p in range(n_perturbations)}

    def one_by_one():
        out = []
        for _ in range(batch):
            p = rng.integers(n_perturbations)
            out.append((source[rng.integers(n)], target[rng.choice(by_name[p])], vectors[p]))
        return [torch.from_numpy(np.stack(part)) for part in zip(*out, strict=True)]

    index = np.arange(batch)
    fast, slow = mean_seconds(lambda: pairs.make(index, rng)), mean_seconds(one_by_one)
    return row(f"drawing {batch} pairs of {n} cells by index", "one by one", fast, slow)


def coupling(groups, size):
    rng = np.random.default_rng(0)
    source, target = (torch.from_numpy(rng.normal(size=(groups, size, 50))) for _ in range(2))
    even = np.full(size, 1 / size)

    def transport():
        costs = [ot.dist(t, s) for s, t in zip(source.numpy(), target.numpy(), strict=True)]
        return costs, [ot.emd(even, even, c) for c in costs]

    costs, plans = transport()
    partner = couple(source, target).numpy()
    ours = [c[np.arange(size), p].mean() for c, p in zip(costs, partner, strict=True)]
    theirs = [(c * plan).sum() for c, plan in zip(costs, plans, strict=True)]
    fast, slow = mean_seconds(lambda: couple(source, target)), mean_seconds(transport)
    task = f"optimal coupling by assignment, {groups} groups of {size}"
    return row(task, "POT emd", fast, slow, farthest(ours, theirs))


def cases(options):
    """Yield the rows."""
    small = options.small
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    yield drawing(20_000 if small else 200_000, 256)
    for size in (16,) if small else (16, 64):
        yield coupling(16, size)
    for device in [options.device] if options.device else devices:
        for n_latent in (50,) if small else (50, 128):
            for method in METHODS:
                yield step_row(method, n_latent, 32 if small else 256, device)
    for n in (256,) if small else (256, 4096):
        yield diffusion(n)
    for method in ("flow", "bridge"):
        for n in (100,) if small else (100, 1000):
            yield together(method, n)


if __name__ == "__main__":
    main(__doc__, cases)
