"""Embeddings: one vector a gene or drug, loaded or built, aligned by id."""

from perturbcore.embeddings.base import Embedding, align
from perturbcore.embeddings.controls import random_embedding, shuffled
from perturbcore.embeddings.convert import convert_ids
from perturbcore.embeddings.coverage import check_coverage, coverage_table, near_matches
from perturbcore.embeddings.load import load_embedding, load_embeddings, save_embedding

__all__ = [
    "Embedding",
    "align",
    "check_coverage",
    "convert_ids",
    "coverage_table",
    "load_embedding",
    "load_embeddings",
    "near_matches",
    "random_embedding",
    "save_embedding",
    "shuffled",
]
