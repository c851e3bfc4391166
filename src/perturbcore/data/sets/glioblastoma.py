"""One drug in slices of five patients' glioblastoma, raw counts (Zhao et al. 2021)."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import check_choice
from perturbcore.data.catalogue import fetch
from perturbcore.data.effects import ba_ate
from perturbcore.data.read import member, read_r
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets._make import controls_said
from perturbcore.data.sets.base import Card, Dataset, make_dataset

CONTROL = "ctrl"


def load(patients: str = "cell_line") -> Dataset:
    """Load the cells; `patients`: whether a patient is a "cell_line" or a "batch" of one line."""
    check_choice("patients", patients, ("cell_line", "batch"))
    path = fetch("glioblastoma")
    data = read_r(path, "glioblastoma_example_data")
    counts = member(path, data, "assays", "data", "listData", "counts")
    i, p, x, shape = (member(path, counts, part) for part in ("i", "p", "x", "Dim"))
    genes = member(path, data, "rowRanges", "elementMetadata", "listData", "symbol").astype(str)
    about = member(path, data, "colData", "listData")
    patient, condition = (member(path, about, c).astype(str) for c in ("patient_id", "condition"))
    X = sp.csc_matrix((x, i, p), shape=tuple(int(n) for n in shape)).T.tocsr()
    names = [f"cell{n + 1}" for n in range(X.shape[0])]
    columns = {"cell_line": "glioblastoma", "batch": "1", "perturbation": condition}
    obs = pd.DataFrame(columns | {patients: patient}, index=names)
    cells = AnnData(X.astype(np.float32), obs=obs, var=pd.DataFrame(index=genes))
    how = dict(control=CONTROL, scale="counts", identifier="drug")
    screen = declare_screen(cells, dataset="glioblastoma", **how)
    card = Card()
    lines = f"{screen.obs[patients].nunique()} patients; {controls_said(screen)}"
    card.step_of("file", screen, lines)
    responses = ba_ate(screen, control="global", batches="all", progress=False)
    responses.obs["fold"] = 0
    card.responses(responses, f"{responses.n_obs} rows")
    return make_dataset(responses, card, screen=screen)
