"""Labels: genes that respond, by t-tests and votes, and functions over-represented in them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import exp, lgamma

import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.special import ndtri, stdtr
from scipy.stats import false_discovery_control

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.effects import THREADS, summed
from perturbcore.data.responses import TAKEN, make_responses
from perturbcore.data.screens.declare import check_declared, kinds_of_cells

# float64 sums of squares carry this relative error at worst; a smaller spread is a constant gene
_ROUNDING = 1e-11
# that one thread tests at a time: few, so that their numbers stay near the processor
_GROUPS = 16


def deg_labels(
    screen: AnnData,
    *,
    variant: str = "pooled",
    test: str = "welch",
    min_cells: int = 30,
    strict: bool = True,
    alpha: float = 0.05,
    progress: bool = True,
) -> AnnData:
    """Label the genes that each perturbation moves up (1) or down (-1), or not (0).

    `screen`: declared, in memory or backed on disk; values are log1p(1e4 * count / total).
    `variant`: "pooled", for small batches: all perturbed against all control cells of the cell
    line; "per_batch", for large ones: against control cells of the same batch, then a majority vote
    of the batches (`majority`). `test`: "welch", as the published code has it, or "student", as the
    paper's text says. `min_cells`: cells that a perturbation, and the controls, must have in the
    cell line (pooled) or in the batch (per_batch); two in any case, as one has no variance.
    Published: 30 in the paper; 30 (Essential) and 20 (chemicals) in the code. `strict`: whether
    they must have more than `min_cells` (the code) or at least as many (the paper). `alpha`: false
    discovery rate: genes with an adjusted p-value below it are labelled.

    Returns task "deg", without folds, sorted by cell line and perturbation; obs `n_cells`,
    `n_batches` (those that were tested).

    Cole et al. 2026, Methods 4.2.2.
    """
    check_declared(screen)
    check_choice("test", test, ("welch", "student"))
    if not 0 < alpha < 1:
        raise ParameterError(f"alpha={alpha!r}: give a false discovery rate between 0 and 1")
    plan = plan_tests(screen.obs, variant, min_cells, strict)
    shape = (len(plan.rows), screen.n_vars)
    up, down = (np.zeros(shape, dtype=np.int16) for _ in range(2))
    size, row_of = plan.groups["n"].to_numpy(), plan.groups["row"].to_numpy()
    sums = summed(
        screen, plan.group_of_cell, np.arange(len(plan.groups)), np.ones(len(plan.groups)),
        plan.blocks(), np.arange(screen.n_vars), squares=True, progress=progress,
    )  # fmt: skip
    with ThreadPoolExecutor(THREADS) as threads:
        for control, treated, first, second in sums:
            n = size[[*control, *treated]]
            how = (*mean_and_variance(first[:1], second[:1], n[:1]), n[0], test, alpha)
            parts = [slice(i, i + _GROUPS) for i in range(1, len(n), _GROUPS)]
            found = [threads.submit(_call, first[i], second[i], n[i], *how) for i in parts]
            row, label = row_of[treated], np.concatenate([part.result() for part in found])
            up[row] += label > 0
            down[row] += label < 0
    label = up - down
    if variant == "per_batch":
        votes = plan.rows["n_batches"].to_numpy(dtype=np.int16)[:, None]
        label = majority(up, down, votes - up - down)
    about = {k: screen.uns["perturbcore"][k] for k in TAKEN}
    out = make_responses(label, plan.rows, screen.var_names, task="deg", **about)
    out.uns["perturbcore"].update(
        variant=variant, test=test, alpha=float(alpha), min_cells=int(min_cells),
        strict=bool(strict),
    )  # fmt: skip
    return out


@dataclass(frozen=True)
class Comparisons:
    """Groups of cells, and what is tested; `row` of a group in the result, -1 for not tested."""

    groups: pd.DataFrame
    rows: pd.DataFrame
    group_of_cell: np.ndarray

    def blocks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the control group and the treated ones of each place where something is tested."""
        places = self.groups[self.groups["used"]].groupby("place", sort=True)
        control = [(part.index, part["is_control"].to_numpy()) for _, part in places]
        return [(index[c].to_numpy(), index[~c].to_numpy()) for index, c in control]


def plan_tests(obs: pd.DataFrame, variant: str, min_cells: int, strict: bool) -> Comparisons:
    """Choose the groups of cells to test; see `deg_labels`."""
    check_choice("variant", variant, ("pooled", "per_batch"))
    if isinstance(min_cells, bool) or not isinstance(min_cells, int | np.integer) or min_cells < 0:
        raise ParameterError(f"min_cells={min_cells!r}: give a whole number of at least 0")
    kinds, kind = kinds_of_cells(obs)
    kinds["perturbation"] = kinds["perturbation"].mask(kinds["is_control"], "")
    by = ["cell_line", "batch"] if variant == "per_batch" else ["cell_line"]
    kinds["place"] = kinds.groupby(by, sort=True).ngroup()
    found = kinds.groupby(["cell_line", "place", "is_control", "perturbation"], sort=True)
    groups = found.agg(n=("n", "sum"), n_batches=("batch", "nunique")).reset_index()
    n, control = groups["n"].to_numpy(), groups["is_control"].to_numpy()
    # one cell has no variance
    enough = (n > min_cells if strict else n >= min_cells) & (n > 1)
    served = groups["place"].isin(groups.loc[control & enough, "place"]).to_numpy()
    wanted = f"{'more than' if strict else 'at least'} {min_cells}"
    for line, part in groups.groupby("cell_line"):
        if not served[part.index].any():
            most = part.loc[part["is_control"], "n"].max() if part["is_control"].any() else 0
            where = "" if variant == "pooled" else " in any one batch"
            raise InputError(
                f"cell_line {line!r} has {most} control cells{where} at most, {wanted} are needed: "
                "lower min_cells, leave the line out, or declare its controls"
            )
    tested = enough & served & ~control
    if not tested.any():
        raise InputError(
            f"no perturbation has {wanted} cells (the largest has {n[~control].max()}): lower "
            "min_cells"
        )
    rows = groups[tested].groupby(["cell_line", "perturbation"], sort=True)
    groups["row"] = rows.ngroup().reindex(groups.index, fill_value=-1)
    busy = groups["place"].isin(groups.loc[tested, "place"]).to_numpy()
    groups["used"] = tested | (control & enough & busy)
    table = rows.agg(n_cells=("n", "sum"), n_batches=("n_batches", "sum")).reset_index()
    return Comparisons(groups, table, found.ngroup().to_numpy()[kind])


def mean_and_variance(first, second, n) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance of groups; exactly 0 for a gene that is constant in a group."""
    n = np.asarray(n, dtype=np.float64)[:, None]
    mean = first / n
    spread = second - first * mean
    spread[spread <= _ROUNDING * second] = 0.0
    spread /= n - 1
    return mean, spread


def t_statistics(
    mean, variance, n, control_mean, control_variance, control_n, test="welch"
) -> tuple[np.ndarray, np.ndarray]:
    """Test every gene of every group against the controls, as scipy: statistics and freedom."""
    n = np.asarray(n, dtype=np.float64)[:, None]
    m = float(control_n)
    with np.errstate(divide="ignore", invalid="ignore"):
        if test == "welch":
            own, other = variance / n, control_variance / m
            square = own + other
            df = square**2 / (own**2 / (n - 1) + other**2 / (m - 1))
            df[np.isnan(df)] = 1.0
        else:
            pooled = ((n - 1) * variance + (m - 1) * control_variance) / (n + m - 2)
            square = pooled * (1 / n + 1 / m)
            df = np.broadcast_to(n + m - 2, square.shape)
        t = (mean - control_mean) / np.sqrt(square)
    t[np.isnan(t)] = 0.0
    return t, df


def _call(first, second, n, mean, variance, control_n, test, alpha) -> np.ndarray:
    """Label the genes of some groups, from sums of their cells."""
    found = mean_and_variance(first, second, n)
    return call_genes(*t_statistics(*found, n, mean, variance, control_n, test), alpha)


def call_genes(t, df, alpha: float = 0.05) -> np.ndarray:
    """Label genes: sign of t where the p-value, adjusted within the row, is below `alpha`."""
    p = np.ones(t.shape)
    # tails are heavier than the normal one: only beyond its quantiles can a gene be called
    far = np.abs(t) >= -ndtri(alpha / 2)
    p[far] = 2.0 * stdtr(df[far], -np.abs(t[far]))
    called = false_discovery_control(p, axis=1) < alpha
    label = np.zeros(t.shape, dtype=np.int8)
    label[called] = np.sign(t[called])
    return label


def majority(up, down, flat) -> np.ndarray:
    """Label with the most votes; a tie goes to the sign of the sum of the tied labels."""
    most = np.maximum(np.maximum(up, down), flat)
    return (np.equal(up, most).astype(np.int8) - np.equal(down, most)).astype(np.int8)


@dataclass(frozen=True)
class Enrichment:
    """Lists (n) by gene sets (T): sparse matrices that share their entries, one per overlap."""

    terms: pd.Index
    overlap: sp.csr_matrix
    p: sp.csr_matrix
    p_adj: sp.csr_matrix

    def labels(self, alpha: float = 0.05) -> np.ndarray:
        """Which sets are significant in which list, (n, T) bool."""
        out = np.zeros(self.p.shape, dtype=bool)
        rows = np.repeat(np.arange(out.shape[0]), np.diff(self.p.indptr))
        out[rows, self.p.indices] = self.p_adj.data <= alpha
        return out


@numba.njit(cache=True)
def _at_least(shared, size, drawn, total, log_factorial):
    """P(X >= shared); the smaller tail is summed from its largest term outwards."""
    f = log_factorial
    upper = shared * (total + 2) > (drawn + 1) * (size + 1)
    rest, j = total - size - drawn, shared if upper else shared - 1
    if j < max(0, -rest):
        return 1.0
    term = tail = exp(
        f[size] - f[j] - f[size - j] + f[total - size] - f[drawn - j] - f[rest + j]
        - f[total] + f[drawn] + f[total - drawn]
    )  # fmt: skip
    while term > 1e-17 * tail:
        if upper:
            term *= (size - j) * (drawn - j) / ((j + 1.0) * (rest + j + 1.0))
        else:
            term *= j * (rest + j) / ((size - j + 1.0) * (drawn - j + 1.0))
        j += 1 if upper else -1
        tail += term
    return min(tail, 1.0) if upper else max(1.0 - tail, 0.0)


@numba.njit(cache=True)
def _tails(indptr, sets, shared, size, drawn, total, log_factorial):
    """Return `_at_least` of every stored overlap of lists and sets."""
    p = np.empty(len(shared))
    for i in range(len(drawn)):
        for k in range(indptr[i], indptr[i + 1]):
            p[k] = _at_least(shared[k], size[sets[k]], drawn[i], total, log_factorial)
    return p


def over_represented(
    hits: np.ndarray, genes: Sequence[str], sets: Mapping[str, Sequence[str]]
) -> Enrichment:
    """Test every list of genes (n, g) for every gene set, as GSEApy's ``enrich`` does for one."""
    hits = np.asarray(hits, dtype=bool)
    if hits.ndim != 2 or hits.shape[1] != len(genes):
        raise InputError(f"hits have shape {hits.shape}; the background has {len(genes)} genes")
    at, found = pd.Index(genes), {}
    for name, members in sets.items():
        rows = at.get_indexer(pd.unique(np.asarray(list(members), dtype=object)))
        if (rows >= 0).any():
            found[name] = rows[rows >= 0]
    if not found:
        raise InputError(
            f"none of the {len(sets)} gene sets has a gene of the background, such as "
            f"'{genes[0]}': their ids differ; convert the sets"
        )
    columns = np.repeat(np.arange(len(found)), [len(rows) for rows in found.values()])
    where = (np.concatenate([*found.values()]), columns)
    shape = (len(genes), len(found))
    member = sp.csr_matrix((np.ones(len(columns), np.int64), where), shape=shape)
    overlap = (sp.csr_matrix(hits.astype(np.int64)) @ member).tocsr()
    overlap.sort_indices()
    size = np.asarray(member.sum(axis=0)).ravel()
    log_factorial = np.array([lgamma(i + 1) for i in range(len(genes) + 1)])
    about = size, hits.sum(axis=1), len(genes), log_factorial
    p = _tails(overlap.indptr, overlap.indices, overlap.data, *about)
    p_adj = p.copy()
    for start, stop in pairwise(overlap.indptr):
        if stop > start:
            p_adj[start:stop] = false_discovery_control(p[start:stop])
    tested = [
        sp.csr_matrix((v, overlap.indices, overlap.indptr), overlap.shape) for v in (p, p_adj)
    ]
    return Enrichment(pd.Index(list(found)), overlap, *tested)


def function_labels(
    responses: AnnData,
    sets: Mapping[str, Sequence[str]],
    *,
    keep_target: bool = True,
    least_shared: int = 1,
    least_perturbations: int = 20,
    alpha: float = 0.05,
) -> AnnData:
    """Label each perturbation with the gene sets that its differentially expressed genes enrich.

    `keep_target`: whether the perturbed gene may be in its list; `least_shared`: genes that a list
    must share with a set; `least_perturbations`: sets of fewer are dropped (Hasanaj et al. 2025).
    """
    if "observed" in responses.layers or "deg" not in responses.layers:
        raise InputError(
            "functions need complete labels (task 'deg'): where most labels are unknown, a list of "
            "the known ones is no list of what responds"
        )
    hits = np.asarray(responses.layers["deg"]) != 0
    genes, names = responses.var_names, responses.obs["perturbation"].astype(str).to_numpy()
    own = (names[:, None] == genes.to_numpy()[None, :]) & hits
    found = over_represented(hits if keep_target else hits & ~own, genes, sets)
    shared = found.overlap.toarray()
    label = found.labels(alpha) & (shared >= least_shared)
    kept = label.sum(axis=0) >= least_perturbations
    if not kept.any():
        raise InputError(
            f"least_perturbations={least_perturbations}: no gene set is enriched in so many; the "
            f"most frequent one in {label.sum(axis=0).max()}"
        )
    columns = [c for c in ("perturbation", "cell_line", "fold") if c in responses.obs]
    about = {k: responses.uns["perturbcore"][k] for k in TAKEN} | {"task": "functions"}
    out = make_responses(label[:, kept], responses.obs[columns], found.terms[kept], **about)
    out.layers["shared"] = shared[:, kept].astype(np.int32)
    out.obs["n_deg"], out.obs["own"] = hits.sum(axis=1), own.any(axis=1)
    return out
