"""Old names, to be removed: see `perturbcore.score.evaluate` and `perturbcore.score.model`."""

import numpy as np

from perturbcore.score.evaluate import evaluate
from perturbcore.score.model import Prediction, _asked  # noqa: F401


def evaluate_joint(responses, models, **options):
    """Score models and add their units to the scope."""
    return evaluate(responses, models, add=True, **options)


def blanked(test):
    """Return names and genes of `test` without anything of its responses."""
    return _asked(test, np.ones(test.n_obs, dtype=bool))
