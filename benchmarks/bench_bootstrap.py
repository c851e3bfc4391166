"""Hierarchical bootstrap: weights of cells against copying the drawn cells.

Both sides get the same screen and the same draws. The baseline is what one writes first: draw
batches, draw cells, copy the drawn rows of the sparse matrix, average. Run

    python benchmarks/bench_bootstrap.py [--small] [--out rows.json]
"""

import argparse
import json
import time

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import pearsonr, spearmanr

from perturbcore.score.ceiling.ceiling import noise_ceiling
from perturbcore.score.ceiling.sampler import (
    CONTROL,
    PERTURBED,
    control_stream,
    drawn_batches,
    drawn_cells,
    perturbation_stream,
)

QUANTILES = (0.5, 0.9)
OUTER = INNER = 10


def make_screen(n_perturbations, genes, batches, cells, controls, density, seed=0):
    """Counts of about the density of single cells, unequal cells a perturbation."""
    rng = np.random.default_rng(seed)
    obs = []
    for p in range(n_perturbations):
        n = rng.integers(cells // 2, 2 * cells)
        obs += [(f"P{p:04d}", f"b{b:02d}", False) for b in rng.integers(batches, size=n)]
    obs += [("ctrl", f"b{b:02d}", True) for b in rng.integers(batches, size=controls)]
    obs = pd.DataFrame(obs, columns=["perturbation", "batch", "is_control"])
    obs["cell_line"] = "A"
    obs.index = obs.index.astype(str)
    counts = sp.random(len(obs), genes, density, format="csr", random_state=rng, dtype=np.float32)
    counts.data = 1 + rng.poisson(1.5, size=counts.nnz).astype(np.float32)
    screen = ad.AnnData(counts, obs=obs)
    screen.uns["perturbcore"] = {"scale": "counts", "dataset": "benchmark", "simulated": True}
    return screen


def gathered(x, groups, stream, kind, drawn):
    """Bootstrap means by copying cells, (1 + samples, genes)."""
    samples = [np.mean([np.asarray(x[r].mean(axis=0)).ravel() for r in groups], axis=0)]
    for trial in range(OUTER):
        means = np.zeros((INNER, x.shape[1]))
        for position, batch in enumerate(drawn[trial]):
            rows = groups[batch]
            cells = drawn_cells(len(rows), stream, trial, position, kind, INNER)
            for inner in range(INNER):
                means[inner] += np.asarray(x[rows[cells[inner]]].mean(axis=0)).ravel()
        samples.extend(means / len(groups))
    return np.array(samples)


def naive_ceiling(screen, control, metrics, names):
    """The table of values of `noise_ceiling`, by copying cells."""
    x = sp.csr_matrix(screen.X, dtype=np.float64)
    x = sp.diags(1e4 / np.asarray(x.sum(axis=1)).ravel()) @ x
    x.data = np.log1p(x.data)
    obs = screen.obs.reset_index(drop=True)

    def by_batch(mask):
        part = obs[mask]
        return {b: part.index[part["batch"] == b].to_numpy() for b in sorted(set(part["batch"]))}

    controls = by_batch(obs["is_control"])
    shared = 0
    if control == "global":
        stream = control_stream(5050)
        drawn = drawn_batches(len(controls), stream, OUTER)
        shared = gathered(x, list(controls.values()), stream, CONTROL, drawn)
    values = []
    for position, name in enumerate(sorted(set(obs.loc[~obs["is_control"], "perturbation"]))):
        if name not in names:
            continue
        groups = by_batch(obs["perturbation"] == name)
        stream = perturbation_stream(5050, position)
        drawn = drawn_batches(len(groups), stream, OUTER)
        effects = gathered(x, list(groups.values()), stream, PERTURBED, drawn) - shared
        if control == "matched":
            matched = [controls[b] for b in groups]
            effects -= gathered(x, matched, stream, CONTROL, drawn)
        samples, point = effects[1:], effects[0]
        found = {"L2": lambda s, p=point: np.linalg.norm(s - p)}
        found["MSE"] = lambda s, p=point: np.mean((s - p) ** 2)
        found["MAE"] = lambda s, p=point: np.mean(np.abs(s - p))
        found["Spearman"] = lambda s, p=point: spearmanr(s, p)[0]
        found["Pearson"] = lambda s, p=point: pearsonr(s, p)[0]
        columns = [np.quantile([found[m](s) for s in samples], QUANTILES) for m in metrics]
        values.append(np.stack(columns, axis=1).ravel())
    return np.concatenate(values)


def compare(task, screen, control, metrics, n_perturbations):
    """Time both sides on the same perturbations and compare every number."""
    names = sorted(set(screen.obs.loc[~screen.obs["is_control"], "perturbation"]))
    names = names[:n_perturbations]
    start = time.perf_counter()
    table = noise_ceiling(
        screen,
        control=control,
        metrics=metrics,
        quantiles=QUANTILES,
        perturbations=names,
        n_outer=OUTER,
        n_inner=INNER,
        progress=False,
    )
    ours = time.perf_counter() - start
    start = time.perf_counter()
    slow = naive_ceiling(screen, control, metrics, set(names))
    theirs = time.perf_counter() - start
    agreement = float(np.abs(table["value"].to_numpy() - slow).max())
    return {
        "task": task,
        "cells": int(screen.n_obs),
        "genes": int(screen.n_vars),
        "perturbations": len(names),
        "ours_seconds": round(ours, 3),
        "baseline_seconds": round(theirs, 3),
        "ratio": round(theirs / ours, 1),
        "agreement": agreement,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--out", help="write the rows to this JSON file")
    options = parser.parse_args()
    if options.small:
        shapes = {
            "simulated": (30, 500, 6, 60, 400, 0.3),
            "Essential": (20, 1500, 12, 100, 800, 0.3),
        }
        n = {"simulated": 20, "Essential": 8}
    else:
        shapes = {
            "simulated": (300, 1000, 12, 60, 1500, 0.3),
            "Essential": (60, 6640, 48, 150, 8000, 0.3),
        }
        n = {"simulated": 40, "Essential": 6}
    rows = []
    for kind, shape in shapes.items():
        screen = make_screen(*shape)
        every = ("L2", "MSE", "MAE", "Spearman", "Pearson")
        cases = [("global", ("L2",)), ("global", every), ("matched", ("L2",))]
        for control, metrics in cases:
            what = "L2" if len(metrics) == 1 else "five metrics"
            task = f"hierarchical bootstrap, {kind} size, {control} control, {what}"
            rows.append(compare(task, screen, control, metrics, n[kind]))
            print(rows[-1], flush=True)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
