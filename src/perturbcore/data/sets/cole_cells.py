"""The authors' preprocessed responses together with their raw cells, where these are at hand."""

from dataclasses import replace

from perturbcore.core.errors import InputError
from perturbcore.data.sets.base import Dataset


def load(dataset: str = "essential", root=None, embeddings=None) -> Dataset:
    """Load responses, stored folds and embeddings, and the raw cells of the same screen.

    Parameters
    ----------
    dataset : {"essential", "norman"}
    root : path, optional
        Folder of the authors' layout; ``PERTURBCORE_PAPER_DATA``, else ``data/paper``. The raw files lie
        in a folder of it that is named like the data set; see `perturbcore.data.authors.raw.raw_screens`.
    embeddings : list of str, optional
        Only these of the authors' embeddings, by display or published name.

    Returns
    -------
    Dataset
        ``screen`` is None, and a note says so, where the raw files are not there.

    References
    ----------
    Cole et al. 2026; Replogle et al. 2022; Nadig et al. 2025; Norman et al. 2019.
    """
    from perturbcore.data.authors.dataset import authors_dataset
    from perturbcore.data.authors.layout import data_root
    from perturbcore.data.authors.raw import raw_screens

    data = authors_dataset(dataset, "lfc", root, embeddings)
    try:
        screen = next(iter(raw_screens(dataset, data_root(root))))
    except InputError as error:
        return replace(data, notes=(*data.notes, f"No cells: {error}."))
    return replace(data, screen=screen)
