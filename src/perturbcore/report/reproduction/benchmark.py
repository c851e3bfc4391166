"""The published benchmark of log fold-changes, on the authors' data, as published."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.authors import read_embeddings
from perturbcore.data.authors.layout import LAYOUTS, file_of, layout_of, present
from perturbcore.data.authors.read import read_authors_responses
from perturbcore.embeddings.controls import random_embedding
from perturbcore.models.simple import evaluate_embeddings
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.linear import Linear
from perturbcore.models.simple.space import Protocol
from perturbcore.score.ceiling.fold_scores import ceiling_scores
from perturbcore.score.store import ScoreStore

METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")
ESTIMATORS = ("knn", "lasso")


@dataclass(frozen=True)
class Benchmark:
    """Scores of the published benchmark, and one line for everything that was left out.

    Attributes
    ----------
    scores : pandas.DataFrame
        See `perturbcore.models.simple.evaluate_embeddings`.
    notes : tuple of str
    simulated : bool
        Whether the data were written from simulated cells.
    """

    scores: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
    simulated: bool = False


def protocol_of(dataset: str) -> Protocol:
    """Components and inner folds of the published benchmark of a data set."""
    return Protocol(n_components=layout_of(dataset).n_components, inner_order="file")


def estimators_of(dataset: str, names: Sequence[str] = ESTIMATORS) -> list:
    """Estimators of the published benchmark of a data set, with their grids."""
    layout = layout_of(dataset)
    made = {"knn": lambda: KNN(layout.k), "lasso": lambda: Linear("lasso", layout.alpha)}
    unknown = [n for n in names if n not in made]
    if unknown:
        raise ParameterError(f"no estimator '{unknown[0]}' in the benchmark; there are: knn, lasso")
    return [made[n]() for n in names]


def score_dataset(
    dataset: str,
    root=None,
    *,
    responses: AnnData | None = None,
    embeddings: Sequence[str] | None = None,
    estimators: Sequence[str] = ESTIMATORS,
    protocol: Protocol | None = None,
    missing_drugs: str = "error",
    ceiling: pd.DataFrame | None = None,
    store: ScoreStore | None = None,
    scope: str | None = None,
    cell_lines: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool = True,
) -> Benchmark:
    """Run the published benchmark of one data set.

    Embeddings through standardisation, PCA and both estimators, tuned on inner folds; random and
    idealized embedding; Train Mean and No Change; published metrics.

    Parameters
    ----------
    dataset : {"essential", "norman", "sciplex", "tahoe"}
    root : path, optional
        Folder of the layout.
    responses : AnnData, optional
        `read_authors_responses(dataset, root=root)` by default.
    embeddings : sequence of str, optional
        Only these, by display or published name.
    estimators : sequence of {"knn", "lasso"}
    protocol : Protocol, optional
        The published one by default.
    missing_drugs : {"error", "leave_out", "train_mean"}
        See `read_embeddings`.
    ceiling : pandas.DataFrame, optional
        Experimental error of each perturbation; adds rows of predictor "experimental_error".
    store, scope, cell_lines, folds, seed, n_jobs, progress
        See `perturbcore.models.simple.evaluate_embeddings`.

    Returns
    -------
    Benchmark

    References
    ----------
    Cole et al. 2026, Supplemental Methods; Figures 1, S1, S2, S5, S6, S8, S9.
    """
    if responses is None:
        responses = read_authors_responses(dataset, root=root)
    notes = list(responses.uns["perturbcore"].get("notes", []))
    used, left_out = read_embeddings(
        dataset, responses, root, missing_drugs=missing_drugs, names=embeddings
    )
    protocol = protocol or protocol_of(dataset)
    ids = sorted(responses.obs["perturbation"].astype(str).unique())
    identifier = responses.uns["perturbcore"]["identifier"]
    used.append(random_embedding(ids, protocol.n_components, seed, identifier=identifier))
    scores = evaluate_embeddings(
        responses,
        used,
        estimators_of(dataset, estimators),
        store=store,
        scope=scope,
        protocol=protocol,
        metrics=METRICS,
        cell_lines=cell_lines,
        folds=folds,
        seed=seed,
        n_jobs=n_jobs,
        progress=progress,
    )
    if ceiling is not None:
        error, why = experimental_error_rows(ceiling, responses, cell_lines, folds)
        scores = pd.concat([scores, error], ignore_index=True) if len(error) else scores
        notes += why
    simulated = bool(responses.uns["perturbcore"]["simulated"])
    return Benchmark(scores, tuple(notes + left_out), simulated)


def experimental_error_rows(ceiling, responses, lines=None, folds=None):
    """Rows "experimental_error" of the scores, or one line that says why there are none.

    Parameters
    ----------
    ceiling : pandas.DataFrame
        cell_line, perturbation, quantile, metric, value.
    responses : AnnData
    lines, folds : sequences, optional

    Returns
    -------
    rows : pandas.DataFrame
    notes : list of str
    """
    about = responses.uns["perturbcore"]
    keep = (responses.obs["fold"] >= 0).to_numpy()
    if lines is not None:
        keep &= responses.obs["cell_line"].isin(list(lines)).to_numpy()
    if folds is not None:
        keep &= responses.obs["fold"].isin(list(folds)).to_numpy()
    # as published, the 0.9 quantile of every metric, of correlations too
    main = ceiling[ceiling["metric"].isin(["L2", "MSE", "MAE"])]
    try:
        rows = ceiling_scores(main, responses[keep])
    except InputError as error:
        return pd.DataFrame(), [f"{about['dataset']}: no experimental error, {error}"]
    return rows.assign(dataset=about["dataset"], task=about["task"], seed=0), []


def reproduce(
    datasets: Sequence[str] | None = None, root=None, *, published_error: bool = True, **options
) -> Benchmark:
    """Run the published benchmark on every data set whose file is there.

    Parameters
    ----------
    datasets : sequence of str, optional
        All that are there by default.
    root : path, optional
        Folder of the layout.
    published_error : bool
        Whether to take the experimental error of each perturbation from the published tables, where
        they are at hand.
    **options
        See `score_dataset`; `embeddings` and `cell_lines` may be mappings by data set.

    Returns
    -------
    Benchmark

    Raises
    ------
    InputError
        No data set is there.
    """
    there, left_out = present("lfc", root)
    wanted = list(LAYOUTS) if datasets is None else [layout_of(d).name for d in datasets]
    there = [d for d in there if d in wanted]
    notes = [line for line in left_out if line.split(":")[0] in wanted]
    if not there:
        raise InputError(
            f"{file_of(wanted[0], root=root)}: none of the authors' data are there: {notes}"
        )
    ceilings = published_ceilings() if published_error else None
    tables, simulated = [], False
    for dataset in there:
        own = {k: v.get(dataset) if isinstance(v, dict) else v for k, v in options.items()}
        if "scope" in own and own["scope"]:
            own["scope"] = f"{own['scope']}/{dataset}"
        if ceilings is not None and "ceiling" not in own:
            own["ceiling"] = ceilings[ceilings["dataset"] == dataset]
            if own["ceiling"].empty:
                own["ceiling"] = None
        one = score_dataset(dataset, root, **own)
        tables.append(one.scores)
        notes += one.notes
        simulated |= one.simulated
    return Benchmark(pd.concat(tables, ignore_index=True), tuple(notes), simulated)


def published_ceilings() -> pd.DataFrame | None:
    """Return the published experimental error of each perturbation, or None where it is not at hand."""
    from perturbcore.data.published.tables import load_published

    return load_published().ceilings
