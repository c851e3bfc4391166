"""Metrics: pure functions of arrays, registered with direction, bounds, formula and reference."""

from perturbcore.score.metrics import deg, pairs, regression

__all__ = ["deg", "pairs", "regression"]
