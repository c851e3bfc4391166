"""One label from the labels of several batches."""

import numpy as np


def majority(up, down, flat) -> np.ndarray:
    """Label with the most votes; a tie goes to the sign of the sum of the tied labels.

    So a tie of 0 and 1 gives 1, of 0 and -1 gives -1, and ties of 1 and -1, with or without 0,
    give 0.

    Parameters
    ----------
    up, down, flat : arrays of int, of one shape
        Votes for 1, -1 and 0.

    Returns
    -------
    int8 array in {-1, 0, 1}

    References
    ----------
    Cole et al. 2026, Methods 4.2.2 (majority vote over plates).
    """
    most = np.maximum(np.maximum(up, down), flat)
    return (np.equal(up, most).astype(np.int8) - np.equal(down, most)).astype(np.int8)
