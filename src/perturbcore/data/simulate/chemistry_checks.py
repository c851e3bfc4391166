"""What the compounds and sizes of a simulated chemical screen may be."""

from numbers import Real

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError

COLUMNS = ("smiles", "targets", "mechanism")


def check_compounds(compounds: pd.DataFrame) -> None:
    """Refuse a compound table that a screen cannot be made of; the message names the row."""
    missing = [c for c in COLUMNS if c not in compounds]
    if missing:
        raise InputError(
            f"compounds: no column '{missing[0]}' (there are: {', '.join(map(str, compounds.columns))})"
        )
    if compounds.index.has_duplicates:
        name = compounds.index[compounds.index.duplicated()][0]
        raise InputError(f"compounds: '{name}' is there twice; give each compound one row")


def check_drug_parameters(p: dict, compounds: pd.DataFrame) -> None:
    """Refuse sizes that no chemical screen can have; the message names the parameter."""

    def refuse(name, why):
        raise ParameterError(f"{name}={p[name]!r}: {why}")

    def whole(value):
        return isinstance(value, int | np.integer) and not isinstance(value, bool)

    least = {
        "n_cell_lines": 1,
        "n_genes": 2,
        "n_plates": 1,
        "plates_per_drug": 1,
        "n_modules": 1,
        "seed": 0,
    }
    for name, low in least.items():
        if not whole(p[name]) or p[name] < low:
            refuse(name, f"give a whole number of at least {low}")
    if p["n_drugs"] is not None and not (
        whole(p["n_drugs"]) and 1 <= p["n_drugs"] <= len(compounds)
    ):
        refuse(
            "n_drugs", f"give a whole number from 1 to {len(compounds)}, the number of compounds"
        )
    if p["n_modules"] > p["n_genes"]:
        refuse("n_modules", f"cannot exceed n_genes={p['n_genes']}")
    if p["plates_per_drug"] > p["n_plates"]:
        refuse("plates_per_drug", f"cannot exceed n_plates={p['n_plates']}")
    for name in ("cells_per_plate", "vehicle_cells"):
        pair = p[name]
        good = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(whole, pair))
        if not good or not 1 <= pair[0] <= pair[1]:
            refuse(name, "give (smallest, largest) with 1 <= smallest <= largest")
    doses = list(p["doses"]) if isinstance(p["doses"], tuple | list) else []
    if not doses or len(set(doses)) < len(doses) or not all(_number(d) and d > 0 for d in doses):
        refuse("doses", "give distinct doses above 0")
    if p["response_dose"] not in doses:
        refuse("response_dose", f"choose one of doses={doses}")
    ranges = {
        "inert_fraction": (0, 1),
        "line_specificity": (0, 1),
        "other_dose_cells": (0, 1),
        "dropout": (0, 1 - 1e-9),
        "effect_size": (0, np.inf),
        "stress_size": (0, np.inf),
        "batch_effect": (0, np.inf),
        "dispersion": (1e-9, np.inf),
        "library_size": (1e-9, np.inf),
    }
    for name, (low, high) in ranges.items():
        if not _number(p[name]) or not low <= p[name] <= high:
            refuse(
                name,
                "give a number "
                + (f"of at least {low:g}" if high == np.inf else f"from {low:g} to 1"),
            )


def _number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))
