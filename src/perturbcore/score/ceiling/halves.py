"""The noise floor: the effect from one half of the data against that from the other half."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.effects import MIN_CELLS
from perturbcore.data.folds import assign_folds
from perturbcore.score.ceiling.ceiling import Cells, distances, select
from perturbcore.score.ceiling.sampler import LineSampler, child, control_stream, weighted_sums
from perturbcore.score.metrics.registry import Metric, metric

HALVES = 2**21  # keeps these streams apart from those of the outer trials
# the difference of two halves has four times the variance of the effect from all data
PER_HALF = {"L2": 2, "MSE": 4, "MAE": 2}
# two whole experiments differ by twice the variance of one
TWICE = {"L2": np.sqrt(2), "MSE": 2, "MAE": np.sqrt(2)}
ALIKE = ("Spearman", "Pearson")


def noise_floor(
    screen: AnnData,
    perturbations: Sequence[str] | None = None,
    *,
    wells: bool = False,
    control: str = "global",
    batches: str = "all",
    n_splits: int = 20,
    min_cells: int = MIN_CELLS,
    seed: int = 5050,
) -> pd.DataFrame:
    """Estimate what the true effects would score against the measured ones, from disjoint halves.

    Halves are of batches where a perturbation lies in two or more, else of the cells (or wells)
    within its batch, which leaves the noise of batches out. Correlations follow Spearman and Brown
    (1910). `n_splits`: random splits, averaged; `min_cells`: with fewer an effect is not estimable
    (missing).

    Returns dataset, cell_line, perturbation, metric (L2, MSE, MAE, Spearman, Pearson), value,
    n_cells, n_batches.
    """
    cells = Cells.of(screen, wells)
    options = dict(control=control, batches=batches, seed=seed)
    samplers = [LineSampler(cells, line, **options) for line in cells.lines()]
    rows = []
    for sampler, names in zip(samplers, select(samplers, perturbations), strict=True):
        found = {}
        if names:
            halves = Halves(sampler, "batches", n_splits)
            found = {name: halves.errors(name) for name in names}
        if single := [name for name in names if np.isnan(found[name]["L2"])]:
            halves = Halves(sampler, "cells", n_splits)
            found |= {name: halves.errors(name) for name in single}
        for name in names:
            groups = sampler.perturbed[name]
            n = sum(map(len, groups.values()))
            for m, value in found[name].items():
                value = value if n >= min_cells else np.nan
                rows.append((cells.dataset, sampler.line, name, m, value, n, len(groups)))
    columns = ["dataset", "cell_line", "perturbation", "metric", "value", "n_cells", "n_batches"]
    return pd.DataFrame(rows, columns=columns)


def repeated_experiment(floor: pd.DataFrame) -> pd.DataFrame:
    """Turn a noise floor into what a repeated experiment would score: noise counts twice."""
    value = floor["value"] * floor["metric"].map(TWICE)
    return floor.assign(value=value.where(~floor["metric"].isin(ALIKE), floor["value"] ** 2))


class Halves:
    """Effects from random halves: of the batches' cells, or of the batches and their controls."""

    def __init__(self, sampler: LineSampler, by: str, n_splits: int):
        self.sampler, self.by, self.n_splits = sampler, by, n_splits
        self._controls = self._means(sampler.controls, child(control_stream(sampler.seed), HALVES))

    def errors(self, name, groups=None, stream=None) -> dict[str, float]:
        """Estimate what the true effect would score against that of all data, or NaN."""
        first, second = self.effects(name, groups, stream)
        usable = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0])
        if not usable.any():
            return dict.fromkeys([*PER_HALF, *ALIKE], np.nan)
        errors = distances(second[usable], first[usable])  # row by row
        out = {m: float(errors[m].mean()) / by for m, by in PER_HALF.items()}
        for m in ALIKE:
            r = max(0.0, errors[m].mean())
            out[m] = float(np.sqrt(2 * r / (1 + r)))
        return out

    def effects(self, name, groups=None, stream=None) -> tuple[np.ndarray, np.ndarray]:
        """Effects of both halves, each (n_splits, genes); NaN rows where a half has no cells."""
        groups = self.sampler.perturbed[name] if groups is None else groups
        stream = child(self.sampler.stream(name) if stream is None else stream, HALVES)
        means = self._means(groups, stream)
        sides = self._sides(groups, child(stream, len(groups)))
        return self._effect(means, sides, 0), self._effect(means, sides, 1)

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
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def _means(self, groups, stream) -> dict:
        """Means of both halves of the cells of each batch, (2, n_splits or 1, genes)."""
        return {
            batch: self._batch_means(rows, child(stream, i))
            for i, (batch, rows) in enumerate(groups.items())
        }

    def _batch_means(self, rows, stream):
        cells = self.sampler.cells
        if self.by == "batches":
            weights = np.full((1, len(rows)), 1 / len(rows))
            mean = weighted_sums(cells.read, cells.n_genes, [(rows, weights)])
            return np.stack([mean, mean])
        rng = np.random.default_rng(stream)
        order = rng.permuted(np.tile(np.arange(len(rows)), (self.n_splits, 1)), axis=1)
        # which half gets the odd cell is drawn too, else the first would always be the larger
        cut = len(rows) // 2 + (len(rows) % 2) * rng.integers(2, size=(self.n_splits, 1))
        first = order < cut
        member = np.concatenate([first, ~first]).astype(np.float64)
        size = member.sum(axis=1, keepdims=True)
        weights = member / np.maximum(size, 1)
        means = weighted_sums(cells.read, cells.n_genes, [(rows, weights)])
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


def calibrate_metrics(
    screen: AnnData,
    metrics: Sequence[str],
    *,
    control: str = "global",
    wells: bool = False,
    n_folds: int = 5,
    n_splits: int = 5,
    min_cells: int = MIN_CELLS,
    seed: int = 5050,
) -> pd.DataFrame:
    """Place a repeated experiment between the Train Mean and a perfect prediction.

    Cells are halved within each batch: one half is the truth, the other the positive control; the
    negative control is the mean of the other folds' perturbations. Returns one row per cell line
    and metric: `drf` (dynamic range fraction), `bds` (share of perturbations where
    the positive control wins), n_perturbations. DRF = (positive - negative) / (perfect - negative),
    kept within -1 and 1 (Miller et al. 2025).
    """
    cells = Cells.of(screen, wells)
    rows = []
    for line in cells.lines():
        sampler = LineSampler(cells, line, control=control, batches="all", seed=seed)
        names = [n for n, g in sampler.perturbed.items() if sum(map(len, g.values())) >= min_cells]
        if len(names) < 2 * n_folds:
            continue
        halves = [Halves(sampler, by, n_splits) for by in ("cells", "batches")]
        effects = np.stack([_effects(halves, name) for name in names])
        fold = assign_folds(names, n_folds=n_folds, seed=seed).loc[names].to_numpy()
        for name in metrics:
            drf, wins = _place(effects, fold, metric(name))
            rows.append((line, name, pd.Series(drf).mean(), pd.Series(wins).mean(), len(names)))
    columns = ["cell_line", "metric", "drf", "bds", "n_perturbations"]
    return pd.DataFrame(rows, columns=columns)


def _effects(halves: Sequence[Halves], name: str) -> np.ndarray:
    """Effects of two halves (halves, splits, genes), by the first way that leaves none empty."""
    for way in halves:
        found = np.stack(way.effects(name))
        if np.isfinite(found[..., 0]).all():
            break
    return found


def _place(effects: np.ndarray, fold: np.ndarray, of: Metric) -> tuple[np.ndarray, np.ndarray]:
    """DRF and wins of each perturbation, mean over splits; effects: (n, halves, splits, genes)."""
    n_splits = effects.shape[2]
    drf, wins = np.full((2, n_splits, len(fold)), np.nan)
    for split in range(n_splits):
        first, second = effects[:, 0, split], effects[:, 1, split]
        there = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0])
        for f in np.unique(fold):
            test = there & (fold == f)
            mean = second[there & (fold != f)].mean(axis=0)
            flat = np.tile(mean, (int(test.sum()), 1))
            positive = of.function(first[test], second[test].copy(), mean)
            negative = of.function(first[test], flat, mean)
            drf[split, test] = dynamic_range_fraction(positive, negative, of)
            wins[split, test] = (
                (positive > negative) if of.higher_is_better else positive < negative
            )
    return pd.DataFrame(drf).mean().to_numpy(), pd.DataFrame(wins).mean().to_numpy()


def dynamic_range_fraction(positive: np.ndarray, negative: np.ndarray, of: Metric) -> np.ndarray:
    """(positive - negative) / (perfect - negative) within -1 and 1; NaN for a perfect negative."""
    perfect = of.bounds[1] if of.higher_is_better else of.bounds[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (positive - negative) / (perfect - negative)
    return np.clip(np.where(np.isfinite(share), share, np.nan), -1, 1)
