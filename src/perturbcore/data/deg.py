"""Differentially expressed genes of a screen: t-tests from group moments, and votes."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import ndtri, stdtr
from scipy.stats import false_discovery_control

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.effects.moments import gene_columns, summed
from perturbcore.data.responses import make_responses
from perturbcore.data.screens.declare import check_declared

# float64 sums of squares carry this relative error at worst; a smaller spread is a constant gene
_ROUNDING = 1e-11


def deg_labels(
    screen: AnnData,
    *,
    variant: str = "pooled",
    test: str = "welch",
    min_cells: int = 30,
    strict: bool = True,
    alpha: float = 0.05,
    genes=None,
    size_factors: str = "all",
    statistics: bool = False,
    progress: bool = True,
) -> AnnData:
    """Label the genes that each perturbation moves up (1) or down (-1), or not (0).

    Tests need only counts, sums and sums of squares: the cells are read once and never held; beyond
    2 GB of sums the screen is read in several passes.

    `screen`: declared, in memory or backed on disk; values are log1p(1e4 * count / total).
    `variant`: "pooled", for small batches: all perturbed against all control cells of the cell
    line; "per_batch", for large ones: against control cells of the same batch, then a majority vote
    of the batches (`majority`). `test`: "welch", as the published code has it, or "student", as the
    paper's text says. `min_cells`: cells that a perturbation, and the controls, must have in the
    cell line (pooled) or in the batch (per_batch); two in any case, as one has no variance.
    Published: 30 in the paper; 30 (Essential) and 20 (chemicals) in the code. `strict`: whether
    they must have more than `min_cells` (the code) or at least as many (the paper). `alpha`: false
    discovery rate: genes with an adjusted p-value below it are labelled. `genes, size_factors,
    progress`: see `perturbcore.data.effects.ba_ate.ba_ate`; correction is for the genes tested;
    published for chemicals: "kept". `statistics`: keep layers ``t`` and ``p_adj`` (float32); pooled
    only.

    Returns (cell_line, perturbation) x genes, task "deg", without folds: layers ``deg`` int8 (X the
    same as float32); obs `perturbation`, `cell_line`, `n_cells`, `n_batches` (those that were
    tested). Per batch also layers ``votes_up`` and ``votes_down`` (int16), out of `n_batches`.
    Sorted by cell line and perturbation. Refused (`InputError`) are a screen that is not declared,
    a gene that is not in it, a cell line with too few control cells, and perturbations that all
    have too few.

    Cole et al. 2026, Methods 4.2.2.
    """
    check_declared(screen)
    check_choice("test", test, ("welch", "student"))
    if not 0 < alpha < 1:
        raise ParameterError(f"alpha={alpha!r}: give a false discovery rate between 0 and 1")
    if statistics and variant != "pooled":
        raise ParameterError("statistics=True is for variant='pooled': a vote has no statistic")
    column, kept = gene_columns(screen, genes)
    plan = plan_tests(screen.obs, variant, min_cells, strict)
    shape = (len(plan.rows), len(kept))
    up, down = (np.zeros(shape, dtype=np.int16) for _ in range(2))
    layers = {k: np.zeros(shape, dtype=np.float32) for k in ("t", "p_adj") if statistics}
    size, row_of = plan.groups["n"].to_numpy(), plan.groups["row"].to_numpy()
    for control, treated, first, second in summed(
        screen, plan.group_of_cell, np.ones(screen.n_obs), plan.blocks(), column,
        size_factors=size_factors, squares=True, progress=progress,
    ):  # fmt: skip
        n = size[[*control, *treated]]
        mean, var = mean_and_variance(first, second, n)
        t, df = t_statistics(mean[1:], var[1:], n[1:], mean[0], var[0], n[0], test)
        row = row_of[treated]
        label = call_genes(t, df, alpha)
        up[row] += label > 0
        down[row] += label < 0
        if statistics:
            layers["t"][row] = t
            layers["p_adj"][row] = false_discovery_control(p_values(t, df), axis=1)
    if variant == "pooled":
        label = (up - down).astype(np.int8)
    else:
        votes = plan.rows["n_batches"].to_numpy(dtype=np.int16)[:, None]
        label = majority(up, down, votes - up - down)
        layers.update(votes_up=up, votes_down=down)
    declared = screen.uns["perturbcore"]
    out = make_responses(
        label, plan.rows, kept, dataset=str(declared["dataset"]), task="deg",
        identifier=str(declared["identifier"]), simulated=bool(declared["simulated"]),
    )  # fmt: skip
    out.layers.update(layers)
    out.uns["perturbcore"].update(
        variant=variant, test=test, alpha=float(alpha), min_cells=int(min_cells),
        strict=bool(strict), size_factors=size_factors,
    )  # fmt: skip
    return out


@dataclass(frozen=True)
class Comparisons:
    """Groups of cells, and what is tested.

    `groups`: one row per group of cells: `cell_line`, `place` (its cell line, or cell line and
    batch), `perturbation`, `control`, `n` cells, `used`, and `row` of the result (-1: not tested).
    `rows`: obs of the result. `group_of_cell`: row of `groups` of each cell.
    """

    groups: pd.DataFrame
    rows: pd.DataFrame
    group_of_cell: np.ndarray

    def blocks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the control group and the treated ones of each place where something is tested."""
        places = self.groups[self.groups["used"]].groupby("place", sort=True)
        control = [(part.index, part["control"].to_numpy()) for _, part in places]
        return [(index[c].to_numpy(), index[~c].to_numpy()) for index, c in control]


def plan_tests(obs: pd.DataFrame, variant: str, min_cells: int, strict: bool) -> Comparisons:
    """Choose the groups of cells to test; see `deg_labels`."""
    check_choice("variant", variant, ("pooled", "per_batch"))
    if isinstance(min_cells, bool) or not isinstance(min_cells, int | np.integer) or min_cells < 0:
        raise ParameterError(f"min_cells={min_cells!r}: give a whole number of at least 0")
    keys = obs[["cell_line", "perturbation", "batch"]].astype(str).reset_index(drop=True)
    keys["control"] = obs["is_control"].to_numpy(dtype=bool)
    keys.loc[keys["control"], "perturbation"] = ""
    keys["place"] = keys["cell_line"]
    if variant == "per_batch":
        keys["place"] = keys.groupby(["cell_line", "batch"], sort=True).ngroup()
    found = keys.groupby(["cell_line", "place", "control", "perturbation"], sort=True)
    group_of_cell = found.ngroup().to_numpy()
    groups = found.size().rename("n").reset_index()
    n, control = groups["n"].to_numpy(), groups["control"].to_numpy()
    # one cell has no variance
    enough = (n > min_cells if strict else n >= min_cells) & (n > 1)
    served = groups["place"].isin(groups.loc[control & enough, "place"]).to_numpy()
    wanted = f"{'more than' if strict else 'at least'} {min_cells}"
    for line, part in groups.groupby("cell_line"):
        if not served[part.index].any():
            most = part.loc[part["control"], "n"].max() if part["control"].any() else 0
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
    table = rows["n"].agg(n_cells="sum", n_batches="size").reset_index()
    if variant == "pooled":
        row = groups["row"].to_numpy()[group_of_cell]
        table["n_batches"] = keys["batch"][row >= 0].groupby(row[row >= 0]).nunique().to_numpy()
    return Comparisons(groups, table, group_of_cell)


def mean_and_variance(first, second, n) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance of groups; exactly 0 for a gene that is constant in a group.

    `first`, `second` (k, g): sums and sums of squares over the cells of each group; `n` (k,) cells.
    """
    n = np.asarray(n, dtype=np.float64)[:, None]
    mean = first / n
    spread = second - first * mean
    spread[spread <= _ROUNDING * second] = 0.0
    spread /= n - 1
    return mean, spread


def t_statistics(
    mean, variance, n, control_mean, control_variance, control_n, test="welch"
) -> tuple[np.ndarray, np.ndarray]:
    """Test every gene of every group against the control group.

    `mean, variance` (k, g): means and unbiased variances of the groups (log1p of counts scaled
    to 1e4 per cell); `n` (k,): cells in each group, at least 2; `control_mean, control_variance`
    (g,); `test`: with variances of their own, or with one pooled variance.

    Returns (k, g): statistic and degrees of freedom. Where both variances are 0, t is 0 for
    equal means and infinite otherwise.

    Welch 1947; the conventions are those of ``scipy.stats.ttest_ind_from_stats``, with the
    undefined statistic of a gene without any difference set to 0 as scanpy does.
    """
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


def p_values(t, df) -> np.ndarray:
    """Two-sided p-values of t statistics; 1 where t is 0."""
    return np.minimum(2.0 * stdtr(df, -np.abs(t)), 1.0)


def call_genes(t, df, alpha: float = 0.05) -> np.ndarray:
    """Label genes: sign of t where the adjusted p-value is below `alpha`, else 0.

    `t, df` (k, g): one row per group; the correction is over the genes of a group; `alpha`: false
    discovery rate, strict. Returns (k, g) int8 array in {-1, 0, 1}.

    Only p-values below `alpha` can be below it after correction, and a t distribution has
    heavier tails than the normal one: genes whose t is within the normal quantiles need no
    p-value.

    Cole et al. 2026, Methods 4.2.2; Benjamini & Hochberg 1995.
    """
    out = np.zeros(t.shape, dtype=np.int8)
    row, gene = np.nonzero(np.abs(t) >= -ndtri(alpha / 2))
    if not len(row):
        return out
    size = t[row, gene]
    p = p_values(size, df[row, gene])
    order = np.lexsort((p, row))
    row, gene, size, p = row[order], gene[order], size[order], p[order]
    position = np.arange(len(row))
    start = np.searchsorted(row, np.arange(len(t)))
    rank = position - start[row] + 1
    below = p / (rank / t.shape[1]) < alpha
    # every gene up to the last one below the line is called, as the step-up procedure has it
    last = np.full(len(t), -1)
    last[row[below]] = position[below]
    called = position <= last[row]
    out[row[called], gene[called]] = np.sign(size[called])
    return out


def majority(up, down, flat) -> np.ndarray:
    """Label with the most votes (`up` for 1, `down` for -1, `flat` for 0).

    A tie goes to the sign of the sum of the tied labels: of 0 and 1 to 1, of 0 and -1 to -1, of 1
    and -1, with or without 0, to 0 (Cole et al. 2026, Methods 4.2.2, majority vote over plates).
    """
    most = np.maximum(np.maximum(up, down), flat)
    return (np.equal(up, most).astype(np.int8) - np.equal(down, most)).astype(np.int8)
