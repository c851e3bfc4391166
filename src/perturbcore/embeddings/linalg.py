"""Truncated decompositions shared by the builders: deterministic, with fixed signs."""

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.utils.extmath import randomized_svd

# Directions below this share of the largest singular value are rounding noise; standardising
# them afterwards would blow that noise up to the weight of a real dimension.
NOISE = 1e-6
DENSE = 400


def fix_signs(X: np.ndarray) -> np.ndarray:
    """Flip each column (in place) so that its entry of largest magnitude is positive."""
    top = np.abs(X).argmax(axis=0)
    signs = np.sign(X[top, np.arange(X.shape[1])])
    X *= np.where(signs == 0, 1, signs)
    return X


def truncated_svd(matrix, dim: int, seed: int = 0) -> np.ndarray:
    """U S of a tall sparse or dense matrix, float64, n x min(dim, rank), signs fixed."""
    if min(matrix.shape) <= max(DENSE, dim):
        dense = matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)
        U, S, _ = np.linalg.svd(dense.astype(np.float64), full_matrices=False)
        U, S = U[:, :dim], S[:dim]
        scores = U * S
    else:
        svd = TruncatedSVD(dim, algorithm="arpack", random_state=seed)
        scores = svd.fit_transform(matrix.astype(np.float64))
        S = svd.singular_values_
    keep = S > NOISE * S[0] if len(S) and S[0] > 0 else np.zeros(len(S), bool)
    return fix_signs(scores[:, keep])


def half_scaled_svd(matrix: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """U S^(1/2) of a large dense matrix by randomised iteration: its factors' symmetric share."""
    U, S, _ = randomized_svd(matrix, min(dim, *matrix.shape), n_iter=4, random_state=seed)
    keep = S > NOISE * S[0]
    return fix_signs(U[:, keep] * np.sqrt(S[keep]))
