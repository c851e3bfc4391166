"""Embeddings of drugs from the genes they act on: encodings, and gene embeddings of the targets."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding, some
from perturbcore.embeddings.registry import register

MODALITY = "Gene target"
HALVING = 0.5
HOW = ("concatenate", "sum", "weight")
WEIGHTS = ("binary", "rank", "given")


def target_weights(drugs: pd.DataFrame, weights: str, where: str) -> dict[str, dict[str, float]]:
    """Weight of each target of each drug.

    Parameters
    ----------
    drugs
        Indexed by drug; `targets`, and for ``given`` a column `weights` of as many numbers.
    weights : {"binary", "rank", "given"}
        1 for each target; 1, 1/2, 1/4, ... in the order of the table; or the numbers of the table.

    Raises
    ------
    InputError
        Weights are missing, not numbers, or not as many as targets; the message names the drug.
    """
    from perturbcore.data.molecules.tables import targets_of

    if weights not in WEIGHTS:
        raise ParameterError(f"{where}: weights {weights!r} is not one of: {', '.join(WEIGHTS)}")
    targets = targets_of(drugs)
    if weights == "binary":
        return {d: dict.fromkeys(genes, 1.0) for d, genes in targets.items()}
    if weights == "rank":
        return {d: {g: HALVING**i for i, g in enumerate(genes)} for d, genes in targets.items()}
    if "weights" not in drugs:
        raise InputError(f"{where}: the drug table has no column 'weights'; use weights: rank")
    out = {}
    for drug, genes in targets.items():
        text = [t.strip() for t in str(drugs.at[drug, "weights"]).split(";") if t.strip()]
        values = pd.to_numeric(pd.Series(text, dtype=object), errors="coerce").to_numpy(float)
        if len(values) != len(genes) or not np.isfinite(values).all():
            raise InputError(
                f"{where}: drug {drug!r} has {len(genes)} targets ({';'.join(genes)}) and weights {text}; "
                "give one number a target"
            )
        out[drug] = dict(zip(genes, values, strict=True))
    return out


@register("target_encoding", kind="drugs", entity="drug")
def target_encoding(
    drugs: pd.DataFrame,
    *,
    name: str,
    modality: str = MODALITY,
    source: str = "drug table",
    weights: str = "binary",
    min_drugs: int = 1,
) -> Embedding:
    """Encode drugs by their targets: one column a gene, its weight where the drug acts on it, else 0.

    Parameters
    ----------
    drugs
        Indexed by drug, column `targets`; drugs without a target left have no vector and are counted in
        ``source``.
    weights
        See `target_weights`.
    min_drugs
        Genes that fewer drugs act on have no column.

    References
    ----------
    Cole et al. 2026, target encodings ("binary", "confidence").
    """
    where = f"embedding {name!r}"
    known = target_weights(drugs, weights, where)
    hit = pd.Series([g for genes in known.values() for g in genes]).value_counts()
    columns = sorted(hit.index[hit >= min_drugs]) if len(hit) else []
    if not columns:
        raise InputError(
            f"{where}: no gene is the target of {min_drugs} or more of {len(drugs)} drugs"
        )
    at = {gene: i for i, gene in enumerate(columns)}
    kept = [d for d, genes in known.items() if any(g in at for g in genes)]
    X = np.zeros((len(kept), len(columns)), dtype=np.float32)
    for row, drug in enumerate(kept):
        for gene, weight in known[drug].items():
            if gene in at:
                X[row, at[gene]] = weight
    text = f"{source}; {len(columns)} targets, {weights}{_none(drugs, kept, 'a target')}"
    return Embedding(name, modality, pd.Index(kept), X, "drug", None, text)


@register("target_genes", kind="drugs_of", entity="drug")
def target_genes(
    genes: Embedding,
    drugs: pd.DataFrame,
    *,
    name: str,
    modality: str = MODALITY,
    source: str = "drug table",
    how: str = "concatenate",
    weights: str = "rank",
    n_targets: int = 3,
) -> Embedding:
    """Embed drugs by the gene embeddings of their first targets.

    Parameters
    ----------
    genes
        Embedding by gene symbol.
    drugs
        Indexed by drug, column `targets`, the main one first. Only targets that have an embedding
        count; drugs without any have no vector and are counted in ``source``.
    how : {"concatenate", "sum", "weight"}
        Side by side (n_targets x d numbers; a drug of fewer targets has zeros in the free places),
        added up, or added up with weights.
    weights
        For ``weight``; see `target_weights`.
    n_targets
        How many targets of a drug at most.

    Raises
    ------
    InputError
        The embedding does not go by symbol, or knows no target.

    References
    ----------
    Cole et al. 2026: three targets a drug, concatenated, summed, or weighted 1, 1/2, 1/4.
    """
    where = f"embedding {name!r}"
    if how not in HOW:
        raise ParameterError(f"{where}: how {how!r} is not one of: {', '.join(HOW)}")
    if n_targets < 1:
        raise ParameterError(f"{where}: n_targets must be at least 1, got {n_targets}")
    if genes.identifier != "symbol":
        raise InputError(
            f"{where}: targets are gene symbols, but {genes.name!r} goes by {genes.identifier}; give it "
            "convert_to: symbol"
        )
    vectors = dict(zip(genes.ids, genes.X, strict=True))
    known = target_weights(drugs, weights if how == "weight" else "binary", where)
    chosen = {d: [g for g in w if g in vectors][:n_targets] for d, w in known.items()}
    kept = [d for d, found in chosen.items() if found]
    if not kept:
        every = sorted({g for w in known.values() for g in w})
        raise InputError(f"{where}: {genes.name!r} has no vector for any target ({some(every)})")
    X = np.zeros((len(kept), n_targets if how == "concatenate" else 1, genes.dim), dtype=np.float32)
    for row, drug in enumerate(kept):
        for place, gene in enumerate(chosen[drug]):
            if how == "concatenate":
                X[row, place] = vectors[gene]
            else:
                X[row, 0] += known[drug][gene] * vectors[gene]
    text = f"{source}; {genes.name} of up to {n_targets} targets, {how}{_none(drugs, kept, 'such a target')}"
    return Embedding(
        name, modality, pd.Index(kept), X.reshape(len(kept), -1), "drug", genes.cell_line, text
    )


def _none(drugs: pd.DataFrame, kept, what: str) -> str:
    n = len(drugs) - len(kept)
    return f"; {n} of {len(drugs)} drugs have no vector for want of {what}" if n else ""
