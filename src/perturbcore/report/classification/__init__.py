"""Classification of differential expression: what the chapters on labels compute and say."""

from perturbcore.report.classification.parts import Part, averaged, evaluate_parts, panels
from perturbcore.report.classification.tables import (
    FAMILIES,
    LABELS,
    LINES,
    TRUTH,
    by_line,
    families,
    label_counts,
    truth_table,
)

__all__ = [
    "FAMILIES",
    "LABELS",
    "LINES",
    "TRUTH",
    "Part",
    "averaged",
    "by_line",
    "evaluate_parts",
    "families",
    "label_counts",
    "panels",
    "truth_table",
]
