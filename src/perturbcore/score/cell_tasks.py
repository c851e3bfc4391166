"""Embeddings of cells scored in six tasks: splits, validation, units of the store."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import joblib
import numpy as np
import pandas as pd
from anndata import AnnData
from threadpoolctl import threadpool_limits

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError
from perturbcore.embeddings import cells as embedded
from perturbcore.score.evaluate import stamp
from perturbcore.score.metrics import cell_tasks as m
from perturbcore.score.store import ScoreStore, UnitResult

TASK, PUBLISHED = "cell_tasks", "cell_tasks_published"
AS_PUBLISHED = (
    embedded.LOG_PCA,
    embedded.SHUFFLED,
)  # that the corrections matter is shown by these two
SHARE = 0.7  # of batches and perturbations
MOST_MIXED = 1200  # cells around which batches are counted
MODALITY = {embedded.SHUFFLED: "Negative control", embedded.IDEALIZED: "Positive control"}


@dataclass(frozen=True, eq=False)
class CellSplit:
    """Which cells serve what, (n,) bool each; controls are in each part whose batches they are of.

    `train`: training batches and perturbations; `test`: the other batches, same perturbations;
    `held_out`: the other batches and perturbations (of one perturbation: the other batches);
    `half`: perturbations on which post-processing is chosen where a task needs no training, and a
    random half of the controls.
    """

    train: np.ndarray
    test: np.ndarray
    held_out: np.ndarray
    half: np.ndarray


def split_cells(obs: pd.DataFrame, seed: int) -> CellSplit:
    """Split cells by batch (`place`) and perturbation (`label`), 70 % of each for training."""
    rng = np.random.default_rng(seed)
    place, label = obs["place"].to_numpy(dtype=str), obs["label"].to_numpy(dtype=str)
    places, labels = (rng.permutation(np.unique(x)) for x in (place, label[label != ""]))
    if len(places) < 2:
        raise InputError(f"all cells are of batch '{place[0]}': a test on new batches needs two")
    known = np.isin(place, places[: max(1, int(SHARE * len(places)))])
    seen = np.isin(label, labels[: max(1, int(SHARE * len(labels)))])
    control = label == ""
    train = known & (seen | control)
    test = ~known & (np.isin(label, np.unique(label[train])) | control)
    held_out = ~known & (~seen | control) if len(labels) > 1 else ~known
    half = np.isin(label, rng.permutation(labels)[: len(labels) // 2])
    half |= control & (rng.random(len(label)) < 0.5)
    return CellSplit(train, test, held_out, half)


@dataclass(frozen=True, eq=False)
class CellTasks:
    """Six tasks on cells; `relations`: name of a metric -> known pairs (source, target).

    `asked`: only tasks with one of these metrics, and recall (none: all).
    """

    cells: AnnData
    relations: Mapping[str, pd.DataFrame]
    decoder: str = "ridge"
    asked: Sequence[str] = ()

    @property
    def label(self) -> np.ndarray:
        """Perturbation of each cell, "" for controls."""
        return self.cells.obs["label"].to_numpy(dtype=str)

    @cached_property
    def known(self) -> dict[str, pd.DataFrame]:
        """The `relations` among the perturbations of the cells."""
        names = np.unique(self.label)
        return {name: m.pairs_among(pairs, names) for name, pairs in self.relations.items()}

    @property
    def place(self) -> np.ndarray:
        """Batch of each cell."""
        return self.cells.obs["place"].to_numpy(dtype=str)

    def score(
        self, X: np.ndarray, split: CellSplit, part: np.ndarray, seed: int, *,
        published: bool = False,
    ) -> dict[str, pd.Series]:  # fmt: skip
        """Score an embedding (n, d) in all tasks; `part`: cells of those that learn nothing."""
        label, place = self.label, self.place
        how: Any = {"published": published}
        treated = label != ""
        there = split.test if published else part
        out = {}
        mixed = np.flatnonzero(there)
        mixed = np.random.default_rng(seed).permutation(mixed)[:MOST_MIXED]
        if self._wants("ilisi_norm") and len(np.unique(place[mixed])) > 1:
            out["ilisi_norm"] = m.batch_mixing(
                X[mixed], place[mixed], label[mixed], seed=seed, **how
            )
        probe = near = split.train & treated, split.test & treated
        if published:  # with the controls, which are then most of the score
            near = split.train, split.test
        if probe[1].any():
            args, others = ([a[at] for at in part for a in (X, label)] for part in (probe, near))
            if self._wants("linear_top1", "linear_top5"):
                out |= m.linear_probe(*args, seed=seed, **how)
            if self._wants("knn_top1", "knn_top5"):
                out |= m.retrieval(*others, **how)
        names = np.unique(label[treated & (there | published)])
        if len(np.unique(label[treated])) > 1:
            if self._wants("pert_consistency"):
                mean = pd.Series(self.cells.X.mean(axis=0), self.cells.var_names)
                found = m.consistency(
                    X[treated], label[treated], place[treated], expression=mean, seed=seed, **how
                )
                out["pert_consistency"] = found if published else found[found.index.isin(names)]
            for name, pairs in self.known.items():
                out[name] = m.relation_recall(X[treated], label[treated], pairs, among=names, **how)
        if self._wants("spearman", "structural_integrity"):
            out |= self._decoded(X, split, seed, published)
        return out

    def _wants(self, *names: str) -> bool:
        return not self.asked or not set(self.asked).isdisjoint(names)

    def _decoded(self, X, split: CellSplit, seed: int, published: bool) -> dict[str, pd.Series]:
        rows = np.flatnonzero(split.held_out)
        if published:  # every hundredth batch of 512 is scored: of so few cells, one
            rows = np.random.default_rng(seed).permutation(rows)[: m.SCORED]
        Y, label = self.cells.X, self.label
        if not len(rows) or not (label[rows] != "").any():
            return {}
        said = m.decoded(X[split.train], Y[split.train], X[rows], decoder=self.decoder, seed=seed)
        about = self.place[rows], label[rows], label[rows] == ""
        genes = self.cells.var_names
        return {
            "spearman": m.gene_correlation(Y[rows], said, genes, published=published),
            "structural_integrity": m.structural_integrity(
                Y[rows], said, *about, published=published
            ),
        }

    def validation(self, split: CellSplit, seed: int) -> CellSplit:
        """Split the training cells once more: the same tasks where no test cell is seen."""
        none = np.zeros(self.cells.n_obs, bool)
        inner = [none.copy() for _ in range(3)]
        try:
            found = split_cells(self.cells.obs[split.train], seed)
            for mask, own in zip(inner, (found.train, found.test, found.held_out), strict=True):
                mask[np.flatnonzero(split.train)[own]] = True
        except InputError:
            pass  # one training batch: nothing to choose by
        return CellSplit(inner[0], inner[1], inner[2], split.half)


def score_tasks(
    tasks: CellTasks,
    names: Sequence[str],
    *,
    store: ScoreStore,
    scope: str,
    dataset: str,
    seeds: Sequence[int],
    dim: int = 50,
    other: AnnData | None = None,
    processing: Sequence[str] = embedded.PROCESSING,
    n_jobs: int = 1,
) -> tuple[list[str], dict[str, str]]:
    """Score embeddings of cells over repeated splits; finished units are found in the store.

    A unit is an embedding, a post-processing (column `predictor`) and a split (`fold`), floors and
    ceiling raw; its note has the "validation" scores by which post-processing is chosen. The PCA of
    logs and the floor are scored as published too, on the first split. With one way in `processing`
    nothing is chosen, so that all perturbations are asked, not those of one half. Returns the keys
    of the units, and embeddings that cannot be had here with the reason.
    """
    cells, code = tasks.cells, code_digest("perturbcore.score.cell_tasks")
    about = cells.obs[["place", "label"]]
    pairs = {k: v.astype(str) for k, v in tasks.relations.items()}
    asked = [tasks.decoder, sorted(tasks.asked), list(processing), dim, code]
    content = digest(cells.X, about, list(pairs), *pairs.values(), asked)
    content = digest(content, None if other is None else other.X)
    jobs: list[tuple] = []
    left_out: dict[str, str] = {}
    for number, seed in enumerate(seeds):
        jobs += [(number, seed, name, digest(content, seed, name)) for name in names]
    # the units of a job are written at once: the first stands for all
    finished = store.have([k for *_, key in jobs for k in _keys(key)])

    @cache
    def log_pca(seed: int) -> np.ndarray:
        train = split_cells(cells.obs, seed).train
        return embedded.cell_embedding(embedded.LOG_PCA, cells, train, dim=dim, seed=seed)

    def run(number: int, seed: int, name: str, key: str) -> list[UnitResult]:
        started = time.perf_counter()
        split = split_cells(cells.obs, seed)
        learnt = embedded.learnt_from(name, split.train, seed)[1]
        X = ready.get(name)
        try:
            if X is None:
                logs = log_pca(seed) if name in embedded.OF_LOG_PCA else None
                how: Any = dict(dim=dim, seed=seed, other=other, log_pca=logs)
                X = embedded.cell_embedding(name, cells, split.train, **how)
        except InputError as error:
            left_out[name] = str(error)
            return []
        fixed = {"dataset": dataset, "cell_line": "all", "fold": number, "embedding": name,
                 "modality": MODALITY.get(name, "Expression"), "seed": seed, "coverage": 1.0,
                 "chosen": "", "n_train": int(learnt.sum()), "n_test": int(split.test.sum()),
                 "seconds": round(time.perf_counter() - started, 3)}  # fmt: skip
        return [
            unit
            for how in (processing if name not in MODALITY else embedded.PROCESSING[:1])
            for unit in _units(tasks, X, split, seed, how, fixed, key, choose=len(processing) > 1)
        ]

    missing = [job for job in jobs if finished.isdisjoint(_keys(job[-1]))]
    ready = {}
    if any(
        name == embedded.TRANSFORMER for _, _, name, _ in missing
    ):  # reads controls only: once for all
        ready[embedded.TRANSFORMER] = embedded.cell_embedding(
            embedded.TRANSFORMER, cells, np.ones(len(about), bool), dim=dim
        )
    with threadpool_limits(1):
        parts = joblib.Parallel(n_jobs, prefer="threads")(joblib.delayed(run)(*j) for j in missing)
    for units in parts:
        store.put(units)
    keys = [k for *_, key in jobs for k in store.have(_keys(key))]
    store.claim(scope, keys)
    return keys, left_out


def _keys(key: str) -> list[str]:
    return [f"{key}/{how}{end}" for how in embedded.PROCESSING for end in ("", "/published")]


def _units(tasks: CellTasks, X, split, seed, how, fixed, key, choose=True) -> list[UnitResult]:
    """Score one embedding and post-processing of a split, for test and, to choose, validation."""
    control = tasks.label == ""
    X, chosen_by = embedded.post_process(X, tasks.place, control, how), {}
    each = tasks.score(X, split, ~split.half if choose else np.ones(len(X), bool), seed)
    if choose:
        inner = tasks.score(X, tasks.validation(split, seed + 1000), split.half, seed)
        chosen_by = {k: float(v.mean()) for k, v in inner.items()}
    about = fixed | {"task": TASK, "predictor": how} | stamp()
    mean = {k: float(v.mean()) for k, v in each.items() if len(v)}
    detail = {k: (v.index.astype(str), v.to_numpy()) for k, v in each.items() if len(v)}
    units = [UnitResult(f"{key}/{how}", about, mean, detail, {"validation": chosen_by})]
    if choose and fixed["fold"] == 0 and fixed["embedding"] in AS_PUBLISHED:
        told = tasks.score(X, split, ~split.half, seed, published=True)
        told = {k: float(v.mean()) for k, v in told.items() if len(v)}
        units.append(UnitResult(f"{key}/{how}/published", about | {"task": PUBLISHED}, told))
    return units
