"""Figures: tidy table in, matplotlib figure out; nothing here computes a score."""

from perturbcore.report.figures.methods import (
    box_by_method,
    dot_plot,
    gain_plot,
    interval_plot,
    method_order,
    rank_plot,
    reference_lines,
)
from perturbcore.report.figures.points import (
    agreement,
    curves,
    heat_map,
    metric_scatter,
    points_by_amount,
    similarity_map,
)
from perturbcore.report.figures.style import MODALITIES, colour, display_names

__all__ = [
    "MODALITIES", "agreement", "box_by_method", "colour", "curves", "display_names", "dot_plot",
    "gain_plot", "heat_map", "interval_plot", "method_order", "metric_scatter", "points_by_amount",
    "rank_plot", "reference_lines", "similarity_map",
]  # fmt: skip
