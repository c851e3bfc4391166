"""Embeddings of the nodes of a network: eigenvectors, diffusion, wavelets, walks, a GNN."""

from pathlib import Path
from typing import Annotated, Literal

import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from pydantic import Field
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.read import check_table, filled, refuse
from perturbcore.embeddings.linalg import DENSE, fix_signs, half_scaled_svd, truncated_svd
from perturbcore.embeddings.registry import Dim, Positive, register

FEWEST_NODES = 20  # of a graph network: below, nothing is left once edges are held out
LARGEST_DIFFUSION = 30_000  # nodes
RESTART = 0.5  # probability
KERNELS = {
    "heat": lambda x: np.exp(-x),
    "mexican_hat": lambda x: x * np.exp(1 - x),  # band-pass, 1 at its peak x = 1
}
SCALES = (1.0, 3.0, 9.0)
ORDER = 12  # degree of the polynomial
LANDMARKS = 1000  # nodes of highest degree that wavelet coefficients are taken at


@register("network", kind="edges")
def network_embedding(
    edges: pd.DataFrame, *, dim: Dim = 128, method: Literal["laplacian", "diffusion"] = "laplacian",
    seed: int = 0,
):  # fmt: skip
    """Embed the nodes of an undirected network; independent of the order of its edges.

    ``laplacian``: eigenvectors of the normalised Laplacian with the smallest non-zero eigenvalues
    over all components, divided by the root of the degree ("STRING Spectral" of Cole et al. 2026,
    section 4.5.2). ``diffusion``: singular vectors of log(1 + n p), p the stationary distribution
    of a random walk with `RESTART` from each node. Belkin and Niyogi 2003 (Laplacian eigenmaps);
    Cho et al. 2016 (diffusion component analysis).
    """
    ids, A = adjacency(edges)
    X = (_laplacian if method == "laplacian" else _diffusion)(A, dim, seed)
    if X.shape[1] == 0:
        raise InputError("the network has too few edges to be embedded")
    return ids, X, f"{A.nnz // 2} edges, {method}, {X.shape[1]} dimensions"


def adjacency(edges: pd.DataFrame) -> tuple[np.ndarray, sp.csr_matrix]:
    """Sorted node ids and a symmetric CSR matrix without loops; a repeated edge counts once."""
    columns = {"source": filled(), "target": filled()}
    check_table(edges, columns, "edges", way_out="name the two node columns source and target")
    ends = edges[["source", "target"]].astype(object).to_numpy()
    weight = np.ones(len(edges))
    if "weight" in edges:
        weight = pd.to_numeric(edges["weight"], errors="coerce").to_numpy(dtype=np.float64)
        wrong, said = ~(np.isfinite(weight) & (weight >= 0)), "finite and not negative"
        refuse(wrong, "weight", edges["weight"], "edges", f": weights must be {said}")
    keep = (ends[:, 0] != ends[:, 1]) & (weight > 0)
    if not keep.any():
        raise InputError(f"none of {len(edges)} edges is left without self-loops and zero weights")
    ids, codes = np.unique(ends[keep].astype(str).ravel(), return_inverse=True)
    table = pd.DataFrame(np.sort(codes.reshape(-1, 2), axis=1), columns=["i", "j"])
    table = table.assign(w=weight[keep]).groupby(["i", "j"], as_index=False)["w"].max()
    half = sp.coo_matrix((table["w"], (table["i"], table["j"])), shape=(len(ids), len(ids)))
    return ids, (half + half.T).tocsr()


def normalised_adjacency(A: sp.csr_matrix) -> tuple[sp.csr_matrix, np.ndarray]:
    """D^-1/2 A D^-1/2 of a symmetric matrix, and the degrees D."""
    degree = np.asarray(A.sum(axis=1)).ravel()
    root = sp.diags(1 / np.sqrt(degree))
    return (root @ A @ root).tocsr(), degree


def _laplacian(A: sp.csr_matrix, dim: int, seed: int) -> np.ndarray:
    """Eigenvectors over root degree, by rising non-zero Laplacian eigenvalue of any component."""
    _, part = connected_components(A, directed=False)
    pieces = []
    for nodes in np.split(np.argsort(part, kind="stable"), np.cumsum(np.bincount(part))[:-1]):
        M, degree = normalised_adjacency(A[nodes][:, nodes].tocsr())
        values, vectors = _top_eigen(M, min(dim + 1, len(nodes)), seed)
        vectors = vectors[:, 1:] / np.sqrt(degree)[:, None]
        pieces += [(1 - v, nodes, vectors[:, k]) for k, v in enumerate(values[1:])]
    pieces.sort(key=lambda piece: piece[0])
    X = np.zeros((A.shape[0], min(dim, len(pieces))))
    for column, (_, nodes, vector) in enumerate(pieces[:dim]):
        X[nodes, column] = vector
    return fix_signs(X)


def _top_eigen(M: sp.csr_matrix, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
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


def _diffusion(A: sp.csr_matrix, dim: int, seed: int) -> np.ndarray:
    n = A.shape[0]
    if n > LARGEST_DIFFUSION:
        raise ParameterError(
            f"method diffusion holds an n x n matrix and {n} nodes are more than "
            f"{LARGEST_DIFFUSION}; use method laplacian"
        )
    degree = np.asarray(A.sum(axis=1)).ravel()
    step = (A @ sp.diags(1 / degree)).tocsr().astype(np.float32) * np.float32(1 - RESTART)
    rounds = int(np.ceil(np.log(1e-4) / np.log(1 - RESTART)))
    walks = np.empty((n, n), np.float32)
    for first in range(0, n, 512):
        nodes = np.arange(first, min(first + 512, n))
        home = np.zeros((n, len(nodes)), np.float32)
        home[nodes, np.arange(len(nodes))] = RESTART
        p = home / np.float32(RESTART)
        for _ in range(rounds):
            p = step @ p + home
        walks[nodes] = p.T
    walks *= n
    np.log1p(walks, out=walks)
    return half_scaled_svd(walks, dim, seed)


@register("wavelets", kind="edges")
def wavelet_embedding(edges: pd.DataFrame, *, dim: Dim = 128, seed: int = 0):
    r"""Embed the nodes of an undirected network by their spectral wavelet coefficients.

    The coefficients at the landmark nodes, over all kernels and scales, compressed by arcsinh(n c),
    are decomposed by SVD. *After the idea* of WaveGC, which learns its kernels; nothing is trained.
    Hammond, Vandergheynst and Gribonval 2011 (spectral graph wavelets); Liu et al. 2024 (WaveGC).
    """
    ids, A = adjacency(edges)
    degree = np.asarray(A.sum(axis=1)).ravel()
    at = np.sort(np.argsort(-degree, kind="stable")[:LANDMARKS])
    filters = [(kernel, scale) for kernel in KERNELS for scale in SCALES]
    C = wavelet_coefficients(A, at, filters, ORDER).reshape(len(ids), -1)
    X = half_scaled_svd(np.arcsinh(len(ids) * C), dim, seed)
    scales = ", ".join(f"{s:g}" for s in SCALES)
    about = (
        f"{A.nnz // 2} edges, wavelets ({', '.join(KERNELS)} at {scales}, Chebyshev order {ORDER}, "
        f"{len(at)} landmarks), {X.shape[1]} dimensions; after the idea of WaveGC"
    )
    return ids, X, about


def wavelet_coefficients(
    A: sp.csr_matrix, at: np.ndarray, filters: list[tuple[str, float]], order: int
) -> np.ndarray:
    """Chebyshev g(s L) at columns `at`, for filters (kernel g, scale s), (n, n_filters, m)."""
    shifted = (-normalised_adjacency(A)[0]).astype(np.float32)  # L - I: spectrum in [-1, 1]
    weights = [
        np.polynomial.chebyshev.chebinterpolate(
            lambda x, g=KERNELS[kernel], s=scale: g(s * (x + 1)), order
        ).astype(np.float32)
        for kernel, scale in filters
    ]
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


@register("gnn", kind="edges")
def gnn_embedding(
    edges: pd.DataFrame, *, models: Path | None = None, dim: Dim = 128, layers: Dim = 2,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1, lr: Positive = 1e-3,
    weight_decay: float = 0.0, batch_size: Dim = 4096, max_epochs: Dim = 120, patience: Dim = 10,
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    layer: Literal["gcn", "gin", "wavelets"] = "gcn", contrast: Annotated[float, Field(ge=0)] = 0.0,
    trials: Annotated[int, Field(ge=0)] = 0, seed: int = 0,
):  # fmt: skip
    """Embed the nodes of an undirected network by a graph neural network that predicts its links.

    A network that the folder `models` has is not trained again. `layer`: graph convolutions,
    isomorphism layers, or WaveGC's wavelets (Liu et al. 2024); `contrast`: weight of InfoNCE; with
    `trials`, settings are chosen from `PUBLISHED_SPACE` by the loss of held-out edges (about 300 in
    the paper). Cole et al. 2026, section 4.5.2.
    """
    given = locals()
    trained, ids = pretrained_network(edges, **{k: given[k] for k in ("models", *OPTIONS)})
    best = f", best of {trials} trials" if trials else ""
    return ids, trained.vectors(), f"{trained.about()}{best}"


OPTIONS = {k: v for k, v in gnn_embedding.__wrapped__.__kwdefaults__.items() if k != "models"}
PUBLISHED_SPACE = dict(
    layers=[2, 4, 6, 8], dim=[128, 256], dropout=[0.0, 0.1, 0.2], lr=[1e-3, 1e-4],
    weight_decay=[0.0, 0.01], batch_size=[1024, 2048, 4096, 8192, 16384], layer=["gcn", "gin"],
)  # fmt: skip


def pretrained_network(edges: pd.DataFrame, *, models: Path | None = None, **options):
    """Pretrain the network of `gnn_embedding`, or take it from `models`; also its node names."""
    options = OPTIONS | options
    ids, A = adjacency(edges)
    if len(ids) < FEWEST_NODES:
        raise InputError(f"a network of {len(ids)} nodes is too small to hold out edges")
    # torch-geometric takes seconds to import, and most builds find the embedding in the cache
    from perturbcore.embeddings.gcn import pretrain

    def trained(**chosen):
        own = options | chosen
        key = digest(ids, A, own, code_digest("perturbcore.embeddings.network"))
        folder = Path(models) / f"gnn-{key}" if models is not None else None
        return pretrain(A, folder=folder, key=key, **own)

    trials = options.pop("trials")
    return trained(**(_searched(trained, trials, options["seed"]) if trials else {})), ids


def _searched(trained, trials: int, seed: int) -> dict:
    """Return the settings of `PUBLISHED_SPACE` with the least loss of held-out edges."""
    import optuna

    def loss(trial) -> float:
        chosen = {k: trial.suggest_categorical(k, v) for k, v in PUBLISHED_SPACE.items()}
        return float(trained(**chosen).trained.history["val"].min())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(loss, n_trials=trials, catch=(InputError,))  # a rate at which training diverges
    return study.best_params


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
