"""Similarity of embeddings, clustered, with the modality beside each name."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from perturbcore.report.figures.style import colour, legend_of


def similarity_map(matrix: pd.DataFrame, modality: dict[str, str], *, label: str) -> Figure:
    """Draw a symmetric similarity matrix in the order of average-linkage clustering.

    Parameters
    ----------
    matrix : pandas.DataFrame
        m x m, values from -1 to 1, same rows and columns.
    modality : dict
        Name -> modality.
    label : str
        Of the colour bar.

    References
    ----------
    Cole et al. 2026, Fig. 3 (seaborn clustermap, default linkage).
    """
    values = matrix.to_numpy(dtype=float)
    order = np.arange(len(values))
    if len(values) > 2:
        order = leaves_list(linkage(pdist(values), "average"))
    names = matrix.index[order]
    values = values[np.ix_(order, order)]
    size = 0.34 * len(names) + 2.2
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    for text in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        text.set_color(colour(modality[text.get_text()]))
    if len(names) <= 16:
        for i, j in np.ndindex(values.shape):
            dark = abs(values[i, j]) > 0.6
            axis.text(j, i, f"{values[i, j]:.2f}".replace("0.", "."), ha="center", va="center",
                      fontsize=6.5, color="white" if dark else "#222222")  # fmt: skip
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axis, shrink=0.5, label=label)
    legend_of(figure, [modality[n] for n in names])
    return figure
