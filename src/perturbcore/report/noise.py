"""What the noise-ceiling chapter compares: bootstrap, halves and, where it is known, the truth."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.report.paired import CEILINGS
from perturbcore.report.text import listed, percent, tell
from perturbcore.score.ceiling.curves import ceiling_by_cells
from perturbcore.score.ceiling.halves import calibrate_metrics
from perturbcore.score.ceiling.sampler import CONTROLS
from perturbcore.score.limits import N_SPLITS, PREDICTORS, repeats
from perturbcore.score.metrics.registry import metric
from perturbcore.score.task import task_of

# a ceiling may be one of shares of the gap where it is that near to the truth
CLOSE = 0.05
NAMES = {"bootstrap": "published bootstrap", "repeated": "repeated experiment"}
NAMES |= {"noise_floor": "noise floor"}
# metrics that are placed between floor and perfect on every screen
RANGED = ("L2", "MAE", "Pearson", "Pearson_delta", "cosine", "top20_recall", "discrimination")


def curves_by_cells(
    dataset, sizes: Sequence[int], *, n_outer: int, n_inner: int, seed: int, n_jobs: int = 1
) -> pd.DataFrame:
    """Median error of an effect for each of `sizes`, cells per perturbation, by estimator."""
    simulation = dataset.extras.get("simulation")
    common: dict[str, Any] = dict(n_outer=n_outer, n_inner=n_inner, seed=seed, n_jobs=n_jobs)
    truth = simulation.true_effects if simulation is not None else None
    both = ceiling_by_cells(dataset.screen, sizes, truth=truth, n_splits=N_SPLITS, **common)
    both["estimate"] = both["estimate"].map(NAMES | {"true": "true error"})
    batches = ceiling_by_cells(dataset.screen, sizes, draw_cells=False, **common)
    batches["estimate"] = "bootstrap of batches only"
    table = pd.concat([both, batches], ignore_index=True)
    groups = table.groupby(["cell_line", "cells", "estimate"], observed=True)
    out = groups["value"].quantile([0.25, 0.5, 0.75]).unstack()
    out = out.set_axis(["low", "value", "high"], axis=1).assign(n=groups["perturbation"].nunique())
    return out.reset_index()


def truth_panels(grid: pd.DataFrame) -> pd.DataFrame:
    """Name the estimates and cases of `Study.truth` as a figure does."""
    grid = grid.sort_values(["control", "batch_effect", "cells"], ignore_index=True)
    case = grid["control"] + " control, batch effect " + grid["batch_effect"].map("{:g}".format)
    return grid.assign(estimate=grid["estimate"].map(NAMES), case=case)


def trusted(grid: pd.DataFrame, data) -> list[str]:
    """Ceilings that are within 5 % of what they estimate on simulated screens like this one.

    Like a data set are the numbers of cells next to its median, and its control, whatever the batch
    effects. "idealized" (no estimate) is last, and alone where there are no cells, or labels.
    """
    near = _like(grid, data)
    far = (near["of_its_own"] - 1).abs().groupby(near["estimate"]).max()
    good = [PREDICTORS[e] for e in far.index[far <= CLOSE]]
    return [c for c in CEILINGS if c in good or c == "idealized"]


def calibrated(scores: pd.DataFrame, data, truth: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Say of each ceiling whether it is near the truth on simulated screens like this one.

    `scores` of the data set `data`; `truth` gives `Study.truth`, and is asked only where a ceiling
    comes from noise. Adds the column `calibrated`.
    """
    noise_from = scores["predictor"].isin(PREDICTORS.values())
    if not noise_from.any():
        return scores
    near = trusted(truth(), data)
    return scores.assign(calibrated=~noise_from | scores["predictor"].isin(near))


def _like(grid: pd.DataFrame, data) -> pd.DataFrame:
    """Rows of the grid for the control of a data set and the cells next to its median."""
    cells = median_cells(data)
    control = data.responses.uns["perturbcore"].get("control", "global")
    sizes = grid["cells"].drop_duplicates().sort_values()
    if not cells >= sizes.iloc[0]:  # fewer cells than were tried, or none at all
        return grid[:0]
    next_to = {sizes[sizes <= cells].max(), sizes[sizes >= cells].min()}
    return grid[grid["cells"].isin(next_to) & (grid["control"] == control)]


def median_cells(data) -> float:
    """Median cells per perturbation and line that effects are estimated from; else missing."""
    there = data.holds("screen") and "n_cells" in data.responses.obs
    there = there and not task_of(data.task).classes
    return float(data.responses.obs["n_cells"].median()) if there else float("nan")


def trust_said(grid: pd.DataFrame, data) -> str:
    """Say which ceilings are used, and how far from the truth the others are."""
    near = _like(grid, data)
    if near.empty:
        return tell("noise.no_trust")
    span = near.groupby("estimate")["of_its_own"].agg(["min", "max"])
    each = [f"{NAMES[e]} {span.loc[e, 'min']:.2f} to {span.loc[e, 'max']:.2f}" for e in NAMES]
    used = [NAMES[e] for e in NAMES if PREDICTORS[e] in trusted(grid, data)]
    return tell("noise.trust", close=CLOSE, cells=median_cells(data), each=each, used=used)


def causes_said(grid: pd.DataFrame) -> str:
    """Say by how much the published bootstrap is too large, cause by cause, and the noise floor."""
    cases = ["estimate", "control", "cells"]
    wide = grid.pivot_table(index=cases, columns="batch_effect", values="ratio")
    boot, (none, *some) = wide.loc["bootstrap"], wide.columns
    few, many = grid["cells"].min(), grid["cells"].max()
    at = {c: listed([f"{boot.loc[(c, many), b]:.2f} ({b:g})" for b in some]) for c in CONTROLS[:2]}
    floor = grid[grid["estimate"] == "noise_floor"]
    off = (floor["of_its_own"] - 1).abs().groupby(floor["cells"]).max()
    far = list(off.index[off > CLOSE])
    where = f"but for {listed(far)} cells" if far else "everywhere"
    few_ratio, many_ratio = (boot.loc[("global", n), none] for n in (few, many))
    return tell(
        "noise.causes", few=few, many=many, few_ratio=few_ratio, many_ratio=many_ratio, at=at,
        low=floor["ratio"].min(), high=floor["ratio"].max(), close=CLOSE, where=where,
    )  # fmt: skip


def by_line(
    ceiling: pd.DataFrame, responses: AnnData, quantile: float = 0.9, estimate: str = "bootstrap"
) -> pd.DataFrame:
    """Experimental error (L2) of each perturbation beside the size of its effect.

    `estimate`: "bootstrap" at a `quantile`, or "repeated" or "noise_floor", which are means; above:
    whether the effect is larger; without perturbations of too few cells.
    """
    rows = ceiling[ceiling["metric"] == "L2"]
    if "estimate" in rows:
        rows = rows[rows["estimate"] == estimate]
    if estimate == "bootstrap":
        rows = rows[rows["quantile"] == quantile]
    size = responses.obs[["cell_line", "perturbation"]].astype(str)
    size["effect"] = (responses.X.astype(float) ** 2).sum(axis=1) ** 0.5
    out = rows.dropna(subset="value").merge(size, on=["cell_line", "perturbation"])
    return out.assign(above=out["effect"] > out["value"])


def above_said(ceiling: pd.DataFrame, responses: AnnData, quantile: float = 0.9) -> str:
    """Say for how many perturbations a repeated experiment would beat No Change."""
    known = "estimate" in ceiling and (ceiling["estimate"] == "repeated").any()
    boot = by_line(ceiling, responses, quantile)
    each = by_line(ceiling, responses, estimate="repeated") if known else boot
    said = tell("noise.above", share=each["above"].mean())
    if known:
        said += f" (by the published experimental error: {percent(boot['above'].mean())})"
    lost = responses.n_obs - len(each)
    few = f" {lost} of {responses.n_obs} have too few cells to estimate that." if lost else ""
    return f"{said}.{few}"


def line_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Condense `by_line`: perturbations, median cells, error and effect, share above the error."""
    found = table.groupby("cell_line", observed=True).agg(
        perturbations=("value", "size"),
        median_cells=("n_cells", "median"),
        error_mean=("value", "mean"),
        error_median=("value", "median"),
        effect_median=("effect", "median"),
        share_above_error=("above", "mean"),
    )
    return found.reset_index()


def metric_ranges(study, *, n_splits: int = 2, seed: int = 5050) -> pd.DataFrame:
    """Calibrate the metrics on every screen of a profile that has cells or replicate wells."""
    parts = {}
    for name in study.names():
        data = study.dataset(name)
        there = data.holds("replicates") or data.holds("screen")
        if task_of(data.task).classes or not there:
            continue
        source, which, least = repeats(data, dict(study.profile.dataset(name).options))
        how = which | dict(n_splits=n_splits, min_cells=least, seed=seed)
        found = calibrate_metrics(source, RANGED, **how)
        if len(found):  # a screen of few perturbations has no folds
            parts[name] = found
    if not parts:
        raise InputError("no data set of the profile has cells or wells: metrics need two halves")
    return pd.concat(parts, names=["dataset"]).reset_index(level=0).reset_index(drop=True)


def ranges_wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row per screen, one column per metric, mean dynamic range over cell lines."""
    wide = table.pivot_table(index="dataset", columns="metric", values="drf", sort=False)
    return wide.rename(columns=lambda name: metric(name).label)


def ranges_said(table: pd.DataFrame) -> str:
    """Say of each screen which metric tells most and which least, and whether any tells little."""
    lines = []
    for dataset, part in table.groupby("dataset", sort=False):
        mean = part.groupby("metric")[["drf", "bds"]].mean().sort_values("drf")
        low, high = mean.iloc[0], mean.iloc[-1]
        which = dict(dataset=dataset, most=metric(high.name), least=metric(low.name))
        lines.append(tell("noise.ranges", low=low, high=high, **which))
    return "\n".join(lines)
