"""How noise falls with the number of cells, and how near ceilings are to the truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.scheduler import in_order, spread
from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.score.ceiling.ceiling import Cells, distances
from perturbcore.score.ceiling.halves import TWICE, Halves
from perturbcore.score.ceiling.sampler import LineSampler, check_choices, child

SUBSAMPLE = 2**20  # keeps these streams apart from those of the outer trials
# the small simulated screen on which ceilings are held against the truth
SCREEN: dict[str, Any] = dict(n_cell_lines=1, n_perturbations=36, n_genes=200, n_modules=8)
SCREEN |= dict(n_batches=6, n_control_cells=900, cells_per_perturbation=(240, 280))


def ceiling_by_cells(
    screen: AnnData,
    sizes,
    *,
    n_outer: int = 10,
    n_inner: int = 10,
    seed: int = 5050,
    truth: AnnData | None = None,
    n_splits: int = 0,
    draw_cells: bool = True,
    control: str = "global",
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Median L2 error of effects from subsamples of each perturbation's cells.

    Every size of `sizes` uses the same perturbations: those with at least the largest number.
    `truth`: responses with the true effects, for the error that the bootstrap estimates;
    `n_splits`: halves that the noise floor of each subsample is estimated from; `draw_cells`: not
    batches alone. Returns dataset, cell_line, perturbation, cells, estimate ("bootstrap", "true",
    "noise_floor"), value, n_batches.
    """
    check_choices(control=control, n_outer=n_outer, n_inner=n_inner)
    sizes = sorted({int(s) for s in np.atleast_1d(sizes)})
    if not sizes or sizes[0] < 1:
        raise ParameterError(f"sizes={sizes}: give whole numbers from 1")
    cells = Cells.of(screen)
    options = dict(n_outer=n_outer, n_inner=n_inner, seed=seed, draw_cells=draw_cells)
    work, of_line = [], []
    for line in cells.lines():
        which = "with_controls" if control == "matched" else "all"
        sampler = LineSampler(cells, line, control=control, batches=which, **options)
        halves = [Halves(sampler, by, n_splits) for by in ("batches", "cells") if n_splits]
        _ = sampler.shared  # made once, before threads ask for it
        of_line.append((sampler, halves))
        for name, groups in sampler.perturbed.items():
            if sum(map(len, groups.values())) >= sizes[-1]:
                known = _true_effect(truth, screen.var_names, f"{line}|{name}")
                work.append((len(of_line) - 1, name, known))
    if not work:
        raise InputError(
            f"no perturbation has {sizes[-1]} cells in a cell line; choose smaller sizes"
        )
    results = in_order(spread(_curve, work, of_line, sizes, n_jobs=n_jobs))
    columns = ["cell_line", "perturbation", "cells", "estimate", "value", "n_batches"]
    table = pd.DataFrame([row for rows in results for row in rows], columns=columns)
    table.insert(0, "dataset", cells.dataset)
    return table


def ceilings_against_truth(
    sizes: Sequence[int] = (5, 10, 20, 60, 200),
    strengths: Sequence[float] = (0.0, 0.3, 0.6),
    controls: Sequence[str] = ("global", "matched"),
    *,
    n_splits: int = 5,
    n_jobs: int = 1,
    seed: int = 4,
) -> pd.DataFrame:
    """Hold three ceilings (L2) against the known truth of simulated screens, one per batch effect.

    `strengths`: sizes of batch effects, natural-log rate; the rest as in `ceiling_by_cells`.
    Returns batch_effect, control, cells, estimate, ratio (to the true error, mean over
    perturbations each), of_its_own (a repeated experiment lies farther away than the truth, by the
    square root of 2), n_perturbations.
    """
    parts = []
    for strength in strengths:
        made = simulate_screen(**SCREEN, batch_effect=strength, seed=seed)
        for control in controls:
            table = ceiling_by_cells(
                made.screen, sizes, n_outer=10, n_inner=4, n_splits=n_splits,
                truth=made.true_effects, control=control, n_jobs=n_jobs,
            )  # fmt: skip
            mean = table.groupby(["cells", "estimate"])["value"].mean().unstack()
            mean["repeated"] = TWICE["L2"] * mean["noise_floor"]
            ratio = mean.drop(columns="true").div(mean["true"], axis=0)
            part = ratio.stack().rename("ratio").reset_index()
            n = table["perturbation"].nunique()
            parts.append(part.assign(batch_effect=strength, control=control, n_perturbations=n))
    out = pd.concat(parts, ignore_index=True)
    out["of_its_own"] = out["ratio"] / np.where(out["estimate"] == "repeated", TWICE["L2"], 1.0)
    columns = ["batch_effect", "control", "cells", "estimate", "ratio", "of_its_own"]
    return out[[*columns, "n_perturbations"]]


def subsample(groups, size, stream) -> dict:
    """Draw cells without replacement over all batches (batch -> rows); empty ones are left out."""
    rows = np.concatenate(list(groups.values()))
    batch = np.repeat(np.arange(len(groups)), [len(r) for r in groups.values()])
    chosen = np.sort(np.random.default_rng(stream).choice(len(rows), size=size, replace=False))
    parts = {name: rows[chosen[batch[chosen] == i]] for i, name in enumerate(groups)}
    return {name: part for name, part in parts.items() if len(part)}


def _curve(item, of_line, sizes) -> list[tuple]:
    line, name, known = item
    (sampler, halves), out = of_line[line], []
    for size in sizes:
        stream = child(sampler.stream(name), SUBSAMPLE, size, 0)
        groups = subsample(sampler.perturbed[name], size, stream)
        effects = sampler.effects(name, groups, child(stream, 0))
        found = {"bootstrap": np.median(distances(effects[1:], effects[0], ["L2"])["L2"])}
        if known is not None:
            found["true"] = distances(effects[0], known, ["L2"])["L2"][0]
        if halves:
            errors = (way.errors(name, groups, child(stream, 1))["L2"] for way in halves)
            found["noise_floor"] = next((e for e in errors if np.isfinite(e)), np.nan)
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
