"""Embeddings of drugs from what is written about them."""

import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.registry import register
from perturbcore.embeddings.text import text_embedding

PARTS = ("name", "mechanism", "targets")


def drug_texts(drugs: pd.DataFrame, parts=PARTS) -> dict[str, str]:
    """Write one line a drug: its name, mechanism and targets, as far as the table has them."""
    unknown = [p for p in parts if p not in PARTS]
    if unknown or not parts:
        raise ParameterError(f"parts {list(parts)} are not among: {', '.join(PARTS)}")
    texts = {}
    for drug, row in drugs.iterrows():
        words = {
            "name": str(drug),
            "mechanism": str(row["mechanism"]),
            "targets": str(row["targets"]).replace(";", " "),
        }
        texts[str(drug)] = ". ".join(words[p] for p in parts if words[p])
    return texts


@register("drug_text", kind="drugs", entity="drug")
def drug_text(
    drugs: pd.DataFrame,
    *,
    name: str,
    modality: str = "Prior knowledge",
    source: str = "drug table",
    parts: list = list(PARTS),  # noqa: B006
    dim: int = 128,
    min_df: int = 2,
    ngrams: int = 2,
    seed: int = 0,
) -> Embedding:
    """Embed drugs by name, mechanism and targets: TF-IDF, then a truncated SVD.

    It counts words; for a language model's vectors of the same texts give a file, with modality
    ``LLM``.

    Parameters
    ----------
    drugs
        Indexed by drug; columns `mechanism` and `targets`.
    parts
        Of name, mechanism, targets.
    dim, min_df, ngrams, seed
        See `perturbcore.embeddings.text.text_embedding`; drugs without a word that others share have no
        vector.
    """
    texts = {drug: text for drug, text in drug_texts(drugs, parts).items() if text}
    return text_embedding(
        texts, name=name, modality=modality, identifier="drug",
        source=f"{source}, {', '.join(parts)}", dim=dim, min_df=min_df, ngrams=ngrams, seed=seed,
    )  # fmt: skip
