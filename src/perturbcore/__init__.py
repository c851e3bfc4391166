"""perturbcore: from cells to responses, from responses and embeddings to scores, from scores to a book."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# verb -> module that holds it; loaded when it is asked for, so that this import stays fast
VERBS = {
    "open_chapter": "perturbcore.book.inside",
    "open_study": "perturbcore.book.study",
}


def __getattr__(name: str) -> Any:
    if name not in VERBS:
        raise AttributeError(f"perturbcore has no '{name}'; it has: {', '.join(sorted(VERBS))}")
    return getattr(import_module(VERBS[name]), name)


def __dir__() -> list[str]:
    return sorted([*VERBS, "__version__"])
