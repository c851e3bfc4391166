"""How much one embedding says about another: pairwise canonical correlation analysis."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding, align

COMMON_IDS = "common_ids"
# scikit-learn's iteration run to its end: with its defaults it stops short by up to 1e-3
CONVERGED = {"max_iter": 5000, "tol": 1e-10}


def cca_matrix(
    embeddings: Sequence[Embedding], n_components: int = 10, *, cell_line: str | None = None
) -> pd.DataFrame:
    """R2 with which canonical correlation analysis predicts one embedding from another.

    Both are standardised and reduced to their first principal components over the ids that all
    embeddings share; the R2 is that of predicting the components of the alphabetically later name
    from those of the earlier one, in sample, and is mirrored. It can be negative.

    Parameters
    ----------
    embeddings
        With unique names and one identifier; those bound to another than `cell_line` are left out.
    n_components
        Principal components kept of each, and canonical pairs.

    Returns
    -------
    pandas.DataFrame
        m x m, rows and columns by name in the given order, diagonal 1. ``attrs["common_ids"]`` is
        the number of common ids.

    References
    ----------
    Cole et al. 2026, Fig. 3.
    """
    used = [e for e in embeddings if e.cell_line in (None, cell_line)]
    _check_set(used, cell_line, embeddings)
    ids = _shared(used, n_components)
    names = [e.name for e in used]
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


def _check_set(used: Sequence[Embedding], cell_line: str | None, given: Sequence) -> None:
    if len(used) < 2:
        raise ParameterError(
            f"{len(used)} of {len(given)} embeddings serve cell line {cell_line!r}; comparing "
            "needs two: give cell_line"
        )
    names = pd.Index([e.name for e in used])
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise ParameterError(f"several embeddings are named {twice!r}; names must differ")
    kinds = {e.identifier: e.name for e in used}
    if len(kinds) > 1:
        said = ", ".join(f"{n!r} has {k} ids" for k, n in kinds.items())
        raise ParameterError(f"identifiers differ: {said}; convert with convert_ids")
