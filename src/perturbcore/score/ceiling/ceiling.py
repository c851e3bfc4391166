"""The noise ceiling: how far a repeated experiment would land from this one."""

import sqlite3
from contextlib import closing
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.files import SQLITE
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.sampler import LineSampler, check_choices, check_quantiles
from perturbcore.score.metrics.registry import metric
from perturbcore.score.metrics.regression import pearson, row_ranks

QUANTILES = (0.1, 0.2, 0.5, 0.8, 0.9, 0.99, 0.995)
METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")
COLUMNS = ["dataset", "cell_line", "perturbation", "quantile", "metric", "value", "n_cells"]
COLUMNS += ["n_batches"]


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
    wells=False,
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
        A declared screen, cells x genes, in memory or backed on disk; or replicate profiles, see
        `wells`.
    control : {"global", "matched", "none"}
        "global": control batches and cells of the line are resampled once and shared by its
        perturbations; sample (outer, inner) of a perturbation is paired with sample (outer,
        inner) of the controls. "matched": in each drawn batch perturbed and control cells are
        resampled independently and subtracted. "none": the values are effects already.
    n_outer, n_inner, seed : int
        Trials over batches, and over cells within them (published: 10 x 20 for chemical screens,
        else 10 x 10); root of the random streams.
    quantiles, metrics : sequences of float in [0, 1] and of str
        Quantiles of the n_outer x n_inner samples, linear interpolation; out of L2, MSE, MAE,
        Spearman, Pearson, between sample and point estimate.
    batches : {"all", "with_controls"}
        Every batch with cells of the perturbation (the published code), or only those that have
        control cells too (the paper's Eq. 1).
    perturbations : sequence of str, optional
        Only these; the values of a perturbation do not depend on which others are asked for.
    resample : sequence out of "batches", "cells"
        Levels of the hierarchy at which to draw; the published bootstrap draws at both.
    wells : bool
        Whether rows are replicate profiles on the scale of the responses (log expression or plate
        z-scores) with obs `perturbation`, `cell_line`, `is_control` and perhaps `batch` (the
        plate, resampled unless controls are global). With n replicates the variance is
        underestimated by (n - 1) / n.
    n_jobs, progress : int, bool
        Threads, on which the values do not depend; whether to show a bar.
    checkpoint : path, optional
        A file that keeps finished perturbations, so that a killed run goes on where it was.

    Returns
    -------
    DataFrame
        dataset, cell_line, perturbation, quantile, metric, value, n_cells, n_batches.

    Notes
    -----
    Random streams are spawned from ``SeedSequence(seed)`` per cell line: the controls first, then
    the perturbations in sorted order, below each its trials and drawn batches. Another order of the
    cells draws other cells, which moves the 0.9 quantile of L2 by about 2 %.

    n cells with variance s^2 in B batches without batch effects have an effect with variance
    s^2 / n, but drawing at both levels gives s^2 / n ((B - 1) / B + (m - 1) / m) with m = n / B
    cells in a batch: batch means differ by the noise of their cells, which is then drawn again. So
    the L2 error is overestimated by up to sqrt(2) where batches differ little, and underestimated
    with few cells or batches. Global controls add to it: what a batch does to perturbed and control
    cells alike cancels in the effect, but not between batches drawn independently.
    :func:`perturbcore.score.ceiling.halves.noise_floor` counts nothing twice.

    References
    ----------
    Cole et al. 2026, Methods 4.7.1, Eq. 12; effects by Eq. 4 to 6.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> screen = pc.simulate_screen(**sizes).screen
    >>> table = pc.ceiling(screen, n_outer=2, n_inner=2, progress=False)
    >>> table["perturbation"].nunique()
    12
    """
    check_choices(
        control=control, batches=batches, n_outer=n_outer, n_inner=n_inner, resample=resample
    )
    metrics, quantiles = _check_metrics(metrics), check_quantiles(quantiles)
    cells = Cells.of(screen, wells, by_plate=control != "global")
    options = dict(
        control=control, batches=batches, n_outer=int(n_outer), n_inner=int(n_inner), seed=seed,
        resample=sorted(resample),
    )  # fmt: skip
    samplers = [LineSampler(cells, line, **options) for line in cells.lines()]
    wanted = select(samplers, perturbations)
    run = ""
    if checkpoint is not None:
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
        code = code_digest("perturbcore.score.ceiling.ceiling")
        run = digest(cells.digest(), options, list(metrics), list(quantiles), code)
    tables = []
    with (
        closing(_open_checkpoint(checkpoint or ":memory:")) as store,
        tqdm(total=sum(map(len, wanted)), desc="noise ceiling", disable=not progress) as bar,
    ):
        for sampler, names in zip(samplers, wanted, strict=True):
            kept = store.execute(
                "SELECT perturbation, content FROM ceilings WHERE run = ? AND line = ?",
                (run, sampler.line),
            )
            done = {name: np.frombuffer(content) for name, content in kept if name in names}
            bar.update(len(done))
            todo = [name for name in names if name not in done]
            if todo:
                _ = sampler.shared  # made once, before threads ask for it
            # unordered, so that no finished perturbation waits for a slow one to be kept
            work = Parallel(n_jobs, backend="threading", return_as="generator_unordered")
            for name, values in work(
                delayed(_quantiles)(sampler, name, metrics, quantiles) for name in todo
            ):
                with store:
                    row = (run, sampler.line, name, values.tobytes())
                    store.execute("INSERT OR REPLACE INTO ceilings VALUES (?, ?, ?, ?)", row)
                done[name] = values
                bar.update()
            if names:
                tables.append(_table(sampler, names, done, quantiles, metrics))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


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
        empty = [name for name in names if not sampler.perturbed[name]]
        if empty:
            raise InputError(
                f"{len(empty)} perturbation(s) of cell line {sampler.line!r} have no cells in a "
                f"batch with control cells, such as {', '.join(empty[:3])}; drop them or choose "
                "control='global' with batches='all'"
            )
    return wanted


def distances(samples, point, metrics=METRICS) -> dict:
    """Distance (n,) by metric of samples (n, genes) to the point estimate, (genes,) or (n, genes).

    L2 is Eq. 12 of Cole et al. 2026, Pearson Eq. 7; correlations with a constant vector are 0.
    """
    samples, point = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (samples, point))
    out = {}
    for m in metrics:
        if m == "Spearman":
            ranks = np.broadcast_to(row_ranks(point), samples.shape)
            out[m] = pearson(ranks, row_ranks(samples))
        else:
            out[m] = metric(m).function(np.broadcast_to(point, samples.shape), samples)
    return out


def _check_metrics(metrics) -> tuple:
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if not metrics or set(metrics) - set(METRICS):
        raise ParameterError(f"metrics={list(metrics)}: choose from {', '.join(METRICS)}")
    return metrics


def _open_checkpoint(path) -> sqlite3.Connection:
    """Finished perturbations by a digest of data, parameters and code: never of another run."""
    store = sqlite3.connect(path, timeout=60, check_same_thread=False)
    try:
        store.executescript(
            f"{SQLITE} CREATE TABLE IF NOT EXISTS ceilings (run TEXT, line TEXT, perturbation "
            "TEXT, content BLOB, PRIMARY KEY (run, line, perturbation)) WITHOUT ROWID"
        )
    except sqlite3.DatabaseError as error:
        store.close()
        raise InputError(f"checkpoint {path} is not a file of this kind ({error})") from error
    return store


def _quantiles(sampler, name, metrics, quantiles) -> tuple[str, np.ndarray]:
    effects = sampler.effects(name)
    values = distances(effects[1:], effects[0], metrics)
    table = np.quantile(np.stack([values[m] for m in metrics]), quantiles, axis=1)
    return name, table.ravel()


def _table(sampler, names, values, quantiles, metrics) -> pd.DataFrame:
    rows = [
        (name, q, m, value, sum(map(len, groups.values())), len(groups))
        for name, groups in ((name, sampler.perturbed[name]) for name in names)
        for (q, m), value in zip(product(quantiles, metrics), values[name], strict=True)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS[2:])
    table.insert(0, "cell_line", sampler.line)
    table.insert(0, "dataset", sampler.cells.dataset)
    return table
