"""Embeddings: one vector a gene or drug, loaded or built, aligned by id."""

from perturbcore.embeddings.base import Embedding, align
from perturbcore.embeddings.build import build, build_all
from perturbcore.embeddings.controls import random_embedding, shuffled
from perturbcore.embeddings.convert import add_aliases, convert_ids
from perturbcore.embeddings.coverage import check_coverage, coverage_table, near_matches
from perturbcore.embeddings.load import load_embedding, load_embeddings, save_embedding
from perturbcore.embeddings.registry import builders
from perturbcore.embeddings.similarity import cca_matrix, cca_r2
from perturbcore.embeddings.sources import BuildContext

__all__ = [
    "BuildContext",
    "Embedding",
    "add_aliases",
    "align",
    "build",
    "build_all",
    "builders",
    "cca_matrix",
    "cca_r2",
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
