"""Embeddings from spectral graph wavelets: how heat at a node spreads, at several scales."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.embeddings.linalg import half_scaled_svd
from perturbcore.embeddings.network import adjacency, normalised_adjacency
from perturbcore.embeddings.registry import Dim, register

KERNELS = {
    "heat": lambda x: np.exp(-x),
    "mexican_hat": lambda x: x * np.exp(1 - x),  # band-pass, 1 at its peak x = 1
}
SCALES = (1.0, 3.0, 9.0)
ORDER = 12  # degree of the polynomial
LANDMARKS = 1000  # nodes of highest degree that coefficients are taken at


@register("wavelets", kind="edges")
def wavelet_embedding(edges: pd.DataFrame, *, dim: Dim = 128, seed: int = 0):
    r"""Embed the nodes of an undirected network by their spectral wavelet coefficients.

    For a kernel g and a scale s, the wavelet at node i is :math:`g(s L)\,\delta_i` with the
    normalised Laplacian L; it is computed as a Chebyshev polynomial of L, without eigenvectors. The
    coefficients of a node at the landmark nodes, over all kernels and scales, compressed by
    :math:`\operatorname{arcsinh}(n\,c)` (a logarithm that keeps signs), are decomposed by SVD.
    Without the compression the result would be the spectral embedding with other weights.

    This is *after the idea* of WaveGC, which learns the kernels of such wavelets inside a network
    trained on link prediction; nothing is trained here, and it is not the authors' embedding.
    `edges`: see `adjacency`.

    References
    ----------
    Hammond, Vandergheynst and Gribonval 2011 (spectral graph wavelets, Chebyshev); Liu et al. 2024
    (WaveGC).
    """
    ids, A = adjacency(edges)
    degree = np.asarray(A.sum(axis=1)).ravel()
    at = np.sort(np.argsort(-degree, kind="stable")[:LANDMARKS])
    filters = [(kernel, scale) for kernel in KERNELS for scale in SCALES]
    C = wavelet_coefficients(A, at, filters, ORDER).reshape(len(ids), -1)
    X = half_scaled_svd(np.arcsinh(len(ids) * C), dim, seed)
    text = (
        f"{A.nnz // 2} edges, wavelets ({', '.join(KERNELS)} at "
        f"{', '.join(f'{s:g}' for s in SCALES)}, Chebyshev order {ORDER}, {len(at)} landmarks), "
        f"{X.shape[1]} dimensions; after the idea of WaveGC"
    )
    return ids, X, text


def wavelet_coefficients(
    A: sp.csr_matrix, at: np.ndarray, filters: list[tuple[str, float]], order: int
) -> np.ndarray:
    """Return g(s L) of the normalised Laplacian at columns `at`, for filters (kernel g, scale s).

    A (n, n) is symmetric and has no isolated node; `order` is the degree of the Chebyshev
    polynomial on the spectrum, which lies in [0, 2]. The result is float32, (n, n_filters, m).
    """
    shifted = (-normalised_adjacency(A)[0]).astype(np.float32)  # L - I: spectrum in [-1, 1]
    weights = np.stack([_chebyshev_weights(kernel, scale, order) for kernel, scale in filters])
    before = np.zeros((A.shape[0], len(at)), np.float32)
    before[at, np.arange(len(at))] = 1
    now = shifted @ before
    out = np.empty((A.shape[0], len(filters), len(at)), np.float32)
    for j, w in enumerate(weights):
        out[:, j] = w[0] * before + w[1] * now
    for k in range(2, order + 1):
        before, now = now, 2 * (shifted @ now) - before
        for j, w in enumerate(weights):
            out[:, j] += w[k] * now
    return out


def _chebyshev_weights(kernel: str, scale: float, order: int) -> np.ndarray:
    """Weights of T_0 .. T_order(x - 1) that interpolate g(scale x) on [0, 2]."""
    return np.polynomial.chebyshev.chebinterpolate(
        lambda x: KERNELS[kernel](scale * (x + 1)), order
    ).astype(np.float32)
