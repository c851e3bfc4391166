"""Decompositions shared by builders, with fixed signs; how much one embedding says of another."""

from collections.abc import Sequence
from functools import reduce
from itertools import combinations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.preprocessing import StandardScaler
from sklearn.utils.extmath import randomized_svd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding, align

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


def unit(x: np.ndarray) -> np.ndarray:
    """Scale rows to length one; rows of zeros stay."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


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


COMMON_IDS = "common_ids"
# scikit-learn's iteration run to its end: with its defaults it stops short by up to 1e-3
CONVERGED = {"max_iter": 5000, "tol": 1e-10}


def cca_matrix(
    embeddings: Sequence[Embedding], n_components: int = 10, *, cell_line: str | None = None
) -> pd.DataFrame:
    """R2 with which canonical correlation analysis predicts one embedding from another.

    Both are standardised and reduced to their first `n_components` principal components over the
    ids that all share; the R2 is in sample, from the alphabetically earlier name to the later. It
    can be negative. Embeddings of another line than `cell_line` are left out. Returns m x m,
    diagonal 1; ``attrs["common_ids"]`` is their number. Cole et al. 2026, Fig. 3.
    """
    used = [e for e in embeddings if e.cell_line in (None, cell_line)]
    if len(used) < 2:
        raise ParameterError(
            f"{len(used)} of {len(embeddings)} embeddings serve cell line {cell_line!r}; comparing "
            "needs two: give cell_line"
        )
    names = pd.Index([e.name for e in used])
    if len(twice := names[names.duplicated()]):
        raise ParameterError(f"several embeddings are named {twice[0]!r}; names must differ")
    kinds = {e.identifier: e.name for e in used}
    if len(kinds) > 1:
        said = ", ".join(f"{n!r} has {k} ids" for k, n in kinds.items())
        raise ParameterError(f"identifiers differ: {said}; convert with convert_ids")
    ids = reduce(lambda shared, e: shared[shared.isin(e.ids)], used, used[0].ids).sort_values()
    if len(ids) < n_components + 2:
        smallest = min(used, key=len)
        raise InputError(
            f"{', '.join(names)} share {len(ids)} ids, but {n_components} "
            f"components need at least {n_components + 2}; the smallest is {smallest.name!r} with "
            f"{len(smallest)} ids: leave it out, or lower n_components"
        )
    matrix = pd.DataFrame(np.eye(len(used)), index=names, columns=names)
    reduced = {e.name: _components(e, ids, n_components) for e in used}
    for x, y in combinations(sorted(names), 2):
        X, Y = reduced[x], reduced[y]
        cca = CCA(min(X.shape[1], Y.shape[1]), **CONVERGED).fit(X, Y)
        matrix.loc[x, y] = matrix.loc[y, x] = cca.score(X, Y)
    matrix.attrs[COMMON_IDS] = len(ids)
    return matrix


def _components(embedding: Embedding, ids: pd.Index, n: int) -> np.ndarray:
    X = StandardScaler().fit_transform(align(embedding, ids)[0].astype(np.float64))
    size = min(n, *X.shape)
    solver = "arpack" if size < min(X.shape) else "full"
    return PCA(size, svd_solver=solver, random_state=0).fit_transform(X)
