"""The sources of a fold: reduced coordinates in one cell line, or whole vectors over all lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import unit
from perturbcore.models.simple.space import principal_axes, standardise
from perturbcore.score.labels import Labels
from perturbcore.score.model import Fold
from perturbcore.score.task import Task

# a source that fewer training perturbations have teaches nothing that cross-validation could show
MIN_ROWS = 10
INNER_SEED = 42


@dataclass(eq=False)
class Source:
    """Coordinates of one embedding on its principal axes; zero where a row has no vector."""

    name: str
    train: np.ndarray
    test: np.ndarray
    gene: np.ndarray
    has_train: np.ndarray
    has_test: np.ndarray


@dataclass(eq=False)
class LineFold:
    """Training and test perturbations of one cell line with what is known of them.

    `ids` are sorted; `truth` is of the `genes` predicted: of pairs those with a known training
    label.
    """

    task: Task
    line: str
    ids: pd.Index
    test_ids: pd.Index
    genes: np.ndarray
    truth: Any
    embeddings: list[Embedding]
    sources: list[Source]
    splits: list[tuple[np.ndarray, np.ndarray]]
    alone: np.ndarray | None = None

    @property
    def pairs(self) -> bool:
        """Whether labels are partial."""
        return self.task.partial

    @cached_property
    def gram(self) -> np.ndarray:
        """Inner products of the training responses, (n, n)."""
        return self.truth @ self.truth.T

    @cached_property
    def inner(self) -> list[tuple]:
        """Truth of the training and of the validation rows of each inner fold."""
        return [(self.truth[a], self.truth[b]) for a, b in self.splits]


def lay_out_fold(
    fold: Fold, embeddings: Sequence[Embedding], *, n_components: int = 100, inner_folds: int = 5
) -> LineFold:
    """Lay one cell line's fold out; reduction sees no label, and all training perturbations."""
    content = tuple((e.name, e.cell_line, e.digest) for e in embeddings)
    key = (fold.cell_lines, content, n_components, inner_folds)
    if key in fold.cache:  # what models of one group share
        return fold.cache[key]
    (line,) = fold.cell_lines
    order = np.argsort(fold.train_ids)
    ids, truth = fold.train_ids[order], fold.truth[order]
    if len(ids) < max(inner_folds, MIN_ROWS):
        raise InputError(f"{len(ids)} training perturbations in line '{line}' are too few to tune")
    served = [e for e in embeddings if e.cell_line in (None, line)]
    served = [e for e in served if e.ids.isin(ids).sum() >= MIN_ROWS]
    if not served:
        raise InputError(
            f"no embedding has vectors for {MIN_ROWS} training perturbations of cell line "
            f"'{line}': the perturbations look like '{ids[0]}'; convert the embeddings' ids"
        )
    served.sort(key=lambda e: e.name)
    genes, readout = np.arange(fold.train.n_vars), []
    if isinstance(truth, Labels):
        genes, truth = truth.used()
        readout = fold.train.var_names[genes]
        if not len(genes):
            raise InputError("no training label is known: layers['observed'] is empty")
    elif truth.dtype.kind == "f":
        truth = truth.astype(np.float64)
    sources = []
    for e in served:
        own = (line, e.name, e.digest, n_components)
        if own not in fold.cache:
            fold.cache[own] = _reduced(e, (ids, fold.test_ids, readout), n_components)
        sources.append(fold.cache[own])
    folds = KFold(inner_folds, shuffle=True, random_state=INNER_SEED)
    splits = list(folds.split(np.arange(len(ids))))
    laid = LineFold(fold.task, line, ids, fold.test_ids, genes, truth, served, sources, splits)
    fold.cache[key] = laid
    return laid


def _reduced(embedding: Embedding, ids: tuple, n_components: int) -> Source:
    """Reduce the vectors of training perturbations, test perturbations and readout genes."""
    at = [embedding.ids.get_indexer(i) for i in ids]
    scaled = standardise(*(embedding.X[a[a >= 0]].astype(np.float64) for a in at))
    axes = principal_axes(scaled[0], n_components)
    parts = [np.zeros((len(a), axes.shape[1])) for a in at]
    for part, a, rows in zip(parts, at, scaled, strict=True):
        part[a >= 0] = rows @ axes
    return Source(embedding.name, *parts, at[0] >= 0, at[1] >= 0)


@dataclass(eq=False)
class Tables:
    """Vectors of all sources, sorted by name, for n responses of all cell lines.

    The last row of each table stands for a missing vector; `at` (n, S) are the rows of responses.
    """

    names: list[str]
    tables: list[np.ndarray]
    at: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(n, S) bool: whether a response has the source."""
        return self.at < np.array([len(t) - 1 for t in self.tables])


def lay_out(
    embeddings: Sequence[Embedding], obs: pd.DataFrame, train: np.ndarray, *, expression_line=None
) -> Tables:
    """Find the vector of every source that a row of `train` has for every row of `obs`.

    Embeddings of one name that serve different cell lines are one source; with `expression_line`
    that of one line serves all.
    """
    ids = obs["perturbation"].astype(str).to_numpy()
    line = obs["cell_line"].astype(str).to_numpy()
    names, tables, at = [], [], []
    for name in sorted({e.name for e in embeddings}):
        column = np.full(len(ids), -1)
        rows, start = [], 0
        for e in _served([e for e in embeddings if e.name == name], expression_line):
            everywhere = e.cell_line is None or expression_line is not None
            row = e.ids.get_indexer(ids)
            here = np.flatnonzero((row >= 0) & (everywhere | (line == e.cell_line)))
            used, code = np.unique(row[here], return_inverse=True)
            column[here] = start + code
            rows.append(e.X[used])
            start += len(used)
        if (column[train] >= 0).any():
            table = np.concatenate([*rows, np.zeros((1, rows[0].shape[1]), np.float32)])
            names.append(name)
            tables.append(table.astype(np.float32, order="C", copy=False))
            at.append(np.where(column < 0, start, column))
    if not names:
        raise InputError("no embedding has a vector for any training perturbation: check their ids")
    return Tables(names, tables, np.stack(at, axis=1).astype(np.int64))


def _served(parts: list[Embedding], expression_line: str | None) -> list[Embedding]:
    """Check the embeddings of one name, and choose those that serve."""
    name, lines = parts[0].name, [e.cell_line for e in parts]
    if len(set(lines)) < len(lines) or (None in lines and len(lines) > 1):
        raise InputError(f"two embeddings '{name}' for a line ({lines}): rename or drop one")
    dims = sorted({e.dim for e in parts})
    if len(dims) > 1:
        raise InputError(f"embedding '{name}' has widths {dims} by cell line: a source has one")
    if expression_line is None or lines == [None]:
        return parts
    if expression_line not in lines:
        raise ParameterError(f"expression_line '{expression_line}': '{name}' has only {lines}")
    return [e for e in parts if e.cell_line == expression_line]


def normalise(sources: Tables, train: np.ndarray, kind: str) -> Tables:
    """Normalise sources by their training rows; "zscore" takes missing ones along, as published."""
    if kind == "none":
        return sources
    tables = []
    for table, at in zip(sources.tables, sources.at.T, strict=True):
        if kind == "zscore":
            rows = table[at[train]].astype(np.float64)
            ddof = 1 if len(rows) > 1 else 0  # as published
            mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0, ddof=ddof), 1e-8)
            tables.append(((table - mean) / std).astype(np.float32))
        else:
            used = np.unique(at[train])
            new = unit(standardise(table[used[used < len(table) - 1]], table)[1])
            new *= np.sqrt(table.shape[1])
            new[-1] = 0
            tables.append(new)
    return Tables(sources.names, tables, sources.at)
