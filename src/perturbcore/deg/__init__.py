"""Differentially expressed genes: tests from group moments, false discovery rate, votes of batches."""

from perturbcore.deg.labels import deg_labels
from perturbcore.deg.tests import benjamini_hochberg, call_genes, p_values, t_statistics
from perturbcore.deg.votes import majority

__all__ = [
    "benjamini_hochberg",
    "call_genes",
    "deg_labels",
    "majority",
    "p_values",
    "t_statistics",
]
