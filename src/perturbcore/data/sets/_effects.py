"""From a declared screen to responses with folds, the same way for every data set."""

from anndata import AnnData

from perturbcore.data.folds import add_folds


def responses_of(screen: AnnData, *, control: str, batches: str, n_folds: int, seed: int):
    """Return the batch-aware effects of `screen` with folds; see `perturbcore.data.effects.ba_ate`."""
    from perturbcore.data.effects.ba_ate import ba_ate

    responses = ba_ate(screen, control=control, batches=batches)
    n_folds = min(n_folds, responses.obs["perturbation"].nunique())
    return add_folds(responses, n_folds, seed)


def labels_of(screen: AnnData, *, dataset: str, n_folds: int, seed: int, **how) -> AnnData:
    """Return labels of differential expression with folds; see `perturbcore.data.deg.labels.deg_labels`."""
    from perturbcore.data.deg.labels import deg_labels

    labels = deg_labels(screen, progress=False, **how)
    labels.uns["perturbcore"]["dataset"] = dataset
    return add_folds(labels, min(n_folds, labels.obs["perturbation"].nunique()), seed)
