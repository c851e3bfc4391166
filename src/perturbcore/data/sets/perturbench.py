"""Two subsampled screens of PerturBench's development file: Norman and McFaline-Figueroa."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import check_choice
from perturbcore.data.catalogue import fetch
from perturbcore.data.read import read_h5ad
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets._make import controls_said, responses_of
from perturbcore.data.sets.base import Card, Dataset, constants_of, make_dataset

CONTROL = "control"


def load(part: str = "norman", doubles: bool = False, n_folds: int = 5, seed: int = 0) -> Dataset:
    """Load the single perturbations of "norman" (K562) or "mcfaline" (A172, T98G, U87MG).

    `doubles`: those of two genes as well, which only "norman" has.
    """
    label = constants_of(check_choice("part", part, ("norman", "mcfaline")))["label"]
    path = fetch("perturbench_devel")
    cells = read_h5ad(path, ("condition", "dataset", "cell_type"))
    card = Card()

    def step(name: str, note: str = "") -> None:
        named = set(cells.obs["condition"].astype(str)) - {CONTROL}
        counts = dict(cells=cells.n_obs, perturbations=len(named), genes=cells.n_vars)
        card.step(name, note=note, **counts)

    step("file", "both screens")
    cells = cells[(cells.obs["dataset"] == label).to_numpy()]
    step("this screen")
    condition = cells.obs["condition"].astype(str)
    double = condition.str.contains("+", regex=False).to_numpy() & (not doubles)
    cells = cells[~double]
    gem_group = cells.obs_names.to_series().str.extract(r"-(\d+)$")[0]
    obs = pd.DataFrame(
        {
            "perturbation": condition[~double],
            "batch": gem_group if part == "norman" else "1",
            "cell_line": cells.obs["cell_type"].astype(str).replace({"k562": "K562"}),
        },
        index=cells.obs_names,
    )
    var = pd.DataFrame(index=cells.var_names.astype(str))
    screen = AnnData(sp.csr_matrix(cells.X, dtype=np.float32), obs=obs, var=var)
    screen = declare_screen(screen, dataset=part, control=CONTROL, scale="log1p")
    dropped = f"{condition[double].nunique()} doubles ({int(double.sum()):,} cells) dropped; "
    note = (dropped if double.any() else "") + controls_said(screen)
    card.step_of("singles and doubles" if doubles else "single perturbations", screen, note)
    responses = responses_of(screen, n_folds, seed)
    return make_dataset(responses, card, screen=screen)
