"""Average ranks along the last axis, ties shared: the inner loop of Spearman's correlation."""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def _share(order, values, out):
    for i in range(order.shape[0]):
        n = order.shape[1]
        a = 0
        while a < n:
            b = a
            v = values[i, order[i, a]]
            while b + 1 < n and values[i, order[i, b + 1]] == v:
                b += 1
            shared = 0.5 * (a + b)
            for j in range(a, b + 1):
                out[i, order[i, j]] = shared
            a = b + 1


def row_ranks(values: np.ndarray) -> np.ndarray:
    """Rank each row from 0, equal values sharing their average rank.

    Parameters
    ----------
    values : (n, g) float array

    Returns
    -------
    (n, g) float32 array
        Equals ``scipy.stats.rankdata(values, axis=1) - 1``.
    """
    values = np.ascontiguousarray(values)
    out = np.empty(values.shape, dtype=np.float32)
    _share(np.argsort(values, axis=1), values, out)
    return out
