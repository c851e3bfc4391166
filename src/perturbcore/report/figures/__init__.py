"""Figures: tidy table in, matplotlib figure out; nothing here computes a score."""

from perturbcore.report.figures.boxes import (
    box_by_method,
    interval_plot,
    method_order,
    reference_lines,
)
from perturbcore.report.figures.clustermap import similarity_map
from perturbcore.report.figures.gains import gain_plot
from perturbcore.report.figures.ranks import rank_plot
from perturbcore.report.figures.scatter import (
    agreement,
    board,
    curves,
    metric_scatter,
    points_by_amount,
)
from perturbcore.report.figures.style import MODALITIES, colour, display_names

__all__ = [
    "MODALITIES", "agreement", "board", "box_by_method", "colour", "curves", "display_names", "gain_plot",
    "interval_plot", "method_order", "metric_scatter", "points_by_amount", "rank_plot", "reference_lines",
    "similarity_map",
]  # fmt: skip
