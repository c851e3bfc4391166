"""Score models that make all predictions of a fold by themselves, with the metrics of `evaluate`.

`evaluate` asks one embedding at a time and reduces it for the predictor. A model that takes several
embeddings, cells or a graph, or all cell lines at once, needs none of that: it gets the responses of
the training perturbations, and the names of those to be predicted.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
from anndata import AnnData
from tqdm import tqdm

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.folds import check_disjoint, check_leakage
from perturbcore.data.responses import cell_lines as lines_in
from perturbcore.data.responses import check_responses, rows_of
from perturbcore.models.simple.labels import pair_labels
from perturbcore.score.group import lfc_metrics
from perturbcore.score.metrics.deg import deg_metrics
from perturbcore.score.metrics.registry import metric, metrics_of
from perturbcore.score.model import Prediction
from perturbcore.score.run import PAIR_TARGETS, _check_metrics, stamp
from perturbcore.score.store import ScoreStore, UnitResult


class JointModel(Protocol):
    """What `evaluate_joint` asks of a model.

    Attributes
    ----------
    name, modality, predictor : str
        Columns `embedding`, `modality`, `predictor` of the scores.
    spec : dict
        Every hyperparameter and the seed, as plain values.
    digest : str
        Content of what the model learns from besides the responses.
    joint : bool
        Whether one model serves all cell lines; their folds must then agree.
    """

    name: str
    modality: str
    predictor: str
    spec: dict
    digest: str
    joint: bool

    def fit_predict(self, train: AnnData, test: AnnData, *, fold: int) -> Prediction:
        """Learn from `train`, predict the rows of `test`, whose responses are blanked."""


def blanked(test: AnnData) -> AnnData:
    """Copy responses without their values: X is NaN, labels are 0; which labels are asked is kept."""
    out = test.copy()
    out.X = np.full(out.shape, np.nan, dtype=np.float32)
    if "deg" in out.layers:
        out.layers["deg"] = np.zeros(out.shape, dtype=np.int8)
    return out


def evaluate_joint(
    responses: AnnData,
    models: Sequence[JointModel],
    *,
    store: ScoreStore | None = None,
    scope: str | None = None,
    dataset: str | None = None,
    folds: Sequence[int] | None = None,
    cell_lines: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
):
    """Score models that predict whole folds; a unit found in the store is not computed again.

    Parameters
    ----------
    responses : AnnData
        Perturbations x genes; see `perturbcore.data.responses.check_responses`.
    models : sequence of JointModel
        Told apart by name and predictor.
    store, scope, dataset, folds, cell_lines, metrics, seed, progress
        As in `perturbcore.score.run.evaluate`. The units are added to those of `scope`.

    Returns
    -------
    pandas.DataFrame
        Tidy scores, one row a metric, model, cell line and fold.

    Raises
    ------
    LeakError
        A joint model would see a test perturbation in another cell line.
    InputError, ParameterError
        A prediction has the wrong shape or is not finite; two models have one name.
    """
    check_responses(responses)
    check_leakage(responses, joint=any(m.joint for m in models))
    about = responses.uns["perturbcore"]
    kind = "pairs" if about["task"] in PAIR_TARGETS else about["task"]
    _check_metrics(metrics, kind)
    names = [(m.name, m.predictor) for m in models]
    if len(set(names)) < len(names):
        raise ParameterError(f"two models have one name and predictor among {names}: rename one")
    store = store if store is not None else ScoreStore()
    lines = list(cell_lines or lines_in(responses))
    content = {line: digest(line, *_content(rows_of(responses, line))) for line in lines}
    rows = responses.obs["cell_line"].astype(str).isin(lines).to_numpy()
    everything = responses if rows.all() else responses[rows]
    keys, origin = [], stamp()
    for model in models:
        for part in [lines] if model.joint else [[line] for line in lines]:
            here = everything if model.joint else rows_of(responses, part[0])
            there = (
                sorted(set(here.obs["fold"].astype(int)) - {-1}) if folds is None else list(folds)
            )
            for fold in tqdm(there, desc=model.name, disable=not progress, mininterval=1):
                # a joint model learns from every line: each of its units depends on all of them
                identity = {
                    "dataset": dataset or about["dataset"],
                    "task": about["task"],
                    "fold": int(fold),
                    "embedding": model.name,
                    "modality": model.modality,
                    "predictor": model.predictor,
                    "seed": seed,
                }
                shared = digest(identity, [content[line] for line in part], model.spec, model.digest,
                                list(metrics or []), code_digest("perturbcore.score.joint", type(model)))  # fmt: skip
                wanted = {line: digest(shared, line) for line in part}
                keys += wanted.values()
                if len(store.have(wanted.values())) < len(wanted):
                    found = _score_fold(
                        model, here, fold, wanted, identity, metrics or metrics_of(kind)
                    )
                    for r in found:
                        r.about.update(
                            origin, finished=datetime.now(UTC).isoformat(timespec="seconds")
                        )
                    store.put(found)
    store.join(scope or f"{about['dataset']}/{about['task']}", keys)
    return store.scores(keys)


def _content(rows: AnnData) -> list:
    layers = [rows.layers[k] for k in ("deg", "observed") if k in rows.layers]
    fold = rows.obs["fold"].to_numpy().astype(int)
    return [rows.X, *layers, rows.obs["perturbation"].astype(str), fold, list(rows.var_names)]


def _score_fold(model, here, fold, wanted, identity, metrics) -> list[UnitResult]:
    test_rows = here.obs["fold"].to_numpy().astype(int) == fold
    if not test_rows.any():
        raise InputError(f"no perturbation of {', '.join(wanted)} is in fold {fold}")
    train, test = here[~test_rows].copy(), here[test_rows]
    started = time.perf_counter()
    prediction = model.fit_predict(train, blanked(test), fold=int(fold))
    seconds = (time.perf_counter() - started) / len(wanted)
    _check_prediction(prediction, test, model)
    out = []
    for line, key in wanted.items():
        a = (train.obs["cell_line"].astype(str) == line).to_numpy()
        b = (test.obs["cell_line"].astype(str) == line).to_numpy()
        if not b.any():
            continue
        check_disjoint(train.obs["perturbation"][a], test.obs["perturbation"][b])
        values, detail = _score_line(prediction, train[a], test[b], b, line, metrics)
        unit = {
            **identity,
            "cell_line": line,
            "n_train": int(a.sum()),
            "n_test": int(b.sum()),
            "coverage": float(prediction.coverage),
            "chosen": str(prediction.chosen),
            "seconds": round(seconds, 4),
        }
        out.append(UnitResult(key, unit, values, detail, prediction.note))
    return out


def _score_line(prediction, train, test, rows, line, metrics):
    task = test.uns["perturbcore"]["task"]
    if task == "deg":
        label = np.ascontiguousarray(test.layers["deg"])
        return deg_metrics(label, prediction.values[:, rows], list(metrics)), {}
    values = prediction.values[rows]
    if task == "lfc":
        mean = train.X.mean(axis=0, dtype=np.float64).astype(np.float32)
        each = lfc_metrics(np.asarray(test.X, dtype=np.float32), values, mean, list(metrics))
        ids = list(test.obs["perturbation"].astype(str))
        detail = {m: (ids, each[m]) for m in ("L2", "Pearson_delta") if m in each}
        return {m: float(v.mean()) for m, v in each.items()}, detail
    label, asked = pair_labels(test)
    at, gene = np.nonzero(asked)
    label = label[at, gene].astype(np.float64)
    cut = (prediction.threshold or {}).get(line)
    names = [m for m in metrics if cut is not None or m != "macro_F1"]
    score = values[at, gene].astype(np.float64)
    return {m: metric(m).function(label, score, gene, cut) for m in names}, {}


def _check_prediction(prediction: Prediction, test: AnnData, model) -> None:
    values = prediction.values = np.asarray(prediction.values)
    shape = (3, *test.shape) if test.uns["perturbcore"]["task"] == "deg" else test.shape
    if values.shape != shape:
        raise InputError(
            f"model '{model.name}' predicts an array {values.shape}, where {shape} is due"
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"model '{model.name}' predicts NaN or infinity: its training diverged, or it read the "
            "responses of test perturbations, which are blanked; lower its learning rate, or mend it"
        )
