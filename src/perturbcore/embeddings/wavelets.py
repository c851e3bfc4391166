"""Embeddings from spectral graph wavelets: how a unit of heat at a node spreads, at several scales."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim, fix_signs
from perturbcore.embeddings.network import adjacency
from perturbcore.embeddings.registry import register

KERNELS = {
    "heat": lambda x: np.exp(-x),
    "mexican_hat": lambda x: x * np.exp(1 - x),  # band-pass, 1 at its peak x = 1
}


@register("wavelets", kind="edges")
def wavelet_embedding(
    edges: pd.DataFrame,
    *,
    name: str,
    modality: str = "Prior knowledge",
    identifier: str = "symbol",
    source: str = "interaction network",
    dim: int = 128,
    scales: list = [1.0, 3.0, 9.0],  # noqa: B006 - read only; profiles show it as the default
    kernels: list = ["heat", "mexican_hat"],  # noqa: B006
    order: int = 12,
    landmarks: int = 1000,
    min_weight: float = 0.0,
    weighted: bool = True,
    seed: int = 0,
) -> Embedding:
    r"""Embed the nodes of an undirected network by their spectral wavelet coefficients.

    For a kernel g and a scale s, the wavelet at node i is :math:`g(s L)\,\delta_i` with the
    normalised Laplacian L; it is computed as a Chebyshev polynomial of L, without eigenvectors. The
    coefficients of a node at the landmark nodes, over all kernels and scales, compressed by
    :math:`\operatorname{arcsinh}(n\,c)` (a logarithm that keeps signs), are decomposed by SVD. Without
    the compression the result would be the spectral embedding with other weights.

    This is *after the idea* of WaveGC, which learns the kernels of such wavelets inside a network
    trained on link prediction; nothing is trained here, and it is not the authors' embedding.

    Parameters
    ----------
    edges
        Columns ``source``, ``target`` and optionally ``weight``; see `adjacency`.
    dim
        Wanted dimensions.
    scales, kernels
        Every kernel (``heat``: low-pass, ``mexican_hat``: band-pass) is used at every scale.
    order
        Degree of the polynomial.
    landmarks
        Columns of the coefficients: that many nodes of highest degree; all where there are fewer.
    min_weight, weighted
        Edges below this weight are left out; ``False`` sets the others to one.
    seed
        Start of the decomposition.

    Raises
    ------
    InputError
        As `adjacency`.
    ParameterError
        A kernel is unknown, or a number is outside its range.

    References
    ----------
    Hammond, Vandergheynst and Gribonval 2011 (spectral graph wavelets, Chebyshev); Liu et al. 2024
    (WaveGC).
    """
    from sklearn.utils.extmath import randomized_svd

    dim = check_dim(dim, name)
    unknown = [k for k in kernels if k not in KERNELS]
    if unknown or not kernels:
        raise ParameterError(
            f"embedding {name!r}: kernels must be of {', '.join(KERNELS)}, got {kernels}"
        )
    if not scales or min(scales) <= 0 or order < 1 or landmarks < 1:
        raise ParameterError(
            f"embedding {name!r}: scales must be above 0, order and landmarks at least 1, got "
            f"{scales}, {order}, {landmarks}"
        )
    ids, A = adjacency(edges, min_weight=min_weight, weighted=weighted, name=name)
    degree = np.asarray(A.sum(axis=1)).ravel()
    at = np.sort(np.argsort(-degree, kind="stable")[:landmarks])
    filters = [(kernel, float(s)) for kernel in kernels for s in scales]
    C = wavelet_coefficients(A, at, filters, order)
    C = np.arcsinh(len(ids) * C.reshape(len(ids), -1))
    U, S, _ = randomized_svd(C, min(dim, *C.shape), n_iter=4, random_state=seed)
    X = fix_signs(U * np.sqrt(S))
    text = (
        f"{source}; {A.nnz // 2} edges, wavelets ({', '.join(kernels)} at {', '.join(f'{s:g}' for s in scales)}, "
        f"Chebyshev order {order}, {len(at)} landmarks), {X.shape[1]} dimensions; after the idea of WaveGC"
    )
    return Embedding(name, modality, pd.Index(ids), X, identifier, None, text)


def wavelet_coefficients(A, at: np.ndarray, filters, order: int) -> np.ndarray:
    """Return g(s L) of the normalised Laplacian, at some columns, for several filters at once.

    Parameters
    ----------
    A : (n, n) sparse matrix
        Symmetric, no isolated node.
    at : (m,) int array
        Columns.
    filters : list of (str, float)
        Kernel and scale.
    order : int
        Degree of the Chebyshev polynomial on the spectrum, which lies in [0, 2].

    Returns
    -------
    (n, n_filters, m) float32 array
    """
    n = A.shape[0]
    root = sp.diags(1 / np.sqrt(np.asarray(A.sum(axis=1)).ravel()))
    shifted = (-(root @ A @ root)).tocsr().astype(np.float32)  # L - I: spectrum in [-1, 1]
    weights = np.stack([chebyshev_weights(kernel, scale, order) for kernel, scale in filters])
    before = np.zeros((n, len(at)), np.float32)
    before[at, np.arange(len(at))] = 1
    now = shifted @ before
    out = np.empty((n, len(filters), len(at)), np.float32)
    for j, w in enumerate(weights):
        out[:, j] = w[0] * before + w[1] * now
    for k in range(2, order + 1):
        before, now = now, 2 * (shifted @ now) - before
        for j, w in enumerate(weights):
            out[:, j] += w[k] * now
    return out


def chebyshev_weights(kernel: str, scale: float, order: int) -> np.ndarray:
    """Weights of T_0 .. T_order(x - 1) that interpolate g(scale x) on [0, 2] at Chebyshev points."""
    return np.polynomial.chebyshev.chebinterpolate(
        lambda x: KERNELS[kernel](scale * (x + 1)), order
    ).astype(np.float32)
