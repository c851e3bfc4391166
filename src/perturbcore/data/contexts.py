"""Responses of several cell lines, laid out for the question what one line tells of another."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.effects import pseudobulk
from perturbcore.data.folds import assign_folds, check_leakage
from perturbcore.data.responses import cell_lines

# how a cell line is new -> the task that says so
SPLITS = {
    "new_line": "cross_context",
    "few_known": "cross_context_few",
    "both_new": "cross_context_new",
}
CONTROL = "control of "  # columns of `var`: mean log expression of the control cells of a line


def context_responses(
    responses: AnnData,
    split: str = "new_line",
    *,
    screen: AnnData | None = None,
    n_known: int = 5,
    seed: int = 0,
) -> AnnData:
    """Lay log fold-changes out by held-out cell line: a fold per line.

    `split`: "new_line"; "few_known": `n_known` of its perturbations are known (fold -1);
    "both_new": perturbations, in two halves, are new with the line; `screen`: its control means
    go into `var`.
    """
    check_choice("split", split, tuple(SPLITS))
    lines = cell_lines(responses)
    if len(lines) < 2:
        raise InputError(f"one cell line ({lines[0]}) tells nothing of another: two are needed")
    out = AnnData(responses.X.copy(), obs=responses.obs.copy(), var=responses.var[[]].copy())
    task = {"task": SPLITS[split]}
    out.uns["perturbcore"] = dict(responses.uns["perturbcore"]) | task
    line, name = (out.obs[c].astype(str) for c in ("cell_line", "perturbation"))
    fold = line.map(dict(zip(lines, range(len(lines)), strict=True))).to_numpy(dtype=int)
    if split == "both_new":
        fold = fold * 2 + assign_folds(name, 2, seed).loc[name].to_numpy()
    rng = np.random.default_rng(seed)
    for one in lines if split == "few_known" else ():
        here = np.flatnonzero(line == one)
        if not 0 < n_known < len(here):
            raise ParameterError(
                f"n_known={n_known}: line '{one}' has {len(here)} perturbations; leave one to ask"
            )
        fold[rng.choice(here, n_known, replace=False)] = -1
    out.obs["fold"] = fold
    check_leakage(out, across=True)
    if screen is not None:
        add_control_profiles(out, _mean_controls(screen))
    return out


def controls_of(data) -> pd.DataFrame | None:
    """Mean log expression of the control cells of each line, lines x genes, of a data set.

    That of the authors where it came with the responses, else of the screen; None without either.
    """
    if (table := data.extras.get("controls")) is None:
        if not data.holds("screen"):
            return None
        table = _mean_controls(data.screen)
    genes = list(data.responses.var_names)
    if lost := sorted(set(genes) - set(table)):
        raise InputError(f"{data.title}: the control profiles lack gene '{lost[0]}'")
    return table[genes]


def _mean_controls(screen: AnnData) -> pd.DataFrame:
    controls = screen[screen.obs["is_control"].to_numpy(bool)]
    bulk = pseudobulk(controls, ("cell_line",))
    lines = bulk.obs["cell_line"].astype(str).to_numpy()
    return pd.DataFrame(np.asarray(bulk.X), index=lines, columns=bulk.var_names)


def add_control_profiles(responses: AnnData, controls: pd.DataFrame) -> None:
    """Write control means (lines x genes) into ``var``, in place."""
    for line in cell_lines(responses):
        if line not in controls.index:
            raise InputError(f"cell line '{line}' has no control profile")
        responses.var[f"{CONTROL}{line}"] = controls.loc[line, responses.var_names]


def control_profiles(var: pd.DataFrame) -> pd.DataFrame:
    """Control means, genes x cell lines, of `add_control_profiles`; no columns where unknown."""
    known = var[[c for c in var.columns if str(c).startswith(CONTROL)]]
    return known.rename(columns=lambda c: c.removeprefix(CONTROL))
