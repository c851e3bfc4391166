"""From cells to responses, from responses and embeddings to scores, from scores to a book.

The front door, in the order of the data; each verb loads what it needs when it is first asked for,
and its own docstring has an example.

>>> import perturbcore as pc
>>> pc.load_profile("demo").simulated
True
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# in the order of the data: a wing imports from those before it, never from those after
WINGS = ("core", "data", "embeddings", "score", "models", "report", "book")

# what `import perturbcore as pc` offers, and where it is; loaded when it is asked for, so that this
# import stays fast
VERBS = {
    "read_screen": "perturbcore.data.screens.declare",
    "effects": "perturbcore.data.effects",
    "read_responses": "perturbcore.data.responses",
    "assign_folds": "perturbcore.data.folds",
    "load_dataset": "perturbcore.data.sets.base",
    "simulate_screen": "perturbcore.data.simulate.screen",
    "load_embedding": "perturbcore.embeddings.load",
    "ceiling": "perturbcore.score.ceiling.ceiling",
    "leak_report": "perturbcore.score.leaks",
    "evaluate": "perturbcore.models.simple.embedding",
    "score_cells": "perturbcore.score.cells",
    "compare": "perturbcore.report.comparison",
    "load_profile": "perturbcore.core.profile",
    "load_published": "perturbcore.data.published.tables",
    "open_chapter": "perturbcore.book.inside",
    "Study": "perturbcore.book.study",
    "Protocol": "perturbcore.models.simple.space",
}
# a verb that its module knows by another name
_NAMES = {
    "effects": "ba_ate",
    "load_dataset": "load",
    "ceiling": "noise_ceiling",
    "evaluate": "evaluate_embeddings",
    "compare": "Comparison",
}


def __getattr__(name: str) -> Any:
    if name not in VERBS:
        raise AttributeError(
            f"perturbcore has no '{name}'; it has: {', '.join(sorted(VERBS, key=str.lower))}"
        )
    return getattr(import_module(VERBS[name]), _NAMES.get(name, name))


def __dir__() -> list[str]:
    return sorted([*VERBS, "VERBS", "WINGS", "__version__"])
