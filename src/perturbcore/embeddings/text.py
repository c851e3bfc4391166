"""Embeddings of genes from what is written about them."""

from collections.abc import Mapping

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim, truncated_svd
from perturbcore.embeddings.registry import register


@register("text", kind="texts")
def text_embedding(
    texts: Mapping[str, str],
    *,
    name: str,
    modality: str = "Prior knowledge",
    identifier: str = "symbol",
    source: str = "descriptions",
    dim: int = 128,
    min_df: int = 2,
    ngrams: int = 2,
    seed: int = 0,
) -> Embedding:
    """Embed genes by their descriptions: TF-IDF of words and word pairs, then a truncated SVD.

    It counts words and knows nothing of their meaning: the modest relative of GenePT (Cole et al.
    2026, section 4.5.2), which asks a language model to embed the same kind of text.

    Parameters
    ----------
    texts
        Id to description.
    dim
        Wanted dimensions; fewer where the texts have a lower rank.
    min_df
        Words of fewer texts are left out; 2 drops, for instance, the gene's own symbol.
    ngrams
        Longest run of words that counts as one term.
    seed
        Start vector of the SVD.

    Returns
    -------
    Embedding
        Ids sorted; ids whose text has no usable word are left out and counted in ``source``.
    """
    dim = check_dim(dim, name)
    ids = sorted(texts)
    for i in ids:
        if not isinstance(texts[i], str):
            raise InputError(
                f"embedding {name!r}: the description of {i!r} is {type(texts[i]).__name__}, "
                "not text; leave the id out or give it a text"
            )
    vectorizer = TfidfVectorizer(
        ngram_range=(1, ngrams), min_df=min_df, sublinear_tf=True, stop_words="english"
    )
    try:
        matrix = vectorizer.fit_transform([texts[i] for i in ids])
    except ValueError as error:
        raise InputError(
            f"embedding {name!r}: no word occurs in at least {min_df} of {len(ids)} descriptions "
            f"({error}); lower min_df"
        ) from None
    keep = matrix.getnnz(axis=1) > 0
    X = truncated_svd(matrix[keep], dim, seed)
    left_out = int((~keep).sum())
    note = f"; {left_out} ids without a usable word have no vector" if left_out else ""
    text = f"{source}; {matrix.shape[1]} terms, TF-IDF and SVD, {X.shape[1]} dimensions{note}"
    return Embedding(name, modality, pd.Index(ids)[keep], X, identifier, None, text)
