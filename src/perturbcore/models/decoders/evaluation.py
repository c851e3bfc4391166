"""A generator of cells as a model of log fold-changes: trained, sampled, averaged and scored by fold."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.responses import rows_of
from perturbcore.embeddings.base import align
from perturbcore.models.decoders.cells import Cells, batch_mean
from perturbcore.models.decoders.generators import Generator, Training, generate
from perturbcore.score.joint import Prediction
from perturbcore.score.store import write_atomically

BATCHES = ("line", "own")


@dataclass
class Generated:
    """Generated cells of a fold, as far as they are kept, and how the training went.

    Attributes
    ----------
    perturbation, batch : ndarray of str, shape (n,)
        What each cell is of; the batch of the control cell it was made from.
    X : ndarray of float32, shape (n, n_genes)
        Kept in half precision.
    history : DataFrame
        One row an epoch; empty where nothing was trained in epochs.
    """

    perturbation: np.ndarray
    batch: np.ndarray
    X: np.ndarray
    history: pd.DataFrame


class DecoderModel:
    """A model for `perturbcore.score.joint.evaluate_joint` that generates cells, one model a cell line.

    For a fold it learns from control cells and cells of training perturbations. For each test
    perturbation, control cells are drawn within each batch and carried over; the generated cells are
    averaged by batch, then over batches, and the global control pseudobulk is subtracted. A test
    perturbation without an embedding gets the mean training response, as everywhere in the protocol.

    Parameters
    ----------
    cells : Cells
        All cells of the screen; those of test perturbations are never handed to the generator.
    make : callable
        ``make()`` gives a fresh `Generator`.
    name, modality, predictor : str
        Columns of the scores.
    embedding : Embedding, optional
        Of the perturbations; without one every perturbation is the same to the generator, which only
        suits shifts that need none.
    cells_per_batch : int
        Control cells carried over in each batch.
    batches : {"line", "own"}
        In which batches: all of the line that have controls (as published), or those of the test
        perturbation, which tells the model something about its design that kNN is not told.
    keep, keep_cells : int
        Of how many test perturbations of a fold generated cells are kept, and how many of each.
    folder : Path, optional
        Where they and the checkpoints go.
    seed : int

    References
    ----------
    Cole et al. 2026, Methods 4.7.4.
    """

    joint = False

    def __init__(
        self,
        cells: Cells,
        make: Callable[[], Generator],
        *,
        name: str,
        predictor: str,
        modality: str = "Advanced",
        embedding=None,
        cells_per_batch: int = 100,
        batches: str = "line",
        keep: int = 40,
        keep_cells: int = 120,
        folder: Path | None = None,
        seed: int = 0,
    ):
        if batches not in BATCHES:
            raise ParameterError(f"batches={batches!r}: choose one of {', '.join(BATCHES)}")
        self.cells, self.make, self.embedding = cells, make, embedding
        self.name, self.modality, self.predictor = name, modality, predictor
        self.cells_per_batch, self.batches, self.seed = int(cells_per_batch), batches, seed
        self.keep, self.keep_cells = int(keep), int(keep_cells)
        self.folder = Path(folder) if folder is not None else None

    @property
    def spec(self) -> dict:
        """What decides the predictions; how many cells are kept does not."""
        own = {"cells_per_batch": self.cells_per_batch, "batches": self.batches, "seed": self.seed}
        return {**own, "generator": self.make().spec}

    @property
    def digest(self) -> str:
        """Content of the cells and of the embedding."""
        return digest(
            self.cells.digest, self.embedding.digest if self.embedding is not None else ""
        )

    def fit_predict(self, train: AnnData, test: AnnData, *, fold: int) -> Prediction:
        """Train, generate, average: see the class.

        Raises
        ------
        LeakError
            A test perturbation is among the training ones.
        InputError
            Genes or cell lines of the responses are not those of the cells.
        """
        line, names, lost = self._check(train, test)
        generator = self.make()
        started = time.perf_counter()
        data = self._training(train, names, line, fold)
        generator.fit(data)
        trained = time.perf_counter()
        mean = np.asarray(train.X, dtype=np.float64).mean(axis=0)
        values = np.tile(mean, (test.n_obs, 1))
        level = self.cells.control_level(line)
        drawn = self._drawn(line, [p for p in names if p not in lost], fold)
        chosen = sorted(drawn)
        kept = set(
            np.array(chosen)[
                np.linspace(0, len(chosen) - 1, min(self.keep, len(chosen))).astype(int)
            ]
        )
        parts = []
        at = {p: i for i, p in enumerate(names)}
        for name, cells in generate(
            generator, lambda rows: self.cells.X[rows], drawn, chosen, data.seed
        ):
            batch = self.cells.batch[drawn[name]]
            values[at[name]] = batch_mean(cells, batch) - level
            if name in kept:
                few = _few(batch, self.keep_cells)
                parts.append((np.full(len(few), name), batch[few], cells[few]))
        sampled = time.perf_counter()
        self._save(train, test, fold, parts, generator.history)
        note = {
            "train_seconds": round(max(trained - started, generator.seconds), 3),
            "sample_seconds": round(sampled - trained, 3),
            "sampled_cells": int(sum(len(r) for r in drawn.values())),
            "training_cells": int(data.controls.shape[0] + data.cells.shape[0]),
        }
        known = (len(names) - len(lost) + len(set(data.perturbation))) / (len(names) + train.n_obs)
        return Prediction(
            values.astype(np.float32), chosen=generator.chosen, coverage=known, note=note
        )

    def generated(self, responses: AnnData, line: str, fold: int) -> Generated:
        """Return the cells kept of a fold; they are made again where the folder does not have them."""
        here = rows_of(responses, line)
        held = here.obs["fold"].to_numpy().astype(int) == fold
        train, test = here[~held].copy(), here[held].copy()
        path = self._path(train, test, fold)
        if path is None:
            raise ParameterError(f"model '{self.name}' keeps no cells: give it a folder")
        if not path.exists():
            self.fit_predict(train, test, fold=fold)
        with np.load(path, allow_pickle=False) as file:
            history = pd.DataFrame({c: file[f"history_{c}"] for c in file["history"].tolist()})
            return Generated(
                file["perturbation"], file["batch"], file["X"].astype(np.float32), history
            )

    def _check(self, train, test):
        lines = sorted(
            set(test.obs["cell_line"].astype(str)) | set(train.obs["cell_line"].astype(str))
        )
        if len(lines) != 1:
            raise InputError(f"model '{self.name}' serves one cell line at a time, not {lines}")
        if list(train.var_names) != list(self.cells.genes):
            raise InputError(
                f"model '{self.name}': the genes of the responses are not those of the cells; make the cells "
                "with Cells.of(screen, responses.var_names)"
            )
        names = list(test.obs["perturbation"].astype(str))
        lost = set() if self.embedding is None else set(names) - set(self.embedding.ids)
        return lines[0], names, lost

    def _training(self, train, held_out, line, fold) -> Training:
        names = list(train.obs["perturbation"].astype(str))
        wanted = [*names, *held_out]
        vectors = pd.DataFrame(np.zeros((len(wanted), 1), dtype=np.float32), index=wanted)
        if self.embedding is not None:
            X, present = align(self.embedding, wanted)
            vectors = pd.DataFrame(X[present], index=np.array(wanted, dtype=object)[present])
        if not vectors.index.isin(names).any():
            raise InputError(
                f"model '{self.name}': no training perturbation of '{line}' has an embedding"
            )
        controls = self.cells.controls(line)
        rows = self.cells.training(line, [p for p in names if p in vectors.index], held_out)
        if not len(rows):
            raise InputError(f"model '{self.name}': no cells of training perturbations in '{line}'")
        return Training(
            controls=self.cells.X[controls],
            cells=self.cells.X[rows],
            control_batch=self.cells.batch[controls],
            cell_batch=self.cells.batch[rows],
            perturbation=self.cells.perturbation[rows],
            responses=train,
            vectors=vectors,
            test=held_out,
            seed=self._seed(line, fold),
            folder=self.folder / "training" if self.folder is not None else None,
        )

    def _seed(self, line: str, fold: int) -> int:
        return int(digest(self.seed, line, int(fold))[:7], 16)

    def _drawn(self, line, names, fold) -> dict:
        seed = self._seed(line, fold)
        if self.batches == "line":
            return dict.fromkeys(names, self.cells.draw_controls(line, self.cells_per_batch, seed))
        own = {p: set(self.cells.batch[self.cells.of_perturbations(line, [p])]) for p in names}
        return {
            p: self.cells.draw_controls(line, self.cells_per_batch, seed, own[p]) for p in names
        }

    def _path(self, train, test, fold) -> Path | None:
        if self.folder is None:
            return None
        who = [list(part.obs["perturbation"].astype(str)) for part in (train, test)]
        lines = list(train.obs["cell_line"].astype(str))[:1]
        kept = (self.keep, self.keep_cells)
        key = digest(
            self.spec, self.digest, train.X, *who, lines, int(fold), kept, code_digest(type(self))
        )
        return self.folder / "cells" / f"{self.predictor}-{key}.npz"

    def _save(self, train, test, fold, parts, history) -> None:
        path = self._path(train, test, fold)
        if path is None or not parts:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        names, batch, X = (np.concatenate(p) for p in zip(*parts, strict=True))
        curves = {} if history is None else {f"history_{c}": history[c].to_numpy() for c in history}
        columns = np.array([] if history is None else list(history.columns), dtype=str)
        buffer = io.BytesIO()
        np.savez(
            buffer, perturbation=names.astype(str), batch=batch.astype(str), X=X.astype(np.float16),
            history=columns, **curves,
        )  # fmt: skip
        write_atomically(path, buffer.getvalue())


def _few(batch, n: int) -> np.ndarray:
    """Return the rows of the first cells of each batch, about `n` in all."""
    names, code = np.unique(batch, return_inverse=True)
    each = max(1, -(-n // len(names)))
    return np.concatenate([np.flatnonzero(code == i)[:each] for i in range(len(names))])
