"""Embeddings from biased random walks: node2vec's walks, its skip-gram objective in closed form."""

from typing import Annotated

import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from pydantic import Field

from perturbcore.core.errors import InputError
from perturbcore.embeddings.linalg import fix_signs, truncated_svd
from perturbcore.embeddings.network import adjacency
from perturbcore.embeddings.registry import Dim, Positive, register

BLOCK = 1024  # start nodes whose pairs are counted at once: bounds the memory


@register("node2vec", kind="edges")
def node2vec_embedding(
    edges: pd.DataFrame,
    *,
    dim: Dim = 128,
    walks: Dim = 10,
    length: Annotated[int, Field(ge=2)] = 20,
    window: Dim = 5,
    p: Positive = 1.0,
    q: Positive = 1.0,
    seed: int = 0,
):
    """Embed the nodes of an undirected network by the company they keep on random walks.

    The optimum of skip-gram with negative sampling is not trained but factorised: positive
    pointwise mutual information of nodes up to `window` steps apart on `walks` of `length` nodes
    from each. The weight of a step back is divided by `p`, that of a step to no neighbour of the
    previous node by `q`. Grover and Leskovec 2016; Levy and Goldberg 2014; Qiu et al. 2018 (NetMF).
    """
    ids, A = adjacency(edges)
    counts = cooccurrence(A, walks=walks, length=length, window=window, p=p, q=q, seed=seed)
    M = mutual_information(counts)
    if not M.nnz:
        raise InputError("no pair of nodes meets more often than by chance; take more walks")
    scores = truncated_svd(M, dim, seed)
    # the symmetric share: U S^(1/2) on either side of the factorisation
    X = fix_signs(scores / np.sqrt(np.linalg.norm(scores, axis=0)))
    about = (
        f"{A.nnz // 2} edges, {walks} walks of {length} nodes from each of {len(ids)} nodes "
        f"(p {p:g}, q {q:g}), window {window}, factorised, {X.shape[1]} dimensions"
    )
    return ids, X, about


def cooccurrence(
    A: sp.csr_matrix, *, walks: int, length: int, window: int, p: float, q: float, seed: int
) -> sp.csr_matrix:
    """Count how often two nodes lie within `window` steps of each other on a walk, (n, n)."""
    A = sp.csr_matrix(A)
    A.sort_indices()
    n = A.shape[0]
    total = sp.csr_matrix((n, n))
    rng = np.random.default_rng(seed)
    for first in range(0, n, BLOCK):
        nodes = np.arange(first, min(first + BLOCK, n))
        paths = _walk(A.indptr, A.indices, A.data, nodes, walks, length, float(p), float(q), rng)
        steps = range(1, min(window, length - 1) + 1)
        row = np.concatenate([paths[:, :-k].ravel() for k in steps])
        column = np.concatenate([paths[:, k:].ravel() for k in steps])
        total = total + sp.coo_matrix((np.ones(len(row)), (row, column)), shape=(n, n)).tocsr()
    return (total + total.T).tocsr()


def mutual_information(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Positive part of log(#(i, j) D / (#i #j)), sparse as the counts are."""
    counts = sp.coo_matrix(counts)
    each = np.asarray(counts.sum(axis=1)).ravel()
    row, column = counts.row, counts.col
    value = np.log(counts.data) + np.log(each.sum()) - np.log(each[row]) - np.log(each[column])
    keep = value > 0
    return sp.csr_matrix((value[keep], (row[keep], column[keep])), shape=counts.shape)


@numba.njit(cache=True)
def _walk(indptr, indices, weight, nodes, walks, length, p, q, rng):
    """Return walks (n_nodes x walks, length); a step is drawn by rejection: no table is needed."""
    paths = np.empty((len(nodes) * walks, length), np.int32)
    ceiling = max(1.0, 1.0 / p, 1.0 / q)
    for s in range(len(nodes)):
        for w in range(walks):
            path = paths[s * walks + w]
            path[0] = nodes[s]
            for t in range(1, length):
                here = path[t - 1]
                a, b = indptr[here], indptr[here + 1]
                top = weight[a:b].max()
                while True:
                    e = a + int(rng.random() * (b - a))
                    if rng.random() * top > weight[e]:
                        continue
                    new = indices[e]
                    if t == 1:
                        break
                    before = path[t - 2]
                    c, d = indptr[before], indptr[before + 1]
                    at = c + np.searchsorted(indices[c:d], new)
                    bias = 1.0 if at < d and indices[at] == new else 1.0 / q
                    if new == before:
                        bias = 1.0 / p
                    if rng.random() * ceiling <= bias:
                        break
                path[t] = new
    return paths
