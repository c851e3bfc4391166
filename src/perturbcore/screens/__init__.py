"""Screens of cells: declared, validated and normalised; in memory or backed on disk."""

from perturbcore.screens.declare import (
    declare_screen,
    drop_unmatched,
    validate_screen,
)
from perturbcore.screens.labels import check_declared
from perturbcore.screens.read import normalise, read_screen

__all__ = [
    "check_declared",
    "declare_screen",
    "drop_unmatched",
    "normalise",
    "read_screen",
    "validate_screen",
]
