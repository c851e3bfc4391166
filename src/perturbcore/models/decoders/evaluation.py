"""A generator of cells as a model of log fold-changes: trained, sampled, averaged."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest, seed_of
from perturbcore.core.errors import InputError, LeakError
from perturbcore.core.files import replaced
from perturbcore.data.read import check_table, read_table
from perturbcore.embeddings.base import Embedding, align
from perturbcore.models.decoders.cells import Cells, batch_mean
from perturbcore.models.decoders.model import TrainingCells
from perturbcore.score.model import Fold, Model, Prediction, fit_predict

# cells generated together: a handful of perturbations of a small screen, a part of one of a large
TOGETHER = 8192
# perturbations of a fold of which cells are kept, and cells of each
KEPT, KEPT_CELLS = 40, 120


class Shift:
    """Control cells moved by what a model of responses predicts; values below zero stay."""

    history, seconds = None, 0.0

    def __init__(self, model: Model):
        self.model = model
        self.spec = {"class": "shift", "by": model.predictor, "model": dict(model.spec)}

    def fit(self, data: TrainingCells) -> "Shift":
        """Let the model predict the test perturbations."""
        found = fit_predict(self.model, data.fold)
        self.chosen = found.chosen
        self.shift = dict(zip(data.fold.test_ids, found.values, strict=True))
        return self

    def sample(self, controls, index: np.ndarray, names: Sequence[str], seed: int) -> np.ndarray:
        """Add the vector of each perturbation to its control cells."""
        return controls.toarray() + np.stack([self.shift[name] for name in names])[index]


class DecoderModel(Model):
    """A model that generates cells and is scored as log fold-changes (Cole et al. 2026, 4.7.4).

    Control cells are carried over within each batch, averaged by batch, then over batches, and the
    global control pseudobulk is subtracted. Without an embedding: the mean training response.

    `make`: ``make()`` gives a fresh generator, such as `Decoder` or `Shift`, with ``spec``,
    ``fit(TrainingCells)``, ``sample(controls, index, names, seed)`` (a cell of ``names[index]``
    from each control cell), `chosen` and `history`; `cells_per_batch`: control cells carried over
    in each batch; `folder`: where some generated cells and the checkpoints go.
    """

    def __init__(
        self,
        cells: Cells,
        make: Callable,
        *,
        name: str,
        predictor: str,
        embedding: Embedding,
        folder: Path,
        modality: str = "Advanced",
        cells_per_batch: int = 100,
        seed: int = 0,
    ):
        self.cells, self.make, self.embedding, self.folder = cells, make, embedding, folder
        self.name, self.modality, self.predictor = name, modality, predictor
        self.cells_per_batch, self.seed = int(cells_per_batch), seed

    @property
    def spec(self) -> dict:
        """What decides the predictions; how many cells are kept does not."""
        own = {"cells_per_batch": self.cells_per_batch, "seed": self.seed}
        return own | {"generator": self.make().spec}

    @property
    def digest(self) -> str:
        """Content of the cells and of the embedding."""
        return digest(self.cells.digest, self.embedding.digest)

    def fit(self, fold: Fold) -> "DecoderModel":
        """Train on control cells and cells of training perturbations."""
        if list(fold.train.var_names) != list(self.cells.genes):
            raise InputError(
                f"model '{self.name}': the genes of the responses are not those of the cells; make "
                "the cells with Cells.of(screen, responses.var_names)"
            )
        self.generator, started = self.make(), time.perf_counter()
        self.data = self._training(fold)
        self.generator.fit(self.data)
        self.seconds = max(time.perf_counter() - started, self.generator.seconds)
        return self

    def _training(self, fold: Fold) -> TrainingCells:
        (line,), cells = fold.cell_lines, self.cells
        wanted = [*fold.train_ids, *fold.test_ids]
        X, present = align(self.embedding, wanted)
        vectors = pd.DataFrame(X[present], index=np.array(wanted, dtype=object)[present])
        controls = cells.controls(line)
        rows = cells.of_perturbations(line, fold.train_ids.intersection(vectors.index))
        if not len(rows):
            raise InputError(f"{self.name}: no perturbation of '{line}' has cells and a vector")
        return TrainingCells(
            controls=cells.X[controls],
            cells=cells.X[rows],
            perturbation=cells.perturbation[rows],
            vectors=vectors,
            control_batch=cells.batch[controls],
            cell_batch=cells.batch[rows],
            fold=fold,
            seed=seed_of(self.seed, line, fold.number),
            folder=self.folder / "training",
        )

    def predict(self, fold: Fold) -> Prediction:
        """Generate, average, subtract: see the class."""
        started, data, cells, names = time.perf_counter(), self.data, self.cells, fold.test_ids
        (line,) = fold.cell_lines
        mean = np.asarray(fold.train.X).mean(axis=0, dtype=np.float64)
        values = np.tile(mean, (len(names), 1))
        level = batch_mean(data.controls, data.control_batch)
        chosen = sorted(p for p in names if p in data.vectors.index)
        controls = cells.draw_controls(line, self.cells_per_batch, data.seed)
        batch = cells.batch[controls]
        spread = np.linspace(0, len(chosen) - 1, min(KEPT, len(chosen))).astype(int)
        kept, parts = set(np.array(chosen)[spread]), {}
        # the first cells of each batch
        each = max(1, -(-KEPT_CELLS // len(set(batch))))
        few = np.flatnonzero(pd.Series(batch).groupby(batch).cumcount() < each)
        for name, made in generate(self.generator, cells.X[controls], chosen, data.seed):
            values[names.get_loc(name)] = batch_mean(made, batch) - level
            if name in kept:
                parts[name] = made[few]
        seconds = time.perf_counter() - started
        self._save(fold, parts, batch[few])
        note = {
            "train_seconds": round(self.seconds, 3),
            "sample_seconds": round(seconds, 3),
            "sampled_cells": len(chosen) * len(controls),
            "training_cells": int(data.controls.shape[0] + data.cells.shape[0]),
        }
        known = (len(chosen) + len(set(data.perturbation))) / (len(names) + fold.train.n_obs)
        values = values.astype(np.float32)
        return Prediction(values, chosen=self.generator.chosen, coverage=known, note=note)

    def generated(self, responses: AnnData, line: str, number: int) -> AnnData:
        """Return the cells kept of a fold (made where absent); ``uns["history"]`` by epoch."""
        fold = Fold.of(responses, number, (line,))
        path = self._path(fold)
        if not path.exists():
            copy.copy(self).fit(fold).predict(fold)
        kept = ad.read_h5ad(path)
        kept.X = kept.X.astype(np.float32)
        return kept

    def _path(self, fold: Fold) -> Path:
        who = [list(ids) for ids in (fold.train_ids, fold.test_ids, fold.cell_lines)]
        kept, code = (KEPT, KEPT_CELLS), code_digest(type(self))
        key = digest(self.spec, self.digest, fold.number, fold.train.X, *who, *kept, code)
        return self.folder / "cells" / f"{self.predictor}-{key}.h5ad"

    def _save(self, fold: Fold, parts: dict, batch) -> None:
        path, history = self._path(fold), self.generator.history
        if not parts:
            return
        obs = {"perturbation": np.repeat([*parts], len(batch)), "batch": np.tile(batch, len(parts))}
        index = np.arange(len(obs["batch"])).astype(str)
        kept = AnnData(np.concatenate([*parts.values()]), obs=pd.DataFrame(obs, index, dtype=str))
        kept.X = kept.X.astype(np.float16)
        if history is not None:
            kept.uns["history"] = history.set_axis(history.index.astype(str))
        with replaced(path) as partial:
            kept.write_h5ad(partial)


def generate(generator, controls, names: Sequence[str], seed: int) -> Iterator[tuple]:
    """Yield perturbations and their cells (n, n_genes), several per call where cells are few."""
    n = controls.shape[0]
    per_call = max(1, TOGETHER // n)
    for number, start in enumerate(range(0, len(names), per_call)):
        part = list(names[start : start + per_call])
        index, rows = np.divmod(np.arange(len(part) * n), n)
        made = generator.sample(controls[rows], index, part, seed + number)
        yield from zip(part, made.reshape(len(part), n, -1), strict=True)


class GearsPredictions(Model):
    """Predictions of GEARS, read from a file (Roohani et al. 2024, Nature Biotechnology 42).

    `path`: a table (``.csv``, ``.tsv`` or ``.parquet``) with columns `perturbation`, `fold`,
    optionally `cell_line`, then one per gene. A row is the log fold-change predicted for a
    perturbation by a run that was trained without the perturbations of that fold.
    """

    name, modality, predictor, spec = "GEARS", "Advanced", "gears", {}

    def __init__(self, path: Path | str):
        self.path = Path(path)
        table = read_table(self.path)
        labels = [c for c in ("perturbation", "fold", "cell_line") if c in table]
        needs = "it needs perturbation, fold and one column per gene"
        one_row = [c for c in labels if c != "fold"]
        check_table(table, ("perturbation", "fold"), path, unique=one_row, way_out=needs)
        self.labels = table[labels].astype({c: int if c == "fold" else str for c in labels})
        values = table.drop(columns=labels).apply(pd.to_numeric, errors="coerce")
        self.values = values.astype(np.float32)
        bad = np.argwhere(~np.isfinite(self.values.to_numpy()))
        if len(bad):
            name, gene = self.labels["perturbation"][bad[0, 0]], self.values.columns[bad[0, 1]]
            raise InputError(f"{path}: the prediction of '{name}' for {gene} is not finite")

    @property
    def digest(self) -> str:
        """Content of the file."""
        return digest(self.labels, self.values)

    def predict(self, fold: Fold) -> Prediction:
        """Look the test perturbations up; one that GEARS could not predict gets the Train Mean."""
        genes, names = fold.test.var_names, fold.test_ids
        lost = [g for g in genes if g not in self.values]
        if lost:
            few = f"no prediction for {len(lost)} genes, such as {lost[:3]}"
            raise InputError(f"{self.path}: {few}")
        rows = self.labels[self.labels["perturbation"].isin(names)]
        if "cell_line" in rows:
            rows = rows[rows["cell_line"].isin(fold.cell_lines)]
        for row in rows[rows["fold"] != fold.number].itertuples():
            raise LeakError(
                f"{self.path}: '{row.perturbation}' is in fold {fold.number} here, predicted in "
                f"fold {row.fold}: its cells may have been trained on; run GEARS with these folds"
            )
        if rows.empty:
            raise InputError(f"{self.path}: no prediction for perturbations of fold {fold.number}")
        values = fold.task.floor(fold.truth, len(names))
        at = names.get_indexer(rows["perturbation"])
        values[at] = self.values.loc[rows.index, list(genes)].to_numpy()
        return Prediction(values, chosen="read from a file", coverage=len(rows) / len(names))
