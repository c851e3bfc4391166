"""Cells of a screen by line, perturbation and batch, read and normalised a few rows at a time."""

import threading

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.data.catalogue import hash_of
from perturbcore.data.screens.declare import COLUMNS, check_declared

TARGET_SUM = 1e4


class Cells:
    """Read-only access to the cells of a declared screen, or to replicate wells."""

    def __init__(self, X, columns, scale, dataset="", source=()):
        self.X, self.scale, self.dataset = X, scale, dataset
        self.n_genes = int(X.shape[1])
        self.obs = pd.DataFrame(
            {
                name: np.asarray(values).astype(bool if name == "is_control" else str)
                for name, values in zip(COLUMNS, columns, strict=True)
            }
        )
        self._source = source
        self._lock = threading.Lock()

    @classmethod
    def of(cls, screen, wells: bool = False, by_plate: bool = True) -> "Cells":
        """Wrap a declared screen, or replicate `wells`, which are on the scale of the responses."""
        obs, declared = screen.obs, screen.uns.get("perturbcore", {})
        dataset = str(declared.get("dataset", ""))
        if wells:
            X = screen.X.toarray() if sp.issparse(screen.X) else np.asarray(screen.X)
            if not np.isfinite(X).all():
                raise InputError(
                    "replicates must be finite; drop those, or genes, with missing values"
                )
            if missing := [c for c in ("perturbation", "cell_line", "is_control") if c not in obs]:
                raise InputError(
                    f"replicates lack obs column {missing[0]!r}; they have: {list(obs)}"
                )
            if not by_plate or "batch" not in obs:
                obs = obs.assign(batch="")
            return cls(X, [obs[c] for c in COLUMNS], "effects", dataset)
        check_declared(screen)
        source: tuple = ([str(v) for v in screen.var_names],)
        if screen.isbacked:
            source += (hash_of(screen.filename),)
        return cls(screen.X, [obs[c] for c in COLUMNS], str(declared["scale"]), dataset, source)

    def digest(self) -> str:
        """Content key of the cells (for a backed file: its sha256)."""
        content = self.X if isinstance(self.X, np.ndarray) or sp.issparse(self.X) else None
        return digest(self._source, self.obs, content, self.scale, self.dataset)

    def lines(self) -> list:
        """Cell lines, sorted."""
        return sorted(self.obs["cell_line"].unique())

    def of_line(self, line, need_controls=True) -> tuple[dict, dict]:
        """Rows of a cell line: of controls by batch, of perturbations by name and batch."""
        here = self.obs.reset_index(drop=True)
        here = here[here["cell_line"] == line]
        treated = here[~here["is_control"]]
        controls = _rows(here[here["is_control"]], "batch")
        if need_controls and not controls:
            raise InputError(
                f"cell line {line!r} has no control cells (is_control is False in every row); "
                "declare them, or drop the line"
            )
        perturbed: dict[str, dict] = {}
        for (name, batch), rows in _rows(treated, ["perturbation", "batch"]).items():
            perturbed.setdefault(name, {})[batch] = rows
        return controls, perturbed

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


def _rows(table: pd.DataFrame, by) -> dict:
    """Index of the rows of each group, groups sorted."""
    index = table.index.to_numpy()
    return {key: index[at] for key, at in sorted(table.groupby(by).indices.items())}
