"""From cells or wells to responses with folds, the same way for every data set."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.deg.labels import deg_labels
from perturbcore.data.effects.ba_ate import ba_ate
from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses


def _folded(responses: AnnData, n_folds: int, seed: int) -> AnnData:
    return add_folds(responses, min(n_folds, responses.obs["perturbation"].nunique()), seed)


def responses_of(
    screen: AnnData, *, control: str, batches: str, n_folds: int, seed: int
) -> AnnData:
    """Batch-aware effects of a screen; see `perturbcore.data.effects.ba_ate`."""
    return _folded(ba_ate(screen, control=control, batches=batches), n_folds, seed)


def labels_of(screen: AnnData, *, dataset: str, n_folds: int, seed: int, **how) -> AnnData:
    """Labels of differential expression; see `perturbcore.data.deg.labels.deg_labels`."""
    labels = deg_labels(screen, progress=False, **how)
    labels.uns["perturbcore"]["dataset"] = dataset
    return _folded(labels, n_folds, seed)


def make_wells(X, obs: pd.DataFrame, genes, *, path, **about) -> AnnData:
    """Replicate wells by genes: obs `perturbation`, `batch`, `cell_line`, `is_control`.

    `about` (dataset, scale, identifier) says what the values are; `path` names the file in
    messages.
    """
    X = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)
    if not np.isfinite(X).all():
        raise InputError(f"{path}: X has NaN or infinity; is this another version of the file?")
    obs["perturbation"] = obs["perturbation"].mask(obs["is_control"], "control").astype(str)
    wells = AnnData(X, obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=str)))
    wells.uns["perturbcore"] = {**about, "simulated": False}
    return wells


def well_effects(wells: AnnData, control: str = "matched") -> pd.DataFrame:
    """Mean effect of each perturbation on each plate: rows (batch, perturbation), columns genes.

    "matched" subtracts the mean of the control wells of the same plate, "global" of all plates.
    """
    X = pd.DataFrame(np.asarray(wells.X, dtype=np.float64), columns=wells.var_names)
    treated = ~wells.obs["is_control"].to_numpy()
    plate, name = (wells.obs[c].astype(str).to_numpy() for c in ("batch", "perturbation"))
    base = X[~treated].groupby(plate[~treated]).mean()
    if control == "global":
        base.loc[:] = base.to_numpy().mean(axis=0)
    means = X[treated].groupby([plate[treated], name[treated]]).mean()
    means = means.rename_axis(["batch", "perturbation"])
    return means - base.loc[means.index.get_level_values("batch")].to_numpy()


def responses_of_wells(
    wells: AnnData, *, control: str, n_folds: int, seed: int, keep: tuple = ()
) -> AnnData:
    """Mean over plates of `well_effects`, with the columns `keep` of the wells, as responses."""
    effects = well_effects(wells, control).groupby(level="perturbation").mean()
    obs = wells.obs[~wells.obs["is_control"].to_numpy()].groupby("perturbation", observed=True)
    table = pd.DataFrame(
        {
            "cell_line": obs["cell_line"].first(),
            "n_cells": obs.size(),
            "n_batches": obs["batch"].nunique(),
            **{column: obs[column].first() for column in keep},
        }
    ).loc[effects.index]
    about = wells.uns["perturbcore"]
    out = make_responses(
        effects.to_numpy(),
        table.rename_axis("perturbation").reset_index(),
        effects.columns,
        dataset=about["dataset"],
        identifier=about["identifier"],
    )
    out.uns["perturbcore"].update(scale=about["scale"], control=control)
    return _folded(out, n_folds, seed)
