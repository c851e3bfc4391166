"""What the labels of a screen must be: columns, controls, batches, identifiers."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError

COLUMNS = ("perturbation", "batch", "cell_line", "is_control")
SCALES = ("counts", "log1p")
IDENTIFIERS = ("symbol", "ensembl", "entrez", "drug")


def check_declared(adata: AnnData) -> None:
    """Check, without reading a single cell, that a screen has been declared.

    Raises
    ------
    InputError
        Naming what is missing and how to declare it.
    """
    declared = adata.uns.get("perturbcore")
    if declared is None:
        raise InputError(
            "this AnnData is not a declared screen (uns['perturbcore'] is missing): pass it "
            "through perturbcore.data.screens.declare.declare_screen"
        )
    for key in ("scale", "dataset", "identifier", "simulated"):
        if key not in declared:
            raise InputError(f"uns['perturbcore'] lacks {key!r}: declare the screen again")
    check_choices(declared["scale"], declared["identifier"])
    missing = [c for c in COLUMNS if c not in adata.obs]
    if missing:
        raise InputError(f"obs lacks the columns {missing}: declare the screen again")
    if adata.obs["is_control"].dtype != bool:
        raise InputError("obs['is_control'] is not boolean: declare the screen again")


def check_choices(scale: str, identifier: str) -> None:
    """Refuse an unknown scale or kind of identifier."""
    if scale not in SCALES:
        raise ParameterError(
            f"scale={scale!r}: choose 'counts' (raw UMI counts) or 'log1p' (log1p of counts "
            "scaled to 1e4 a cell)"
        )
    if identifier not in IDENTIFIERS:
        raise ParameterError(f"identifier={identifier!r}: choose one of {list(IDENTIFIERS)}")


def as_labels(values: pd.Series, name: str) -> np.ndarray:
    """Turn a column into text labels, refusing missing and empty ones.

    Raises
    ------
    InputError
        Naming the column, the number of cells and the first of them.
    """
    missing = values.isna().to_numpy()
    if missing.any():
        first = values.index[missing.argmax()]
        raise InputError(
            f"obs[{name!r}] is missing (NaN) in {missing.sum()} cells, first {first!r}: drop these "
            "cells or give them a label"
        )
    if pd.api.types.is_float_dtype(values.dtype) and (values % 1 == 0).all():
        values = values.astype("int64")  # 3.0 and "3" are the same batch
    labels = values.astype(str).to_numpy(dtype=object)
    empty = np.array([not label.strip() for label in pd.unique(labels)])
    if empty.any():
        bad = pd.Series(labels).str.strip().eq("").to_numpy()
        raise InputError(
            f"obs[{name!r}] is empty in {bad.sum()} cells, first {values.index[bad.argmax()]!r}: "
            "drop these cells or give them a label"
        )
    return labels


def as_flags(values: pd.Series, name: str) -> np.ndarray:
    """Turn a column of True/False, 1/0 or their text into booleans."""
    if values.dtype == bool:
        return values.to_numpy()
    text = values.astype(str).str.strip().str.lower()
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    bad = ~text.isin(known)
    if bad.any():
        raise InputError(
            f"control_column={name!r} holds {text[bad].iloc[0]!r}: it must be True or False in "
            "every cell"
        )
    return text.map(known).to_numpy(dtype=bool)


def check_labels(adata: AnnData, matched: bool = True) -> None:
    """Check names, controls and batches of a declared screen, from its obs and var alone.

    Parameters
    ----------
    adata : AnnData
    matched : bool
        Whether every perturbation must have cells in a batch that has controls.

    Raises
    ------
    InputError
    """
    check_declared(adata)
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InputError(f"the screen is empty: {adata.n_obs} cells x {adata.n_vars} genes")
    _check_unique(adata.var_names, "genes (var_names)", "var_names_make_unique would invent genes")
    _check_unique(adata.obs_names, "cells (obs_names)", "make them unique, such as by the sample")
    obs = adata.obs
    for name in COLUMNS[:3]:
        as_labels(obs[name], name)
    control = obs["is_control"].to_numpy()
    if not control.any():
        raise InputError(
            "no control cells (is_control is False everywhere): declare the control label"
        )
    label = obs["perturbation"].astype(str).to_numpy()
    both = sorted(set(label[control]) & set(label[~control]))
    if both:
        raise InputError(
            f"perturbation {both[:5]} labels control and perturbed cells alike: give the control "
            "cells a label of their own, or correct the control column"
        )
    if control.all():
        raise InputError("no perturbed cells: every cell is declared a control")
    line = obs["cell_line"].astype(str).to_numpy()
    bare = sorted(set(line) - set(line[control]))
    if bare:
        raise InputError(f"cell_line {bare}: no control cells; add them or leave the line out")
    if matched:
        lost = unmatched_perturbations(adata)
        if lost:
            raise InputError(
                f"{len(lost)} perturbations have no cells in any batch that has controls: "
                f"{[f'{p} ({c})' for c, p in lost[:5]]}; declare the screen with "
                "unmatched='drop' to leave them out, or 'keep' to use them with batches='all'"
            )


def unmatched_perturbations(adata: AnnData) -> list:
    """List (cell_line, perturbation) pairs that share no batch with control cells."""
    obs = adata.obs
    control = obs["is_control"].to_numpy()
    keys = obs[["cell_line", "perturbation", "batch"]].astype(str)
    places = pd.MultiIndex.from_frame(keys[["cell_line", "batch"]])
    treated = keys[~control]
    served = places[~control].isin(places[control].unique())
    any_served = pd.Series(served).groupby(
        [treated["cell_line"].to_numpy(), treated["perturbation"].to_numpy()]
    )
    any_served = any_served.any()
    return list(any_served.index[~any_served.to_numpy()])


def _check_unique(names: pd.Index, what: str, way_out: str) -> None:
    if names.has_duplicates:
        twice = list(pd.unique(names[names.duplicated()])[:5])
        raise InputError(f"duplicated {what}: {twice}; keep one of each ({way_out})")
