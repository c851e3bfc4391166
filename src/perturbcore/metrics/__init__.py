"""Metrics: pure functions of arrays, registered with direction, bounds, formula and reference."""

from perturbcore.metrics import deg, pairs, regression
from perturbcore.metrics.registry import Metric, metric, metrics_of

__all__ = ["Metric", "deg", "metric", "metrics_of", "pairs", "regression"]
