"""What the sizes of a simulated experiment may be."""

from numbers import Integral, Real

import numpy as np

from perturbcore.core.errors import ParameterError

# the smallest value of each whole number; the range of each other number
WHOLE = {
    "n_genes": 2,
    "seed": 0,
    **dict.fromkeys(("n_cell_lines", "n_perturbations", "n_batches", "n_plates"), 1),
    **dict.fromkeys(("plates_per_drug", "n_modules", "n_control_cells"), 1),
}
NUMBERS = {
    **dict.fromkeys(("null_fraction", "inert_fraction", "line_specificity"), (0, 1)),
    **dict.fromkeys(("effect_size", "stress_size", "batch_effect"), (0, np.inf)),
    **dict.fromkeys(("dispersion", "library_size"), (1e-9, np.inf)),
    "other_dose_cells": (0, 1),
    "dropout": (0, 1 - 1e-9),
}
PAIRS = ("cells_per_perturbation", "cells_per_plate", "vehicle_cells")
AT_MOST = {"n_perturbations": "n_genes", "n_modules": "n_genes", "plates_per_drug": "n_plates"}


def refuse(p: dict, name: str, why: str) -> None:
    """Raise the error that names a parameter, its value and what is wanted."""
    raise ParameterError(f"{name}={p[name]!r}: {why}")


def is_whole(value) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_parameters(p: dict) -> None:
    """Refuse sizes that no experiment can have; the message names the parameter."""
    for name in p.keys() & WHOLE.keys():
        if not is_whole(p[name]) or p[name] < WHOLE[name]:
            refuse(p, name, f"give a whole number of at least {WHOLE[name]}")
    for name, other in AT_MOST.items():
        if name in p and p[name] > p[other]:
            refuse(p, name, f"cannot exceed {other}={p[other]}")
    if "n_control_cells" in p and p["n_control_cells"] < p["n_batches"]:
        refuse(p, "n_control_cells", f"each of n_batches={p['n_batches']} needs a control cell")
    for name in p.keys() & set(PAIRS):
        pair = p[name]
        good = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_whole, pair))
        if not good or not 1 <= pair[0] <= pair[1]:
            refuse(p, name, "give (smallest, largest) with 1 <= smallest <= largest")
    for name in p.keys() & NUMBERS.keys():
        low, high = NUMBERS[name]
        if not is_number(p[name]) or not low <= p[name] <= high:
            above = f"of at least {low:g}" if high == np.inf else f"from {low:g} to {high:g}"
            refuse(p, name, f"give a number {above}")
