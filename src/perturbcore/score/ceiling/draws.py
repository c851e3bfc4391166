"""Random draws of the hierarchical bootstrap, as index arrays and as weights of cells.

A mean over cells drawn with replacement is a weighted mean of the cells there are, the weight
being how often each was drawn. So all samples of a perturbation are one matrix product, weights
(samples x cells) times expression (cells x genes), and no drawn cell is ever copied.
"""

import numpy as np

PERTURBED, CONTROL = 0, 1


def child(stream, *key) -> np.random.SeedSequence:
    """Child of a seed sequence by position, the same as ``stream.spawn`` would give.

    Unlike ``spawn`` it does not count calls, so that streams do not depend on the order of work.
    """
    return np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, *key))


def control_stream(seed) -> np.random.SeedSequence:
    """Stream of a line's control cells: the first child of the root."""
    return child(np.random.SeedSequence(seed), 0)


def perturbation_stream(seed, position) -> np.random.SeedSequence:
    """Stream of the perturbation at `position` in the sorted list of all of its cell line."""
    return child(np.random.SeedSequence(seed), 1 + int(position))


def drawn_batches(n_batches, stream, n_outer, resample=True) -> np.ndarray:
    """Batches drawn with replacement in each outer trial, int (n_outer, n_batches).

    A single batch is not resampled (it could only be drawn again); without `resample` each trial
    has every batch once.
    """
    if n_batches == 1 or not resample:
        return np.tile(np.arange(n_batches), (n_outer, 1))
    return np.stack(
        [
            np.random.default_rng(child(stream, trial)).integers(n_batches, size=n_batches)
            for trial in range(n_outer)
        ]
    )


def drawn_cells(n_cells, stream, trial, position, kind, n_inner) -> np.ndarray:
    """Cells drawn for one drawn batch, int (n_inner, n_cells), numbered within the batch.

    As many are drawn as there are, with replacement. A batch drawn twice (`position` in the outer
    `trial`) is resampled twice, independently; perturbed and control cells have streams of
    their own.
    """
    rng = np.random.default_rng(child(stream, trial, position, kind))
    return rng.integers(n_cells, size=(n_inner, n_cells))


def batch_weights(batch, n_cells, drawn, stream, kind, n_inner, resample=True) -> np.ndarray:
    """Weight of each cell of one batch in the point estimate and in every bootstrap sample.

    Returns (1 + n_outer * n_inner, n_cells): row 0: plain mean in the batch, mean over batches.
    Other rows: sample (outer, inner) at row ``1 + outer * n_inner + inner``.
    """
    n_outer, n_batches = drawn.shape
    counts = np.zeros((n_outer, n_inner * n_cells))
    offset = np.arange(n_inner)[:, None] * n_cells
    for trial, position in np.argwhere(drawn == batch):
        if not resample:
            counts[trial] += 1
            continue
        cells = drawn_cells(n_cells, stream, trial, position, kind, n_inner)
        counts[trial] += np.bincount((cells + offset).ravel(), minlength=n_inner * n_cells)
    weights = np.empty((1 + n_outer * n_inner, n_cells))
    weights[0] = 1.0
    weights[1:] = counts.reshape(n_outer * n_inner, n_cells)
    return weights / (n_cells * n_batches)
