"""The one loop that scores models: nested cross-validation by folds, resumable."""

import copy
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.provenance import computing, record
from perturbcore.core.scheduler import scheduler, spread
from perturbcore.data.folds import check_leakage
from perturbcore.data.responses import cell_lines as lines_in
from perturbcore.data.responses import check_responses, rows_of
from perturbcore.score.model import Fold, Model, fit_predict, predicts
from perturbcore.score.store import ScoreStore, UnitResult
from perturbcore.score.task import Task, task_of

BAR = "{l_bar}{bar}| {n_fmt} of {total_fmt} folds of a model, {elapsed}"


def evaluate(
    responses: AnnData,
    models: Sequence[Model],
    *,
    store: ScoreStore | None = None,
    scope: str | None = None,
    dataset: str | None = None,
    folds: Sequence[int] | None = None,
    cell_lines: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    also: Sequence[UnitResult] = (),
    n_jobs: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Score models on every fold; a unit found in the store is not computed again.

    `scope`: what these units belong to in the store, replacing its earlier ones; `dataset`: name in
    the scores; both by default as the responses declare; `also`: finished units that belong to the
    scope as well, such as ceilings; `n_jobs`: threads over groups of models; with a scheduler
    (`perturbcore.core.scheduler.spread`) workers fit every model. On a published split each unit
    computed is logged (`ScoreStore.scorings`) and notes its `Task.intervals`. Returns tidy scores,
    one row per metric and unit: `perturbcore.score.store.COLUMNS`, and `common` (see
    `ScoreStore.compared`).
    """
    models = list(models)
    check_responses(responses)
    task = task_of(responses)
    names = task.check_metrics(metrics)
    _check_models(models, task)
    lines = list(cell_lines or lines_in(responses))
    asked = responses if cell_lines is None else responses[responses.obs["cell_line"].isin(lines)]
    check_leakage(asked, joint=any(m.joint for m in models), across=task.across)
    dataset = dataset or responses.uns["perturbcore"]["dataset"]
    scope, published = scope or f"{dataset}/{task.name}", _published(responses)
    about = {"dataset": dataset, "task": task.name, "seed": seed}
    jobs = _plan(responses, models, lines, folds, about, [metrics and names, published])
    store = store if store is not None else ScoreStore()
    keys = [key for job in jobs for key in job.keys.values()]
    finished = store.have(keys)
    missing = [job for job in jobs if not finished.issuperset(job.keys.values())]
    if missing:
        # no time left is promised: a fold of one model says nothing of the next model's
        look = dict(bar_format=BAR, mininterval=1, disable=not progress)
        with tqdm(total=len(missing), **look) as bar:
            for results, n in _results(responses, task, missing, names, n_jobs):
                store.put(results, log=scope if published else None)
                bar.update(n)
    store.put(also)
    keys += [unit.key for unit in also]
    store.claim(scope, keys)
    return store.compared(keys)


def _published(responses: AnnData) -> bool:
    """Whether the folds are the split that a benchmark was published with."""
    return bool(responses.uns["perturbcore"].get("published_split", False))


@dataclass(eq=False)
class _Job:
    """One model and fold; a unit, known by its key, of every cell line."""

    model: Model
    number: int
    lines: tuple[str, ...]
    about: dict
    keys: dict[str, str]


def _plan(responses, models, lines, folds, about, options) -> list[_Job]:
    content, numbers = {}, {}
    for line in lines:
        rows = rows_of(responses, line)
        fold = rows.obs["fold"].to_numpy().astype(int)
        layers = [rows.layers[k] for k in sorted(rows.layers)]
        ids = rows.obs["perturbation"].astype(str)
        about_genes = [rows.var] if len(rows.var.columns) else []
        content[line] = digest(line, rows.X, *layers, ids, fold, list(rows.var_names), *about_genes)
        numbers[line] = set(fold[fold >= 0])
    jobs = []
    for model in models:
        served = tuple(line for line in lines if model.cell_line in (None, line))
        code = code_digest("perturbcore.score.evaluate", *getattr(model, "code", [type(model)]))
        joint = model.joint or task_of(responses).across
        for part in [served] if joint and served else [(line,) for line in served]:
            there = sorted(set().union(*(numbers[line] for line in part)))
            for number in there if folds is None else folds:
                here = {**about, "fold": int(number), "embedding": model.name}
                here |= {"modality": model.modality, "predictor": model.predictor}
                # a joint model learns from every line: each of its units depends on all of them
                made_of = [content[line] for line in part]
                method = dict(model.spec), model.digest, options, code, computing()
                shared = digest(here, made_of, *method)
                asked = [line for line in part if number in numbers[line]]
                if not asked:
                    raise InputError(
                        f"cell line {', '.join(map(repr, part))} has nothing in fold {number}"
                    )
                keys = {line: digest(shared, line) for line in asked}
                jobs.append(_Job(model, int(number), part, here, keys))
    return jobs


def _results(responses, task, jobs, names, n_jobs) -> Iterator[tuple[list[UnitResult], int]]:
    """Run the jobs, those of groups in threads, and yield results with the number of jobs done."""
    groups: dict[tuple, list[_Job]] = {}
    alone = []
    for job in sorted(jobs, key=lambda job: job.number):
        if job.model.group is not None:
            groups.setdefault((job.number, job.model.group), []).append(job)
        else:
            alone.append([job])
    cuts, apart = _Cuts(responses, task), [*groups.values()]
    if scheduler():
        apart, alone = apart + alone, []
    # one thread per group: BLAS threads inside would only fight for the same cores
    with threadpool_limits(1):
        for _, done in spread(_run, apart, cuts, names, n_jobs=n_jobs):
            yield done
    for group in alone:
        yield _run(group, cuts, names)


# a fold, and what it hides: per cell line the truth of the test rows and more
Cut = tuple[Fold, dict[str, dict]]


class _Cuts:
    """Folds, cut when first asked for; those of an earlier fold number are let go."""

    def __init__(self, responses: AnnData, task: Task):
        self.responses, self.task = responses, task
        self._made: dict[tuple, Cut] = {}
        self._products: dict[str, np.ndarray | None] = {}
        self._lock = threading.Lock()

    def __reduce__(self):
        # a worker cuts its own folds: less to send than folds that are cut
        return _Cuts, (self.responses, self.task)

    def of(self, job: _Job) -> Cut:
        with self._lock:
            return self._of(job)

    def _of(self, job: _Job) -> Cut:
        key = (job.number, job.lines)
        if key not in self._made:
            self._made = {k: cut for k, cut in self._made.items() if k[0] == job.number}
            self._made[key] = self._cut(job)
        fold = self._made[key][0]
        if job.model.group is not None and len(job.lines) == 1 and "gram" not in vars(fold):
            fold.gram = self._gram(job.lines[0], fold.number)  # for the copies that models get
        return self._made[key]

    def _gram(self, line: str, number: int) -> np.ndarray | None:
        """Cut the training block out of the products of a whole line, which are made once."""
        rows = rows_of(self.responses, line)
        if line not in self._products:
            self._products[line] = self.task.products(self.task.truth(rows))
        gram = self._products[line]
        train = np.flatnonzero(rows.obs["fold"].to_numpy().astype(int) != number)
        return None if gram is None else gram[np.ix_(train, train)]

    def _cut(self, job: _Job) -> Cut:
        fold, hidden = Fold.of(self.responses, job.number, job.lines), {}
        trained, asked = (
            x.obs["cell_line"].astype(str).to_numpy() for x in (fold.train, fold.test)
        )
        for line in job.keys:
            rows = rows_of(self.responses, line)
            test = rows[rows.obs["fold"].to_numpy().astype(int) == job.number]
            whole = len(job.lines) == 1 or self.task.across
            hidden[line] = {
                "at": np.flatnonzero(asked == line),
                "truth": self.task.truth(test),
                "train": fold.truth if whole else fold.truth[np.flatnonzero(trained == line)],
                "memo": {},
            }
        return fold, hidden


def _run(jobs: list[_Job], cuts: _Cuts, names: list[str]) -> tuple[list[UnitResult], int]:
    results: list[UnitResult] = []
    cache: dict = {}
    for job in jobs:
        whole, hidden = cuts.of(job)
        fold = copy.copy(whole)
        fold.cache = cache
        started = time.perf_counter()
        prediction = fit_predict(job.model, fold)
        prediction.values = np.asarray(prediction.values)
        shape, said = fold.task.shape(*fold.test.shape), f"model '{job.model.name}' predicts"
        if prediction.values.shape != shape:
            raise InputError(f"{said} an array {prediction.values.shape}, where {shape} is due")
        if not np.isfinite(prediction.values).all():
            raise InputError(
                f"{said} NaN or infinity: its training diverged, or it read the responses of test "
                "perturbations, which are blanked; lower its rate, or mend it"
            )
        seconds = (time.perf_counter() - started) / len(job.keys)
        for line, key in job.keys.items():
            part = hidden[line]
            asked = prediction.values[..., part["at"], :]
            how = {"train": part["train"], "memo": part["memo"]}
            how["threshold"] = (prediction.threshold or {}).get(line)
            values, each = fold.task.score(part["truth"], asked, names, **how)
            about = job.about | {"cell_line": line, "seconds": round(seconds, 4)}
            about |= {"n_train": len(part["train"]), "n_test": len(part["at"])}
            about |= {"coverage": float(prediction.coverage), "chosen": str(prediction.chosen)}
            about |= stamp()
            ids = fold.test_ids[part["at"]]
            detail, note = {m: (ids, v) for m, v in each.items()}, prediction.note
            if prediction.covered is not None:
                detail["covered"] = (ids, prediction.covered[part["at"]])
            if _published(fold.train):
                note = note | {"intervals": fold.task.intervals(part["truth"], asked)}
            kept = fold.task.kept(part["truth"], asked)
            kept |= {"perturbation": ids.to_numpy(dtype=str)} if kept else {}
            results.append(UnitResult(key, about, values, detail, note, kept))
    return results, len(jobs)


def _check_models(models: Sequence, task: Task) -> None:
    names = [(m.name, m.predictor, m.cell_line) for m in models]
    twice = [n for n in names if names.count(n) > 1]
    if twice:
        raise ParameterError(
            f"two models are called '{twice[0][0]}' and predict by '{twice[0][1]}': rename one, "
            "since scores are told apart by name"
        )
    for model in models:
        if not predicts(model, task):
            raise ParameterError(
                f"{model.name} ({model.predictor}) predicts {', '.join(model.tasks)}, not "
                f"'{task.name}'; leave it out"
            )


def stamp() -> dict:
    """Columns that say what computed a unit: version, commit, device, and the time now."""
    about = record()
    return {
        "version": about["perturbcore"],
        "commit": about["commit"] + ("+changes" if about["dirty"] else ""),
        "device": f"{about['cpu']}, {about['cores']} cores",
        "finished": about["started"],
    }
