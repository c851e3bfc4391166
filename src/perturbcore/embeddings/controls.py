"""Embeddings that must not work: random numbers, and real vectors handed to the wrong ids."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perturbcore.embeddings.base import Embedding, check_ids
from perturbcore.embeddings.registry import register

MODALITY = "Negative control"


def random_embedding(
    ids: Sequence[str], dim: int = 100, seed: int = 0, identifier: str = "symbol"
) -> Embedding:
    """Independent uniform numbers in [0, 1) for every id (Cole et al. 2026, section 4.7.2).

    A row depends on the seed and its own id alone: adding or reordering ids changes no other row.
    """
    ids = check_ids(ids, "random embedding")
    words = [np.frombuffer(hashlib.sha256(i.encode()).digest(), dtype="<u4").tolist() for i in ids]
    X = [np.random.default_rng([seed, *own]).random(dim, dtype=np.float32) for own in words]
    source = f"uniform random numbers, seed {seed}"
    return Embedding("random", MODALITY, ids, np.stack(X), identifier, None, source)


@register("shuffled", kind="embedding", modality=MODALITY)
def shuffled(embedding: Embedding, seed: int = 0):
    """Give every vector to a randomly chosen other id: only the link to its id is broken."""
    order = np.argsort(embedding.ids.to_numpy().astype(str), kind="stable")
    permutation = np.random.default_rng(seed).permutation(len(order))
    X = np.empty_like(embedding.X)
    X[order] = embedding.X[order[permutation]]
    return replace(
        embedding, name=f"shuffled {embedding.name}", modality=MODALITY, X=X,
        source=f"{embedding.name} with its rows permuted, seed {seed}",
    )  # fmt: skip
