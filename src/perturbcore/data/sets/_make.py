"""From cells or wells to responses with folds, the same way for every data set."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.deg.labels import deg_labels
from perturbcore.data.effects.ba_ate import ba_ate
from perturbcore.data.folds import add_folds
from perturbcore.data.responses import dense, make_responses
from perturbcore.data.sets.base import Card, Dataset, check_choice, check_options, make_dataset


def folded(responses: AnnData, n_folds: int, seed: int) -> AnnData:
    """Add folds, at most one per perturbation."""
    return add_folds(responses, min(n_folds, responses.obs["perturbation"].nunique()), seed)


def responses_of(
    screen: AnnData, *, control: str, batches: str, n_folds: int, seed: int
) -> AnnData:
    """Batch-aware effects of a screen; see `perturbcore.data.effects.ba_ate`."""
    return folded(ba_ate(screen, control=control, batches=batches), n_folds, seed)


def labels_of(screen: AnnData, *, dataset: str, n_folds: int, seed: int, **how) -> AnnData:
    """Labels of differential expression; see `perturbcore.data.deg.labels.deg_labels`."""
    labels = deg_labels(screen, progress=False, **how)
    labels.uns["perturbcore"]["dataset"] = dataset
    return folded(labels, n_folds, seed)


def controls_said(screen: AnnData) -> str:
    """Count the control cells of a declared screen in words."""
    return f"{int(screen.obs['is_control'].sum()):,} control cells"


def make_wells(X, obs: pd.DataFrame, genes, **about) -> AnnData:
    """Replicate wells by genes: obs `perturbation`, `batch`, `cell_line`, `is_control`.

    `about` (dataset, scale, identifier) says what the values are.
    """
    obs["perturbation"] = obs["perturbation"].mask(obs["is_control"], "control").astype(str)
    wells = AnnData(
        dense(X).astype(np.float32), obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=str))
    )
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
    table = obs[["cell_line", *keep]].first()
    table.insert(1, "n_cells", obs.size())
    table.insert(2, "n_batches", obs["batch"].nunique())
    table = table.loc[effects.index].rename_axis("perturbation").reset_index()
    about = dict(wells.uns["perturbcore"])
    scale = about.pop("scale")
    out = make_responses(effects.to_numpy(), table, effects.columns, **about)
    out.uns["perturbcore"].update(scale=scale, control=control)
    return folded(out, n_folds, seed)


def simulate(function, task: str, options: dict):
    """Call a simulation once its task and options are known to be right."""
    check_choice("task", task, ("lfc", "deg"))
    check_options(function.__name__, function, options)
    return function(**options)


def simulated_dataset(
    name: str, simulation, screen, card: Card, *, task: str, effects: dict, labels: dict, folds
) -> Dataset:
    """Estimate effects, or label genes, of the simulated cells in `screen`.

    `effects`: `control` and `batches` of `perturbcore.data.effects.ba_ate`; `labels`: `variant`,
    `min_cells` and `test` of `perturbcore.data.deg.labels.deg_labels`; `folds`: number and seed.
    """
    folds = dict(zip(("n_folds", "seed"), folds, strict=True))
    if task == "lfc":
        responses = responses_of(screen, **effects, **folds)
        note = f"{effects['control']} control"
    else:
        responses = labels_of(screen, dataset=f"{name}_deg", **labels, **folds)
        share = (responses.layers["deg"] != 0).mean()
        where = "" if labels["variant"] == "pooled" else " on a plate"
        note = f"more than {labels['min_cells']} cells{where}; {share:.1%} of labels are not 0"
    card.responses(responses, f"{responses.n_obs} rows of perturbation and cell line: {note}")
    extras = {"simulation": simulation}
    if hasattr(simulation, "drugs"):
        extras["drugs"] = simulation.drugs
    return make_dataset(responses, card, screen=screen, extras=extras)
