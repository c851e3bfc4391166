"""From cells or wells to responses with folds, the same way for every data set."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import check_choice
from perturbcore.data.deg import deg_labels
from perturbcore.data.effects import ba_ate, well_effects
from perturbcore.data.folds import add_folds, same_perturbation
from perturbcore.data.responses import dense, make_responses
from perturbcore.data.sets.base import Card, Dataset, check_options, make_dataset


def folded(responses: AnnData, n_folds: int, seed: int, **how) -> AnnData:
    """Add folds, at most one per perturbation; `how`: see `perturbcore.data.folds.add_folds`."""
    names = responses.obs["perturbation"].astype(str)
    n = same_perturbation(names, responses.uns["perturbcore"]["identifier"]).nunique()
    return add_folds(responses, min(n_folds, n), seed, **how)


def responses_of(screen: AnnData, n_folds: int, seed: int) -> AnnData:
    """Effects of a screen by all its controls and batches, with folds."""
    return folded(ba_ate(screen, control="global", batches="all"), n_folds, seed)


def controls_said(screen: AnnData) -> str:
    """Count the control cells of a declared screen in words."""
    return f"{int(screen.obs['is_control'].sum()):,} control cells"


def make_wells(X, obs: pd.DataFrame, genes, **about) -> AnnData:
    """Replicate wells by genes: obs `perturbation`, `batch`, `cell_line`, `is_control`."""
    obs["perturbation"] = obs["perturbation"].mask(obs["is_control"], "control").astype(str)
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    wells = AnnData(dense(X).astype(np.float32), obs=obs, var=var)
    wells.uns["perturbcore"] = {**about, "simulated": False}
    return wells


def responses_of_wells(wells: AnnData, *, control: str, n_folds: int, seed: int) -> AnnData:
    """Mean over plates of `well_effects`, as responses."""
    effects = well_effects(wells, control).groupby(level="perturbation").mean()
    obs = wells.obs[~wells.obs["is_control"].to_numpy()].groupby("perturbation", observed=True)
    table = obs[["cell_line"]].first()
    table.insert(1, "n_cells", obs.size())
    table.insert(2, "n_batches", obs["batch"].nunique())
    table = table.loc[effects.index].rename_axis("perturbation").reset_index()
    about = dict(wells.uns["perturbcore"])
    scale = about.pop("scale")
    out = make_responses(effects.to_numpy(), table, effects.columns, **about)
    out.uns["perturbcore"].update(scale=scale, control=control)
    return folded(out, n_folds, seed)


def simulated_dataset(name: str, simulate, variant: str, given: dict) -> Dataset:
    """Simulate cells, and estimate their effects or label their genes."""
    task, control, options = given["task"], given["control"], given["options"]
    check_choice("task", task, ("lfc", "deg"))
    check_options(simulate.__name__, simulate, options)
    simulation = simulate(**options)
    screen, card, extras = simulation.screen, Card(), {"simulation": simulation}
    if simulation.drugs is None:
        lines = screen.obs["cell_line"].nunique()
        card.step_of("simulated", screen, f"{lines} cell lines; {controls_said(screen)}")
    else:
        extras["drugs"] = simulation.drugs
        card.step_of("simulated", screen, f"all doses; {controls_said(screen)} (vehicle)")
        dose = screen.uns["perturbcore"]["dose"]
        screen = screen[(screen.obs["is_control"] | (screen.obs["dose"] == dose)).to_numpy()].copy()
        card.step_of(f"dose {dose:g} µM", screen, "the dose of the responses, and vehicle")
    if task == "lfc":
        responses = ba_ate(screen, control=control, batches=given["batches"])
        note = f"{control} control"
    else:
        least = given["min_cells"]
        responses = deg_labels(screen, variant=variant, min_cells=least, progress=False)
        responses.uns["perturbcore"]["dataset"] = f"{name}_deg"
        where = "" if variant == "pooled" else " on a plate"
        share = (responses.layers["deg"] != 0).mean()
        note = f"more than {least} cells{where}; {share:.1%} of labels are not 0"
    folded(responses, given["n_folds"], seed=0)
    card.responses(responses, f"{responses.n_obs} rows of perturbation and cell line: {note}")
    return make_dataset(responses, card, screen=screen, extras=extras)
