"""Metrics: pure functions of arrays, registered with direction, bounds, formula and reference."""

from perturbcore.score.metrics import cells, deg, pairs, regression

__all__ = ["cells", "deg", "pairs", "regression"]
