"""Metrics: pure functions of arrays, registered with direction, bounds, formula and reference."""

# ruff: noqa: F401  what is passed on
from perturbcore.score.metrics import cells, deg, pairs, regression
