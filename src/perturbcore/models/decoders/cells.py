"""The cells of a screen as decoders need them: whom to learn from, which controls to carry over."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.screens.declare import normalise


@dataclass(eq=False)
class Cells:
    """Cells of a screen with their labels.

    `X` (n_cells, n_genes): log1p(1e4 * count / total).
    """

    X: sp.csr_matrix
    genes: pd.Index
    perturbation: np.ndarray
    batch: np.ndarray
    cell_line: np.ndarray
    is_control: np.ndarray

    @classmethod
    def of(cls, screen: AnnData, genes) -> "Cells":
        """Normalise a declared screen and keep `genes` (those of the responses), in this order."""
        screen, genes = normalise(screen), pd.Index(genes)
        X = sp.csr_matrix(screen.X, dtype=np.float32)
        at = pd.Index(screen.var_names.astype(str)).get_indexer(genes)
        if (at < 0).any():
            raise InputError(
                f"genes {list(genes[at < 0][:3])} of the responses are not in the screen: both "
                "must name genes alike"
            )
        if len(at) != X.shape[1] or (np.diff(at) != 1).any():
            X = X[:, at]
        columns = ("perturbation", "batch", "cell_line")
        perturbation, batch, line = (screen.obs[c].astype(str).to_numpy() for c in columns)
        return cls(X, genes, perturbation, batch, line, screen.obs["is_control"].to_numpy(bool))

    @cached_property
    def digest(self) -> str:
        """Content of cells and labels."""
        return digest(
            self.X, list(self.genes), self.perturbation, self.batch, self.cell_line, self.is_control
        )

    def controls(self, line: str) -> np.ndarray:
        """Rows of the control cells of a line, of which there must be some."""
        rows = np.flatnonzero(self.is_control & (self.cell_line == line))
        if not len(rows):
            raise InputError(
                f"cell line '{line}' has no control cells: nothing can be carried over"
            )
        return rows

    def of_perturbations(self, line: str, names) -> np.ndarray:
        """Rows of the cells of some perturbations in a line."""
        here = ~self.is_control & (self.cell_line == line)
        return np.flatnonzero(here & np.isin(self.perturbation, list(names)))

    def draw_controls(self, line: str, n: int, seed: int, batches=None) -> np.ndarray:
        """Draw at most `n` control cells per batch, without replacement; rows sorted by batch.

        Equal seeds give the same cells to every model, so that models differ in what they learnt.
        """
        if n < 1:
            raise ParameterError(f"{n} control cells per batch: give at least 1")
        rows = self.controls(line)
        if batches is not None:
            own = rows[np.isin(self.batch[rows], list(batches))]
            rows = own if len(own) else rows
        rng = np.random.default_rng([seed, 11])
        parts = []
        for name in np.unique(self.batch[rows]):
            there = rows[self.batch[rows] == name]
            parts.append(np.sort(rng.permutation(there)[:n]))
        return np.concatenate(parts)


def batch_mean(X, batch) -> np.ndarray:
    """Mean over batches of the mean cell of each, (n_genes,) (Cole et al., Methods 4.7.4)."""
    batch = np.asarray(batch)
    levels = [
        X[np.flatnonzero(batch == name)].mean(axis=0, dtype=np.float64) for name in np.unique(batch)
    ]
    return np.mean([np.asarray(level).ravel() for level in levels], axis=0)
