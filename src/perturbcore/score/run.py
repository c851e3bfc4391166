"""The unit loop: nested cross-validation of every embedding and predictor, resumable."""

from collections.abc import Sequence
from datetime import UTC, datetime

import joblib
import numpy as np
import pandas as pd
from anndata import AnnData
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.folds import check_leakage
from perturbcore.data.responses import cell_lines, check_responses, rows_of
from perturbcore.models.simple import predictor as make_predictor
from perturbcore.models.simple.labels import pair_labels
from perturbcore.score.controls import LABEL_BASELINES, NEGATIVE, Baseline, Idealized
from perturbcore.score.group import score_group
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.plan import Line, Protocol, Unit, check_names, group_units, unit_key
from perturbcore.score.store import ScoreStore

PAIR_TARGETS = ("deg_pairs", "dir_pairs")


def lines_of(
    responses: AnnData, protocol: Protocol, lines: Sequence[str] | None = None
) -> list[Line]:
    """Lay the responses of each cell line out for evaluation.

    Complete labels ("deg") stay -1, 0, 1. Partial ones become 0/1: for "deg_pairs" whether a gene
    is differentially expressed, for "dir_pairs" whether a differentially expressed gene goes up
    (others are unknown).
    """
    out = []
    task = responses.uns["perturbcore"]["task"]
    for name in lines or cell_lines(responses):
        rows = rows_of(responses, name)
        ids = pd.Index(rows.obs["perturbation"].astype(str))
        order = np.argsort(ids) if protocol.inner_order == "id" else np.arange(len(ids))
        rows = rows[order]
        observed = None
        if task in PAIR_TARGETS:
            label, observed = pair_labels(rows)
            Y = label.astype(np.float32)
            used = observed.any(axis=0)
            Y, observed = np.ascontiguousarray(Y[:, used]), np.ascontiguousarray(observed[:, used])
        elif task == "deg":
            Y = np.ascontiguousarray(rows.layers["deg"], dtype=np.int8)
        else:
            Y = np.ascontiguousarray(rows.X, dtype=np.float32)
        fold = rows.obs["fold"].to_numpy().astype(int)
        out.append(Line(name, ids[order], fold, Y, observed))
    return out


def plan_units(
    lines, embeddings, predictors, *, dataset, task, folds, protocol, seed, controls
) -> list[Unit]:
    """List every unit of an evaluation with its content key."""
    units = []
    for line in lines:
        chosen = sorted(set(line.fold[line.fold >= 0])) if folds is None else list(folds)
        served = [e for e in embeddings if e.cell_line in (None, line.name)]
        if "idealized" in controls:
            served = [*served, Idealized.of(line, protocol.n_components, seed)]
        pairs = [(e, p) for e in served for p in predictors]
        names = {"lfc": ("train_mean", "no_change"), "deg": tuple(LABEL_BASELINES)}
        pairs += [(None, Baseline(c)) for c in names.get(task, ("train_mean",)) if c in controls]
        for fold in chosen:
            if not (line.fold == fold).any():
                raise InputError(f"cell line '{line.name}' has no perturbation in fold {fold}")
            for e, p in pairs:
                about = {
                    "dataset": dataset,
                    "task": task,
                    "cell_line": line.name,
                    "fold": int(fold),
                    "embedding": e.name if e is not None else "",
                    "modality": e.modality if e is not None else NEGATIVE,
                    "predictor": p.name,
                    "seed": seed,
                }
                key = unit_key(line, fold, e, p, protocol, about)
                units.append(Unit(line, int(fold), e, p, key, about))
    return units


def evaluate(
    responses: AnnData,
    embeddings: Sequence,
    predictors: Sequence = ("knn",),
    *,
    store: ScoreStore | None = None,
    scope: str | None = None,
    dataset: str | None = None,
    protocol: Protocol | None = None,
    controls: Sequence[str] = ("train_mean", "no_change", "idealized"),
    metrics: Sequence[str] | None = None,
    cell_lines: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Score embeddings and predictors by nested cross-validation.

    Parameters
    ----------
    responses : AnnData
        Perturbations x genes; see `perturbcore.data.responses.check_responses`.
    embeddings : sequence of Embedding
        Aligned by id with the perturbations. One with a `cell_line` serves only that line.
    predictors : sequence of str or Predictor
        Names ("knn", "lasso", "ridge"; for labels "logistic", "knn"; for partial ones also
        "kernel") or predictor objects.
    store : ScoreStore, optional
        Where finished units are kept; a unit found there is not computed again.
    scope : str, optional
        What these units belong to in the store (a chapter); by default dataset and task.
    dataset : str, optional
        Name of the data set in the scores: part of what a unit is. Of the profile in the book; that
        which the responses declare by default.
    protocol : Protocol, optional
        Components, inner folds, order, missing rule.
    controls : sequence of str
        Of "train_mean", "no_change", "idealized"; for labels also "most_frequent" and "prior",
        which is what "train_mean" stands for there.
    metrics : sequence of str, optional
        All metrics of the task by default.
    cell_lines, folds : sequences, optional
        Only these.
    seed : int
        Recorded with each unit; seeds what is random in a control.
    n_jobs : int
        Threads over groups of units. Under ``joblib.parallel_config(backend="dask")`` the groups
        go to the workers of that dask cluster instead.
    progress : bool
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        Tidy scores, one row a metric a unit; columns as `perturbcore.score.store.COLUMNS`.

    Raises
    ------
    LeakError
        A test perturbation would be seen in training.
    InputError, ParameterError
        The responses, an embedding or a parameter is not what it should be.
    """
    protocol = protocol or Protocol()
    check_responses(responses)
    check_leakage(responses)
    about = responses.uns["perturbcore"]
    task = about["task"]
    kind = "pairs" if task in PAIR_TARGETS else task
    models = [_model(p, kind) for p in predictors]
    _check_metrics(metrics, kind)
    embeddings = list(embeddings)
    check_names(embeddings, models)
    there = ["train_mean", "no_change", "idealized"]
    there += [c for c in LABEL_BASELINES if c not in there] if kind == "deg" else []
    unknown = sorted(set(controls) - set(there))
    if unknown:
        raise ParameterError(f"no control '{unknown[0]}'; there are: {', '.join(there)}")
    lines = lines_of(responses, protocol, cell_lines)
    _check_coverage(embeddings, lines)
    units = plan_units(
        lines, embeddings, models, dataset=dataset or about["dataset"], task=task, folds=folds,
        protocol=protocol, seed=seed, controls=controls,
    )  # fmt: skip
    store = store if store is not None else ScoreStore()
    finished = store.have(u.key for u in units)
    missing = [u for u in units if u.key not in finished]
    if missing:
        names = list(metrics or metrics_of(kind))
        detail = [n for n in ("L2", "Pearson_delta") if n in names]
        _compute(missing, lines, store, protocol, names, detail, n_jobs, progress)
    store.claim(scope or f"{about['dataset']}/{task}", [u.key for u in units])
    return store.scores([u.key for u in units])


def _compute(units, lines, store, protocol, metrics, detail, n_jobs, progress):
    pending = {id(u.line) for u in units}
    for line in lines:
        # complete labels are int8: nothing is predicted from their inner products
        if id(line) in pending and line.observed is None and line.Y.dtype != np.int8:
            Y = line.Y.astype(np.float64)
            line.gram = Y @ Y.T
    groups = group_units(units)
    origin = stamp()
    truth: dict = {}
    bar = tqdm(total=len(units), unit="unit", disable=not progress, mininterval=1)
    # one thread a group: BLAS threads inside would only fight for the same cores
    with threadpool_limits(1), bar:
        work = joblib.Parallel(n_jobs, prefer="threads", return_as="generator_unordered")
        for results in work(
            joblib.delayed(score_group)(g, protocol, metrics, detail, truth) for g in groups
        ):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            for r in results:
                r.about.update(origin, finished=now)
            store.put(results)
            bar.update(len(results))


def stamp() -> dict:
    """Columns that say what computed a unit: version, commit, device, time."""
    from perturbcore.core.provenance import record

    about = record()
    return {
        "version": about["perturbcore"],
        "commit": about["commit"] + ("+changes" if about["dirty"] else ""),
        "device": f"{about['cpu']}, {about['cores']} cores",
        "finished": about["started"],
    }


def _model(p, kind):
    if not isinstance(p, str):
        return p
    return make_predictor({"pairs": f"label_{p}", "deg": f"deg_{p}"}.get(kind, p))


def _check_metrics(metrics, kind) -> None:
    for name in metrics or ():
        if metric(name).task != kind:
            raise ParameterError(
                f"metric '{name}' is for {metric(name).task}; here: {', '.join(metrics_of(kind))}"
            )


def _check_coverage(embeddings, lines) -> None:
    for e in embeddings:
        served = [line for line in lines if e.cell_line in (None, line.name)]
        if e.cell_line is not None and not served:
            continue
        if not any(e.ids.isin(line.ids).any() for line in served):
            raise InputError(
                f"embedding '{e.name}' has none of the perturbations: its ids look like "
                f"'{e.ids[0]}', the perturbations like '{served[0].ids[0]}'; convert one to the "
                "other (perturbcore.embeddings.convert.convert_ids)"
            )
