"""Metrics: pure functions of arrays, registered with direction, bounds, formula and reference."""
