"""Your own screen of cells, or your own responses, from files; names are checked, never guessed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.effects import MIN_CELLS, ba_ate
from perturbcore.data.folds import check_leakage
from perturbcore.data.identifiers import check_names, gene_aliases
from perturbcore.data.read import GAPS, check_table, filled, read_h5ad, read_table
from perturbcore.data.responses import check_responses, dense, make_responses, read_responses
from perturbcore.data.screens.declare import declare_screen, read_screen
from perturbcore.data.sets._make import controls_said, folded
from perturbcore.data.sets.base import Card, Dataset, check_options, make_dataset

KINDS = ("lfc", "labels")
LONG, ABOUT = ("perturbation", "gene", "value"), ("perturbation", "cell_line", "fold")
LARGEST = 100.0  # no log fold-change is as large


def load(
    screen=None,
    responses=None,
    layer: str | None = None,
    cells=None,
    kind: str = "",
    name: str = "mine",
    title: str = "",
    effect_control: str = "global",
    min_cells: int = MIN_CELLS,
    n_folds: int = 5,
    seed: int = 0,
    backed: bool = False,
    doubles: str = "apart",
    gene_table: bool = False,
    **declared,
) -> Dataset:
    """Load one of your files: a screen, from which effects are computed, or responses.

    `screen`: cells x genes, `.h5ad`, `.zarr` or a 10x folder, with `layer`, `cells`, `backed` and
    `**declared` of `perturbcore.data.screens.declare.read_screen`; `responses`: `.h5ad`, or with a
    `kind` tables of `read_own`; folds are added where there are none;
    `effect_control, min_cells`: of `perturbcore.data.effects`; `doubles, gene_table`: which names
    share a fold, see `perturbcore.data.folds.same_perturbation`.
    """
    if (screen is None) == (responses is None):
        raise ParameterError("give either screen=<file.h5ad> or responses=<file.h5ad>")
    card, read = Card(), None
    same = dict(doubles=doubles, aliases=gene_aliases() if gene_table else None)
    given = screen if responses is None else responses
    paths = [Path(p) for p in (given if isinstance(given, list | tuple) else [given])]
    path, files = paths[0], ", ".join(p.name for p in paths)
    notes = [f"Read from {files}."]
    if responses is None:
        check_options("a screen", declare_screen, declared)
        declared = {"dataset": name, **declared} if declared else {}
        read = read_screen(path, backed=backed, layer=layer, cells=cells, **declared)
        read.uns["perturbcore"]["dataset"] = name
        card.step_of("screen", read, note=f"{path.name}; {controls_said(read)}")
        table = ba_ate(read, control=effect_control, batches="all", min_cells=min_cells)
        folded(table, n_folds, seed, **same)
        note = f"{table.n_obs:,} rows; cells are those of the perturbations"
        card.responses(table, note, cells=int(table.obs["n_cells"].sum()))
    else:
        known = {"identifier", "cell_line_value"} if kind else set()
        if wrong := [o for o in declared if o not in known]:
            raise ParameterError(f"option '{wrong[0]}' is for a screen, not for responses")
        if kind:
            line = declared.pop("cell_line_value", None)
            table, said = read_own(paths, kind, cell_line=line, dataset=name, **declared)
            notes += [said] if said else []
        else:
            table = read_responses(path)
            identifier = table.uns["perturbcore"].get("identifier", "symbol")
            check_names(table.obs["perturbation"], identifier, str(path), strict=False)
        folds = "of the file" if "fold" in table.obs else "made here"
        if "fold" not in table.obs:
            folded(table, n_folds, seed, **same)
        check_responses(table, source=str(path))
        check_leakage(table)
        table.uns["perturbcore"] = {**table.uns["perturbcore"], "dataset": name}
        card.responses(table, f"{files}; {table.n_obs:,} rows; folds {folds}")
    notes += table.uns["perturbcore"].get("merged", ())
    return make_dataset(table, card, about={"title": title or name}, notes=notes, screen=read)


def read_own(
    paths: Sequence[Path | str],
    kind: str,
    *,
    identifier: str = "symbol",
    cell_line: str | None = None,
    dataset: str = "mine",
) -> tuple[AnnData, str]:
    """Read log fold-changes or labels from tables (``.csv``, ``.tsv``, ``.parquet``) or ``.h5ad``.

    `paths`: one file, or one per cell line. Returns responses, and what is to be said of them.
    """
    check_choice("kind", kind, KINDS)
    if cell_line is not None and len(paths) > 1:
        raise ParameterError("one cell line for several files: leave it out, or give one file")
    parts = [_table(Path(p), kind, cell_line or Path(p).stem) for p in paths]
    genes = sorted(set.union(*(set(p.columns) for p in parts)))
    table = pd.concat(parts, join="inner")
    if not table.shape[1]:
        raise InputError(f"{paths[0]} and {paths[1]} have no gene in common")
    said = ""
    if len(genes) > table.shape[1]:
        said = f"{len(genes) - table.shape[1]:,} genes are not in all files and were left out."
    where, obs = ", ".join(map(str, paths)), table.index.to_frame(index=False)
    check_table(obs, {c: filled() for c in ABOUT[:2]}, where, unique=ABOUT[:2])
    check_names(obs["perturbation"], identifier, where)
    if obs["fold"].isna().any():
        obs = obs.drop(columns="fold")
    X, observed, task = table.to_numpy(dtype=float), None, "lfc"
    if kind == "labels":
        observed = np.isfinite(X)
        task = "deg" if observed.all() else "deg_pairs"
        X, observed = np.nan_to_num(X), None if observed.all() else observed
    about = dict(dataset=dataset, task=task, identifier=identifier, observed=observed)
    return make_responses(X, obs, table.columns, **about), said


def _table(path: Path, kind: str, line: str) -> pd.DataFrame:
    """One file as numbers: rows (perturbation, cell_line, fold), columns genes, gaps as NaN."""
    if path.suffix == ".h5ad":
        frame = _from_h5ad(path, kind)
    else:
        frame = read_table(path)
        if not isinstance(frame.index, pd.RangeIndex):
            frame = frame.rename_axis("perturbation").reset_index()
        if not all(isinstance(c, str) for c in frame.columns):
            raise InputError(f"{path}: the first line holds numbers: name the genes there")
    if set(LONG) <= set(frame):
        rows = [c for c in ABOUT if c in frame]
        check_table(frame, {c: filled() for c in (*rows, "gene")}, path, unique=[*rows, "gene"])
        frame = frame.pivot(index=rows, columns="gene", values="value")
        frame = frame.rename_axis(columns=None).reset_index()
    if "perturbation" not in frame:
        frame = frame.rename(columns={frame.columns[0]: "perturbation"})
    if "cell_line" not in frame:
        frame.insert(1, "cell_line", line)
    if "fold" not in frame:
        frame.insert(2, "fold", None)
    genes = [c for c in frame if c not in ABOUT]
    if not genes or not len(frame):
        raise InputError(f"{path}: {len(frame)} perturbations x {len(genes)} genes; is it whole?")
    if twice := [g for g in genes if g.endswith(".1") and g[:-2] in genes]:
        raise InputError(f"{path}: gene '{twice[0][:-2]}' is there twice; keep one column")
    index = frame[list(ABOUT)].astype({"perturbation": str, "cell_line": str})
    values = frame[genes].apply(pd.to_numeric, errors="coerce").astype(float)
    values.index = pd.MultiIndex.from_frame(index)
    _check_values(values, frame[genes], kind, path)
    return values


def _from_h5ad(path: Path, kind: str) -> pd.DataFrame:
    adata = read_h5ad(path)
    layer = None
    if "perturbcore" in adata.uns:
        adata = read_responses(path)
        task = adata.uns["perturbcore"]["task"]
        layer = "deg" if "deg" in adata.layers else None
        if (layer is None) != (kind == "lfc"):
            raise InputError(f"{path} holds responses of task '{task}', not {kind}")
    X = dense(adata.X if layer is None else adata.layers[layer]).astype(float)
    if layer and "observed" in adata.layers:
        X[~dense(adata.layers["observed"]).astype(bool)] = np.nan
    about = adata.obs[[c for c in ABOUT if c in adata.obs]].reset_index(drop=True)
    if "perturbation" not in about:
        about.insert(0, "perturbation", adata.obs_names.astype(str))
    values = pd.DataFrame(X, columns=adata.var_names.astype(str))
    if len(twice := values.columns[values.columns.duplicated()]):
        raise InputError(f"{path}: gene '{twice[0]}' is there twice; make var_names unique")
    return pd.concat([about, values], axis=1)


def _check_values(values: pd.DataFrame, texts: pd.DataFrame, kind: str, path: Path) -> None:
    """Refuse what is no number, a gap among log fold-changes, and numbers of another kind."""
    X = values.to_numpy()
    bad = ~np.isfinite(X)
    words = [str(text).strip() for text in texts.to_numpy(dtype=object)[bad]]
    gap = np.array([word.lower() in GAPS for word in words], dtype=bool)
    wrong = np.flatnonzero(~gap if kind == "labels" else np.ones(len(gap), bool))
    if len(wrong):
        row, k = np.argwhere(bad)[wrong[0]]
        name, gene, text = values.index[row][0], values.columns[k], words[wrong[0]]
        what = "is empty" if gap[wrong[0]] else f"has '{text}', which is no number,"
        raise InputError(
            f"{path}: column '{gene}' {what} in the row of '{name}'; fill it, or drop the gene (of "
            f"other columns, only {', '.join(ABOUT)} are known)"
        )
    known = X[np.isfinite(X)]
    if kind == "labels" and len(wrong := known[~np.isin(known, (-1, 0, 1))]):
        raise InputError(f"{path}: it has the value {wrong[0]:g}; labels are -1, 0, 1")
    if not known.any():
        raise InputError(f"{path}: every value is 0; was another file meant?")
    if np.abs(known).max() > LARGEST:
        raise InputError(
            f"{path}: it has the value {known[np.abs(known).argmax()]:g}; log fold-changes are "
            f"between -{LARGEST:g} and {LARGEST:g}"
        )
