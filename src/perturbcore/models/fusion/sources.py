"""Embeddings laid out for a fusion model: one table a source, one row number a response."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.models.simple.space import standardise


@dataclass(eq=False)
class Sources:
    """Sources of the rows of a responses table.

    Attributes
    ----------
    names : list of str
        Sorted, so that the order in which embeddings are given changes nothing.
    tables : list of (m_e + 1, d_e) float32 arrays
        Vectors of each source; the last row stands for a missing one.
    at : (n, S) int64 array
        Row of each table that belongs to a response; m_e where the source is missing.
    """

    names: list[str]
    tables: list[np.ndarray]
    at: np.ndarray

    @property
    def dims(self) -> list[int]:
        """Width of each source."""
        return [t.shape[1] for t in self.tables]

    @property
    def present(self) -> np.ndarray:
        """(n, S) bool: whether a response has the source."""
        return self.at < np.array([len(t) - 1 for t in self.tables])

    def without(self, hidden: Sequence[str]) -> "Sources":
        """Return the same with the named sources missing everywhere."""
        unknown = sorted(set(hidden) - set(self.names))
        if unknown:
            raise ParameterError(f"no source '{unknown[0]}'; there are: {', '.join(self.names)}")
        at = self.at.copy()
        for j, name in enumerate(self.names):
            if name in hidden:
                at[:, j] = len(self.tables[j]) - 1
        return Sources(self.names, self.tables, at)


def lay_out(embeddings, obs: pd.DataFrame, train: np.ndarray, *, expression_line=None) -> Sources:
    """Find the vector of every source for every response.

    Embeddings of one name that serve different cell lines are one source. One that no training row
    has is left out: nothing could be learned of it.

    Parameters
    ----------
    embeddings : sequence of Embedding
    obs : pandas.DataFrame
        Columns `perturbation`, `cell_line`; n rows.
    train : (n,) bool array
        Training rows.
    expression_line : str, optional
        Cell line whose embeddings serve all lines where a source has one a line, as published
        ("Hep-G2"); by default each line has its own.

    Raises
    ------
    InputError
        Two embeddings of a name serve one line, or differ in width; no source is left.
    ParameterError
        `expression_line` has no embedding.
    """
    ids = obs["perturbation"].astype(str).to_numpy()
    line = obs["cell_line"].astype(str).to_numpy()
    names, tables, at = [], [], []
    for name in sorted({e.name for e in embeddings}):
        parts = [e for e in embeddings if e.name == name]
        column = np.full(len(ids), -1)
        rows, start = [], 0
        for e in _served(parts, name, expression_line):
            here = np.ones(len(ids), bool) if e.cell_line is None else line == e.cell_line
            if expression_line is not None:
                here[:] = True
            found = e.ids.get_indexer(ids[here])
            used, code = np.unique(found[found >= 0], return_inverse=True)
            where = np.flatnonzero(here)[found >= 0]
            column[where] = start + code
            rows.append(e.X[used])
            start += len(used)
        if (column[train] >= 0).any():
            table = np.concatenate([*rows, np.zeros((1, parts[0].dim), np.float32)])
            column[column < 0] = start
            names.append(name)
            tables.append(np.ascontiguousarray(table, dtype=np.float32))
            at.append(column)
    if not names:
        raise InputError("no embedding has a vector for any training perturbation: check their ids")
    return Sources(names, tables, np.stack(at, axis=1).astype(np.int64))


def _served(parts, name, expression_line):
    lines = [e.cell_line for e in parts]
    if len(set(lines)) < len(lines) or (None in lines and len(lines) > 1):
        raise InputError(
            f"embedding '{name}' is there twice for one cell line ({lines}): rename one, or drop it"
        )
    dims = sorted({e.dim for e in parts})
    if len(dims) > 1:
        raise InputError(
            f"embedding '{name}' has widths {dims} in different cell lines: a source has one width"
        )
    if expression_line is None or lines == [None]:
        return parts
    chosen = [e for e in parts if e.cell_line == expression_line]
    if not chosen:
        raise ParameterError(
            f"expression_line '{expression_line}': embedding '{name}' is there for {lines} only"
        )
    return chosen


def normalise(sources: Sources, train: np.ndarray, kind: str) -> Sources:
    """Normalise each source as `Settings.input_norm` says, by its training rows.

    Parameters
    ----------
    sources : Sources
    train : (n,) bool array
        Training rows.
    kind : {"none", "zscore", "unit"}
        "zscore" counts a missing vector as zeros, and normalises these zeros too, as published;
        "unit" standardises over present vectors and divides each by its length, times the square
        root of the width; missing ones stay zero.
    """
    if kind == "none":
        return sources
    tables = []
    for table, at in zip(sources.tables, sources.at.T, strict=True):
        if kind == "zscore":
            rows = table[at[train]].astype(np.float64)
            mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-8)
            new = ((table - mean) / std).astype(np.float32)
        else:
            used = np.unique(at[train])
            used = used[used < len(table) - 1]
            new = standardise(table[used], table)[1]
            length = np.linalg.norm(new, axis=1, keepdims=True)
            new = np.divide(new, length, out=np.zeros_like(new), where=length > 0)
            new *= np.sqrt(table.shape[1])
            new[-1] = 0
        tables.append(new)
    return Sources(sources.names, tables, sources.at)
