"""Figures: tidy table in, matplotlib figure out; nothing here computes a score."""

from perturbcore.figures.boxes import box_by_method, interval_plot, method_order, reference_lines
from perturbcore.figures.clustermap import similarity_map
from perturbcore.figures.gains import gain_plot
from perturbcore.figures.ranks import rank_plot
from perturbcore.figures.scatter import agreement, board, curves, metric_scatter, points_by_amount
from perturbcore.figures.style import MODALITIES, colour, display_names

__all__ = [
    "MODALITIES", "agreement", "board", "box_by_method", "colour", "curves", "display_names", "gain_plot",
    "interval_plot", "method_order", "metric_scatter", "points_by_amount", "rank_plot", "reference_lines",
    "similarity_map",
]  # fmt: skip
