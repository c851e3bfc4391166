"""Embeddings from biased random walks: node2vec's walks, its skip-gram objective in closed form."""

import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim, fix_signs, truncated_svd
from perturbcore.embeddings.network import adjacency
from perturbcore.embeddings.registry import register

BLOCK = 1024  # start nodes whose pairs are counted at once: bounds the memory


@register("node2vec", kind="edges")
def node2vec_embedding(
    edges: pd.DataFrame,
    *,
    name: str,
    modality: str = "Prior knowledge",
    identifier: str = "symbol",
    source: str = "interaction network",
    dim: int = 128,
    walks: int = 10,
    length: int = 20,
    window: int = 5,
    p: float = 1.0,
    q: float = 1.0,
    negatives: float = 1.0,
    min_weight: float = 0.0,
    weighted: bool = True,
    seed: int = 0,
) -> Embedding:
    """Embed the nodes of an undirected network by the company they keep on random walks.

    Walks are node2vec's, of second order. Skip-gram with negative sampling is not trained by
    gradient steps: its optimum factorises the pointwise mutual information of a node and its
    context, shifted by the log of the number of negatives, and that matrix (its positive part) is
    decomposed directly.

    Parameters
    ----------
    edges
        Columns ``source``, ``target`` and optionally ``weight``; see `adjacency`.
    dim
        Wanted dimensions.
    walks, length, window
        Walks from each node, nodes in a walk, and how far apart two nodes of a walk are counted.
    p, q
        Return and in-out parameter: a step back to the previous node has its weight divided by p, a
        step to a node that is no neighbour of the previous one by q.
    negatives
        Negative samples b of skip-gram: log b is subtracted from the mutual information.
    min_weight, weighted
        Edges below this weight are left out; ``False`` sets the others to one.
    seed
        Of the walks.

    Raises
    ------
    InputError
        As `adjacency`; or no pair of nodes occurs together more often than by chance.
    ParameterError
        A parameter is outside its range.

    References
    ----------
    Grover and Leskovec 2016 (node2vec); Levy and Goldberg 2014 (skip-gram as factorisation);
    Qiu et al. 2018 (the limit of long walks with p = q = 1, NetMF).
    """
    dim = check_dim(dim, name)
    if min(walks, window) < 1 or length < 2 or min(p, q, negatives) <= 0:
        raise ParameterError(
            f"embedding {name!r}: walks and window must be at least 1, length at least 2, and p, q and "
            f"negatives above 0, got walks={walks}, window={window}, length={length}, p={p}, q={q}, "
            f"negatives={negatives}"
        )
    ids, A = adjacency(edges, min_weight=min_weight, weighted=weighted, name=name)
    counts = cooccurrence(A, walks=walks, length=length, window=window, p=p, q=q, seed=seed)
    M = mutual_information(counts, negatives)
    if not M.nnz:
        raise InputError(
            f"embedding {name!r}: no pair of nodes meets more often than by chance; lower negatives"
        )
    scores = truncated_svd(M, dim, seed)
    # the symmetric share: U S^(1/2) on either side of the factorisation
    X = fix_signs(scores / np.sqrt(np.linalg.norm(scores, axis=0)))
    text = (
        f"{source}; {A.nnz // 2} edges, {walks} walks of {length} nodes from each of {len(ids)} nodes "
        f"(p {p:g}, q {q:g}), window {window}, factorised, {X.shape[1]} dimensions"
    )
    return Embedding(name, modality, pd.Index(ids), X, identifier, None, text)


def cooccurrence(A, *, walks: int, length: int, window: int, p: float, q: float, seed: int):
    """Count how often two nodes lie within `window` steps of each other on a walk.

    Parameters
    ----------
    A : (n, n) sparse matrix
        Symmetric, positive, no loops, no isolated node.
    walks, length, window, p, q, seed
        See `node2vec_embedding`.

    Returns
    -------
    scipy.sparse.csr_matrix
        (n, n), symmetric.
    """
    A = sp.csr_matrix(A)
    A.sort_indices()
    n = A.shape[0]
    total = sp.csr_matrix((n, n))
    rng = np.random.default_rng(seed)
    for first in range(0, n, BLOCK):
        nodes = np.arange(first, min(first + BLOCK, n))
        paths = _walk(A.indptr, A.indices, A.data, nodes, walks, length, float(p), float(q), rng)
        pairs = [
            (paths[:, :-k].ravel(), paths[:, k:].ravel())
            for k in range(1, min(window, length - 1) + 1)
        ]
        row, column = (np.concatenate(side) for side in zip(*pairs, strict=True))
        total = total + sp.coo_matrix((np.ones(len(row)), (row, column)), shape=(n, n)).tocsr()
    return (total + total.T).tocsr()


def mutual_information(counts, negatives: float = 1.0):
    """Positive part of log(#(i, j) D / (#i #j)) - log b, sparse as the counts are."""
    counts = sp.coo_matrix(counts)
    each = np.asarray(counts.sum(axis=1)).ravel()
    row, column = counts.row, counts.col
    value = np.log(counts.data) + np.log(each.sum()) - np.log(each[row]) - np.log(each[column])
    value -= np.log(negatives)
    keep = value > 0
    return sp.csr_matrix((value[keep], (row[keep], column[keep])), shape=counts.shape)


@numba.njit(cache=True)
def _walk(indptr, indices, weight, nodes, walks, length, p, q, rng):
    """Return walks (n_nodes x walks, length); a step is drawn by rejection, so that no table is needed."""
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
                    bias = 1.0
                    if new == before:
                        bias = 1.0 / p
                    else:
                        c, d = indptr[before], indptr[before + 1]
                        at = c + np.searchsorted(indices[c:d], new)
                        if at == d or indices[at] != new:
                            bias = 1.0 / q
                    if rng.random() * ceiling <= bias:
                        break
                path[t] = new
    return paths
