"""The papers' published numbers in the book's scores schema, their figures and their claims."""

from perturbcore.published.claims import audit, claims, counts
from perturbcore.published.facts import bendidi2024, csendes2025, facts, wu2025
from perturbcore.published.figure_specs import FIGURES
from perturbcore.published.figures import FigureData, figure_data
from perturbcore.published.read import read_cross_context, read_scores
from perturbcore.published.read_ceiling import experimental_error, read_ceiling
from perturbcore.published.sentences import describe, figure_table, not_drawn
from perturbcore.published.tables import Published, load_published, medians, read_tables
from perturbcore.published.unreported import (
    neighbours,
    ranking_certainty,
    run_choice,
    unused_rows,
)

__all__ = [
    "FIGURES",
    "FigureData",
    "Published",
    "audit",
    "bendidi2024",
    "claims",
    "counts",
    "csendes2025",
    "describe",
    "experimental_error",
    "facts",
    "figure_data",
    "figure_table",
    "load_published",
    "medians",
    "neighbours",
    "not_drawn",
    "ranking_certainty",
    "read_ceiling",
    "read_cross_context",
    "read_scores",
    "read_tables",
    "run_choice",
    "unused_rows",
    "wu2025",
]
