"""Cells of a screen by line, perturbation and batch, read and normalised a few rows at a time."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.data.screens.declare import COLUMNS, SCALES, check_declared

TARGET_SUM = 1e4


@dataclass
class LineCells:
    """Row numbers of one cell line; batches sorted as strings, rows in file order.

    `controls`: batch -> rows; `perturbed`: perturbation (sorted) -> batch -> rows.
    """

    controls: dict = field(default_factory=dict)
    perturbed: dict = field(default_factory=dict)


class Cells:
    """Read-only access to the cells of a declared screen.

    `scale`: counts are scaled to a total of 1e4 over all genes of the screen and
    log1p-transformed when rows are read; any other declared scale is used as it is.
    """

    def __init__(self, X, perturbation, batch, cell_line, is_control, scale, dataset="", source=()):
        self.X = X
        self.scale = scale
        self.dataset = dataset
        self.n_genes = int(X.shape[1])
        self.obs = pd.DataFrame(
            {
                "perturbation": np.asarray(perturbation).astype(str),
                "batch": np.asarray(batch).astype(str),
                "cell_line": np.asarray(cell_line).astype(str),
                "is_control": np.asarray(is_control).astype(bool),
            }
        )
        self._source = source
        self._lock = threading.Lock()

    @classmethod
    def from_screen(cls, screen) -> "Cells":
        """Wrap a declared screen (AnnData, in memory or backed on disk)."""
        check_declared(screen)
        declared = screen.uns["perturbcore"]
        # What identifies a backed screen is its file: hashing tens of gigabytes would cost more
        # than reading the cells of one line.
        source = ()
        if screen.isbacked:
            stat = Path(screen.filename).stat()
            source = (Path(screen.filename).name, stat.st_size, stat.st_mtime_ns)
        obs = screen.obs
        return cls(
            screen.X,
            *(obs[c].to_numpy() for c in COLUMNS),
            scale=str(declared["scale"]),
            dataset=str(declared["dataset"]),
            source=(list(source), [str(v) for v in screen.var_names]),
        )

    @classmethod
    def of(cls, cells) -> "Cells":
        """Wrap a declared screen, or replicate wells, whose scale is no scale of cells."""
        declared = str(cells.uns.get("perturbcore", {}).get("scale", ""))
        return cls.from_screen(cells) if declared in SCALES else cls.from_wells(cells)

    @classmethod
    def from_wells(cls, wells, dataset: str = "", by_plate: bool = True) -> "Cells":
        """Wrap replicate wells on the scale of the responses; nothing is normalised.

        obs: `perturbation`, `cell_line`, `is_control` and, if `by_plate`, perhaps `batch`.
        """
        X = wells.X.toarray() if sp.issparse(wells.X) else np.asarray(wells.X)
        if not np.isfinite(X).all():
            raise InputError("replicates must be finite; drop those, or genes, with missing values")
        obs = wells.obs
        if missing := [c for c in ("perturbation", "cell_line", "is_control") if c not in obs]:
            raise InputError(f"replicates lack obs column {missing[0]!r}; they have: {list(obs)}")
        batch = obs["batch"] if by_plate and "batch" in obs else np.full(len(obs), "")
        about = (obs["perturbation"], batch, obs["cell_line"], obs["is_control"])
        return cls(X, *about, scale="effects", dataset=dataset)

    def digest(self) -> str:
        """Content key of the cells (for a backed file: its size and time of change)."""
        content = self.X if isinstance(self.X, np.ndarray) or sp.issparse(self.X) else None
        return digest(self._source, self.obs, content, self.scale, self.dataset)

    def lines(self) -> list:
        """Cell lines, sorted."""
        return sorted(self.obs["cell_line"].unique())

    def of_line(self, line, need_controls=True) -> LineCells:
        """Row numbers of one cell line by perturbation and batch."""
        rows = np.flatnonzero((self.obs["cell_line"] == line).to_numpy())
        here = self.obs.iloc[rows]
        index = LineCells()
        control = here["is_control"].to_numpy()
        index.controls = _by_batch(rows[control], here["batch"].to_numpy()[control])
        treated = here[~control]
        names = treated["perturbation"].to_numpy()
        for name, members in sorted(_indices(names).items()):
            index.perturbed[name] = _by_batch(
                rows[~control][members], treated["batch"].to_numpy()[members]
            )
        if need_controls and not index.controls:
            raise InputError(
                f"cell line {line!r} has no control cells (is_control is False in every row); "
                "declare them, or drop the line"
            )
        return index

    def read(self, rows):
        """Normalised expression of some cells, float64 (rows, genes), in the order of `rows`."""
        order = np.argsort(rows, kind="stable")
        with self._lock:  # a backed file has one read position
            block = self.X[np.asarray(rows)[order]]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        if sp.issparse(block):
            block = sp.csr_matrix(block, dtype=np.float64)
            block = block if (np.diff(order) == 1).all() else block[back]
        else:
            block = np.asarray(block, dtype=np.float64)[back]
        return normalise_rows(block) if self.scale == "counts" else block


def normalise_rows(block):
    """Scale each cell to a total of 1e4 and take log1p; a cell without counts stays zero."""
    totals = np.asarray(block.sum(axis=1)).ravel()
    factor = np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0)
    if sp.issparse(block):
        data = block.data * np.repeat(factor, np.diff(block.indptr))
        return sp.csr_matrix((np.log1p(data), block.indices, block.indptr), shape=block.shape)
    return np.log1p(block * factor[:, None])


def _indices(values) -> dict:
    codes, names = pd.factorize(values, sort=True)
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return {str(n): order[edges[i] : edges[i + 1]] for i, n in enumerate(names)}


def _by_batch(rows, batches) -> dict:
    return {batch: rows[members] for batch, members in sorted(_indices(batches).items())}
