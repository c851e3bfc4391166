"""Old names, to be removed: see `perturbcore.score.evaluate` and `perturbcore.models.simple`."""

from perturbcore.score.evaluate import stamp  # noqa: F401

PAIR_TARGETS = ("deg_pairs", "dir_pairs")

