"""Kernel mixed model of labelled pairs: each gene's own response, shared modules, overall strength.

The label of (perturbation p, gene g) is ``b_g + f(p, g) + noise`` with a Gaussian ``f`` of
covariance ``k(p, p') [1(g = g') + shared + module phi_g . phi_g'] + own 1(p = p')``, k a power of
the summed cosine kernels, phi coordinates of the readout genes in the same sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.sources import Source
from perturbcore.models.simple.labels import raise_to
from perturbcore.models.simple.space import unit
from perturbcore.score.labels import Labels


@numba.njit(nogil=True, cache=True, fastmath=True)
def _within_genes(start, rows, K, a, out):
    """Add the product of the block-diagonal part: pairs of one gene through the kernel K."""
    for g in range(len(start) - 1):
        for i in range(start[g], start[g + 1]):
            line = K[rows[i]]
            total = np.float32(0)
            for j in range(start[g], start[g + 1]):
                total += line[rows[j]] * a[j]
            out[i] += total


@numba.njit(nogil=True, cache=True, fastmath=True)
def _gather(rows, genes, a, phi, out):
    """out[p] += sum over pairs of p of a * phi of the pair's gene."""
    for i in range(len(rows)):
        for j in range(phi.shape[1]):
            out[rows[i], j] += a[i] * phi[genes[i], j]


@numba.njit(nogil=True, cache=True, fastmath=True)
def _spread(rows, genes, left, phi, out):
    """out[pair] += left of its perturbation . phi of its gene."""
    for i in range(len(rows)):
        total = np.float32(0)
        for j in range(phi.shape[1]):
            total += left[rows[i], j] * phi[genes[i], j]
        out[i] += total


def gene_features(sources: Sequence[Source], n_features: int = 32) -> np.ndarray:
    """Leading coordinates of the readout genes over all sources, (g, q), mean square length 1."""
    F = np.concatenate([unit(s.gene) for s in sources], axis=1) / np.sqrt(len(sources))
    F -= F.mean(axis=0)
    width = F.shape[1]
    _, vectors = eigh(F.T @ F, subset_by_index=[max(width - n_features, 0), width - 1])
    F = F @ vectors[:, ::-1]
    length = np.sqrt((F**2).sum(axis=1).mean())
    return (F / max(length, 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class MixedModel:
    """Variances of the parts, relative to that of a gene's own response; see the head of this file.

    Conjugate gradients stop after `iterations`, or at `tolerance`, relative to the labels.
    """

    shared: float = 0.02
    module: float = 0.01
    own: float = 0.3
    noise: float = 2.3
    power: float = 3.0
    iterations: int = 20
    tolerance: float = 3e-2

    def __post_init__(self):
        if min(self.shared, self.module, self.own) < 0 or self.noise <= 0 or self.power <= 0:
            raise ParameterError("variances must not be negative, noise and power must be above 0")

    def scores(
        self, known: Labels, train: np.ndarray, test: np.ndarray, phi: np.ndarray
    ) -> np.ndarray:
        """Posterior mean of the label of every pair of the test rows, (m, g) float32.

        `train` (n, n) and `test` (m, n) are summed cosine kernels, `phi` (g, q) as `gene_features`.
        """
        K, T = (raise_to(np.asarray(k, dtype=np.float32), self.power) for k in (train, test))
        scale = np.float32(np.diag(K).mean())
        K, T = (np.ascontiguousarray(k / scale if scale > 0 else k) for k in (K, T))
        shared = np.full((known.n_genes, 1), np.sqrt(self.shared))
        joined = np.concatenate([shared, phi * np.sqrt(self.module)], axis=1)
        joined = joined[:, (joined != 0).any(axis=0)]
        system = _System(known, K, joined, self.own, self.noise)
        alpha = system.solve(self.iterations, self.tolerance)
        A = sp.csr_matrix((alpha, (system.rows, system.genes)), shape=(len(K), known.n_genes))
        f = known.rates().astype(np.float32) + (A.T @ T.T).T
        return f + (T @ system.gathered(alpha)) @ system.phi.T


class _System:
    """Covariance of the known pairs as a linear map."""

    def __init__(self, known: Labels, K, phi, own, noise):
        order = np.lexsort((known.rows, known.genes))
        self.rows, self.genes = (x[order].astype(np.int32) for x in (known.rows, known.genes))
        self.start = np.r_[0, np.cumsum(np.bincount(self.genes, minlength=known.n_genes))]
        self.residual = (known.label - known.rates()[known.genes])[order].astype(np.float32)
        self.K, self.own, self.noise = K, np.float32(own), np.float32(noise)
        self.phi = np.ascontiguousarray(phi, dtype=np.float32)

    def gathered(self, a):
        out = np.zeros((len(self.K), self.phi.shape[1]), dtype=np.float32)
        _gather(self.rows, self.genes, a, self.phi, out)
        return out

    def times(self, a):
        out = self.noise * a
        _within_genes(self.start, self.rows, self.K, a, out)
        strength = np.bincount(self.rows, weights=a, minlength=len(self.K)).astype(np.float32)
        out += self.own * strength[self.rows]
        _spread(self.rows, self.genes, self.K @ self.gathered(a), self.phi, out)
        return out

    def solve(self, iterations, tolerance):
        r = self.residual.copy()
        x, d = np.zeros_like(r), r.copy()
        size = first = float(r @ r)
        for _ in range(iterations):
            if size <= tolerance**2 * first:
                break
            moved = self.times(d)
            bend = float(d @ moved)
            # cutting negative cosines may cost the kernel its definiteness: stop where it shows
            if bend <= 0:
                break
            step = np.float32(size / bend)
            x += step * d
            r -= step * moved
            before, size = size, float(r @ r)
            d = r + np.float32(size / before) * d
        return x
