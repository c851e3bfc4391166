"""How much one embedding says about another: pairwise canonical correlation analysis."""

from collections.abc import Sequence
from functools import reduce
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
