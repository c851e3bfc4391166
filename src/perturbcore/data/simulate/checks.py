"""What the sizes of a simulated experiment may be."""

from numbers import Real

import numpy as np

from perturbcore.core.errors import ParameterError


def check_parameters(p: dict) -> None:
    """Refuse sizes that no experiment can have; the message names the parameter."""

    def refuse(name, why):
        raise ParameterError(f"{name}={p[name]!r}: {why}")

    least = {
        "n_cell_lines": 1,
        "n_perturbations": 1,
        "n_genes": 2,
        "n_batches": 1,
        "n_modules": 1,
        "seed": 0,
    }
    for name, low in (least | {"n_control_cells": 1}).items():
        if isinstance(p[name], bool) or not isinstance(p[name], int | np.integer) or p[name] < low:
            refuse(name, f"give a whole number of at least {low}")
    for name in ("n_perturbations", "n_modules"):
        if p[name] > p["n_genes"]:
            refuse(name, f"cannot exceed n_genes={p['n_genes']}")
    if p["n_control_cells"] < p["n_batches"]:
        refuse("n_control_cells", f"each of n_batches={p['n_batches']} needs a control cell")
    cells = p["cells_per_perturbation"]
    whole = (
        len(cells) == 2 and all(isinstance(c, int | np.integer) for c in cells)
        if isinstance(cells, tuple | list)
        else False
    )
    if not whole or not 1 <= cells[0] <= cells[1]:
        refuse("cells_per_perturbation", "give (smallest, largest) with 1 <= smallest <= largest")
    ranges = {
        "null_fraction": (lambda v: 0 <= v <= 1, "from 0 to 1"),
        "line_specificity": (lambda v: 0 <= v <= 1, "from 0 to 1"),
        "dropout": (lambda v: 0 <= v < 1, "from 0 to below 1"),
        "effect_size": (lambda v: v >= 0, "of at least 0"),
        "stress_size": (lambda v: v >= 0, "of at least 0"),
        "batch_effect": (lambda v: v >= 0, "of at least 0"),
        "dispersion": (lambda v: v > 0, "above 0"),
        "library_size": (lambda v: v > 0, "above 0"),
    }
    for name, (allowed, words) in ranges.items():
        value = p[name]
        number = isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(value)
        if not number or not allowed(value):
            refuse(name, f"give a number {words}")
