"""How sure a score, a difference or a ranking is."""

from perturbcore.uncertainty.differences import (
    gain_table,
    indistinguishable,
    neighbour_table,
    paired_differences,
    verdicts,
)
from perturbcore.uncertainty.gap import gap_closed
from perturbcore.uncertainty.intervals import (
    Difference,
    Interval,
    holm,
    mean_ci,
    paired_bootstrap,
    sign_flip_p,
)
from perturbcore.uncertainty.ranking import friedman, rank_table, ranks

__all__ = [
    "Difference",
    "Interval",
    "friedman",
    "gain_table",
    "gap_closed",
    "holm",
    "indistinguishable",
    "mean_ci",
    "neighbour_table",
    "paired_bootstrap",
    "paired_differences",
    "rank_table",
    "ranks",
    "sign_flip_p",
    "verdicts",
]
