"""Hierarchical bootstrap: weights of cells against copying the drawn cells.

Both sides get the same screen and the same draws. The baseline is what one writes first: draw
batches, draw cells, copy the drawn rows of the sparse matrix, average.
"""

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from reporter import farthest, main, row, timed
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
    """Counts of about the density of single cells, unequal cells per perturbation."""
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
    about = {"scale": "counts", "dataset": "benchmark", "simulated": True}
    screen.uns["perturbcore"] = about | {"identifier": "symbol", "unmatched": "keep"}
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
    how = dict(n_outer=OUTER, n_inner=INNER, quantiles=QUANTILES, metrics=metrics, progress=False)
    table, ours = timed(lambda: noise_ceiling(screen, control=control, perturbations=names, **how))
    slow, theirs = timed(lambda: naive_ceiling(screen, control, metrics, set(names)))
    size = f"{len(names)} perturbations, {screen.n_obs:,} cells x {screen.n_vars:,} genes"
    return row(f"{task}, {size}", "copying cells", ours, theirs, farthest(table["value"], slow))


def cases(options):
    """Yield the rows."""
    shapes = {
        "simulated": (40, (300, 1000, 12, 60, 1500, 0.3)),
        "Essential": (6, (60, 6640, 48, 150, 8000, 0.3)),
    }
    if options.small:
        shapes = {
            "simulated": (20, (30, 500, 6, 60, 400, 0.3)),
            "Essential": (8, (20, 1500, 12, 100, 800, 0.3)),
        }
    every = ("L2", "MSE", "MAE", "Spearman", "Pearson")
    for kind, (n, shape) in shapes.items():
        screen = make_screen(*shape)
        for control, metrics in (("global", ("L2",)), ("global", every), ("matched", ("L2",))):
            task = f"bootstrap, {kind} size, {control} control, {len(metrics)} metrics"
            yield compare(task, screen, control, metrics, n)


if __name__ == "__main__":
    main(__doc__, cases)
