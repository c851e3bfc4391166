"""How much one embedding says about another: pairwise canonical correlation analysis."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding, align

COMMON_IDS = "common_ids"


def cca_matrix(
    embeddings: Sequence[Embedding],
    n_components: int = 10,
    *,
    cell_line: str | None = None,
    method: str = "exact",
    common: str = "all",
    seed: int = 0,
) -> pd.DataFrame:
    """R2 with which canonical correlation analysis predicts one embedding from another.

    Both are standardised and reduced to their first principal components over the common ids;
    the R2 is that of predicting the components of the alphabetically later name from those of the
    earlier one, in sample, and is mirrored. It can be negative.

    Parameters
    ----------
    embeddings
        With unique names and one identifier; those bound to another than `cell_line` are left out.
    n_components
        Principal components kept of each, and canonical pairs.
    cell_line
        Needed where embeddings are bound to a cell line.
    method
        ``exact``: closed form of scikit-learn's estimate at convergence; ``nipals``: scikit-learn's
        iteration itself, as published, which may stop short of it.
    common
        ``all``: ids that all embeddings share, as published; ``pairwise``: ids that two share.
    seed
        Start vector of the principal components.

    Returns
    -------
    pandas.DataFrame
        m x m, rows and columns by name in the given order, diagonal 1. ``attrs["common_ids"]`` is
        the number of common ids (an m x m frame of them if `common` is ``pairwise``).

    Raises
    ------
    InputError
        Fewer than ``n_components + 2`` common ids; the message names the smallest embedding.
    ParameterError
        Names repeat, identifiers differ, or an option is unknown.

    References
    ----------
    Cole et al. 2026, Fig. 3.
    """
    if method not in ("exact", "nipals") or common not in ("all", "pairwise"):
        raise ParameterError(
            f"method must be exact or nipals and common all or pairwise, got {method!r}, {common!r}"
        )
    used = [e for e in embeddings if e.cell_line in (None, cell_line)]
    _check_set(used, cell_line, embeddings)
    names = [e.name for e in used]
    matrix = pd.DataFrame(np.eye(len(used)), index=names, columns=names)
    counts = pd.DataFrame(0, index=names, columns=names)
    shared, reduced = None, {}
    if common == "all":
        shared = _shared(used, n_components)
        reduced = {e.name: _components(e, shared, n_components, seed) for e in used}
    for i, one in enumerate(used):
        counts.iloc[i, i] = len(one)
        for other in used[i + 1 :]:
            x, y = sorted((one, other), key=lambda e: e.name)
            ids = shared if shared is not None else _shared([x, y], n_components)
            pair = [
                reduced[e.name] if shared is not None else _components(e, ids, n_components, seed)
                for e in (x, y)
            ]
            value = cca_r2(*pair, method=method)
            matrix.loc[x.name, y.name] = matrix.loc[y.name, x.name] = value
            counts.loc[x.name, y.name] = counts.loc[y.name, x.name] = len(ids)
    matrix.attrs[COMMON_IDS] = len(shared) if shared is not None else counts
    return matrix


def cca_r2(X: np.ndarray, Y: np.ndarray, *, method: str = "exact") -> float:
    """R2 of predicting Y from X by canonical correlation with as many pairs as columns.

    scikit-learn scales each weight vector to unit length, within what earlier pairs left over.
    The scores of X and of Y therefore differ in scale, and predictions by

        Y_hat = sum_k  xi_k (Y' omega_k)' / (omega_k' omega_k)

    are not least squares: they can be worse than the mean. The weights of the k-th pair are the
    canonical direction a_k after removing a_1 .. a_(k-1), so their lengths are the diagonal of R
    in A = QR, and everything follows from one singular value decomposition.

    Parameters
    ----------
    X, Y
        n x p and n x q, centred or not.
    method
        See `cca_matrix`.

    Returns
    -------
    float
        Mean over the columns of Y of their R2.
    """
    size = min(X.shape[1], Y.shape[1])
    if method == "nipals":
        return float(CCA(n_components=size).fit(X, Y).score(X, Y))
    X, Y = (StandardScaler().fit_transform(np.asarray(Z, np.float64)) for Z in (X, Y))
    Qx, Rx = np.linalg.qr(X)
    Qy, Ry = np.linalg.qr(Y)
    U, _, Vt = np.linalg.svd(Qx.T @ Qy)
    A = np.linalg.solve(Rx, U[:, :size])
    B = np.linalg.solve(Ry, Vt[:size].T)
    scale_x = np.abs(np.diag(np.linalg.qr(A, mode="r")))
    scale_y = np.abs(np.diag(np.linalg.qr(B, mode="r")))
    x_scores, y_scores = X @ A / scale_x, Y @ B / scale_y
    loadings = Y.T @ y_scores / (y_scores**2).sum(axis=0)
    residual = ((Y - x_scores @ loadings.T) ** 2).sum(axis=0)
    return float(np.mean(1 - residual / (Y**2).sum(axis=0)))


def _components(embedding: Embedding, ids: pd.Index, n: int, seed: int) -> np.ndarray:
    X, _ = align(embedding, ids)
    X = StandardScaler().fit_transform(X.astype(np.float64))
    size = min(n, *X.shape)
    solver = "arpack" if size < min(X.shape) else "full"
    return PCA(size, svd_solver=solver, random_state=seed).fit_transform(X)


def _shared(embeddings: Sequence[Embedding], n_components: int) -> pd.Index:
    ids = embeddings[0].ids
    for e in embeddings[1:]:
        ids = ids[ids.isin(e.ids)]
    if len(ids) < n_components + 2:
        smallest = min(embeddings, key=len)
        raise InputError(
            f"{', '.join(e.name for e in embeddings)} share {len(ids)} ids, but {n_components} "
            f"components need at least {n_components + 2}; the smallest is {smallest.name!r} with "
            f"{len(smallest)} ids: leave it out, or lower n_components"
        )
    return ids.sort_values()


def _check_set(used, cell_line, given) -> None:
    if len(used) < 2:
        raise ParameterError(
            f"{len(used)} of {len(given)} embeddings serve cell line {cell_line!r}; comparing "
            "needs two: give cell_line"
        )
    names = [e.name for e in used]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ParameterError(f"several embeddings are named {twice[0]!r}; names must differ")
    kinds = {e.identifier: e.name for e in used}
    if len(kinds) > 1:
        said = ", ".join(f"{n!r} has {k} ids" for k, n in kinds.items())
        raise ParameterError(f"identifiers differ: {said}; convert with convert_ids")
