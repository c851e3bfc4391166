"""The authors' preprocessed data (Cole et al. 2026), and the published benchmark on them."""

from perturbcore.authors.benchmark import (
    Benchmark,
    estimators_of,
    protocol_of,
    reproduce,
    score_dataset,
)
from perturbcore.authors.choices import choices
from perturbcore.authors.compare import agreement, compare, counts, verdict
from perturbcore.authors.error import error_of_raw
from perturbcore.authors.inventory import list_embeddings, read_embeddings
from perturbcore.authors.layout import LAYOUTS, data_root, file_of, layout_of, present
from perturbcore.authors.read import read_authors_responses
from perturbcore.authors.write import add_stored_folds, effects_of_raw, labels_of_raw, norman_folds

__all__ = [
    "LAYOUTS",
    "Benchmark",
    "add_stored_folds",
    "agreement",
    "choices",
    "compare",
    "counts",
    "data_root",
    "effects_of_raw",
    "error_of_raw",
    "estimators_of",
    "file_of",
    "labels_of_raw",
    "layout_of",
    "list_embeddings",
    "norman_folds",
    "present",
    "protocol_of",
    "read_authors_responses",
    "read_embeddings",
    "reproduce",
    "score_dataset",
    "verdict",
]
