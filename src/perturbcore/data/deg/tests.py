"""Two-sample t-tests of many groups against one control group, from moments alone; votes."""

import numpy as np
from scipy.special import ndtri, stdtr

from perturbcore.core.errors import ParameterError

TESTS = ("welch", "student")
# float64 sums of squares carry this relative error at worst; a smaller spread is a constant gene
_ROUNDING = 1e-11


def check_test(test: str, alpha: float) -> None:
    """Refuse an unknown test or an impossible threshold."""
    if test not in TESTS:
        raise ParameterError(
            f"test={test!r}: choose 'welch' (unequal variances, as published code has it) or "
            "'student' (equal variances, as the paper's text says)"
        )
    if not 0 < alpha < 1:
        raise ParameterError(f"alpha={alpha!r}: give a false discovery rate between 0 and 1")


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
