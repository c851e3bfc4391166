"""Data sets, one file each: from catalogue files or a simulation to a screen or responses."""

from perturbcore.datasets.base import Dataset, available, load

__all__ = ["Dataset", "available", "load"]
