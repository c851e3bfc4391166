"""The Essential screens of four cell lines, as the authors preprocessed them (Cole et al. 2026)."""

from perturbcore.data.sets.base import Dataset


def load(task: str = "lfc", root=None, embeddings=None) -> Dataset:
    """Load responses with their stored folds, and the embeddings that come with them.

    Parameters
    ----------
    task : {"lfc", "deg"}
        Log fold-changes, or labels of differential expression.
    root : path, optional
        Folder of the authors' layout; ``PERTURBCORE_PAPER_DATA``, else ``data/paper``.
    embeddings : list of str, optional
        Only these of the authors' embeddings, by display or published name.

    Returns
    -------
    Dataset
        See `perturbcore.data.authors.dataset.authors_dataset`.

    References
    ----------
    Cole et al. 2026; Replogle et al. 2022; Nadig et al. 2025.
    """
    from perturbcore.data.authors.dataset import authors_dataset

    return authors_dataset("essential", task, root, embeddings)
