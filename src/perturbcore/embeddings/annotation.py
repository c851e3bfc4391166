"""Embeddings of genes from the sets that they are annotated with."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfTransformer

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim, truncated_svd
from perturbcore.embeddings.registry import register


@register("annotation", kind="sets")
def annotation_embedding(
    sets: Mapping[str, Iterable[str]],
    *,
    name: str,
    modality: str = "Prior knowledge",
    identifier: str = "symbol",
    source: str = "annotation sets",
    dim: int = 128,
    min_size: int = 2,
    max_size: int | None = None,
    seed: int = 0,
) -> Embedding:
    """Embed genes by the sets that hold them: TF-IDF, then a truncated SVD.

    A gene is a document and its sets are the words: a set shared with few genes says more than a
    set shared with many. Latent semantic analysis of annotations; the linear relative of the
    GenotypeVAE of Cole et al. 2026, section 4.5.2, which autoencodes the same kind of vector.

    Parameters
    ----------
    sets
        Set name to gene ids, as `read_gmt` returns.
    dim
        Wanted dimensions; fewer where the sets have a lower rank.
    min_size, max_size
        Sets with fewer or more genes are left out (a set of one tells no two genes apart).
    seed
        Start vector of the SVD.

    Returns
    -------
    Embedding
        Genes of at least one set, sorted.

    References
    ----------
    Deerwester et al. 1990 (latent semantic analysis).
    """
    dim = check_dim(dim, name)
    if min_size < 1 or (max_size is not None and max_size < min_size):
        raise ParameterError(
            f"embedding {name!r}: need 1 <= min_size <= max_size, got {min_size} and {max_size}"
        )
    members = {s: sorted(set(g)) for s, g in sorted(sets.items())}
    used = {s: g for s, g in members.items() if min_size <= len(g) <= (max_size or max(len(g), 1))}
    if not used:
        raise InputError(
            f"embedding {name!r}: none of {len(members)} sets has between {min_size} and "
            f"{max_size or 'any number of'} genes"
        )
    lengths = [len(g) for g in used.values()]
    ids, rows = np.unique(np.concatenate([list(g) for g in used.values()]), return_inverse=True)
    columns = np.repeat(np.arange(len(used)), lengths)
    counts = sp.csr_matrix(
        (np.ones(len(rows)), (rows.ravel(), columns)), shape=(len(ids), len(used))
    )
    X = truncated_svd(TfidfTransformer().fit_transform(counts), dim, seed)
    text = f"{source}; {len(used)} of {len(members)} sets, TF-IDF and SVD, {X.shape[1]} dimensions"
    return Embedding(name, modality, pd.Index(ids), X, identifier, None, text)


def read_gmt(path) -> dict[str, list[str]]:
    """Read gene sets from a GMT file: name, description, then one gene a tab.

    Raises
    ------
    InputError
        The message names file and line: a line without genes, without a name, or with the name of
        an earlier set.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    sets: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file ({error}); is it compressed?") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.split("\t")
        title = cells[0].strip()
        genes = [g.strip() for g in cells[2:] if g.strip()]
        if len(cells) < 3 or not genes:
            raise InputError(
                f"{path}:{number}: a set needs a name, a description and genes, separated by "
                f"tabs; this line has {len(cells)} cells and {len(genes)} genes"
            )
        if not title:
            raise InputError(f"{path}:{number}: the set has no name")
        if title in sets:
            raise InputError(
                f"{path}:{number}: set {title!r} was already in line {first[title]}; rename one"
            )
        sets[title], first[title] = genes, number
    if not sets:
        raise InputError(f"{path} holds no gene set")
    return sets
