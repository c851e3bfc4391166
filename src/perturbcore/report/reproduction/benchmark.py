"""The published benchmark of log fold-changes on the authors' data, and the error of raw cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, check_choice
from perturbcore.core.profile import load_profile
from perturbcore.data.authors.layout import LAYOUTS, file_of, layout_of, present
from perturbcore.data.authors.raw import raw_screens
from perturbcore.data.authors.read import read_authors_responses
from perturbcore.data.published.tables import load_published
from perturbcore.data.screens.declare import normalise
from perturbcore.embeddings.authors import read_embeddings
from perturbcore.embeddings.controls import random_embedding
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import Protocol
from perturbcore.score.ceiling.ceiling import noise_ceiling
from perturbcore.score.limits import ceiling_scores

METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")
ESTIMATORS = ("knn", "lasso")


@dataclass(frozen=True)
class Benchmark:
    """Scores of the published benchmark, and one line for everything that was left out.

    `simulated`: whether the data were written from simulated cells; `genes`: number of genes by
    data set.
    """

    scores: pd.DataFrame
    notes: tuple[str, ...] = ()
    simulated: bool = False
    genes: Mapping[str, int] = field(default_factory=dict)


def protocol_of(dataset: str) -> Protocol:
    """Components and inner folds of the published benchmark of a data set."""
    order = load_profile("paper").inner_order
    return Protocol(n_components=layout_of(dataset).n_components, inner_order=order)


def score_dataset(
    dataset: str,
    root=None,
    *,
    embeddings: Sequence[str] | None = None,
    estimators: Sequence[str] = ESTIMATORS,
    protocol: Protocol | None = None,
    missing_drugs: str = "error",
    ceiling: pd.DataFrame | None = None,
    cell_lines: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    seed: int = 0,
    **options,
) -> Benchmark:
    """Run the published benchmark of one data set (Cole et al. 2026, Supplemental Methods).

    Embeddings through standardisation, PCA and both estimators, tuned on inner folds; controls.
    `embeddings`: only these, by display or published name; `ceiling`: experimental error of each
    perturbation; adds rows of predictor "experimental_error".
    """
    layout = layout_of(dataset)
    lasso = Linear("lasso", layout.alpha, tolerance=load_profile("paper").lasso_tolerance)
    made = {"knn": KNN(layout.k), "lasso": lasso}
    models = [made[check_choice("estimator", name, ESTIMATORS)] for name in estimators]
    responses = read_authors_responses(dataset, root=root)
    used, left_out = read_embeddings(
        dataset, responses, root, missing_drugs=missing_drugs, names=embeddings
    )
    protocol = protocol or protocol_of(dataset)
    ids = sorted(responses.obs["perturbation"].astype(str).unique())
    drawn = random_embedding(ids, protocol.n_components, seed, identifier=layout.identifier)
    about = responses.uns["perturbcore"]
    unit: dict[str, Any] = dict(cell_lines=cell_lines, folds=folds, seed=seed)
    scores = evaluate_embeddings(
        responses, [*used, drawn], models, protocol=protocol, metrics=METRICS, **unit, **options
    )
    notes = [*about.get("notes", []), *left_out]
    if ceiling is not None:
        # as published, the 0.9 quantile of every metric, of correlations too
        main = ceiling[ceiling["metric"].isin(["L2", "MSE", "MAE"])]
        keys = pd.MultiIndex.from_frame(scores[["cell_line", "fold"]].drop_duplicates())
        kept = pd.MultiIndex.from_frame(responses.obs[["cell_line", "fold"]]).isin(keys)
        try:
            error = ceiling_scores(main, responses[kept])
        except InputError as why:
            notes.append(f"{about['dataset']}: no experimental error, {why}")
        else:
            error = error.assign(dataset=about["dataset"], task=about["task"], seed=0)
            scores = pd.concat([scores, error], ignore_index=True)
    genes = {dataset: responses.n_vars}
    return Benchmark(scores, tuple(notes), bool(about["simulated"]), genes)


def reproduce(
    datasets: Sequence[str] | None = None, root=None, *, scope: str | None = None, **options
) -> Benchmark:
    """Run the published benchmark on every data set, or those named, whose file is there.

    The experimental error of each perturbation is that of the published tables, where they are at
    hand. `root`: folder of the layout; `scope`: see `evaluate_embeddings`; the data set's name is
    added; `options`: see `score_dataset`; each may be a mapping by data set.
    """
    there, left_out = present(root)
    wanted = list(LAYOUTS) if datasets is None else [layout_of(d).name for d in datasets]
    notes = [line for line in left_out if line.split(":")[0] in wanted]
    there = [d for d in there if d in wanted]
    if not there:
        raise InputError(
            f"{file_of(wanted[0], root=root)}: none of the authors' data are there: {notes}"
        )
    ceilings = load_published().ceilings
    done = []
    for dataset in there:
        own: dict[str, Any] = {
            k: v.get(dataset) if isinstance(v, dict) else v for k, v in options.items()
        }
        if ceilings is not None and (ceilings["dataset"] == dataset).any():
            own.setdefault("ceiling", ceilings[ceilings["dataset"] == dataset])
        if scope:
            own["scope"] = f"{scope}/{dataset}"
        done.append(score_dataset(dataset, root, **own))
    scores = pd.concat([one.scores for one in done], ignore_index=True)
    notes += [note for one in done for note in one.notes]
    genes = {name: n for one in done for name, n in one.genes.items()}
    return Benchmark(scores, tuple(notes), any(one.simulated for one in done), genes)


def error_of_raw(
    dataset: str,
    folder,
    *,
    control: str | None = None,
    totals: str = "kept",
    dose: float | None = None,
    n_outer: int | None = None,
    n_inner: int | None = None,
    cell_line: str | None = None,
    backed: bool = True,
    **options,
) -> pd.DataFrame:
    """Compute the experimental error of every perturbation (Cole et al. 2026, Eq. 12).

    `control`: controls of the whole line, or of the same batch; `totals`: chemicals: the published
    error is on cells normalised over kept genes, its effects over all; `n_outer, n_inner`: draws of
    batches and of cells in each; all as published by default. `cell_line`: only this line;
    `options`: of `noise_ceiling`. Returns the published columns.
    """
    layout = layout_of(dataset)
    first = check_choice("totals", totals, ("all", "kept")) == "kept"
    control = check_choice("control", control or layout.error_control, ("global", "matched"))
    outer, inner = layout.trials
    tables, lines = [], set()
    for screen in raw_screens(dataset, folder, filter_first=first, dose=dose, backed=backed):
        here = screen.obs["cell_line"].astype(str)
        lines |= set(here)
        if cell_line is not None:
            screen = screen[np.flatnonzero(here == cell_line)]
            if not screen.n_obs:
                continue
        if not first and "genes" in screen.uns["perturbcore"]:
            screen = normalise(screen)[:, list(screen.uns["perturbcore"]["genes"])]
        draws = dict(n_outer=n_outer or outer, n_inner=n_inner or inner)
        metrics = ("L2",) if layout.chemical else METRICS
        tables.append(noise_ceiling(screen, control=control, metrics=metrics, **draws, **options))
    if not tables:
        raise InputError(
            f"{folder}: no cell line '{cell_line}'; there are: {', '.join(sorted(lines))}"
        )
    keys = ["cell_line", "perturbation", "quantile", "n_batches"]
    wide = pd.concat(tables).pivot(index=keys, columns="metric", values="value").reset_index()
    wide = wide.rename(columns={"perturbation": "pert_id", "n_batches": "n_batches_pert"})
    columns = ["quantile", *METRICS, "pert_id", "n_batches_pert"]
    if wide["cell_line"].nunique() > 1:
        columns.append("cell_line")
    if layout.chemical:
        wide = wide.rename(columns={"L2": "value"})
        wide["cell_line"] = f"{dataset}_" + wide["cell_line"]
        columns = ["quantile", "value", "pert_id", "n_batches_pert", "cell_line"]
    return wide[columns].rename_axis(columns=None)
