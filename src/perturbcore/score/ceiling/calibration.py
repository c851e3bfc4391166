"""Which metrics can tell anything on a screen: a technical duplicate against the Train Mean."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.effects.ba_ate import MIN_CELLS
from perturbcore.data.folds import assign_folds
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.halves import Halves
from perturbcore.score.ceiling.sampler import LineSampler
from perturbcore.score.metrics.registry import Metric, metric, metrics_of


def calibrate_metrics(
    screen: AnnData, metrics: Sequence[str] | None = None, *, control: str = "global",
    wells: bool = False, n_folds: int = 5, n_splits: int = 5, min_cells: int = MIN_CELLS,
    seed: int = 5050,
) -> pd.DataFrame:  # fmt: skip
    """Place a repeated experiment between the Train Mean and a perfect prediction.

    Cells are halved within each batch: one half is the truth, the other the positive control; the
    negative control is the mean of the other folds' perturbations. Returns one row per cell line
    and metric: `drf`, `drf_median` (dynamic range fraction), `bds` (share of perturbations where
    the positive control wins), n_perturbations. DRF = (positive - negative) / (perfect - negative),
    kept within -1 and 1 (Miller et al. 2025).
    """
    cells = Cells.of(screen, wells)
    rows = []
    for line in cells.lines():
        options = dict(control=control, batches="all", n_outer=1, n_inner=1, seed=seed)
        sampler = LineSampler(cells, line, **options)
        names = [n for n, g in sampler.perturbed.items() if sum(map(len, g.values())) >= min_cells]
        if len(names) < 2 * n_folds:
            continue
        halves = [Halves(sampler, by, n_splits) for by in ("cells", "batches")]
        effects = np.stack([_effects(halves, name) for name in names])
        fold = assign_folds(names, n_folds=n_folds, seed=seed).loc[names].to_numpy()
        for name in metrics or metrics_of("lfc"):
            drf, wins = _place(effects, fold, metric(name))
            found = pd.DataFrame({"drf": drf, "drf_median": drf, "bds": wins})
            values = found.agg({"drf": "mean", "drf_median": "median", "bds": "mean"}).to_dict()
            rows.append(
                {"cell_line": line, "metric": name, **values, "n_perturbations": len(names)}
            )
    columns = ["cell_line", "metric", "drf", "drf_median", "bds", "n_perturbations"]
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
