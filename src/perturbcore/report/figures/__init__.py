"""Figures: tidy table in, matplotlib figure out; nothing here computes a score."""

# ruff: noqa: F401  what is passed on
from perturbcore.report.figures.methods import box_by_method, dot_plot, gain_plot, rank_plot
from perturbcore.report.figures.points import (
    curves,
    error_clusters,
    heat_map,
    metric_scatter,
    named_points,
    place_maps,
    points_by_amount,
    similarity_map,
)
from perturbcore.report.figures.strips import strips
