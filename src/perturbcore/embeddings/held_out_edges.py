"""Edges of a network held out from pretraining, and checks that they were."""

import numpy as np
import scipy.sparse as sp

from perturbcore.core.errors import InputError, LeakError


def split_edges(A, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split undirected edges into those to learn from and those held out.

    Parameters
    ----------
    A : (n, n) sparse matrix
        Symmetric, without loops.
    share : float
        Of edges held out, at least one.
    seed : int

    Returns
    -------
    train, held : (m, 2) int64 arrays
        Each edge once, smaller node number first.
    """
    upper = sp.triu(A, 1).tocoo()
    edges = np.column_stack([upper.row, upper.col]).astype(np.int64)
    order = np.random.default_rng([seed, 0]).permutation(len(edges))
    n = max(1, round(share * len(edges)))
    return edges[np.sort(order[n:])], edges[np.sort(order[:n])]


def check_held_out(A, held: np.ndarray) -> None:
    """Raise `LeakError` where an edge that is held out takes part in message passing.

    Parameters
    ----------
    A : (n, n) sparse matrix
        Weights that messages are passed with.
    held : (m, 2) int array
        Edges held out.
    """
    A = sp.csr_matrix(A)
    weight = (
        np.asarray(A[held[:, 0], held[:, 1]]).ravel()
        + np.asarray(A[held[:, 1], held[:, 0]]).ravel()
    )
    if (weight != 0).any():
        i, j = held[np.flatnonzero(weight)[0]]
        raise LeakError(
            f"{int((weight != 0).sum())} of {len(held)} held-out edges take part in message passing, for "
            f"example {i} - {j}: take both directions of a held-out edge out of the graph (split_edges)"
        )


def check_weights(A, edges: np.ndarray, weight: np.ndarray) -> None:
    """Raise `InputError` where a list of weights does not belong to its list of edges.

    Parameters
    ----------
    A : (n, n) sparse matrix
        The weights as they should be.
    edges : (2, m) int array
        Ends of each directed edge.
    weight : (m,) array
        What messages along each of them are to be weighted with.
    """
    want = np.asarray(sp.csr_matrix(A)[edges[0], edges[1]]).ravel()
    wrong = ~np.isclose(want, weight, rtol=1e-5, atol=1e-8)
    if wrong.any():
        e = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{int(wrong.sum())} of {len(weight)} weights do not belong to their edge: edge {edges[0, e]} - "
            f"{edges[1, e]} weighs {want[e]:.4g}, the list says {weight[e]:.4g}; order both lists alike"
        )
