"""Metrics of predicted cells against measured ones: three of cell-eval, six of vcc2026.

Cells are read once, group by group. What is kept of a group is a row per moment: sums of counts,
means on two scales, a jackknife of its profile, and the rank test of each gene against the control.
Virtual Cell Challenge 2026, metric suite; Cole et al. 2026 (cell-eval).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from joblib import Parallel, cpu_count, delayed
from scipy.spatial.distance import cdist
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from perturbcore.core.errors import InputError
from perturbcore.embeddings.linalg import unit
from perturbcore.score.metrics.registry import register
from perturbcore.score.metrics.regression import places

PROFILE_TOTAL, CPM, LOGGED_TOTAL = 5e4, 1e6, 1e4
LEAST_CPM, ALPHA, EPSILON = 5.0, 0.05, 1e-9
PURITY, LEAST_GATE = 0.9, 10
_SMALL = 0.01  # below it, five terms of the series of log(1 - q) are exact to 1e-13


@numba.njit(nogil=True, cache=True)
def _jackknife(data, cell, start, total, sums):
    """Delete-one-cell variance of the log profile, summed over genes; counts in CSC."""
    n, whole = len(total), total.sum()
    base, largest = np.log(whole - total), total.max()
    out = np.zeros(len(sums))
    for g in range(len(sums)):
        if sums[g] == 0:
            continue
        amount = whole + PROFILE_TOTAL * sums[g]
        v = np.empty(n)
        if largest < _SMALL * amount:
            inverse, level = 1.0 / amount, np.log(amount)
            for i in range(n):
                q = total[i] * inverse
                v[i] = level - q * (1 + q * (1 / 2 + q * (1 / 3 + q * (1 / 4 + q / 5)))) - base[i]
        else:
            for i in range(n):
                v[i] = np.log(amount - total[i]) - base[i]
        for k in range(start[g], start[g + 1]):
            i = cell[k]
            v[i] = np.log(amount - total[i] - PROFILE_TOTAL * data[k]) - base[i]
        out[g] = ((v - v.mean()) ** 2).sum()
    return out.sum() * (n - 1) / n


@numba.njit(nogil=True, cache=True)
def _sort_columns(data, start):
    for g in range(len(start) - 1):
        data[start[g] : start[g + 1]] = np.sort(data[start[g] : start[g + 1]])


@numba.njit(nogil=True, cache=True)
def _rank_z(values, start, n, control, at, m):
    """Wilcoxon's z of each gene, ties and continuity corrected; columns sorted, zeros left out."""
    out = np.full(len(start) - 1, -np.inf)
    for g in range(len(start) - 1):
        a, b = values[start[g] : start[g + 1]], control[at[g] : at[g + 1]]
        zeros, others = float(n - len(a)), float(m - len(b))
        u, both = zeros * others / 2, zeros + others
        ties, i, j = both**3 - both, 0, 0
        while j < len(b):
            first = j
            while j < len(b) and b[j] == b[first]:
                j += 1
            same = float(j - first)
            ties += same**3 - same
        while i < len(a):
            first = i
            while i < len(a) and a[i] == a[first]:
                i += 1
            low, high = np.searchsorted(b, a[first]), np.searchsorted(b, a[first], side="right")
            count, same = float(i - first), float(high - low)
            u += count * (others + low + same / 2)
            ties += (count + same) ** 3 - count - same**3
        size = float(n + m)
        spread = n * m / 12.0 * (size + 1 - ties / (size * (size - 1)))
        if spread > 0:
            out[g] = (max(u, n * m - u) - n * m / 2.0 - 0.5) / np.sqrt(spread)
    return out


@dataclass
class Control:
    """Moments of the control cells, and their normalised values, sorted within each gene."""

    n: int
    counts: np.ndarray
    cpm: np.ndarray
    logged: np.ndarray
    jackknife: float
    values: np.ndarray
    start: np.ndarray


@dataclass
class Groups:
    """Moments of k perturbations over g genes, tested against `control`.

    `counts` (k, g): sums; `cpm`, `logged` (k, g): means over cells of counts scaled to a million,
    and of log1p of those scaled to 10,000; `jackknife` (k,); `p` (k, g): rank test against the
    control.
    """

    names: pd.Index
    genes: pd.Index
    control: Control
    counts: np.ndarray
    cpm: np.ndarray
    logged: np.ndarray
    jackknife: np.ndarray
    p: np.ndarray


def _moments(X) -> Control:
    X = sp.csr_matrix(X, dtype=np.float64)
    total = np.asarray(X.sum(axis=1)).ravel()
    if not (total > 0).all():
        raise InputError("a cell has no count at all: drop it, it cannot be normalised")
    columns = X.tocsc()
    counts = np.asarray(columns.sum(axis=0)).ravel()
    spread = 0.0
    if len(total) > 1:
        spread = _jackknife(columns.data, columns.indices, columns.indptr, total, counts)
    share = columns.data / total[columns.indices]
    genes, n = np.repeat(np.arange(X.shape[1]), np.diff(columns.indptr)), len(total)

    def mean(values):
        return np.bincount(genes, values, minlength=X.shape[1]) / n

    _sort_columns(share, columns.indptr)
    cpm, logged = mean(CPM * share), mean(np.log1p(LOGGED_TOTAL * share))
    return Control(n, counts, cpm, logged, spread, share, columns.indptr)


def rows_by_group(labels) -> dict[str, np.ndarray]:
    """Rows of each label, in the order of the names."""
    labels = pd.Series(np.asarray(labels).astype(str))
    return dict(sorted(labels.groupby(labels).indices.items()))


def _rows(cells: AnnData, rows: np.ndarray):
    return cells[np.sort(rows)].to_memory().X if cells.isbacked else cells.X[rows]


def summarise(
    cells: AnnData, groups: Mapping[str, np.ndarray], control: np.ndarray | Control
) -> Groups:
    """Reduce raw counts to the moments of each group, every cell read once."""
    if not isinstance(control, Control):
        control = _moments(_rows(cells, control))
    k, g = len(groups), cells.n_vars
    counts, cpm, logged, z = (np.empty((k, g)) for _ in range(4))
    spread = np.empty(k)
    against = control.values, control.start, control.n

    def reduced(X):
        one = _moments(X)
        return one, _rank_z(one.values, one.start, one.n, *against)

    work = Parallel(cpu_count(), prefer="threads", return_as="generator")
    parts = work(delayed(reduced)(_rows(cells, rows)) for rows in groups.values())
    for i, (one, z[i]) in enumerate(parts):
        counts[i], cpm[i], logged[i], spread[i] = one.counts, one.cpm, one.logged, one.jackknife
    p = np.minimum(2 * ndtr(-z), 1.0)
    names, genes = pd.Index(list(groups), dtype=str), cells.var_names.astype(str)
    return Groups(names, genes, control, counts, cpm, logged, spread, p)


def fold_changes(groups: Groups) -> np.ndarray:
    """Log2 fold-changes of mean counts per million against the control, (k, g)."""
    return np.log2((groups.cpm + EPSILON) / (groups.control.cpm + EPSILON))


def profile(counts) -> np.ndarray:
    """Log of one plus the summed counts, scaled to 50,000 in all."""
    return np.log1p(PROFILE_TOTAL * counts / counts.sum(axis=-1, keepdims=True))


@dataclass
class Pair:
    """Predicted groups beside the measured ones; `gate`: of the fold-change error."""

    said: Groups
    real: Groups
    gate: tuple[np.ndarray, np.ndarray] | None = field(default=None)

    def __post_init__(self):
        for what in ("names", "genes"):
            a, b = getattr(self.said, what), getattr(self.real, what)
            if not a.equals(b):
                odd = a.symmetric_difference(b)
                raise InputError(
                    f"predicted and measured cells differ in their {what}"
                    f"{f', such as {odd[0]!r}' if len(odd) else ' order'}: give both the same"
                )

    @cached_property
    def own(self) -> np.ndarray:
        """(k, g) bool: the perturbed gene of each perturbation."""
        return self.real.names.to_numpy()[:, None] == self.real.genes.to_numpy()[None]

    @cached_property
    def tested(self) -> np.ndarray:
        """(g,) bool: genes that the measured control expresses."""
        return self.real.control.cpm > LEAST_CPM

    @cached_property
    def de(self) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Of the prediction and the measurement: significant, fold-change, adjusted p, p (k, h)."""
        return self._table(self.said), self._table(self.real)

    def _table(self, groups: Groups) -> tuple[np.ndarray, ...]:
        p, own = groups.p[:, self.tested], self.own[:, self.tested]
        adjusted = false_discovery_control(p, axis=1) if p.size else p
        return (adjusted < ALPHA) & ~own, fold_changes(groups)[:, self.tested], adjusted, p

    @cached_property
    def agree(self) -> np.ndarray:
        """(k, h) bool: predicted and measured change have one sign, and there is one."""
        (_, said, *_), (_, real, *_) = self.de
        return (np.sign(said) == np.sign(real)) & (real != 0)


@register("pds_cosine")
def pds_cosine(pair: Pair) -> np.ndarray:
    """Rank of the own measured profile by cosine; no gene that any perturbation targets counts."""
    kept = ~pair.own.any(axis=0)
    base = profile(pair.real.control.counts)[kept]
    sides = []
    for groups in (pair.said, pair.real):
        sides.append(unit(profile(groups.counts)[:, kept] - base))
    return 1 - places(1 - sides[0] @ sides[1].T) / max(len(pair.own) - 1, 1)


@register("expression_error")
def expression_error(pair: Pair) -> np.ndarray:
    """Corrected squared error of all profiles over that of predicting the control; one value."""
    said, real = profile(pair.said.counts), profile(pair.real.counts)
    base, weight = profile(pair.real.control.counts), ~pair.own / (~pair.own).sum(1)[:, None]
    scale = weight.max(axis=1)
    noise, credit = pair.real.jackknife, np.minimum(pair.said.jackknife, pair.real.jackknife)
    mean = (weight * said).sum(0) / np.maximum(weight.sum(0), 1e-300)
    claimed, spread = (scale * credit).sum(), (weight * (said - mean) ** 2).sum()
    share = min(1.0, spread / claimed) if claimed > 0 else 1.0
    top = (weight * (said - real) ** 2).sum(1) - scale * (share * credit + noise)
    bottom = (weight * (real - base) ** 2).sum(1) - scale * (noise + pair.real.control.jackknife)
    return np.array([top.sum() / bottom.sum()])


@register("direction_fidelity")
def direction_fidelity(pair: Pair) -> np.ndarray:
    """Divide called genes of the right sign by the larger of calls and responding genes."""
    (called, *_), (responds, change, *_) = pair.de
    n = np.maximum((called & (change != 0)).sum(1), responds.sum(1)).astype(float)
    return np.where(n > 0, (called & pair.agree).sum(1) / np.maximum(n, 1), np.nan)


@register("direction_reach")
def direction_reach(pair: Pair) -> np.ndarray:
    """Share of the responding genes, in the predicted order, until signs are 90 % right."""
    (called, change, adjusted, p), (responds, real, *_) = pair.de
    names, out = pair.real.genes[pair.tested].to_numpy(), np.full(len(called), np.nan)
    for i, pool in enumerate(map(np.flatnonzero, responds)):
        size = -np.abs(change[i, pool])
        order = np.lexsort((names[pool], size, p[i, pool], adjusted[i, pool], ~called[i, pool]))
        pool = pool[order]
        right = pair.agree[i, pool][real[i, pool] != 0]
        depth = np.arange(1, len(right) + 1)
        clear = depth[np.cumsum(right) / depth >= PURITY]
        if len(pool):
            out[i] = (clear[-1] if len(clear) else 0) / len(pool)
    return out


@register("sig_jaccard")
def sig_jaccard(pair: Pair) -> np.ndarray:
    """Genes that both call significant over those that either does; 1 where neither has any."""
    (called, *_), (responds, *_) = pair.de
    both, either = (called & responds).sum(1), (called | responds).sum(1)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


@register("fold_change_error")
def fold_change_error(pair: Pair) -> np.ndarray:
    """Absolute error of the fold-changes of responding genes over their size, from 10 genes."""
    gate, size = pair.gate or full_gate(pair)
    there = (gate.sum(1) >= LEAST_GATE) & (size > 0)
    error = (gate * np.abs(fold_changes(pair.said) - fold_changes(pair.real))).sum(1)
    return np.where(there, error / np.where(there, size, 1), np.nan)


def full_gate(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Genes (k, g) that respond in the measured cells, and the size of their changes (k,)."""
    gate = np.zeros(pair.own.shape, dtype=bool)
    gate[:, pair.tested] = pair.de[1][0]
    return gate, (gate * np.abs(fold_changes(pair.real))).sum(1)


@register("discrimination_score_l1")
def discrimination_score_l1(pair: Pair) -> np.ndarray:
    """Rank of the own measured effect by L1, without the perturbed gene itself."""
    said, real = (x.logged - x.control.logged for x in (pair.said, pair.real))
    distance = cdist(said, real, "cityblock")
    at, gene = np.nonzero(pair.own)
    distance[at] -= np.abs(said[at, gene][:, None] - real[:, gene].T)
    return 1 - places(distance) / len(said)


@register("overlap_at_N")
def overlap_at_n(pair: Pair) -> np.ndarray:
    """Share of the N significant genes of largest change that the prediction's N first have."""
    tops = []
    for groups in (pair.said, pair.real):
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(np.log2(np.expm1(groups.logged) / np.expm1(groups.control.logged)))
        called = false_discovery_control(groups.p, axis=1) < ALPHA
        order = np.argsort(-np.where(np.isnan(size), -1.0, size), axis=1, kind="stable")
        tops.append([row[c[row]] for row, c in zip(order, called, strict=True)])
    pairs = zip(*tops, strict=True)
    return np.array([len(np.intersect1d(a[: len(b)], b)) / max(len(b), 1) for a, b in pairs])


@register("mean_error")
def mean_error(pair: Pair) -> np.ndarray:
    """Mean absolute error of the mean log expression over genes."""
    return np.abs(pair.said.logged - pair.real.logged).mean(axis=1)


@register("vcc2026")
def vcc2026(scaled: Mapping[str, float]) -> float:
    """Mean of the six between their yardsticks; of those that have a scale, else missing."""
    there = [v for v in scaled.values() if np.isfinite(v)]
    return float(np.mean(there)) if there else np.nan
