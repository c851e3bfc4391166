"""Embeddings from words (sets, terms, k-mers): latent semantic analysis, or an autoencoder."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import scipy.sparse as sp
from pydantic import Field
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError
from perturbcore.embeddings.linalg import truncated_svd
from perturbcore.embeddings.registry import Dim, Positive, register

RESIDUES = frozenset("ACDEFGHIKLMNPQRSTVWYBZXUOJ*")
SMALLEST = 2  # genes in a set: a set of one tells no two genes apart


@register("annotation", kind="sets")
def annotation_embedding(sets: Mapping[str, Iterable[str]], *, dim: Dim = 128, seed: int = 0):
    """Embed genes by the sets that hold them: the linear relative of the GenotypeVAE."""
    ids, counts, said = membership(sets, SMALLEST)
    X = truncated_svd(TfidfTransformer().fit_transform(counts), dim, seed)
    return ids, X, f"{said}, TF-IDF and SVD, {X.shape[1]} dimensions"


def membership(
    sets: Mapping[str, Iterable[str]], smallest: int
) -> tuple[np.ndarray, sp.csr_matrix, str]:
    """Genes, which sets of at least `smallest` genes hold them (genes x sets, 1.0), and a line."""
    members = [sorted(set(genes)) for _, genes in sorted(sets.items())]
    used = [genes for genes in members if len(genes) >= smallest]
    if not used:
        raise InputError(f"none of {len(members)} sets has at least {smallest} genes")
    ids, rows = np.unique(np.concatenate(used), return_inverse=True)
    columns = np.repeat(np.arange(len(used)), [len(genes) for genes in used])
    counts = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(ids), len(used)))
    return ids, counts, f"{len(used)} of {len(members)} sets"


@register("text", kind="texts")
def text_embedding(texts: Mapping[str, str], *, dim: Dim = 128, min_df: Dim = 2, seed: int = 0):
    """Embed genes by their descriptions: words and pairs of words.

    The modest relative of GenePT (Cole et al. 2026, section 4.5.2). Words of fewer than `min_df`
    texts are left out (2 drops the gene's own symbol).
    """
    ids = sorted(texts)
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=min_df, sublinear_tf=True, stop_words="english"
    )
    matrix = _counted(vectorizer, [texts[i] for i in ids], "descriptions", "min_df")
    keep, X, note = _reduced(matrix, dim, seed, "a usable word")
    about = f"{matrix.shape[1]} terms, TF-IDF and SVD, {X.shape[1]} dimensions{note}"
    return pd.Index(ids)[keep], X, about


@register("sequence", kind="sequences", modality="Protein")
def sequence_embedding(
    sequences: Mapping[str, str | Iterable[str]],
    *,
    dim: Dim = 128,
    k: Annotated[int, Field(ge=1, le=5)] = 3,
    min_df: Dim = 2,
    seed: int = 0,
):
    """Embed genes by the k-mers of their proteins; profiles of isoforms are averaged.

    A stand-in for protein language models (Cole et al. 2026, section 4.5.4): it finds close
    relatives, and knows nothing of structure, remote homology or function.
    """
    ids, rows, isoforms = isoforms_of(sequences)
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(k, k), lowercase=False, min_df=min_df, sublinear_tf=True
    )
    matrix = _counted(vectorizer, [s.upper() for s in isoforms], "sequences", "min_df or k")
    own = (np.ones(len(rows)), (rows, np.arange(len(rows))))
    own = sp.csr_matrix(own, shape=(len(ids), len(rows)))
    mean = sp.diags(1 / np.maximum(np.asarray(own.sum(axis=1)).ravel(), 1)) @ own
    keep, X, note = _reduced((mean @ matrix).tocsr(), dim, seed, "a kept word")
    about = f"{matrix.shape[1]} words of {k} residues, {X.shape[1]} dimensions{note}"
    return pd.Index(ids)[keep], X, about


def isoforms_of(sequences: Mapping) -> tuple[list[str], np.ndarray, list[str]]:
    """List ids, all isoforms, and the number of the id of each; refuse what is no residue."""
    ids = sorted(sequences)
    listed = [[s] if isinstance(s, str) else list(s) for s in (sequences[i] for i in ids)]
    rows = np.repeat(np.arange(len(ids)), [len(own) for own in listed])
    isoforms = [isoform for own in listed for isoform in own]
    for row, isoform in zip(rows, isoforms, strict=True):
        wrong = sorted(set(isoform.upper()) - RESIDUES) if isinstance(isoform, str) else [isoform]
        if wrong:
            raise InputError(f"the sequence of {ids[row]!r} holds {wrong[0]!r}, no amino acid")
    return ids, rows, isoforms


@register("drug_text", kind="drugs", entity="drug")
def drug_text(drugs: pd.DataFrame, *, dim: Dim = 128, min_df: Dim = 2, seed: int = 0):
    """Embed drugs by name, mechanism and targets, as `text_embedding` embeds descriptions."""
    made = text_embedding.__wrapped__(drug_texts(drugs), dim=dim, min_df=min_df, seed=seed)
    return *made[:2], f"name, mechanism, targets; {made[2]}"


def drug_texts(drugs: pd.DataFrame) -> dict[str, str]:
    """One line per drug: its name, mechanism and targets, as far as the table has them."""
    targets = drugs["targets"].astype(str).str.replace(";", " ")
    parts = zip(drugs.index.astype(str), drugs["mechanism"].astype(str), targets, strict=True)
    return {part[0]: ". ".join(p for p in part if p) for part in parts}


def _counted(vectorizer: TfidfVectorizer, texts: list[str], what: str, way_out: str):
    try:
        return vectorizer.fit_transform(texts)
    except ValueError as error:
        raise InputError(
            f"no word occurs in at least {vectorizer.min_df} of {len(texts)} {what} ({error}); "
            f"lower {way_out}"
        ) from None


def _reduced(matrix: sp.csr_matrix, dim: int, seed: int, what: str):
    """Rows with a word, their vectors, and a note on the others."""
    keep = matrix.getnnz(axis=1) > 0
    n = int((~keep).sum())
    note = f"; {n} ids without {what} have no vector" if n else ""
    return keep, truncated_svd(matrix[np.flatnonzero(keep)], dim, seed), note


FEWEST_GENES = 20  # below, nothing is left once genes are held out


@register("genotype_vae", kind="sets")
def genotype_vae(
    sets: Mapping[str, Iterable[str]],
    *,
    models: Path | None = None,
    dim: Dim = 128,
    hidden: Dim = 128,
    smallest: Dim = 20,
    lr: Positive = 3e-3,
    batch_size: Dim = 128,
    max_epochs: Dim = 30,
    patience: Dim = 5,
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    seed: int = 0,
):
    """Embed genes by a variational autoencoder of which sets (name to gene ids) hold them.

    A gene is a vector of zeros and ones over the sets of at least `smallest` genes, embedded by its
    latent mean; the epoch is chosen on held-out genes. The published sizes are 10, 128 and 256. Yu
    et al. 2025 (PerturbNet: GenotypeVAE); Cole et al. 2026, section 4.5.2; Kingma and Welling 2014.
    """
    given = {k: v for k, v in locals().items() if k not in ("sets", "models", "smallest")}
    ids, counts, said = membership(sets, smallest)
    if len(ids) < FEWEST_GENES:
        raise InputError(f"{len(ids)} genes in sets are too few to hold out some of them")
    # torch takes seconds to import, and most builds find the embedding in the cache
    from perturbcore.embeddings.vae import autoencode

    key = digest(ids, counts, given, code_digest("perturbcore.embeddings.words"))
    folder = Path(models) / f"vae-{key}" if models is not None else None
    X, trained, gained = autoencode(counts, folder=folder, key=key, **given)
    about = (
        f"{said}, variational autoencoder, {dim} dimensions, {trained.epochs} epochs; of held-out "
        f"genes it takes {gained:.0%} off the cross-entropy of the rates of the sets"
    )
    return ids, X, about
