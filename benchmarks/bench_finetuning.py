"""Pretraining and fine-tuning of the cell transformer: seconds per epoch.

Run: python benchmarks/bench_finetuning.py [--small] [--device cpu|gpu] [--out rows.json]
"""

import argparse
import json
import resource
import time

import numpy as np
import pandas as pd
import torch

from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.embeddings.cell_models.pretrain import pretrain
from perturbcore.embeddings.cell_models.tokens import ControlCells
from perturbcore.models.finetuning.cells import Indexing, InSilicoKO
from perturbcore.score.model import Fold

SIZES = dict(dim=32, heads=4, layers=1, latents=16)


def random_cells(n, g, seed=0):
    """Cells with ten planted factors; the time does not depend on what they say."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 10)) @ rng.normal(size=(10, g)) * 0.2 + rng.normal(size=(n, g)) + 3
    values = values.clip(0).astype(np.float32)
    genes = pd.Index([f"g{i}" for i in range(g)])
    return ControlCells(
        values,
        np.zeros(n, dtype=np.int64),
        values.mean(0)[None],
        values.std(0).clip(0.1)[None],
        ("line",),
        genes,
    )


def pretraining(n, g, device):
    """Seconds of the second epoch: the first one also warms up."""
    trained = pretrain(
        random_cells(n, g),
        epochs=2,
        asked=128,
        device=device,
        **SIZES,
    )
    seconds = float(np.diff(trained.history["seconds"])[-1])
    return {
        "what": "pretraining",
        "genes": g,
        "cells": n,
        "s_per_epoch": seconds,
    }


def forward(n, g):
    """Seconds to embed every gene of `n` cells, without gradients."""
    from perturbcore.embeddings.cell_models.cells import CellTransformer

    cells = random_cells(n, g)
    encoder = CellTransformer(cells.genes, cells.mean, cells.sd, **SIZES)
    values = torch.from_numpy(cells.values)
    with torch.no_grad():
        encoder(values[:2])
        start = time.perf_counter()
        for part in values.split(16):
            encoder(part)
    seconds = time.perf_counter() - start
    return {
        "what": "all genes of cells",
        "genes": g,
        "cells": n,
        "s": seconds,
    }


def tuning(kind, n_perturbations, g):
    """Seconds an epoch over perturbations, batch 8, validation included."""
    cells = random_cells(200, g)
    encoder = pretrain(cells, epochs=1, **SIZES).encoder
    model = kind(
        encoder, cells, hidden=(1024, 2048), name="CT", modality="Expression", lrs=(1e-3,),
        batch_sizes=(8,), epochs=3,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    names = cells.genes[rng.permutation(g)[: n_perturbations + 1]]
    obs = pd.DataFrame({"perturbation": names, "cell_line": "line"})
    Y = rng.normal(size=(len(names), g)).astype(np.float32)
    responses = make_responses(Y, obs, list(cells.genes), dataset="random")
    start = time.perf_counter()
    fold = Fold.of(add_folds(responses, 5), 0)
    model.fit(fold).predict(fold)
    seconds = (time.perf_counter() - start) / 3
    return {
        "what": model.predictor,
        "genes": g,
        "perturbations": len(names) - 1,
        "s_per_epoch": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--out")
    args = parser.parse_args()
    genes, cells = ([250, 500], 64) if args.small else ([250, 1000, 4000], 256)
    rows = []

    def report(row):
        row["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)

    for g in genes:
        report(pretraining(cells, g, args.device))
        report(forward(cells, g))
    for g in genes:
        for kind in (Indexing, InSilicoKO):
            report(tuning(kind, 64 if args.small else 240, g))
    if args.out:
        with open(args.out, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
