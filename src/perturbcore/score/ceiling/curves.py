"""How noise falls with the number of cells."""

import numpy as np
import pandas as pd
from anndata import AnnData
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.score.ceiling.ceiling import check_quantiles, select
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.distances import check_metrics, distances
from perturbcore.score.ceiling.draws import child
from perturbcore.score.ceiling.halves import Halves, full
from perturbcore.score.ceiling.sampler import LineSampler, check_choices

SUBSAMPLE = 2**20  # keeps these streams apart from those of the outer trials


def ceiling_by_cells(
    screen,
    sizes,
    *,
    control="global",
    batches="all",
    n_outer=10,
    n_inner=10,
    n_repeats=1,
    quantiles=(0.5, 0.9),
    metrics=("L2",),
    seed=5050,
    perturbations=None,
    common=True,
    truth=None,
    n_splits=0,
    resample=("batches", "cells"),
    n_jobs=1,
    progress=True,
) -> pd.DataFrame:
    """Noise ceiling of subsamples of each perturbation's cells.

    `screen`: a declared screen; control cells are never subsampled; `sizes`: cells per
    perturbation and cell line, drawn without replacement over all its batches; `n_repeats`:
    independent subsamples of each size; `common`: whether every size uses the same
    perturbations: those with at least the largest size of cells. Otherwise each size uses all
    that have enough cells for it, and a curve mixes the effect of size with that of which
    perturbations have many cells; `truth`: the true effects, where they are known: a responses
    table, or a frame with rows "cell_line|perturbation" and genes as columns. Adds the error of
    each subsample's effect itself, the error that the bootstrap estimates; `n_splits`: disjoint
    halves of batches that the noise floor of each subsample is estimated from.

    Returns dataset, cell_line, perturbation, cells, repeat, estimate, quantile, metric, value,
    n_batches. `estimate` is "bootstrap", or "true" or "noise_floor" (quantile is then NaN).
    """
    check_choices(
        control=control, batches=batches, n_outer=n_outer, n_inner=n_inner, resample=resample
    )
    metrics, quantiles = check_metrics(metrics), check_quantiles(quantiles)
    sizes = sorted({int(s) for s in np.atleast_1d(sizes)})
    if not sizes or sizes[0] < 1 or n_repeats < 1:
        raise ParameterError(f"sizes={sizes}, n_repeats={n_repeats}: give whole numbers from 1")
    cells = Cells.from_screen(screen)
    options = dict(
        control=control,
        batches=batches,
        n_outer=n_outer,
        n_inner=n_inner,
        seed=seed,
        resample=resample,
    )
    samplers = [LineSampler(cells, line, **options) for line in cells.lines()]
    work = []
    for sampler, names in zip(samplers, select(samplers, perturbations), strict=True):
        for name in names:
            have = sum(map(len, sampler.perturbed[name].values()))
            fitting = [s for s in sizes if s <= have]
            if fitting and (not common or len(fitting) == len(sizes)):
                work.append((sampler, name, fitting))
    if not work:
        raise InputError(
            f"no perturbation has {sizes[-1] if common else sizes[0]} cells in a cell line; "
            "choose smaller sizes" + (" or common=False" if common else "")
        )
    known = _truth_rows(truth, screen.var_names, work)
    if control == "global":
        for sampler in {id(s): s for s, _, _ in work}.values():
            sampler.shared_control()
    halves = {id(s): Halves(s, "batches", n_splits) for s, _, _ in work} if n_splits else {}
    results = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(
        delayed(_curve)(*item, n_repeats, metrics, quantiles, known, halves.get(id(item[0])))
        for item in work
    )
    bar = tqdm(results, total=len(work), desc="noise by cells", disable=not progress)
    return pd.concat(list(bar), ignore_index=True)


def subsample(groups, size, stream) -> dict:
    """Draw cells without replacement over all batches of a perturbation.

    `groups`: batch to row numbers.

    Returns batches in which no cell was drawn are left out.
    """
    rows = np.concatenate(list(groups.values()))
    batch = np.repeat(np.arange(len(groups)), [len(r) for r in groups.values()])
    chosen = np.sort(np.random.default_rng(stream).choice(len(rows), size=size, replace=False))
    return {
        name: rows[chosen[batch[chosen] == i]]
        for i, name in enumerate(groups)
        if (batch[chosen] == i).any()
    }


def _curve(sampler, name, sizes, n_repeats, metrics, quantiles, known, halves) -> pd.DataFrame:
    rows = []
    for size in sizes:
        for repeat in range(n_repeats):
            stream = child(sampler.stream(name), SUBSAMPLE, size, repeat)
            groups = subsample(sampler.perturbed[name], size, stream)
            effects = sampler.effects(name, groups, child(stream, 0))
            errors = distances(effects[1:], effects[0], metrics)
            found = [
                ("bootstrap", q, m, np.quantile(errors[m], q)) for q in quantiles for m in metrics
            ]
            if known is not None:
                true = distances(effects[0], known.loc[f"{sampler.line}|{name}"], metrics)
                found += [("true", np.nan, m, true[m][0]) for m in metrics]
            if halves is not None:
                agree, _ = halves.agreement(name, metrics, groups, child(stream, 1))
                found += [("noise_floor", np.nan, m, full(m, agree[m])) for m in metrics]
            rows += [(size, repeat, *row, len(groups)) for row in found]
    columns = ["cells", "repeat", "estimate", "quantile", "metric", "value", "n_batches"]
    table = pd.DataFrame(rows, columns=columns)
    about = (sampler.cells.dataset, sampler.line, name)
    for i, (column, value) in enumerate(
        zip(("dataset", "cell_line", "perturbation"), about, strict=True)
    ):
        table.insert(i, column, value)
    return table


def _truth_rows(truth, genes, work):
    if truth is None:
        return None
    if isinstance(truth, AnnData):
        obs = truth.obs
        names = obs["cell_line"].astype(str) + "|" + obs["perturbation"].astype(str)
        truth = truth.to_df().set_axis(names.to_numpy(), axis=0)
    lacking = [str(g) for g in genes if g not in truth.columns]
    if lacking:
        raise InputError(
            f"the truth lacks {len(lacking)} gene(s) of the screen, such as "
            f"{', '.join(lacking[:3])}; align its columns with the screen's var_names"
        )
    wanted = [f"{sampler.line}|{name}" for sampler, name, _ in work]
    absent = [w for w in wanted if w not in truth.index]
    if absent:
        raise InputError(
            f"the truth lacks {len(absent)} row(s), such as {', '.join(absent[:3])}; its rows are "
            "named cell_line|perturbation"
        )
    return truth.loc[wanted, list(genes)].astype(np.float64)
