"""Screens of cells: declared, validated and normalised; in memory or backed on disk."""
