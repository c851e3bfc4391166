"""Embeddings of the nodes of an interaction network."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from sklearn.utils.extmath import randomized_svd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import DENSE, NOISE, check_dim, fix_signs
from perturbcore.embeddings.registry import register

METHODS = ("laplacian", "regularised", "diffusion")
LARGEST_DIFFUSION = 30_000


@register("network", kind="edges")
def network_embedding(
    edges: pd.DataFrame,
    *,
    name: str,
    modality: str = "Prior knowledge",
    identifier: str = "symbol",
    source: str = "interaction network",
    dim: int = 128,
    method: str = "laplacian",
    components: str = "all",
    min_weight: float = 0.0,
    weighted: bool = True,
    restart: float = 0.5,
    seed: int = 0,
) -> Embedding:
    """Embed the nodes of an undirected network.

    Parameters
    ----------
    edges
        Columns ``source``, ``target`` and optionally ``weight`` (positive). An edge listed more
        than once, or in both directions, counts once with its largest weight; self-loops count
        for nothing.
    dim
        Wanted dimensions; a component of n nodes has at most n - 1.
    method
        ``laplacian``: eigenvectors of the normalised Laplacian with the smallest non-zero
        eigenvalues, divided by the root of the degree (Laplacian eigenmaps; "STRING Spectral" of
        Cole et al. 2026, section 4.5.2, made with scikit-learn's SpectralEmbedding, is this).
        ``regularised``: the same with the mean degree added to every degree, which keeps small
        components and dangling branches from taking dimensions for themselves, and gives every
        node of the network a vector. ``diffusion``: singular vectors of log(1 + n p), where p is
        the stationary distribution of a random walk with restart from each node.
    components
        Used by ``laplacian``: ``all`` takes the smallest non-zero eigenvalues over all connected
        components (a zero one only says which component a node is in), so that nodes of small
        components sit at or near the origin; ``largest`` embeds the largest component and leaves
        the other nodes without a vector.
    min_weight
        Edges below this weight are left out.
    weighted
        ``False`` sets every remaining weight to one.
    restart
        Restart probability of ``diffusion``, in (0, 1).
    seed
        Start vector of the iterations.

    Returns
    -------
    Embedding
        Ids sorted; signs fixed; independent of the order of the edges.

    Raises
    ------
    InputError
        Missing columns, empty ids, negative or missing weights, no edge left.
    ParameterError
        An option outside its range.

    References
    ----------
    Belkin and Niyogi 2003 (Laplacian eigenmaps); Qin and Rohe 2013 (regularised spectral
    clustering); Cho, Berger and Peng 2016 (diffusion component analysis).
    """
    dim = check_dim(dim, name)
    _check_options(name, method, components, restart)
    ids, A = adjacency(edges, min_weight=min_weight, weighted=weighted, name=name)
    left_out = 0
    if method == "laplacian":
        keep, X = _laplacian(A, dim, components, seed)
        left_out = len(ids) - len(keep)
        ids = ids[keep]
    elif method == "regularised":
        X = _regularised(A, dim, seed)
    else:
        X = _diffusion(A, dim, restart, seed, name)
    if X.shape[1] == 0:
        raise InputError(f"embedding {name!r}: the network has too few edges to be embedded")
    note = f"; {left_out} nodes outside the largest component have no vector" if left_out else ""
    text = f"{source}; {A.nnz // 2} edges, {method}, {X.shape[1]} dimensions{note}"
    return Embedding(name, modality, pd.Index(ids), X, identifier, None, text)


def adjacency(
    edges: pd.DataFrame, *, min_weight: float = 0.0, weighted: bool = True, name: str = "network"
) -> tuple[np.ndarray, sp.csr_matrix]:
    """Turn an edge list into sorted node ids and a symmetric sparse matrix without loops.

    Nodes that keep no edge are left out: nothing is known about where they belong.

    Returns
    -------
    ids
        n sorted strings.
    A
        float64 CSR, n x n.
    """
    missing = {"source", "target"} - set(edges.columns)
    if missing:
        raise InputError(
            f"embedding {name!r}: edges lack column {sorted(missing)}; found "
            f"{list(edges.columns)}; name the two node columns source and target"
        )
    ends = edges[["source", "target"]].astype(object).to_numpy()
    for row, column in np.argwhere(pd.isna(edges[["source", "target"]]).to_numpy() | (ends == "")):
        raise InputError(
            f"embedding {name!r}: edge {row} has no {('source', 'target')[column]}; remove it"
        )
    weight = _weights(edges, name)
    keep = (ends[:, 0] != ends[:, 1]) & (weight > 0) & (weight >= min_weight)
    if not keep.any():
        raise InputError(
            f"embedding {name!r}: none of {len(edges)} edges is left after dropping self-loops, "
            f"zero weights and weights below {min_weight}; lower min_weight"
        )
    ids, codes = np.unique(ends[keep].astype(str).ravel(), return_inverse=True)
    codes = np.sort(codes.reshape(-1, 2), axis=1)
    weight = weight[keep] if weighted else np.ones(int(keep.sum()))
    table = pd.DataFrame({"i": codes[:, 0], "j": codes[:, 1], "w": weight})
    table = table.groupby(["i", "j"], as_index=False)["w"].max()
    half = sp.coo_matrix((table["w"], (table["i"], table["j"])), shape=(len(ids), len(ids)))
    return ids, (half + half.T).tocsr()


def _weights(edges: pd.DataFrame, name: str) -> np.ndarray:
    if "weight" not in edges:
        return np.ones(len(edges))
    weight = pd.to_numeric(edges["weight"], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(weight) | (weight < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        edge = edges.iloc[row]
        raise InputError(
            f"embedding {name!r}: edge {row} ({edge['source']} - {edge['target']}) has weight "
            f"{edge['weight']!r}; weights must be finite and not negative"
        )
    return weight


def _check_options(name, method, components, restart) -> None:
    if method not in METHODS:
        raise ParameterError(
            f"embedding {name!r}: method {method!r} is unknown; choose one of {', '.join(METHODS)}"
        )
    if components not in ("largest", "all"):
        raise ParameterError(
            f"embedding {name!r}: components {components!r} is unknown; choose largest or all"
        )
    if not 0 < restart < 1:
        raise ParameterError(
            f"embedding {name!r}: restart must lie between 0 and 1, got {restart!r}"
        )


def _laplacian(A, dim: int, components: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows kept, and eigenvectors over root degree by rising non-zero Laplacian eigenvalue."""
    n_parts, part = connected_components(A, directed=False)
    sizes = np.bincount(part, minlength=n_parts)
    chosen = [int(sizes.argmax())] if components == "largest" else range(n_parts)
    pieces = []
    by_part = np.split(np.argsort(part, kind="stable"), np.cumsum(sizes)[:-1])
    for label in chosen:
        nodes = by_part[label]
        sub = A[nodes][:, nodes].tocsr()
        degree = np.asarray(sub.sum(axis=1)).ravel()
        values, vectors = _top_eigen(_scaled(sub, degree), min(dim + 1, len(nodes)), seed)
        vectors = vectors[:, 1:] / np.sqrt(degree)[:, None]
        pieces += [(1 - v, nodes, vectors[:, k]) for k, v in enumerate(values[1:])]
    pieces.sort(key=lambda piece: piece[0])
    keep = by_part[chosen[0]] if components == "largest" else np.arange(A.shape[0])
    X = np.zeros((A.shape[0], min(dim, len(pieces))))
    for column, (_, nodes, vector) in enumerate(pieces[:dim]):
        X[nodes, column] = vector
    return keep, fix_signs(X[keep])


def _regularised(A, dim: int, seed: int) -> np.ndarray:
    degree = np.asarray(A.sum(axis=1)).ravel()
    degree = degree + degree.mean()
    values, vectors = _top_eigen(_scaled(A, degree), min(dim, A.shape[0]), seed)
    vectors = vectors[:, values > NOISE] / np.sqrt(degree)[:, None]
    return fix_signs(vectors)


def _scaled(A, degree: np.ndarray):
    root = sp.diags(1 / np.sqrt(degree))
    return (root @ A @ root).tocsr()


def _top_eigen(M, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest eigenvalues (falling) and eigenvectors of a symmetric matrix."""
    n = M.shape[0]
    if n <= max(DENSE, 2 * k):
        values, vectors = np.linalg.eigh(M.toarray())
    else:
        start = np.random.default_rng(seed).uniform(-1, 1, n)
        # Shifted by one, the wanted end of the spectrum is also the largest in magnitude.
        shifted = (M + sp.identity(n)).tocsr()
        try:
            values, vectors = eigsh(shifted, k=k, which="LA", v0=start, tol=1e-7, maxiter=200)
        except ArpackNoConvergence:
            # Long chains have eigenvalues too close together for plain Lanczos.
            values, vectors = eigsh(shifted.tocsc(), k=k, sigma=2.001, which="LM", v0=start)
        values = values - 1
    order = np.argsort(-values, kind="stable")[:k]
    return values[order], vectors[:, order]


def _diffusion(A, dim: int, restart: float, seed: int, name: str) -> np.ndarray:
    n = A.shape[0]
    if n > LARGEST_DIFFUSION:
        raise ParameterError(
            f"embedding {name!r}: method diffusion holds an n x n matrix and {n} nodes are more "
            f"than {LARGEST_DIFFUSION}; use method regularised, or raise min_weight"
        )
    degree = np.asarray(A.sum(axis=1)).ravel()
    step = (A @ sp.diags(1 / degree)).tocsr().astype(np.float32) * np.float32(1 - restart)
    rounds = int(np.ceil(np.log(1e-4) / np.log(1 - restart)))
    walks = np.empty((n, n), np.float32)
    for first in range(0, n, 512):
        nodes = np.arange(first, min(first + 512, n))
        home = np.zeros((n, len(nodes)), np.float32)
        home[nodes, np.arange(len(nodes))] = restart
        p = home / np.float32(restart)
        for _ in range(rounds):
            p = step @ p + home
        walks[nodes] = p.T
    walks *= n
    np.log1p(walks, out=walks)
    U, S, _ = randomized_svd(walks, min(dim, n), n_iter=4, random_state=seed)
    keep = S > NOISE * S[0]
    return fix_signs(U[:, keep] * np.sqrt(S[keep]))
