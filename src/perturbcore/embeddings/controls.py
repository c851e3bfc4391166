"""Embeddings that must not work: random numbers, and real vectors handed to the wrong ids."""

import hashlib
from collections.abc import Iterable

import numpy as np

from perturbcore.embeddings.base import Embedding, check_ids
from perturbcore.embeddings.linalg import check_dim
from perturbcore.embeddings.registry import register

MODALITY = "Negative control"


@register("random", kind="ids", entity="any")
def random_embedding(
    ids: Iterable[str],
    dim: int = 100,
    seed: int = 0,
    *,
    name: str = "random",
    identifier: str = "symbol",
) -> Embedding:
    """Independent uniform numbers in [0, 1) for every id (Cole et al. 2026, section 4.7.2).

    A row depends on the seed and its own id alone, so that adding or reordering perturbations
    changes no other row.

    Parameters
    ----------
    ids
        Perturbations; repetitions are an error.
    dim
        Number of dimensions d.
    seed
        Seed of the draw.
    name, identifier
        As in `Embedding`.
    """
    dim = check_dim(dim, name)
    ids = check_ids(ids, f"embedding {name!r}")
    X = np.stack([_generator(seed, i).random(dim, dtype=np.float32) for i in ids])
    return Embedding(
        name, MODALITY, ids, X, identifier, source=f"uniform random numbers, seed {seed}"
    )


@register("shuffled", kind="embedding", entity="any")
def shuffled(embedding: Embedding, seed: int = 0, *, name: str | None = None) -> Embedding:
    """Give every vector of an embedding to a randomly chosen other id.

    The cloud of vectors stays as it was; only the link from id to vector is broken. What an
    embedding gains over this control is owed to that link.

    Parameters
    ----------
    embedding
        n x d.
    seed
        Seed of the permutation; the order of the ids has no influence.
    name
        Default ``"shuffled <name>"``.
    """
    order = np.argsort(embedding.ids.to_numpy().astype(str), kind="stable")
    permutation = np.random.default_rng(seed).permutation(len(order))
    X = np.empty_like(embedding.X)
    X[order] = embedding.X[order[permutation]]
    return Embedding(
        name or f"shuffled {embedding.name}",
        MODALITY,
        embedding.ids,
        X,
        embedding.identifier,
        embedding.cell_line,
        f"{embedding.name} with its rows permuted, seed {seed}",
    )


def _generator(seed: int, identifier: str) -> np.random.Generator:
    words = np.frombuffer(hashlib.sha256(identifier.encode()).digest(), dtype="<u4")
    return np.random.default_rng([seed, *words.tolist()])
