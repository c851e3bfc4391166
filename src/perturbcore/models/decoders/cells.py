"""The cells of a screen as decoders need them, and the latent space that is made of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import PCA

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
        X = screen.X
        at = pd.Index(screen.var_names.astype(str)).get_indexer(genes)
        if (at < 0).any():
            raise InputError(f"the screen lacks genes {list(genes[at < 0][:3])}: name genes alike")
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
            raise InputError(f"cell line '{line}' has no control cells to be carried over")
        return rows

    def of_perturbations(self, line: str, names) -> np.ndarray:
        """Rows of the cells of some perturbations in a line."""
        here = ~self.is_control & (self.cell_line == line)
        return np.flatnonzero(here & np.isin(self.perturbation, list(names)))

    def draw_controls(self, line: str, n: int, seed: int, batches=None) -> np.ndarray:
        """Draw at most `n` control cells per batch, equal for every model; rows sorted by batch."""
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


TINY = 1e-8


class Latent:
    """Genes scaled to unit variance, then principal components, then a scaling of `DecoderOptions`.

    Fitted on training cells, which stay sparse. `loadings` (n_genes, n_components): in units of the
    genes; `low, high`: range of the scaled training coordinates (Cole et al. 2026, Methods 4.7.4).
    """

    def __init__(self, n_components: int = 50, scaling: str = "minmax", seed: int = 0):
        self.n_components, self.scaling, self.seed = n_components, scaling, seed

    def fit(self, cells: sp.csr_matrix) -> "Latent":
        """Fit on log-normalised training cells, (n_cells, n_genes) float32."""
        n = cells.shape[0]
        mean = np.asarray(cells.sum(axis=0, dtype=np.float64)).ravel() / n
        square = np.asarray(cells.multiply(cells).sum(axis=0, dtype=np.float64)).ravel() / n
        # cancellation leaves specks of variance in constant genes
        variance = np.where(square - mean**2 > 1e-7 * square, square - mean**2, 0.0)
        self.mean = mean.astype(np.float32)
        deviation = np.sqrt(np.maximum(variance, 0)).astype(np.float32)
        varies = deviation > TINY
        largest = min(cells.shape[0] - 1, int(varies.sum()))
        if largest < self.n_components:
            raise ParameterError(
                f"n_components={self.n_components}: {cells.shape[0]} training cells with "
                f"{int(varies.sum())} varying genes allow at most {max(largest, 0)}"
            )
        scale = np.where(varies, 1 / np.maximum(deviation, TINY), 0).astype(np.float32)
        # covariance is exact and quick while genes are few; arpack keeps sparse cells sparse
        solver = "covariance_eigh" if cells.shape[1] <= 1500 else "arpack"
        pca = PCA(self.n_components, svd_solver=solver, random_state=self.seed)
        components = pca.fit(cells @ sp.diags(scale)).components_.astype(np.float32)
        self._forward = components.T * scale[:, None]
        self.loadings = np.where(varies, deviation, 0).astype(np.float32)[:, None] * components.T
        self._scale(self._project(cells))
        return self

    def _project(self, cells) -> np.ndarray:
        return np.asarray(cells @ self._forward, dtype=np.float32) - self.mean @ self._forward

    def _scale(self, z) -> None:
        if self.scaling == "minmax":
            middle = np.full(self.n_components, (z.max() + z.min()) / 2)
            factor = max((z.max() - z.min()) / 2, TINY)
        else:
            middle, factor = z.mean(axis=0), max(np.sqrt(z.var(axis=0).mean()), TINY)
        self._middle = middle.astype(np.float32)
        self._factor = np.full(self.n_components, factor).astype(np.float32)
        z = (z - self._middle) / self._factor
        self.low, self.high = z.min(axis=0), z.max(axis=0)
        if self.scaling == "minmax":
            self.low, self.high = -np.ones_like(self._factor), np.ones_like(self._factor)

    def transform(self, cells) -> np.ndarray:
        """Cells (n, genes), dense or sparse, to scaled coordinates, float32 (n, n_components)."""
        return (self._project(cells) - self._middle) / self._factor

    def inverse(self, z) -> np.ndarray:
        """Scaled latent coordinates to log-normalised expression, float32 (n, genes)."""
        components = np.asarray(z, dtype=np.float32) * self._factor + self._middle
        return components @ self.loadings.T + self.mean

    def shift(self, difference) -> np.ndarray:
        """Differences between latent points to differences of expression, float32 (n, genes)."""
        return (np.asarray(difference, dtype=np.float32) * self._factor) @ self.loadings.T


def vector_units(vectors, scaling: str) -> tuple[np.ndarray | float, float]:
    """Mean and factor by which embeddings reach the network, from those of training (n, d)."""
    if scaling == "none":
        return 0.0, 1.0
    deviation = np.sqrt((vectors.std(axis=0) ** 2).mean())
    return vectors.mean(axis=0), 1 / deviation if deviation > TINY else 0.0
