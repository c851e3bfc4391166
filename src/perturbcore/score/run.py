"""Old names, to be removed: see `perturbcore.score.evaluate` and `perturbcore.models.simple`."""

from perturbcore.score.evaluate import stamp  # noqa: F401

PAIR_TARGETS = ("deg_pairs", "dir_pairs")


def __getattr__(name):
    from perturbcore.models.simple import evaluate_embeddings

    if name == "evaluate":
        return evaluate_embeddings
    raise AttributeError(name)
