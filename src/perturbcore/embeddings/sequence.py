"""Embeddings of genes from their protein sequences."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim, truncated_svd
from perturbcore.embeddings.registry import register

RESIDUES = frozenset("ACDEFGHIKLMNPQRSTVWYBZXUOJ*")


@register("sequence", kind="sequences")
def sequence_embedding(
    sequences: Mapping[str, str | Iterable[str]],
    *,
    name: str,
    modality: str = "Protein",
    identifier: str = "symbol",
    source: str = "protein sequences",
    dim: int = 128,
    k: int = 3,
    min_df: int = 2,
    seed: int = 0,
) -> Embedding:
    """Embed genes by the k-mers of their proteins: TF-IDF, then a truncated SVD.

    A stand-in for protein language models, not one of them: it sees which short words two
    proteins share, so it finds close relatives, and knows nothing of structure, remote homology or
    function. Where the embeddings of ESM2 or ProtT5 are at hand, load those.

    Parameters
    ----------
    sequences
        Id to amino acids in one-letter code, or to several isoforms, whose k-mer profiles are
        averaged (Cole et al. 2026, section 4.5.4, average isoforms likewise).
    dim
        Wanted dimensions; fewer where the profiles have a lower rank.
    k
        Length of the words.
    min_df
        k-mers of fewer sequences are left out.
    seed
        Start vector of the SVD.

    Returns
    -------
    Embedding
        Ids sorted; ids without any kept k-mer are left out and counted in ``source``.
    """
    dim = check_dim(dim, name)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= 5:
        raise ParameterError(f"embedding {name!r}: k must be a whole number from 1 to 5, got {k!r}")
    ids = sorted(sequences)
    rows, isoforms = [], []
    for row, i in enumerate(ids):
        own = [sequences[i]] if isinstance(sequences[i], str) else list(sequences[i])
        for isoform in own:
            wrong = sorted(set(isoform.upper()) - RESIDUES) if isinstance(isoform, str) else None
            if wrong or not isinstance(isoform, str):
                raise InputError(
                    f"embedding {name!r}: the sequence of {i!r} holds "
                    f"{wrong[0] if wrong else isoform!r}, which is no amino acid in one-letter code"
                )
            rows.append(row)
            isoforms.append(isoform.upper())
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(k, k), lowercase=False, min_df=min_df, sublinear_tf=True
    )
    try:
        matrix = vectorizer.fit_transform(isoforms)
    except ValueError as error:
        raise InputError(
            f"embedding {name!r}: no word of {k} residues occurs in at least {min_df} of "
            f"{len(isoforms)} sequences ({error}); lower min_df or k"
        ) from None
    mean = sp.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))))
    mean = sp.diags(1 / np.maximum(np.asarray(mean.sum(axis=1)).ravel(), 1)) @ mean
    matrix = (mean @ matrix).tocsr()
    keep = np.zeros(len(ids), bool)
    keep[: matrix.shape[0]] = matrix.getnnz(axis=1) > 0
    X = truncated_svd(matrix[np.flatnonzero(keep)], dim, seed)
    left_out = int((~keep).sum())
    note = f"; {left_out} ids without a kept word have no vector" if left_out else ""
    text = f"{source}; {matrix.shape[1]} words of {k} residues, {X.shape[1]} dimensions{note}"
    return Embedding(name, modality, pd.Index(ids)[keep], X, identifier, None, text)


def read_fasta(path) -> dict[str, list[str]]:
    """Read protein sequences; the id is the header up to the first blank.

    Several entries of one id are its isoforms.

    Raises
    ------
    InputError
        The message names file and line: residues before the first header, or a header without id
        or without residues.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    found: dict[str, list[str]] = {}
    current, header, parts = None, 0, []

    def close() -> None:
        if current is not None:
            if not parts:
                raise InputError(f"{path}:{header}: {current!r} has no residues")
            found.setdefault(current, []).append("".join(parts))

    with open(path, encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            line = line.strip()
            if line.startswith(">"):
                close()
                words = line[1:].split()
                if not words:
                    raise InputError(f"{path}:{number}: the header has no id")
                current, header, parts = words[0], number, []
            elif line and current is None:
                raise InputError(f"{path}:{number}: residues before the first '>' header")
            elif line:
                parts.append(line)
    close()
    if not found:
        raise InputError(f"{path} holds no sequence")
    return found
