"""All sources side by side as one long vector, reduced by PCA: the plainest fusion."""

import numpy as np

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion.fold import MIN_ROWS


def concatenate(embeddings, train_ids, ids, *, cell_line=None, name="concatenation") -> Embedding:
    """Put the vectors of all sources side by side.

    Parameters
    ----------
    embeddings : sequence of Embedding
        Those that fewer than 10 of `train_ids` have are left out.
    train_ids : pandas.Index
        Training perturbations: where a source is missing, the mean of their vectors stands in,
        which the standardisation that follows turns into zeros.
    ids : pandas.Index
        Perturbations wanted; those without any source are left out.
    cell_line : str, optional
        Embeddings of other lines are left out.

    Raises
    ------
    InputError
        No source is left.
    """
    parts, there = [], np.zeros(len(ids), dtype=bool)
    for e in sorted(embeddings, key=lambda e: e.name):
        if e.cell_line not in (None, cell_line):
            continue
        learn = e.ids.get_indexer(train_ids)
        if (learn >= 0).sum() < MIN_ROWS:
            continue
        at = e.ids.get_indexer(ids)
        mean = e.X[learn[learn >= 0]].mean(axis=0, dtype=np.float64).astype(np.float32)
        parts.append(np.where((at >= 0)[:, None], e.X[at], mean))
        there |= at >= 0
    if not parts:
        raise InputError(
            f"no embedding has vectors for {MIN_ROWS} training perturbations: check their ids"
        )
    X = np.concatenate(parts, axis=1)[there]
    return Embedding(
        name, "Fusion", ids[there], X, embeddings[0].identifier, cell_line, "concatenated sources"
    )
