"""Predicted cells, in the layout of cell-eval: made from effects, read, scored.

Each metric of the challenge stands between two yardsticks of the measured cells: 0 is the mean
response of this line, given for every perturbation; 1 is a repeated experiment, from disjoint
halves. Both need the answers, so that neither is a method.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.read import check_table
from perturbcore.data.screens.values import blocks
from perturbcore.score.metrics import cells as moments
from perturbcore.score.metrics.registry import metric

SIX = (
    "pds_cosine", "expression_error", "direction_fidelity", "direction_reach", "sig_jaccard",
    "fold_change_error",
)  # fmt: skip
THREE = ("discrimination_score_l1", "overlap_at_N", "mean_error")
# how far a scaled value may go; the others are not bounded
LIMITS = {"expression_error": (0.0, 1.0), "fold_change_error": (-6.0, np.inf)}
TARGET, CONTROL = "target", "non-targeting"
_STEPS = np.linspace(-6, 6, 49) * np.log(2)  # log fold-changes that an effect may stand for
LEAST_CELLS = 4  # of a group: two in each half


def measure(pair: moments.Pair) -> dict[str, float]:
    """Value of each metric: the mean over the perturbations that have one."""
    found = {name: metric(name).function(pair) for name in (*SIX, *THREE)}
    return {n: float(np.nanmean(v)) if np.isfinite(v).any() else np.nan for n, v in found.items()}


class Reference:
    """Measured cells of one line, with the two yardsticks `baseline` and `repeat`."""

    def __init__(
        self, cells: AnnData, groups: Mapping[str, np.ndarray], control: np.ndarray,
        n_splits: int = 5, seed: int = 0,
    ):  # fmt: skip
        few = [name for name, rows in groups.items() if len(rows) < LEAST_CELLS]
        if few or len(control) < LEAST_CELLS or len(groups) < 1:
            what = f"perturbation '{few[0]}'" if few else "the control, or every perturbation,"
            raise InputError(f"{what} has fewer than {LEAST_CELLS} cells: leave it out")
        self.cells, self.groups, self.control = cells, dict(groups), np.sort(control)
        self.real = moments.summarise(cells, self.groups, self.control)
        rng = np.random.default_rng(seed)
        self.repeat = self._repeated(n_splits, rng)
        n = np.array([len(rows) for rows in self.groups.values()])
        mean = (self.real.counts / n[:, None]).mean(axis=0)
        base = self.real.control.counts / self.real.control.n
        ratio = np.divide(mean, base, out=np.ones_like(mean), where=base > 0)
        self.baseline = self.score(self.moved(np.tile(ratio, (len(n), 1)), rng))

    def _repeated(self, n_splits: int, rng) -> dict[str, float]:
        """Score one half of the cells against the other, each with half of the controls."""
        gate, found = moments.full_gate(moments.Pair(self.real, self.real)), []
        for _ in range(n_splits):
            halves: list[dict] = [{}, {}]
            for name, rows in {"": self.control, **self.groups}.items():
                order, half = rng.permutation(rows), len(rows) // 2
                halves[0][name], halves[1][name] = order[:half], order[half : 2 * half]
            a, b = (moments.summarise(self.cells, h, h.pop("")) for h in halves)
            found.append(measure(moments.Pair(a, b, gate)))
        return pd.DataFrame(found).mean().to_dict()

    def score(self, said: moments.Groups) -> dict[str, float]:
        """Value of each metric of predicted groups."""
        return measure(moments.Pair(said, self.real))

    def moved(self, ratio: np.ndarray, rng) -> moments.Groups:
        """Moments of control cells moved by fold-changes, (k, g), as many as were measured."""
        cells = [
            moved_cells(self.controls, row, len(rows), rng)
            for row, rows in zip(ratio, self.groups.values(), strict=True)
        ]
        ends = np.cumsum([0, *(part.shape[0] for part in cells)])
        groups = {n: np.arange(*ends[i : i + 2]) for i, n in enumerate(self.groups)}
        var = pd.DataFrame(index=self.cells.var_names)
        said = AnnData(sp.vstack(cells, format="csr"), var=var)
        return moments.summarise(said, groups, self.real.control)

    @cached_property
    def controls(self) -> sp.csr_matrix:
        """Counts of the control cells."""
        return sp.csr_matrix(self.cells[self.control].to_memory().X, dtype=np.float64)

    def score_effects(self, effects: np.ndarray, seed: int = 0) -> dict[str, float]:
        """Value of each metric of predicted effects (k, g), differences of mean log expression."""
        rng = np.random.default_rng(seed)
        return self.score(self.moved(count_changes(effects, self.controls), rng))

    def scaled(self, values: Mapping[str, float]) -> dict[str, float]:
        """Place the six between the yardsticks; "vcc2026" is the mean of those with a scale."""
        out = {}
        for name in SIX:
            low, high = self.baseline[name], self.repeat[name]
            sign = 1 if metric(name).higher_is_better else -1
            place = (values[name] - low) / (high - low) if sign * (high - low) > 0 else np.nan
            out[name] = float(np.clip(place, *LIMITS.get(name, (-np.inf, np.inf))))
        return out | {"vcc2026": moments.vcc2026(out)}


def count_changes(effects: np.ndarray, control: sp.csr_matrix) -> np.ndarray:
    """Fold-changes of counts (k, g) by which control cells show effects, at most 64-fold."""
    columns = sp.csr_matrix(control, dtype=np.float64)
    total = np.asarray(columns.sum(axis=1)).ravel()
    columns = sp.diags(moments.LOGGED_TOTAL / total) @ columns
    gene, n = columns.indices, len(total)
    curve = np.stack(
        [
            np.bincount(gene, np.log1p(np.exp(s) * columns.data), minlength=columns.shape[1]) / n
            for s in _STEPS
        ]
    )
    out, level = np.zeros(effects.shape), curve[len(_STEPS) // 2]
    for g in np.flatnonzero(level > 0):
        out[:, g] = np.interp(level[g] + effects[:, g], curve[:, g], _STEPS)
    return np.exp(out)


def moved_cells(control: sp.csr_matrix, ratio: np.ndarray, n: int, rng) -> sp.csr_matrix:
    """Draw `n` control cells and multiply their counts by `ratio` (g,), rounded at random."""
    rows = rng.choice(control.shape[0], n, replace=n > control.shape[0])
    cells = sp.csr_matrix(control[rows], dtype=np.float64)
    moved = cells.data * ratio[cells.indices]
    counts = np.floor(moved) + (rng.random(len(moved)) < moved % 1)
    out = sp.csr_matrix((counts, cells.indices, cells.indptr), shape=cells.shape)
    empty = np.flatnonzero(np.asarray(out.sum(axis=1)).ravel() == 0)
    out.data[out.indptr[empty]] = 1  # a cell without any count would never have been called a cell
    out.eliminate_zeros()
    return out


def references(
    cells: AnnData, *, perturbation: str, control: str, cell_line: str | None, **options
) -> dict[str, Reference]:
    """One `Reference` per cell line; `perturbation`, `cell_line`: columns of obs."""
    out = {}
    for line, rows in _by_line(cells, cell_line).items():
        groups = moments.rows_by_group(cells.obs[perturbation].iloc[rows])
        groups = {name: rows[at] for name, at in groups.items() if len(at) >= LEAST_CELLS}
        if control not in groups:
            raise InputError(f"line '{line}' has too few cells '{control}' in '{perturbation}'")
        controls = groups.pop(control)
        out[line] = Reference(cells, groups, controls, **options)
    return out


def _by_line(cells: AnnData, cell_line: str | None) -> dict[str, np.ndarray]:
    return (
        moments.rows_by_group(cells.obs[cell_line])
        if cell_line
        else {"all": np.arange(cells.n_obs)}
    )


def score_cells(
    predicted: AnnData, reference: AnnData, *, perturbation: str = TARGET, control: str = CONTROL,
    cell_line: str | None = None, n_splits: int = 5, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Score predicted cells against measured ones by the metrics that people submit to.

    `predicted`, `reference`: raw counts, cells x genes, the same genes and perturbations, in memory
    or backed; `perturbation`, `cell_line`: columns of obs; `control`: label of control cells, of
    which those of `reference` serve both sides; `n_splits, seed`: of the repeated experiment.
    Returns a row per cell line and metric: value, baseline (the line's mean response), repeat,
    scaled (0: baseline, 1: repeat; "vcc2026" is the mean of six). Virtual Cell Challenge 2026.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> cells = pc.simulate_screen(**sizes).screen
    >>> table = pc.score_cells(cells, cells, perturbation="perturbation", control="control")
    >>> float(table.set_index("metric").loc["pds_cosine", "value"])
    1.0
    """
    for name, cells in (("predicted", predicted), ("reference", reference)):
        columns = [perturbation] + ([cell_line] if cell_line else [])
        check_table(cells.obs, columns, f"{name} cells: obs", way_out="name the column that has it")
        for start, _, block in blocks(cells):
            wrong = block.data[(block.data < 0) | (block.data != np.floor(block.data))]
            if len(wrong):
                raise InputError(
                    f"{name} cells, from row {start + 1}: X has the value {wrong[0]:g}; the "
                    "metrics need raw counts, which log-normalised values cannot give back"
                )
    how: Any = dict(perturbation=perturbation, control=control, cell_line=cell_line)
    known = references(reference, **how, n_splits=n_splits, seed=seed)
    said, rows = _by_line(predicted, cell_line), []
    for line, one in known.items():
        if line not in said:
            continue
        groups = moments.rows_by_group(predicted.obs[perturbation].iloc[said[line]])
        groups = {name: said[line][at] for name, at in groups.items() if name in one.groups}
        values = one.score(moments.summarise(predicted, groups, one.real.control))
        place = one.scaled(values)
        rows += [
            {"cell_line": line, "metric": name, "value": values.get(name, np.nan),
             "baseline": one.baseline.get(name, np.nan), "repeat": one.repeat.get(name, np.nan),
             "scaled": place.get(name, np.nan)}
            for name in (*SIX, "vcc2026", *THREE)
        ]  # fmt: skip
    if not rows:
        raise InputError(f"the predicted cells have no line of {', '.join(known)}")
    return pd.DataFrame(rows)
