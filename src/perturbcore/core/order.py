"""Order of values within rows: ranks and the least ones, compiled."""

import numpy as np
from numba import njit

DIGIT = 11  # bits that one pass of the sort looks at


def row_ranks(values: np.ndarray) -> np.ndarray:
    """Rank each row (n, g) from 0 in float32, ties sharing ranks."""
    values = values + 0.0  # of -0.0, which is another integer, this makes 0.0
    return _ranks(values.view(f"u{values.itemsize}"))


@njit(cache=True, nogil=True)
def _ranks(bits):
    """Sort by one digit after the other; `bits` (n, g): floats seen as unsigned integers."""
    n, g = bits.shape
    one, top = np.uint64(1), np.uint64(8 * bits.itemsize - 1)
    ranks = np.empty((n, g), dtype=np.float32)
    keys, spare = np.empty(g, np.uint64), np.empty(g, np.uint64)
    order, later = np.empty(g, np.int32), np.empty(g, np.int32)
    for i in range(n):
        for k in range(g):  # negative floats, as integers, grow the wrong way
            bit = np.uint64(bits[i, k])
            negative = ((one << top) - one) * (bit >> top)
            keys[k], order[k] = bit ^ ((one << top) | negative), k
        for low in range(0, 8 * bits.itemsize, DIGIT):
            shift, ones = np.uint64(low), (one << np.uint64(DIGIT)) - one
            place = np.zeros(2**DIGIT, np.int64)
            for key in keys:
                place[(key >> shift) & ones] += 1
            place = np.cumsum(place) - place
            for k in range(g):
                digit = (keys[k] >> shift) & ones
                spare[place[digit]], later[place[digit]] = keys[k], order[k]
                place[digit] += 1
            keys, spare, order, later = spare, keys, later, order
        start = 0
        while start < g:
            end = start + 1
            while end < g and keys[end] == keys[start]:
                end += 1
            for k in range(start, end):
                ranks[i, order[k]] = (start + end - 1) / 2
            start = end
    return ranks


@njit(cache=True, nogil=True)
def least(values, n):
    """Columns (m, n) of the `n` least values of rows (m, g), least first; ties keep their order."""
    columns = np.empty((len(values), n), dtype=np.int64)
    best = np.empty(n)
    for i in range(len(values)):
        for k in range(values.shape[1]):
            value = values[i, k]
            if k >= n and not value < best[n - 1]:
                continue
            at = min(k, n - 1)
            while at > 0 and value < best[at - 1]:
                best[at], columns[i, at] = best[at - 1], columns[i, at - 1]
                at -= 1
            best[at], columns[i, at] = value, k
    return columns
