"""Fine-tuned encoders of cells as models that the evaluation scores fold by fold."""

import copy
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.fit import fit
from perturbcore.embeddings.cell_models.frozen import encoder_digest, gene_vectors
from perturbcore.embeddings.cell_models.objectives import FrozenHead, IndexingHead, KnockOutHead
from perturbcore.embeddings.cell_models.tokens import ControlCells
from perturbcore.models.finetuning.adapters import LoRA, adapt, trainable
from perturbcore.score.joint import Prediction

LEAST_TRAINING = 5
LRS = (1e-2, 1e-3, 1e-4, 1e-5)
DEFAULT = LoRA()


class CellModel:
    """What the three ways of using an encoder share: validation, learning rate, missing targets.

    In each cell line a share of the training perturbations is set aside; for every learning rate the
    network is trained on the others, and the network and epoch with the least validation error
    predict. Test perturbations take no part. A perturbation whose target is not among the encoder's
    genes is not trained on, and is predicted at the mean of all training responses.

    Parameters
    ----------
    encoder : CellEncoder
        Left as it is: each training works on a copy.
    cells : ControlCells
        With the encoder's genes, of the lines to be predicted.
    lrs : sequence of float
        Learning rates to choose from.
    epochs, batch_size : int
        Batch size in perturbations.
    patience : int, optional
        Stop after that many epochs without a better validation error.
    validation : float
        Share of the training perturbations set aside.
    hidden : sequence of int
        Widths of the head.
    weight_decay : float
    seed : int
    device : str
    name, modality : str
        Columns of the scores.

    References
    ----------
    Cole et al. 2026, 4.10.
    """

    predictor = ""
    task = "lfc"
    joint = False

    def __init__(
        self,
        encoder,
        cells: ControlCells,
        *,
        hidden: Sequence[int] = (1024, 2048),
        lrs: Sequence[float] = LRS,
        epochs: int = 20,
        batch_size: int = 8,
        patience: int | None = None,
        validation: float = 0.2,
        weight_decay: float = 0.0,
        seed: int = 0,
        device: str = "auto",
        name: str = "Cell transformer",
        modality: str = "Expression",
    ):
        if not lrs or min(lrs) <= 0 or epochs < 1 or batch_size < 1 or not 0 < validation < 1:
            raise ParameterError(
                f"lrs={list(lrs)} must be positive, epochs={epochs} and batch_size={batch_size} at least "
                f"1, validation={validation} in (0, 1)"
            )
        self.encoder, self.cells = encoder, cells.take(encoder.genes)
        self.hidden, self.lrs, self.epochs, self.batch_size = (
            tuple(hidden),
            tuple(lrs),
            epochs,
            batch_size,
        )
        self.patience, self.validation, self.weight_decay = patience, validation, weight_decay
        self.seed, self.device, self.name, self.modality = seed, device, name, modality

    @property
    def spec(self) -> dict:
        """Every hyperparameter."""
        own = (
            "hidden",
            "lrs",
            "epochs",
            "batch_size",
            "patience",
            "validation",
            "weight_decay",
            "seed",
        )
        return {"class": type(self).__name__} | {
            k: _plain(getattr(self, k)) for k in (*own, *self.more)
        }

    more: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Content of the encoder and of the control cells."""
        return digest(encoder_digest(self.encoder), self.cells.digest)

    def fit_predict(self, train: AnnData, test: AnnData, *, fold: int) -> Prediction:
        """Train on `train`, line by line, and predict the rows of `test`.

        Parameters
        ----------
        train, test : AnnData
            Responses; of `test` only the names are read.
        fold : int
            Seeds the choice of validation perturbations together with `seed`.

        Returns
        -------
        Prediction
            `coverage`: share of all perturbations whose target is among the encoder's genes.

        Raises
        ------
        ParameterError
            The task is not "lfc", or the control cells lack a line.
        InputError
            Training diverged at every learning rate.
        """
        task = train.uns.get("perturbcore", {}).get("task", "lfc")
        if task != "lfc":
            raise ParameterError(
                f"model {self.name!r} ({self.predictor}) predicts log fold-changes; the task is {task!r}"
            )
        values = np.empty(test.shape, dtype=np.float32)
        chosen, note, known = [], {}, 0
        for line in pd.unique(test.obs["cell_line"].astype(str)):
            a = (train.obs["cell_line"].astype(str) == line).to_numpy()
            b = (test.obs["cell_line"].astype(str) == line).to_numpy()
            Y = np.asarray(train.X[a], dtype=np.float32)
            if not len(Y):
                raise InputError(f"cell line {line!r} has no training perturbation in fold {fold}")
            names = [r.obs["perturbation"].astype(str)[m] for r, m in ((train, a), (test, b))]
            at, asked = (self.encoder.genes.get_indexer(pd.Index(n)) for n in names)
            known += int((at >= 0).sum() + (asked >= 0).sum())
            found, about = self._line(
                line, at, Y, asked, names[0].to_numpy(), list(test.var_names), fold
            )
            values[b] = found
            note[line] = about
            chosen.append(about["chosen"])
        coverage = known / (train.n_obs + test.n_obs)
        return Prediction(values, chosen="; ".join(chosen), coverage=coverage, note=note)

    def _line(self, line, at, Y, asked, names, outputs, fold):
        mean = Y.mean(axis=0, dtype=np.float64).astype(np.float32)
        values = np.tile(mean, (len(asked), 1))
        rows, ask = np.flatnonzero(at >= 0), np.flatnonzero(asked >= 0)
        about = {"covered": len(ask), "missing": int(len(asked) - len(ask))}
        if len(rows) < LEAST_TRAINING or not len(ask):
            return values, about | {"chosen": "training mean: no target among the encoder's genes"}
        # by name, so that the order of the file decides nothing
        order = rows[np.argsort(names[rows], kind="stable")]
        order = order[np.random.default_rng([self.seed, fold, 3]).permutation(len(order))]
        n_out = max(1, int(round(self.validation * len(order))))
        parts = order[n_out:], order[:n_out]
        best = None
        for lr in self.lrs:
            objective = self._objective(line, outputs, mean, lr)
            train, check = (self._batches(at[p], Y[p], shuffle=i == 0) for i, p in enumerate(parts))
            try:
                done = fit(objective, train, check, max_epochs=self.epochs, patience=self.patience,
                           grad_clip=1.0, device=self.device, seed=self.seed + fold)  # fmt: skip
            except InputError:
                continue  # a rate at which training diverges is not chosen
            error = float(done.history["val"].min())
            if best is None or error < best[0]:
                best = error, lr, done.best_epoch, objective
        if best is None:
            raise InputError(
                f"model {self.name!r} ({self.predictor}): training diverged at every learning rate of "
                f"{list(self.lrs)} in cell line {line!r}; add smaller ones"
            )
        error, lr, epoch, objective = best
        values[ask] = self._predict(objective, asked[ask])
        about |= {
            "validation_L2": error,
            "lr": lr,
            "epoch": epoch,
            "trainable": trainable(objective),
        }
        return values, about | {"chosen": f"lr {lr:g}, epoch {epoch + 1}"}

    def _batches(self, at, Y, shuffle):
        target, response = torch.from_numpy(at.astype(np.int64)), torch.from_numpy(Y)

        def make(index):
            return {"target": target[index], "response": response[index]}

        return Batches(
            len(at), self.batch_size if shuffle else 64, make, seed=self.seed, shuffle=shuffle
        )

    @torch.no_grad()
    def _predict(self, objective, asked) -> np.ndarray:
        objective.eval()
        target = torch.from_numpy(asked.astype(np.int64))
        return np.concatenate([objective(part).numpy() for part in target.split(64)])

    def _objective(self, line, outputs, mean, lr):
        raise NotImplementedError

    def _common(self, lr) -> dict:
        return dict(hidden=self.hidden, lr=lr, weight_decay=self.weight_decay, seed=self.seed)

    def _adapted(self):
        encoder = copy.deepcopy(self.encoder)
        return adapt(encoder, self.adapter, seed=self.seed)


class FrozenMLP(CellModel):
    """Ablation: a head on the frozen encoder's gene vectors, averaged over control cells.

    Parameters
    ----------
    max_cells : int
        Control cells averaged; the others as in `CellModel`.
    """

    predictor = "frozen + MLP"
    more = ("max_cells",)

    def __init__(self, encoder, cells, *, max_cells: int = 256, **options):
        super().__init__(encoder, cells, **options)
        self.max_cells = max_cells
        self._vectors: dict = {}

    def _objective(self, line, outputs, mean, lr):
        if line not in self._vectors:
            self._vectors[line] = gene_vectors(
                self.encoder, self.cells, line, max_cells=self.max_cells
            )
        return FrozenHead(self._vectors[line], mean, **self._common(lr))


class Indexing(CellModel):
    """Fine-tuning by indexing: Cole et al. 2026, Eq. 13-14.

    Parameters
    ----------
    adapter : LoRA or None
        None trains every weight of the encoder.
    n_cells, n_eval : int
        See `IndexingHead`; the others as in `CellModel`.
    """

    predictor = "indexing"
    more = ("adapter", "n_cells", "n_eval")

    def __init__(self, encoder, cells, *, adapter: LoRA | None = DEFAULT, n_cells: int = 16,
                 n_eval: int = 128, **options):  # fmt: skip
        super().__init__(encoder, cells, **options)
        self.adapter, self.n_cells, self.n_eval = adapter, n_cells, n_eval

    def _objective(self, line, outputs, mean, lr):
        return IndexingHead(
            self._adapted(), self.cells.of(line), self.cells.position(line), mean,
            n_cells=self.n_cells, n_eval=self.n_eval, **self._common(lr),
        )  # fmt: skip


class InSilicoKO(CellModel):
    """Fine-tuning by in-silico knock-out: Cole et al. 2026, Eq. 15-16.

    Parameters
    ----------
    adapter : LoRA or None
        None trains every weight of the encoder.
    asked : int, optional
        See `KnockOutHead`; the others as in `CellModel`.
    """

    predictor = "in-silico KO"
    more = ("adapter", "asked")

    def __init__(self, encoder, cells, *, adapter: LoRA | None = DEFAULT, asked: int | None = None,
                 hidden: Sequence[int] = (64, 32), epochs: int = 250, **options):  # fmt: skip
        super().__init__(encoder, cells, hidden=hidden, epochs=epochs, **options)
        self.adapter, self.asked = adapter, asked

    def _objective(self, line, outputs, mean, lr):
        position = self.cells.position(line)
        return KnockOutHead(
            self._adapted(), self.cells.mean[position], position, self.cells.genes.get_indexer(outputs),
            mean, asked=self.asked, **self._common(lr),
        )  # fmt: skip


def _plain(value):
    if isinstance(value, LoRA):
        return value.spec
    return list(value) if isinstance(value, tuple) else value
