"""Data sets, one file each: from catalogue files or a simulation to a screen or responses."""
