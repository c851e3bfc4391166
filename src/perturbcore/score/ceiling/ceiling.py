"""The noise ceiling: how far a repeated experiment would land from this one."""

from itertools import product

import numpy as np
import pandas as pd
from anndata import AnnData
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.distances import METRICS, check_metrics, distances
from perturbcore.score.ceiling.sampler import LineSampler, check_choices
from perturbcore.score.ceiling.store import Checkpoint

QUANTILES = (0.1, 0.2, 0.5, 0.8, 0.9, 0.99, 0.995)
COLUMNS = [
    "dataset",
    "cell_line",
    "perturbation",
    "quantile",
    "metric",
    "value",
    "n_cells",
    "n_batches",
]


def noise_ceiling(
    screen,
    *,
    control="global",
    n_outer=10,
    n_inner=10,
    quantiles=QUANTILES,
    seed=5050,
    metrics=METRICS,
    batches="all",
    perturbations=None,
    resample=("batches", "cells"),
    n_jobs=1,
    progress=True,
    checkpoint=None,
) -> pd.DataFrame:
    """Experimental error of every perturbation by a hierarchical bootstrap.

    Each outer trial draws batches with replacement; in each drawn batch each inner trial draws
    as many cells as there are, with replacement; cells are averaged within a drawn batch and
    drawn batches without weights. The effect computed from such a sample is compared with the
    effect computed from all cells.

    Parameters
    ----------
    screen : AnnData
        A declared screen, cells x genes, in memory or backed on disk.
    control : {"global", "matched"}
        "global": control batches and cells of the line are resampled once and shared by its
        perturbations; sample (outer, inner) of a perturbation is paired with sample (outer,
        inner) of the controls. "matched": in each drawn batch perturbed and control cells are
        resampled independently and subtracted.
    n_outer, n_inner : int
        Trials over batches, and over cells within them. The published chemical screens use
        10 x 20, all others 10 x 10.
    quantiles : sequence of float in [0, 1]
        Of the n_outer x n_inner samples; linear interpolation.
    seed : int
        Root of the random streams.
    metrics : sequence of str
        Out of L2, MSE, MAE, Spearman, Pearson, between sample and point estimate.
    batches : {"all", "with_controls"}
        Every batch with cells of the perturbation (the published code), or only those that have
        control cells too (the paper's Eq. 1).
    perturbations : sequence of str, optional
        Only these; the values of a perturbation do not depend on which others are asked for.
    resample : sequence out of "batches", "cells"
        Levels of the hierarchy at which to draw; the published bootstrap draws at both.
    n_jobs : int
        Threads; the values do not depend on it.
    progress : bool
        Whether to show a progress bar.
    checkpoint : path, optional
        A file that keeps finished perturbations, so that a killed run goes on where it was.

    Returns
    -------
    DataFrame
        dataset, cell_line, perturbation, quantile, metric, value, n_cells, n_batches.

    Raises
    ------
    ParameterError
        If a choice is unknown, or a perturbation asked for is not in the screen.
    InputError
        If the screen is not declared, or a perturbation has no usable cells.

    Notes
    -----
    Random streams are spawned from ``SeedSequence(seed)``, anew for each cell line: the controls
    first, then the line's perturbations in sorted order, below each its outer trials and drawn
    batches; batches are sorted as strings. Cells keep the order of the file: another order draws
    other cells, which moves a value by the Monte-Carlo error of the samples (about 2 % of the
    0.9 quantile of L2 with 100 samples).

    How the estimate relates to the true error: n cells with variance s^2 in B batches without
    batch effects have an effect with variance s^2 / n, but drawing at both levels gives
    s^2 / n ((B - 1) / B + (m - 1) / m) with m = n / B cells in a batch, because batch means
    differ by the noise of their cells, which is then drawn again. So where batches differ little
    the L2 error is overestimated, by up to sqrt(2); with large batch effects or a single batch
    it is not, and with few cells or batches it is underestimated. Global controls add to it: what
    a batch does to perturbed and control cells alike cancels in the effect, but not between
    batches drawn independently. :func:`perturbcore.score.ceiling.halves.split_half` counts
    nothing twice. `resample` = ("cells",) leaves out batch noise; ("batches",) has the cells'
    noise once but needs many batches.

    References
    ----------
    Cole et al. 2026, Methods 4.7.1, Eq. 12; effects by Eq. 4 to 6.
    """
    check_choices(
        control=control, batches=batches, n_outer=n_outer, n_inner=n_inner, resample=resample
    )
    metrics, quantiles = check_metrics(metrics), check_quantiles(quantiles)
    cells = Cells.from_screen(screen)
    options = dict(
        control=control,
        batches=batches,
        n_outer=int(n_outer),
        n_inner=int(n_inner),
        seed=seed,
        resample=sorted(resample),
    )
    return ceiling_of_cells(
        cells, options, metrics, quantiles, perturbations, n_jobs, progress, checkpoint
    )


def ceiling_of_cells(
    cells, options, metrics, quantiles, perturbations, n_jobs, progress, checkpoint
) -> pd.DataFrame:
    """Ceiling table of cells that were already wrapped; see :func:`noise_ceiling`."""
    samplers = [LineSampler(cells, line, **options) for line in cells.lines()]
    wanted = select(samplers, perturbations)
    run = ""
    if checkpoint is not None:
        run = digest(
            cells.digest(),
            options,
            list(metrics),
            list(quantiles),
            code_digest("perturbcore.score.ceiling.ceiling"),
        )
    tables = []
    total = sum(map(len, wanted))
    with (
        Checkpoint(checkpoint) as store,
        tqdm(total=total, desc="noise ceiling", disable=not progress) as bar,
    ):
        for sampler, names in zip(samplers, wanted, strict=True):
            done = store.finished(run, sampler.line)
            done = {name: values for name, values in done.items() if name in names}
            bar.update(len(done))
            todo = [name for name in names if name not in done]
            if todo and options["control"] == "global":
                sampler.shared_control()
            # Unordered, so that no finished perturbation waits for a slow one to be kept.
            parallel = Parallel(n_jobs, backend="threading", return_as="generator_unordered")
            for name, values in parallel(
                delayed(_named)(_quantiles, sampler, name, metrics, quantiles) for name in todo
            ):
                store.keep(run, sampler.line, name, values)
                done[name] = values
                bar.update()
            if names:
                tables.append(_table(sampler, names, done, quantiles, metrics))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def replicate_ceiling(
    wells: AnnData,
    *,
    control: str = "global",
    dataset: str = "",
    n_outer: int = 10,
    n_inner: int = 10,
    quantiles=QUANTILES,
    metrics=METRICS,
    seed: int = 5050,
    n_jobs: int = 1,
    progress: bool = False,
    checkpoint=None,
) -> pd.DataFrame:
    """Experimental error of perturbations measured as a few replicate profiles.

    Parameters
    ----------
    wells : AnnData, replicates x genes
        On the scale of the responses (log expression or plate z-scores); nothing is
        normalised. obs: `perturbation`, `cell_line`, `is_control`, and `batch` (the plate),
        which is resampled in the outer trials unless controls are global; then all samples
        are resamples of the replicates.
    control : {"global", "matched", "none"}
        Controls averaged over all plates, or matched within them; "none" where profiles are
        effects.
    n_outer, n_inner, quantiles, metrics, seed, n_jobs, progress, checkpoint
        See :func:`noise_ceiling`.

    Returns
    -------
    DataFrame
        As :func:`noise_ceiling`; n_cells counts replicates.

    Raises
    ------
    InputError
        If values are not finite or a column is missing.

    Notes
    -----
    With few replicates the bootstrap is too optimistic: n replicates resampled have (n - 1) / n
    of the variance of the mean of n new ones (sqrt(3 / 4) of the L2 error for n = 4).

    References
    ----------
    Cole et al. 2026, Methods 4.7.1, Eq. 12.
    """
    metrics, quantiles = check_metrics(metrics), check_quantiles(quantiles)
    cells = Cells.from_wells(wells, dataset, by_plate=control != "global")
    options = dict(control=control, batches="all", n_outer=n_outer, n_inner=n_inner, seed=seed)
    return ceiling_of_cells(cells, options, metrics, quantiles, None, n_jobs, progress, checkpoint)


def select(samplers, perturbations) -> list:
    """Perturbations to do in each line, checked before long work."""
    if perturbations is not None:
        asked = {str(p) for p in perturbations}
        unknown = sorted(asked.difference(*(s.perturbed for s in samplers)))
        if unknown:
            raise ParameterError(
                f"perturbations: {len(unknown)} of {len(asked)} are not in the screen, such as "
                f"{', '.join(unknown[:3])}; use names of obs['perturbation'] that are not controls"
            )
    wanted = [
        [name for name in s.perturbed if perturbations is None or name in asked] for s in samplers
    ]
    for sampler, names in zip(samplers, wanted, strict=True):
        sampler.check(names)
    return wanted


def check_quantiles(quantiles) -> tuple:
    """Return the quantiles as a tuple of floats."""
    quantiles = tuple(float(q) for q in np.atleast_1d(quantiles))
    if not quantiles or not all(0 <= q <= 1 for q in quantiles):
        raise ParameterError(f"quantiles={list(quantiles)}: each must lie between 0 and 1")
    return quantiles


def _named(function, sampler, name, *rest):
    return name, function(sampler, name, *rest)


def _quantiles(sampler, name, metrics, quantiles) -> np.ndarray:
    effects = sampler.effects(name)
    values = distances(effects[1:], effects[0], metrics)
    table = np.quantile(np.stack([values[m] for m in metrics]), quantiles, axis=1)
    return table.ravel()


def _table(sampler, names, values, quantiles, metrics) -> pd.DataFrame:
    groups = [sampler.perturbed[name] for name in names]
    rows = list(product(quantiles, metrics))
    n = len(rows)
    return pd.DataFrame(
        {
            "dataset": sampler.cells.dataset,
            "cell_line": sampler.line,
            "perturbation": np.repeat(np.asarray(names, dtype=object), n),
            "quantile": np.tile([q for q, _ in rows], len(names)),
            "metric": np.tile(np.asarray([m for _, m in rows], dtype=object), len(names)),
            "value": np.concatenate([values[name] for name in names]),
            "n_cells": np.repeat([sum(map(len, g.values())) for g in groups], n),
            "n_batches": np.repeat([len(g) for g in groups], n),
        }
    )
