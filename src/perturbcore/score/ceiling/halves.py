"""Reliability of a screen: the effect from one half of the data against the other half."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from perturbcore.core.errors import ParameterError
from perturbcore.score.ceiling.ceiling import select
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.distances import ERRORS, METRICS, check_metrics, distances
from perturbcore.score.ceiling.draws import child, control_stream
from perturbcore.score.ceiling.sampler import LineSampler, weighted_sums

HALVES = 2**21  # keeps these streams apart from those of the outer trials


def noise_floor(
    screen: AnnData, perturbations: Sequence[str] | None = None, *, min_cells: int = 10, **options
) -> pd.DataFrame:
    """Estimate what the true effects would score against the measured ones, from halves.

    Halves are of batches where a perturbation lies in two or more, else of the cells (or wells)
    within its batch, which leaves the noise of batches out. Nothing is counted twice, so that
    no prediction can be expected to score better: on simulated screens it is the true error
    within 2 %, from 10 cells per perturbation on.

    Parameters
    ----------
    screen : AnnData
        A declared screen, or replicate wells on the scale of the responses (obs `perturbation`,
        `cell_line`, `batch`, `is_control`).
    perturbations : sequence of str, optional
        Only these.
    min_cells : int
        With fewer cells an effect is not estimable (missing).
    **options
        n_splits, control, batches, seed of :func:`split_half`.

    Returns
    -------
    DataFrame
        dataset, cell_line, perturbation, metric, value, n_cells, n_batches.
    """
    parts = [
        split_half(screen, by=by, metrics=ERRORS, perturbations=perturbations, **options)
        for by in ("batches", "cells")
    ]
    table = parts[0].assign(value=parts[0]["full"].fillna(parts[1]["full"]))
    table["value"] = table["value"].where(table["n_cells"] >= min_cells)
    return table.drop(columns=["full", "n_splits"])


def split_half(
    screen,
    *,
    by="cells",
    n_splits=20,
    control="global",
    batches="all",
    seed=5050,
    metrics=METRICS,
    perturbations=None,
    progress=True,
) -> pd.DataFrame:
    """Agreement of two effects computed from disjoint halves, perturbed and control cells alike.

    `screen`: a declared screen; `by`: "cells": the cells of every (perturbation, batch) are
    halved at random; both halves share the batches, so that batch noise is not in the
    difference. "batches": the batches of the perturbation are halved, and with them the
    controls; the halves share nothing; `n_splits`: random splits, averaged.

    Returns dataset, cell_line, perturbation, metric, value, full, n_splits, n_cells, n_batches.
    `value`: mean over splits of the metric between the two halves. `full`: what it says about
    the effect from all data. `n_splits`: splits in which both halves had perturbed (and
    control) cells; where it is 0, value and full are NaN.

    `full` of a correlation r is Spearman and Brown's reliability of the doubled data, 2 r / (1
    + r) (NaN where r <= -1). The difference of two halves has four times the variance of the
    effect from all data, so `full` of L2 and MAE is half of the value and of MSE a quarter: the
    expected error of an experiment of this size against the true effect (of the noise that
    differs between halves).

    Spearman 1910; Brown 1910 (British Journal of Psychology 3).
    """
    metrics = check_metrics(metrics)
    if by not in ("cells", "batches") or n_splits < 1:
        raise ParameterError(
            f"by={by!r}, n_splits={n_splits}: by is 'cells' or 'batches', n_splits at least 1"
        )
    cells = Cells.of(screen)
    options = dict(control=control, batches=batches, n_outer=1, n_inner=1, seed=seed)
    samplers = [LineSampler(cells, line, **options) for line in cells.lines()]
    wanted = select(samplers, perturbations)
    rows = []
    with tqdm(total=sum(map(len, wanted)), desc="split halves", disable=not progress) as bar:
        for sampler, names in zip(samplers, wanted, strict=True):
            halves = Halves(sampler, by, n_splits) if names else None
            for name in names:
                groups = sampler.perturbed[name]
                found, usable = halves.agreement(name, metrics)
                about = (cells.dataset, sampler.line, name)
                sizes = (usable, sum(map(len, groups.values())), len(groups))
                for metric in metrics:
                    value = found[metric]
                    rows.append((*about, metric, value, full(metric, value), *sizes))
                bar.update()
    columns = ["dataset", "cell_line", "perturbation", "metric", "value", "full"]
    return pd.DataFrame(rows, columns=[*columns, "n_splits", "n_cells", "n_batches"])


def full(metric: str, value: float) -> float:
    """Say what the agreement of two halves says about the effect from all data.

    See `split_half`.
    """
    if metric in ("L2", "MAE"):
        return value / 2
    if metric == "MSE":
        return value / 4
    return 2 * value / (1 + value) if value > -1 else np.nan


class Halves:
    """Means of random halves: of the batches' cells, or of the batches themselves."""

    def __init__(self, sampler, by, n_splits):
        self.sampler, self.by, self.n_splits = sampler, by, n_splits
        self._controls = {}
        stream = control_stream(sampler.seed)
        for i, (batch, rows) in enumerate(sampler.controls.items()):
            self._controls[batch] = self._batch_means(rows, child(stream, HALVES, i))

    def effects(self, name, groups=None, stream=None):
        """Effects of both halves, two arrays (n_splits, genes); NaN rows where one is empty.

        `groups` (batch -> rows) and `stream` where they are not those of the whole perturbation.
        """
        groups = self.sampler.perturbed[name] if groups is None else groups
        stream = child(self.sampler.stream(name) if stream is None else stream, HALVES)
        means = {
            batch: self._batch_means(rows, child(stream, i))
            for i, (batch, rows) in enumerate(groups.items())
        }
        sides = self._sides(groups, child(stream, len(groups)))
        return tuple(self._effect(means, sides, half) for half in (0, 1))

    def agreement(self, name, metrics, groups=None, stream=None) -> tuple[dict, int]:
        """Mean over splits of each metric between the halves (NaN for none), and usable splits."""
        first, second = self.effects(name, groups, stream)
        usable = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0])
        if not usable.any():
            return dict.fromkeys(metrics, np.nan), 0
        values = distances(first[usable], second[usable], metrics)
        return {m: float(v.mean()) for m, v in values.items()}, int(usable.sum())

    def _effect(self, means, sides, half):
        control = self.sampler.control
        if control == "matched":
            means = {b: m - self._controls[b] for b, m in means.items()}
        effect = self._over_batches(means, sides, half)
        if control == "global":
            effect = effect - self._over_batches(self._controls, sides, half)
        return effect

    def _over_batches(self, means, sides, half):
        """Mean over the batches of a half in which there are cells: NaN where there are none."""
        total, count = 0.0, 0.0
        for batch, mean in means.items():
            there = np.isfinite(mean[half, :, :1])
            if sides is not None:
                there = there & (sides[batch] == half)[:, None]
            total = total + np.where(there, mean[half], 0.0)
            count = count + there
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def _batch_means(self, rows, stream):
        """Means of the two halves of some cells, (2, n_splits or 1, genes)."""
        if self.by == "batches":
            weights = np.full((1, len(rows)), 1 / len(rows))
            mean = weighted_sums(self.sampler.cells, [(rows, weights)])
            return np.stack([mean, mean])
        rng = np.random.default_rng(stream)
        order = rng.permuted(np.tile(np.arange(len(rows)), (self.n_splits, 1)), axis=1)
        # Which half gets the odd cell is drawn too, else the first would always be the larger.
        cut = len(rows) // 2 + (len(rows) % 2) * rng.integers(2, size=(self.n_splits, 1))
        first = order < cut
        member = np.concatenate([first, ~first]).astype(np.float64)
        size = member.sum(axis=1, keepdims=True)
        weights = member / np.maximum(size, 1)
        means = weighted_sums(self.sampler.cells, [(rows, weights)])
        means[size[:, 0] == 0] = np.nan
        return means.reshape(2, self.n_splits, -1)

    def _sides(self, groups, stream):
        """Half (0 or 1) of each batch in each split: those with perturbed cells are balanced."""
        if self.by == "cells":
            return None
        rng = np.random.default_rng(stream)
        sides = {}
        for batches in (list(groups), [b for b in self.sampler.controls if b not in groups]):
            pattern = np.tile(np.arange(len(batches)) % 2, (self.n_splits, 1))
            pattern = rng.permuted(pattern, axis=1) ^ rng.integers(2, size=(self.n_splits, 1))
            sides |= {batch: pattern[:, i] for i, batch in enumerate(batches)}
        return sides
