"""Declaring a screen: nothing about the scale, the controls or the columns is guessed."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.screens.labels import (
    as_flags,
    as_labels,
    check_choices,
    check_declared,
    check_labels,
    unmatched_perturbations,
)
from perturbcore.data.screens.values import check_values


def declare_screen(
    adata: AnnData,
    *,
    dataset: str,
    scale: str,
    perturbation: str = "perturbation",
    batch: str | None = "batch",
    cell_line: str | None = "cell_line",
    control=None,
    control_column: str | None = None,
    identifier: str = "symbol",
    simulated: bool = False,
    batch_value: str | None = None,
    cell_line_value: str | None = None,
    unmatched: str = "error",
    validate: bool = True,
) -> AnnData:
    """Say what the columns and values of an AnnData mean, and check that they do.

    Parameters
    ----------
    adata : AnnData, cells x genes
        In memory or backed. Of a backed file only the labels in memory are changed, not the file.
    dataset : str
        Name of the data set in every later table.
    scale : {"counts", "log1p"}
        ``"counts"``: raw counts. ``"log1p"``: log1p of counts scaled to 1e4 a cell.
    perturbation, batch, cell_line : str
        Columns of obs.
    control : str or list of str
        Label(s) of control cells in the perturbation column; several become the first.
    control_column : str
        Boolean column that marks control cells, instead of or besides `control`; without
        `control` they get the label ``"control"``.
    identifier : {"symbol", "ensembl", "entrez", "drug"}
        What perturbations are named by.
    simulated : bool
    batch_value, cell_line_value : str, optional
        The one batch or cell line of all cells, where no column says it.
    unmatched : {"error", "drop", "keep"}
        What becomes of perturbations without cells in any batch that has controls: refuse the
        screen, leave them out, or keep them (they can only be used with ``batches="all"``).
    validate : bool
        Check every value (one pass over the matrix). Labels are always checked.

    Returns
    -------
    AnnData
        obs: `perturbation`, `batch`, `cell_line` (str), `is_control` (bool), then what else was
        there; uns["perturbcore"]: scale, dataset, identifier, simulated, unmatched. X is shared,
        not copied.

    Raises
    ------
    ParameterError
        If an option is unknown or contradictory.
    InputError
        If a column or control label is not there, or the data are not what was declared.
    """
    check_choices(scale, identifier)
    if unmatched not in ("error", "drop", "keep"):
        raise ParameterError(f"unmatched={unmatched!r}: choose 'error', 'drop' or 'keep'")
    if control is None and control_column is None:
        raise ParameterError(
            "name the controls: control=<label in the perturbation column> or "
            "control_column=<boolean column>"
        )
    if not dataset or not isinstance(dataset, str):
        raise ParameterError(f"dataset={dataset!r}: give the data set a name")
    obs = adata.obs
    if not len(obs):
        raise InputError(f"the screen is empty: 0 cells x {adata.n_vars} genes")
    columns = pd.DataFrame(index=obs.index)
    columns["perturbation"] = _labels(obs, "perturbation", perturbation, None)
    columns["batch"] = _labels(obs, "batch", batch, batch_value)
    columns["cell_line"] = _labels(obs, "cell_line", cell_line, cell_line_value)
    columns["is_control"] = _controls(obs, columns, perturbation, control, control_column)
    rest = [c for c in obs.columns if c not in columns]
    new_obs = pd.concat([columns, obs[rest]], axis=1)
    if adata.isbacked:
        out = adata
        out.obs = new_obs
    else:
        out = AnnData(X=adata.X, obs=new_obs, var=adata.var)
    out.uns["perturbcore"] = {
        "scale": scale,
        "dataset": dataset,
        "identifier": identifier,
        "simulated": bool(simulated),
        "unmatched": unmatched,
    }
    if unmatched == "drop":
        out = drop_unmatched(out)
    if validate:
        validate_screen(out)
    else:
        check_labels(out, matched=unmatched != "keep")
    return out


def validate_screen(adata: AnnData, chunk_size: int | None = None) -> None:
    """Check labels and every value of a declared screen; quiet where all is well.

    Parameters
    ----------
    adata : AnnData
        In memory or backed; read block by block.
    chunk_size : int, optional

    Raises
    ------
    InputError
        Naming the offending column, cell, gene or value, and the way out.
    """
    check_declared(adata)
    check_labels(adata, matched=str(adata.uns["perturbcore"].get("unmatched", "error")) != "keep")
    check_values(adata, chunk_size)


def drop_unmatched(adata: AnnData) -> AnnData:
    """Leave out perturbations that have no cells in any batch with controls.

    Returns
    -------
    AnnData
        `adata` itself where none is affected, else a view without these cells.
    """
    lost = unmatched_perturbations(adata)
    if not lost:
        return adata
    keys = pd.MultiIndex.from_frame(adata.obs[["cell_line", "perturbation"]].astype(str))
    gone = keys.isin(lost) & ~adata.obs["is_control"].to_numpy()
    kept = adata[np.flatnonzero(~gone)]
    return kept if adata.isbacked else kept.copy()


def _labels(obs, name, column, value):
    if value is not None:
        if not str(value).strip():
            raise ParameterError(f"{name}_value is empty: give the {name} a name")
        return np.full(len(obs), str(value), dtype=object)
    if column not in obs:
        hint = "" if name == "perturbation" else f", or give the only one as {name}_value=<name>"
        raise InputError(
            f"obs has no column {column!r} (declared as {name}); name one of "
            f"{list(obs.columns)}{hint}"
        )
    return as_labels(obs[column], column)


def _controls(obs, columns, perturbation, control, control_column):
    flagged = None
    if control_column is not None:
        if control_column not in obs:
            raise InputError(
                f"obs has no column {control_column!r} (declared as control_column); name one of "
                f"{list(obs.columns)}"
            )
        flagged = as_flags(obs[control_column], control_column)
    if control is None:
        mixed = set(columns["perturbation"][flagged]) & set(columns["perturbation"][~flagged])
        if mixed:
            raise InputError(
                f"obs[{perturbation!r}]: {sorted(mixed)[:5]} labels cells that {control_column!r} "
                "calls controls and cells that it does not; correct one of the two columns"
            )
        columns.loc[flagged, "perturbation"] = "control"
        return flagged
    labels = [control] if isinstance(control, str) else [str(c) for c in control]
    present = set(columns["perturbation"])
    absent = [c for c in labels if c not in present]
    if absent or not labels:
        near = sorted(p for p in present if any(w in p.lower() for w in ("ctrl", "control", "non")))
        raise InputError(
            f"control label {absent} not in obs[{perturbation!r}]; it holds "
            f"{(near or sorted(present))[:5]} ... ({len(present)} labels)"
        )
    named = columns["perturbation"].isin(labels).to_numpy()
    if flagged is not None and (named != flagged).any():
        cell = obs.index[(named != flagged).argmax()]
        raise InputError(
            f"cell {cell!r}: control={labels} and control_column={control_column!r} disagree; "
            "declare the one that is right"
        )
    columns.loc[named, "perturbation"] = labels[0]
    return named
