"""Generative decoders: what a training step and a generated cell cost, side by side.

Each row compares two ways to the same end on the same data: the small network against the published
transformer, few deterministic diffusion steps against all of them, one call for many cells against
a loop over cells, pairs drawn by index against drawing them one by one, assignment against general
optimal transport. On a machine with a GPU the network rows are repeated there. Run

    python benchmarks/bench_decoders.py [--small] [--out rows.json]
"""

import argparse
import json
import time

import numpy as np
import ot
import pandas as pd
import scipy.sparse as sp
import torch

from perturbcore.models.decoders.model import Decoder, DecoderLearner, Pairs, TrainingCells, couple
from perturbcore.models.decoders.options import preset

N_CONDITION = 64
METHODS = ("diffusion", "flow", "bridge")
NAMES = [f"p{i}" for i in range(8)]


def timed(work, device="cpu", least=0.5):
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

    return timed(step, device)


def steps(row, sizes, batch, devices):
    for device in devices:
        for n_latent in sizes:
            for method in METHODS:
                mlp, dit = (
                    trained_step(preset(size, method), n_latent, batch, device)
                    for size in ("laptop", "published")
                )
                task = f"training step, {method}, {n_latent} components, {batch} cells, {device}"
                row(task, mlp, dit, "MLP (laptop)", "transformer (published)")


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


def diffusion(row, counts):
    samplers = [small_decoder("diffusion", sampler=s, steps=50) for s in ("ddim", "ddpm")]
    for n in counts:
        index = np.zeros(n, dtype=int)
        fast, slow = (seconds_of(d, cells(n), index)[0] for d in samplers)
        row(f"sampling, diffusion, {n} cells", fast, slow, "DDIM, 50 steps", "DDPM, 1000 steps")


def together(row, counts):
    for method in ("flow", "bridge"):
        decoder = small_decoder(method)
        for n in counts:
            source, index, one = cells(n), np.arange(n) % 8, np.zeros(1, dtype=int)
            fast, a = seconds_of(decoder, source, index)
            alone = [seconds_of(decoder, source[i], one, [NAMES[index[i]]]) for i in range(n)]
            slow, b = sum(s for s, _ in alone), np.concatenate([made for _, made in alone])
            # the bridge draws other noise for each call: only the flow can agree cell by cell
            agreement = float(np.abs(a - b).max()) if method == "flow" else None
            what = ("one call", "a call for each cell")
            row(f"sampling, {method}, {n} cells", fast, slow, *what, agreement)


def drawing(row, n, batch):
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
    fast, slow = timed(lambda: pairs.make(index, rng)), timed(one_by_one)
    row(f"drawing {batch} pairs of {n} cells", fast, slow, "by index", "one by one")


def couplings(row, groups, sizes):
    for size in sizes:
        rng = np.random.default_rng(0)
        source, target = (torch.from_numpy(rng.normal(size=(groups, size, 50))) for _ in range(2))
        even = np.full(size, 1 / size)

        def transport(source=source, target=target, even=even):
            costs = [ot.dist(t, s) for s, t in zip(source.numpy(), target.numpy(), strict=True)]
            return costs, [ot.emd(even, even, c) for c in costs]

        costs, plans = transport()
        partner = couple(source, target).numpy()
        ours = [c[np.arange(size), p].mean() for c, p in zip(costs, partner, strict=True)]
        theirs = [(c * plan).sum() for c, plan in zip(costs, plans, strict=True)]
        fast, slow = timed(lambda s=source, t=target: couple(s, t)), timed(transport)
        agreement = float(np.abs(np.subtract(ours, theirs)).max())
        row(
            f"optimal coupling, {groups} groups of {size}",
            fast,
            slow,
            "assignment",
            "POT emd",
            agreement,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--out", help="write the rows to this JSON file")
    options = parser.parse_args()
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []

    def row(task, ours, baseline, what, against, agreement=None):
        found = {"task": task, "ours": what, "baseline": against, "ours_seconds": round(ours, 6)}
        found |= {"baseline_seconds": round(baseline, 6), "ratio": round(baseline / ours, 1)}
        rows.append(found | {"agreement": agreement, "threads": torch.get_num_threads()})
        print(rows[-1], flush=True)

    small = options.small
    drawing(row, 20_000 if small else 200_000, 256)
    couplings(row, 16, (16,) if small else (16, 64))
    steps(row, (50,) if small else (50, 128), 32 if small else 256, devices)
    diffusion(row, (256,) if small else (256, 4096))
    together(row, (100,) if small else (100, 1000))
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
