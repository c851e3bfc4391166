"""How noise falls with the number of cells."""

import numpy as np
import pandas as pd
from anndata import AnnData
from joblib import Parallel, delayed

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.score.ceiling.ceiling import distances
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.halves import Halves
from perturbcore.score.ceiling.sampler import LineSampler, check_choices, child

SUBSAMPLE = 2**20  # keeps these streams apart from those of the outer trials


def ceiling_by_cells(
    screen: AnnData,
    sizes,
    *,
    n_outer: int = 10,
    n_inner: int = 10,
    seed: int = 5050,
    truth: AnnData | None = None,
    n_splits: int = 0,
    resample=("batches", "cells"),
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Median L2 error of effects from subsamples of each perturbation's cells, global control.

    `sizes`: cells per perturbation and line, drawn without replacement over its batches; controls
    are never subsampled. Every size uses the same perturbations: those with at least the largest
    number. `truth`: responses with the true effects, where they are known: adds the error that the
    bootstrap estimates. `n_splits`: disjoint halves of batches that the noise floor of each
    subsample is estimated from.

    Returns dataset, cell_line, perturbation, cells, estimate ("bootstrap", "true", "noise_floor"),
    value, n_batches.
    """
    check_choices(n_outer=n_outer, n_inner=n_inner, resample=resample)
    sizes = sorted({int(s) for s in np.atleast_1d(sizes)})
    if not sizes or sizes[0] < 1:
        raise ParameterError(f"sizes={sizes}: give whole numbers from 1")
    cells = Cells.of(screen)
    options = dict(n_outer=n_outer, n_inner=n_inner, seed=seed, resample=resample)
    work = []
    for line in cells.lines():
        sampler = LineSampler(cells, line, control="global", batches="all", **options)
        halves = Halves(sampler, "batches", n_splits) if n_splits else None
        _ = sampler.shared  # made once, before threads ask for it
        for name, groups in sampler.perturbed.items():
            if sum(map(len, groups.values())) >= sizes[-1]:
                known = _true_effect(truth, screen.var_names, f"{line}|{name}")
                work.append((sampler, halves, name, sizes, known))
    if not work:
        raise InputError(
            f"no perturbation has {sizes[-1]} cells in a cell line; choose smaller sizes"
        )
    results = Parallel(n_jobs, backend="threading")(delayed(_curve)(*item) for item in work)
    columns = ["cell_line", "perturbation", "cells", "estimate", "value", "n_batches"]
    table = pd.DataFrame([row for rows in results for row in rows], columns=columns)
    table.insert(0, "dataset", cells.dataset)
    return table


def subsample(groups, size, stream) -> dict:
    """Draw cells without replacement over all batches (batch -> rows); empty ones are left out."""
    rows = np.concatenate(list(groups.values()))
    batch = np.repeat(np.arange(len(groups)), [len(r) for r in groups.values()])
    chosen = np.sort(np.random.default_rng(stream).choice(len(rows), size=size, replace=False))
    parts = {name: rows[chosen[batch[chosen] == i]] for i, name in enumerate(groups)}
    return {name: part for name, part in parts.items() if len(part)}


def _curve(sampler, halves, name, sizes, known) -> list[tuple]:
    out = []
    for size in sizes:
        stream = child(sampler.stream(name), SUBSAMPLE, size, 0)
        groups = subsample(sampler.perturbed[name], size, stream)
        effects = sampler.effects(name, groups, child(stream, 0))
        found = {"bootstrap": np.median(distances(effects[1:], effects[0], ["L2"])["L2"])}
        if known is not None:
            found["true"] = distances(effects[0], known, ["L2"])["L2"][0]
        if halves is not None:
            found["noise_floor"] = halves.errors(name, groups, child(stream, 1))["L2"]
        out += [(sampler.line, name, size, *row, len(groups)) for row in found.items()]
    return out


def _true_effect(truth: AnnData | None, genes, row: str) -> np.ndarray | None:
    if truth is None:
        return None
    if row not in truth.obs_names or not genes.isin(truth.var_names).all():
        raise InputError(
            f"the truth lacks row '{row}', or a gene of the screen: its rows are named "
            "cell_line|perturbation, its columns as the screen's var_names"
        )
    return np.asarray(truth[row, genes].X, dtype=np.float64)
