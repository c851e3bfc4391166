"""The latent space of cells, and the units in which cells and embeddings reach a network."""

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

from perturbcore.core.errors import InputError, ParameterError

TINY = 1e-8


class Latent:
    """Genes scaled to unit variance, then principal components, then one of three scalings.

    Fitted on training cells only (controls and training perturbations). Sparse cells stay
    sparse: centring happens after the projection. The scalings are those of `DecoderOptions`.

    `loadings` (n_genes, n_components): in units of the genes; a gene that is constant over the
    training cells has zeros; `mean` (n_genes,): Training mean of each gene: what the origin of
    the principal components decodes to; `low, high` (n_components,): range of the scaled
    training coordinates ([-1, 1] throughout for ``"minmax"``).

    Cole et al. 2026, Methods 4.7.4.
    """

    def __init__(self, n_components: int = 50, scaling: str = "minmax", seed: int = 0):
        self.n_components, self.scaling, self.seed = n_components, scaling, seed

    def fit(self, cells) -> "Latent":
        """Fit on log-normalised training cells, (n_cells, n_genes), dense or sparse."""
        cells = check_cells(cells, "training cells")
        self.mean, deviation = _moments(cells)
        varies = deviation > TINY
        largest = min(cells.shape[0] - 1, int(varies.sum()))
        if largest < self.n_components:
            raise ParameterError(
                f"n_components={self.n_components}: {cells.shape[0]} training cells with "
                f"{int(varies.sum())} varying genes allow at most {max(largest, 0)}"
            )
        scale = np.where(varies, 1 / np.maximum(deviation, TINY), 0).astype(np.float32)
        x = cells @ sp.diags(scale) if sp.issparse(cells) else cells * scale
        pca = PCA(self.n_components, svd_solver=_solver(cells), random_state=self.seed).fit(x)
        components = pca.components_.astype(np.float32)
        self._forward = components.T * scale[:, None]
        self.loadings = np.where(varies, deviation, 0).astype(np.float32)[:, None] * components.T
        self._scale(self._project(cells))
        return self

    def _project(self, cells) -> np.ndarray:
        return np.asarray(cells @ self._forward, dtype=np.float32) - self.mean @ self._forward

    def _scale(self, z) -> None:
        if self.scaling == "minmax":
            middle = np.full(self.n_components, (z.max() + z.min()) / 2)
            factor = np.full(self.n_components, max((z.max() - z.min()) / 2, TINY))
        elif self.scaling == "unit":
            middle, factor = z.mean(axis=0), np.maximum(z.std(axis=0), TINY)
        else:
            middle = z.mean(axis=0)
            factor = np.full(self.n_components, max(np.sqrt(z.var(axis=0).mean()), TINY))
        self._middle, self._factor = middle.astype(np.float32), factor.astype(np.float32)
        z = (z - self._middle) / self._factor
        if self.scaling == "minmax":
            self.low, self.high = -np.ones_like(self._factor), np.ones_like(self._factor)
        else:
            self.low, self.high = z.min(axis=0), z.max(axis=0)

    def transform(self, cells) -> np.ndarray:
        """Cells (n, genes) to scaled latent coordinates, float32 (n, n_components)."""
        cells = check_cells(cells, "cells", n_genes=len(self.mean))
        return (self._project(cells) - self._middle) / self._factor

    def inverse(self, z) -> np.ndarray:
        """Scaled latent coordinates to log-normalised expression, float32 (n, genes)."""
        components = np.asarray(z, dtype=np.float32) * self._factor + self._middle
        return components @ self.loadings.T + self.mean

    def shift(self, difference) -> np.ndarray:
        """Differences between latent points to differences of expression, float32 (n, genes)."""
        return (np.asarray(difference, dtype=np.float32) * self._factor) @ self.loadings.T


class VectorScale:
    """Units in which embeddings reach the network: `embedding_scaling` of the options."""

    def __init__(self, scaling: str = "none"):
        self.scaling = scaling

    def fit(self, vectors) -> "VectorScale":
        """Fit on the vectors of training perturbations, shape (n_perturbations, d)."""
        deviation, self.mean = vectors.std(axis=0), vectors.mean(axis=0)
        if self.scaling == "none":
            deviation, self.mean = np.ones_like(deviation), np.zeros_like(deviation)
        elif self.scaling == "global":
            deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
        self.factor = np.where(deviation > TINY, 1 / np.maximum(deviation, TINY), 0)
        return self

    def transform(self, vectors) -> np.ndarray:
        """Vectors (n, d) to float32 (n, d)."""
        return ((vectors - self.mean) * self.factor).astype(np.float32)


def check_cells(cells, name: str, n_genes: int | None = None):
    """Cells as float32, dense or CSR; an InputError names the first value that is not finite."""
    sparse = sp.issparse(cells)
    cells = cells.tocsr().astype(np.float32) if sparse else np.asarray(cells, dtype=np.float32)
    if cells.ndim != 2 or 0 in cells.shape:
        raise InputError(
            f"{name}: shape {cells.shape}; give cells x genes with at least one of each"
        )
    if n_genes is not None and cells.shape[1] != n_genes:
        raise InputError(f"{name}: {cells.shape[1]} genes, the decoder was fitted on {n_genes}")
    # a sum is finite only where every term is: one pass without a mask as large as the cells
    if not np.isfinite((cells.data if sparse else cells).sum(dtype=np.float64)):
        bad = np.argwhere(~np.isfinite(cells.toarray() if sparse else cells))
        row, column = bad[0]
        raise InputError(
            f"{name}: value {cells[row, column]} in row {row}, column {column} ({len(bad)} such "
            "values); drop these cells or genes or fill them before decoding"
        )
    return cells


def _moments(cells):
    n = cells.shape[0]
    if sp.issparse(cells):
        mean = np.asarray(cells.sum(axis=0, dtype=np.float64)).ravel() / n
        square = np.asarray(cells.multiply(cells).sum(axis=0, dtype=np.float64)).ravel() / n
        # cancellation leaves specks of variance in constant genes
        variance = np.where(square - mean**2 > 1e-7 * square, square - mean**2, 0.0)
    else:
        mean, variance = cells.mean(axis=0, dtype=np.float64), cells.var(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)


def _solver(cells) -> str:
    # covariance: exact and quick while genes are few; arpack: sparse cells stay sparse
    if cells.shape[1] <= 1500:
        return "covariance_eigh"
    return "arpack" if sp.issparse(cells) else "randomized"
