"""What the sizes of a simulated experiment may be."""

import numpy as np

from perturbcore.errors import ParameterError


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
    for name in ("null_fraction", "line_specificity"):
        if not 0 <= p[name] <= 1:
            refuse(name, "give a number from 0 to 1")
    if not 0 <= p["dropout"] < 1:
        refuse("dropout", "give a number from 0 to below 1")
    for name in ("effect_size", "stress_size", "batch_effect"):
        if not (np.isfinite(p[name]) and p[name] >= 0):
            refuse(name, "give a number of at least 0")
    for name in ("dispersion", "library_size"):
        if not (np.isfinite(p[name]) and p[name] > 0):
            refuse(name, "give a number above 0")
