"""Labels of differential expression with the published filters."""

import numpy as np
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.deg.labels import deg_labels

MIN_CELLS = {"ensembl": 30, "drug": 20}


def labels_of_screen(
    dataset: str,
    screen: AnnData,
    *,
    test: str = "welch",
    min_cells: int | None = None,
    progress=True,
) -> AnnData:
    """Label a screen of `perturbcore.data.authors.raw.raw_screens`, read with `filter_first`.

    Parameters
    ----------
    dataset : str
    screen : AnnData
    test : {"welch", "student"}
    min_cells : int, optional
        Groups must have more cells: perturbations (genes), or a drug on a plate, over all doses.
    progress : bool

    Returns
    -------
    AnnData
        See `perturbcore.data.deg.labels.deg_labels`.
    """
    layout = layout_of(dataset)
    least = MIN_CELLS[layout.identifier] if min_cells is None else int(min_cells)
    if layout.identifier == "ensembl":
        return deg_labels(screen, variant="pooled", test=test, min_cells=least, progress=progress)
    enough = (screen.obs["n_drug_plate"] > least).to_numpy()
    if not (enough & ~screen.obs["is_control"].to_numpy(dtype=bool)).any():
        raise InputError(
            f"{dataset}: no drug has more than {least} cells on a plate; lower min_cells"
        )
    kept = screen[np.flatnonzero(enough)].copy()
    # cells were counted above; what is left must only have a variance
    return deg_labels(kept, variant="per_batch", test=test, min_cells=1, progress=progress)
