"""Metrics: pure functions of arrays, registered with direction, bounds, formula and reference."""

from perturbcore.metrics import pairs, regression
from perturbcore.metrics.registry import Metric, metric, metrics_of

__all__ = ["Metric", "metric", "metrics_of", "pairs", "regression"]
