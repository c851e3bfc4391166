"""Scores: tasks, metrics, the evaluation loop, ceilings and uncertainty."""
