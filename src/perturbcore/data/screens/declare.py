"""Declaring a screen: nothing about the scale, the controls or the columns is guessed."""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.identifiers import check_names
from perturbcore.data.read import read_h5ad, read_table, read_zarr
from perturbcore.data.screens.values import Matrix, check_values

COLUMNS = ("perturbation", "batch", "cell_line", "is_control")
SCALES = ("counts", "log1p")
IDENTIFIERS = ("symbol", "ensembl", "entrez", "drug")


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
) -> AnnData:
    """Say what the columns and values of an AnnData mean, and check that they do.

    `adata`: cells x genes, in memory or backed; X is shared, not copied; `dataset`: its name in
    every later table; `scale`: "counts" (raw UMI counts) or "log1p" (log1p of counts scaled to 1e4
    per cell); `perturbation, batch, cell_line`: columns of obs; `control`: label or labels of
    control cells (several become the first); `control_column`: instead, boolean column that marks
    control cells; `identifier`: what perturbations are named by: "symbol",
    "ensembl", "entrez" or "drug"; `batch_value, cell_line_value`: the one batch or cell line of all
    cells, where no column says it; `unmatched`: perturbations without cells in any batch that has
    controls: "error" refuses the screen, "drop" leaves them out, "keep" keeps them (for
    ``batches="all"``).
    """
    check_choice("scale", scale, SCALES)
    check_choice("identifier", identifier, IDENTIFIERS)
    check_choice("unmatched", unmatched, ("error", "drop", "keep"))
    if (control is None) == (control_column is None):
        raise ParameterError(
            "name the controls in one way: control=<label in the perturbation column> or "
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
    if adata.isbacked:
        out = adata
        out.obs[list(columns)] = columns
    else:
        rest = obs[[c for c in obs.columns if c not in columns]]
        out = AnnData(adata.X, pd.concat([columns, rest], axis=1), adata.var, obsm=adata.obsm)
    about = {"scale": scale, "dataset": dataset, "identifier": identifier}
    out.uns["perturbcore"] = about | {"simulated": bool(simulated), "unmatched": unmatched}
    if unmatched == "drop" and (lost := unmatched_perturbations(kinds_of_cells(out.obs)[0])):
        pairs = pd.MultiIndex.from_frame(out.obs[["cell_line", "perturbation"]].astype(str))
        kept = out[np.flatnonzero(~pairs.isin(lost) | out.obs["is_control"].to_numpy())]
        out = kept if out.isbacked else kept.copy()
    validate_screen(out)
    return out


def _column(obs, column, declared_as, hint="") -> pd.Series:
    if column not in obs:
        raise InputError(
            f"obs has no column {column!r} (declared as {declared_as}); name one of "
            f"{list(obs.columns)}{hint}"
        )
    return obs[column]


def _labels(obs, name, column, value):
    if value is None:
        hint = "" if name == "perturbation" else f", or give the only one as {name}_value=<name>"
        return as_labels(_column(obs, column, name, hint), column)
    if not str(value).strip():
        raise ParameterError(f"{name}_value is empty: give the {name} a name")
    return np.full(len(obs), str(value), dtype=object)


def _controls(obs, columns, perturbation, control, control_column):
    """Find the control cells, and give them one label in `columns`."""
    if control is None:
        flagged = _flags(_column(obs, control_column, "control_column"), control_column)
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
    columns.loc[named, "perturbation"] = labels[0]
    return named


def check_declared(adata: AnnData) -> None:
    """Check, without reading a single cell, that a screen has been declared."""
    declared = adata.uns.get("perturbcore")
    if declared is None:
        raise InputError(
            "this AnnData is not a declared screen (uns['perturbcore'] is missing): pass it "
            "through perturbcore.data.screens.declare.declare_screen"
        )
    for key in ("scale", "dataset", "identifier", "simulated"):
        if key not in declared:
            raise InputError(f"uns['perturbcore'] lacks {key!r}: declare the screen again")
    check_choice("scale", declared["scale"], SCALES)
    check_choice("identifier", declared["identifier"], IDENTIFIERS)
    if missing := [c for c in COLUMNS if c not in adata.obs]:
        raise InputError(f"obs lacks the columns {missing}: declare the screen again")
    if adata.obs["is_control"].dtype != bool:
        raise InputError("obs['is_control'] is not boolean: declare the screen again")


def as_labels(values: pd.Series, name: str) -> np.ndarray:
    """Turn a column into text labels, refusing missing and empty ones."""
    code, found = pd.factorize(values)
    found = pd.Series(found)
    if pd.api.types.is_float_dtype(found.dtype) and (found % 1 == 0).all():
        found = found.astype("int64")  # 3.0 and "3" are the same batch
    text = found.astype(str).to_numpy(dtype=object)
    empty = np.array([not label.strip() for label in text], dtype=bool)
    for bad, what in ((code < 0, "missing (NaN)"), (np.append(empty, False)[code], "empty")):
        if bad.any():
            raise InputError(
                f"obs[{name!r}] is {what} in {bad.sum()} cells, first "
                f"{values.index[bad.argmax()]!r}: drop these cells or give them a label"
            )
    return text[code]


def _flags(values: pd.Series, name: str) -> np.ndarray:
    """Turn a column of True/False, 1/0 or their text into booleans."""
    text = values.astype(str).str.strip().str.lower()
    true = text.isin(["true", "1", "1.0"])
    if (bad := ~true & ~text.isin(["false", "0", "0.0"])).any():
        raise InputError(f"control_column={name!r} holds {text[bad].iloc[0]!r}, not True or False")
    return true.to_numpy()


def validate_screen(adata: AnnData) -> None:
    """Check labels and every value of a declared screen; errors name the cell, gene and way out."""
    check_declared(adata)
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InputError(f"the screen is empty: {adata.n_obs} cells x {adata.n_vars} genes")
    _check_unique(adata.var_names, "genes (var_names)", "var_names_make_unique would invent genes")
    _check_unique(adata.obs_names, "cells (obs_names)", "make them unique, such as by the sample")
    obs = adata.obs
    for name in COLUMNS[:3]:
        as_labels(obs[name], name)
    kinds, _ = kinds_of_cells(obs)
    label, line, control = (kinds[c] for c in ("perturbation", "cell_line", "is_control"))
    if not control.any():
        raise InputError("no control cells (is_control is never True): declare the control label")
    both = sorted(set(label[control]) & set(label[~control]))
    if both:
        raise InputError(
            f"perturbation {both[:5]} labels control and perturbed cells alike: give the control "
            "cells a label of their own, or correct the control column"
        )
    if control.all():
        raise InputError("no perturbed cells: every cell is declared a control")
    bare = sorted(set(line) - set(line[control]))
    if bare:
        raise InputError(f"cell_line {bare}: no control cells; add them or leave the line out")
    keep = str(adata.uns["perturbcore"].get("unmatched", "error")) == "keep"
    if not keep and (lost := unmatched_perturbations(kinds)):
        raise InputError(
            f"{len(lost)} perturbations have no cells in any batch that has controls: "
            f"{[f'{p} ({c})' for c, p in lost[:5]]}; declare the screen with "
            "unmatched='drop' to leave them out, or 'keep' to use them with batches='all'"
        )
    check_values(adata)


def kinds_of_cells(obs: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Sorted kinds of cells, with how many (`n`) there are of each, and the kind of each cell.

    Of cells of one kind, cell line, batch, perturbation (as text) and `is_control` are equal.
    """
    code, levels = np.zeros(len(obs), dtype=np.int64), {}
    for name in ("cell_line", "batch", "perturbation", "is_control"):
        # only what occurs is made text and sorted, once, not the label of each cell
        own, found = pd.factorize(obs[name], use_na_sentinel=False)
        text, place = np.unique(np.asarray(found).astype(str), return_inverse=True)
        code *= len(text)
        code += place[own]
        levels[name] = text.astype(object)
    code, found = pd.factorize(code, sort=True)
    at = np.unravel_index(found, [len(text) for text in levels.values()])
    kinds = pd.DataFrame({n: text[i] for (n, text), i in zip(levels.items(), at, strict=True)})
    kinds["is_control"], kinds["n"] = kinds["is_control"] == "True", np.bincount(code)
    return kinds, code.astype(np.int32)


def unmatched_perturbations(kinds: pd.DataFrame) -> list:
    """List (cell_line, perturbation) pairs that share no batch with control cells."""
    control = kinds["is_control"]
    place = kinds.groupby(["cell_line", "batch"]).ngroup()
    served = place.isin(place[control])[~control]
    pair = [kinds.loc[~control, c] for c in ("cell_line", "perturbation")]
    any_served = served.groupby(pair).any()
    return list(any_served.index[~any_served])


def _check_unique(names: pd.Index, what: str, way_out: str) -> None:
    if not names.is_unique:  # AnnData has asked, and its index remembers
        twice = names[names.duplicated()].unique()
        raise InputError(f"duplicated {what}: {list(twice[:5])}; keep one of each ({way_out})")


def read_screen(
    path, *, backed=False, names: bool = True, layer: str | None = None, cells=None, **declaration
) -> AnnData:
    """Read a screen from ``.h5ad``, from a ``.zarr`` folder, or from one of Cell Ranger (10x).

    `backed`: leave the matrix on disk; `names`: of cells; False, with a backed ``.h5ad`` file:
    numbers instead, in a third less memory; `layer`: that holds the values, instead of X; `cells`:
    a table that says more of the cells, by their names in the first column; `**declaration`:
    arguments of `declare_screen`, of which a file written from a declared screen needs none.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.h5ad"
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> pc.simulate_screen(**sizes).screen.write_h5ad(file)
    >>> int(pc.read_screen(file).obs["is_control"].sum())
    60
    """
    path = Path(path)
    adata = _read_cells(path, backed, names)
    try:
        if layer is not None:
            if layer not in adata.layers:
                there = ", ".join(adata.layers) or "none"
                raise ParameterError(f"no layer '{layer}'; it has: {there}")
            adata = AnnData(adata.layers[layer], obs=adata.obs, var=adata.var, uns=adata.uns)
        if cells is not None:
            _describe(adata, cells)
        if declaration:
            screen = declare_screen(adata, **declaration)
            named = screen.obs.loc[~screen.obs["is_control"], "perturbation"]
            check_names(named, screen.uns["perturbcore"]["identifier"], "obs", strict=False)
            return screen
        if "perturbcore" not in adata.uns:
            raise ParameterError(
                "not written from a declared screen: say what its columns mean "
                "(dataset=, scale=, perturbation=, batch=, cell_line=, control=); "
                f"obs has {list(adata.obs.columns)}"
            )
        # the file format made categories of text, and numpy scalars of plain values
        for name in COLUMNS[:3]:
            if name in adata.obs:
                adata.obs[name] = as_labels(adata.obs[name], name)
        facts = adata.uns["perturbcore"].items()
        adata.uns["perturbcore"] = {k: bool(v) if k == "simulated" else str(v) for k, v in facts}
        validate_screen(adata)
    except InputError as error:
        if not names:  # of which the message speaks
            return read_screen(path, backed=backed, layer=layer, cells=cells, **declaration)
        raise type(error)(f"{path}: {error}") from error
    return adata


def _read_cells(path: Path, backed: bool, names: bool) -> AnnData:
    """Read an AnnData file, or a folder of zarr or 10x."""
    if path.suffix == ".zarr":
        return read_zarr(path, backed=backed)
    if path.is_dir():
        import scanpy as sc

        try:
            return sc.read_10x_mtx(path)
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                f"{path}: not a whole 10x folder (matrix.mtx, features.tsv, barcodes.tsv, perhaps "
                f".gz): {error}"
            ) from error
    return read_h5ad(path, backed=backed, names=names)


def _describe(adata: AnnData, cells) -> None:
    """Put the columns of a table on cells into obs, by the names of the cells."""
    table = read_table(cells)
    table = table.set_index(table.columns[0])
    if len(twice := table.index[table.index.duplicated()]):
        raise InputError(f"{cells}: cell '{twice[0]}' is there twice; keep one row per cell")
    lost = adata.obs_names[~adata.obs_names.isin(table.index)]
    if len(lost):
        raise InputError(
            f"{cells}: {len(lost)} of {adata.n_obs} cells have no row, such as '{lost[0]}' (the "
            f"table has '{table.index[0]}'): write names alike, or drop those cells"
        )
    adata.obs[list(table.columns)] = table.loc[adata.obs_names]


def normalise(adata: AnnData) -> AnnData:
    """Read cells as CSR: log1p of counts scaled to 1e4, or the logs that they are."""
    check_declared(adata)
    cells = Matrix(adata).read(0, adata.n_obs).astype(np.float32)
    out = AnnData(cells, obs=adata.obs.copy(), var=adata.var.copy())
    if str(adata.uns["perturbcore"]["scale"]) == "counts":
        import scanpy as sc  # a second, which reading a screen does not pay

        sc.pp.normalize_total(out, target_sum=1e4)
        sc.pp.log1p(out)
    out.uns = {"perturbcore": {**dict(adata.uns["perturbcore"]), "scale": "log1p"}}
    return out
