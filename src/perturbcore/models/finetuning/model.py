"""Fine-tuning as a model that is scored fold by fold: one training, any pretrained network."""

import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training import Batches, Learner, fit
from perturbcore.score.labels import best_threshold
from perturbcore.score.model import Fold, Model, Prediction
from perturbcore.score.task import Task


class FineTuned(Model):
    """A pretrained network trained on the responses of one cell line at a time, as a `Model`.

    Some training perturbations are set aside; the learning rate, batch size and epoch with the
    least loss on them predict. A perturbation that the network does not know is not trained on, and
    predicted at the mean of all training responses (Cole et al. 2026, sections 4.8.2 and 4.10).

    `lrs, batch_sizes`: to choose from, in perturbations; `folder`: checkpoints of a fold while it
    is trained: a killed run resumes there.

    A subclass brings the network and says how it is used. `validation`: share set aside; `least`:
    with fewer known perturbations the training mean predicts; `together`: perturbations that go
    through the network at once outside training; `stream`: of the draw; `own`: its hyperparameters;
    `numbers`: what the network calls each perturbation, by name.
    """

    validation: float
    least: int
    together = 10**9
    stream: int
    own: dict
    numbers: pd.Series

    def __init__(
        self,
        *,
        name: str,
        modality: str,
        lrs: Sequence[float],
        batch_sizes: Sequence[int],
        epochs: int,
        patience: int | None = None,
        seed: int = 0,
        folder: Path | None = None,
    ):
        if not lrs or min(lrs) <= 0 or not batch_sizes or min(batch_sizes) < 1:
            raise ParameterError(
                f"lrs={list(lrs)} must be above 0, batch_sizes={list(batch_sizes)} at least 1"
            )
        if epochs < 1 or (patience is not None and patience < 1):
            raise ParameterError(f"epochs={epochs} and patience={patience} must be at least 1")
        self.name, self.modality = name, modality
        self.lrs, self.batch_sizes = tuple(map(float, lrs)), tuple(map(int, batch_sizes))
        self.epochs, self.patience, self.seed = epochs, patience, seed
        self.folder = None if folder is None else Path(folder)

    def positions(self, names: Sequence[str]) -> np.ndarray:
        """Return the number of each perturbation in the network, -1 where it has none."""
        return self.numbers.reindex(list(names)).fillna(-1).to_numpy().astype(np.int64)

    def objective(
        self, line: str, data: "TrainingLabels", at: np.ndarray, outputs: list[str], lr: float
    ) -> Learner:
        """Return a fresh copy of the network with a head, to be trained on positions `at`."""
        raise NotImplementedError

    def read(self, at: np.ndarray) -> dict:
        """Return what the objective is called with for some positions."""
        raise NotImplementedError

    @property
    def spec(self) -> dict:
        """Every hyperparameter."""
        names = ("lrs", "batch_sizes", "epochs", "patience", "seed")
        return {"class": type(self).__name__, **self.own} | {k: getattr(self, k) for k in names}

    def fit(self, fold: Fold) -> "FineTuned":
        """Train on the responses of a cell line."""
        (line,) = fold.cell_lines
        if not fold.train.n_obs:
            raise InputError(f"line {line!r} has no training perturbation in fold {fold.number}")
        self.data, names = TrainingLabels(fold), fold.train_ids.to_numpy()
        at = self.positions(names)
        rows = np.flatnonzero(at >= 0)
        self.known, self.network, self.threshold, self.note = len(rows), None, None, {}
        self.chosen = "training mean: the network knows too few of the perturbations"
        if len(rows) < self.least:
            return self
        # by name, so that the order of the file decides nothing
        order = rows[np.argsort(names[rows], kind="stable")]
        stream = np.random.default_rng([self.seed, fold.number, self.stream])
        order = order[stream.permutation(len(order))]
        n_out = max(1, round(self.validation * len(order)))
        held = order[:n_out]
        self._search(fold, line, at, order[n_out:], held)
        if self.data.task.partial:
            known = self.data.known[held]
            score = self._said(at[held])[known]
            self.threshold = {line: best_threshold(self.data.label[held][known], score)}
        return self

    def predict(self, fold: Fold) -> Prediction:
        """Predict the test perturbations; the note says each validation loss."""
        at = self.positions(fold.test_ids)
        asked = np.flatnonzero(at >= 0)
        values = np.repeat(self.data.floor[..., None, :], len(at), axis=-2)
        if self.network is not None and len(asked):
            values[..., asked[:, None], self.data.columns] = self._said(at[asked])
        coverage = (self.known + len(asked)) / (fold.train.n_obs + len(at))
        note = {"covered": len(asked), "missing": len(at) - len(asked)} | self.note
        return Prediction(values, self.threshold, self.chosen, coverage, note)

    def _search(self, fold: Fold, line: str, at, fitted, held) -> None:
        """Train with every combination, and keep the network with the least validation loss."""
        least, losses, folders = np.inf, {}, []
        outputs = list(fold.train.var_names)
        for lr, size in product(self.lrs, self.batch_sizes):
            network = self.objective(line, self.data, at[fitted], outputs, lr)
            folder, key = self._place(fold, line, at, lr, size)
            folders.append(folder)
            check = self._batches(at, held, self.together, False)
            try:
                done = fit(
                    network, self._batches(at, fitted, size, True), check,
                    max_epochs=self.epochs, patience=self.patience, grad_clip=1.0,
                    seed=self.seed + fold.number, folder=folder, key=key,
                )  # fmt: skip
            except InputError:
                continue  # a rate at which training diverges is not chosen
            losses[f"lr {lr:g}, batch {size}"] = loss = float(done.history["val"].min())
            if loss < least:
                least, self.network = loss, network
                self.chosen = f"lr {lr:g}, batch {size}, epoch {done.best_epoch + 1}"
        if self.network is None:
            raise InputError(
                f"model {self.name!r} ({self.predictor}): training diverged with every learning "
                f"rate of {list(self.lrs)} in cell line {line!r}; add smaller ones"
            )
        learning = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        self.note = {"losses": losses, "trainable": learning}
        for folder in filter(None, folders):  # the fold is done: nothing is left to resume
            shutil.rmtree(folder, ignore_errors=True)

    def _batches(self, at, rows, size, shuffle) -> Batches:
        data = self.data

        def make(index):
            chosen = rows[index]
            batch = {"response": torch.as_tensor(data.label[chosen])}
            if data.known is not None:
                batch["known"] = torch.as_tensor(data.known[chosen])
            return batch | self.read(at[chosen])

        return Batches(len(rows), size, make, seed=self.seed, shuffle=shuffle)

    @torch.no_grad()
    def _said(self, at) -> np.ndarray:
        """Return what the network says of some positions."""
        self.network.eval()
        size = self.together
        parts = [at[i : i + size] for i in range(0, len(at), size)]
        found = [self.network(**self.read(part)) for part in parts]
        said, task = torch.cat(found, dim=-2), self.data.task
        if task.classes:
            return torch.softmax(said, dim=0).numpy()
        return (torch.sigmoid(said) if task.partial else said).numpy()

    def _place(self, fold, line, at, lr, size) -> tuple[Path | None, str]:
        if self.folder is None:
            return None, ""
        what = (self.data.label, self.data.known, at, line, fold.number, lr, size)
        key = digest(self.spec, self.digest, *what, code_digest(type(self)))
        return self.folder / f"fine-tuned-{key}", key


def unsquared_l2(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean over perturbations of the Euclidean norm of the error (Cole et al. 2026, Eq. 14, 16)."""
    return (prediction - truth).square().sum(-1).clamp_min(1e-12).sqrt().mean()


class LinearHead(Learner):
    """Responses from embeddings, standardised as `z` (n, d), by a linear head, zero at first.

    Cole et al. 2026, Eq. 17.
    """

    def __init__(self, network, z: np.ndarray, bias, task: Task, lr: float):
        super().__init__()
        self.network, self.task, self.lr = network, task, lr
        bias = torch.as_tensor(np.asarray(bias, dtype=np.float32))
        self.register_buffer("centre", torch.as_tensor(z.mean(axis=0)))
        self.register_buffer("scale", torch.as_tensor(np.maximum(z.std(axis=0), 1e-6)))
        self.weight = nn.Parameter(torch.zeros(*bias.shape, z.shape[1]))
        self.bias = nn.Parameter(bias)

    def embed(self, **read) -> Tensor:
        """Embed what the model read of some positions, (n, d)."""
        raise NotImplementedError

    def forward(self, **read) -> Tensor:
        """Response, log odds, or (3, ...) class scores of positions by genes."""
        z = (self.embed(**read) - self.centre) / self.scale
        return z @ self.weight.mT + self.bias[..., None, :]

    def loss(self, batch) -> dict[str, Tensor]:
        """Un-squared L2 error; or cross-entropy, of pairs over the known labels."""
        found = self(**{k: v for k, v in batch.items() if k not in ("response", "known")})
        label = batch["response"]
        if self.task.classes:
            return {"loss": F.cross_entropy(found.permute(1, 0, 2), label.long() + 1)}
        if not self.task.partial:
            return {"loss": unsquared_l2(found, label)}
        known = batch["known"]
        return {"loss": F.binary_cross_entropy_with_logits(found[known], label[known])}


class TrainingLabels:
    """Training responses in the form of their task, of the genes `columns` that have any."""

    def __init__(self, fold: Fold):
        self.task, self.known = fold.task, None
        task = fold.task
        self.floor = task.floors["train_mean"](fold.truth).astype(np.float32)
        self.columns = np.arange(fold.train.n_vars)
        if not task.partial:
            self.label = fold.truth
            return
        label, known = task.dense_labels(fold.train)
        self.columns = np.flatnonzero(known.any(axis=0))
        self.label = np.ascontiguousarray(label[:, self.columns].astype(np.float32))
        self.known = np.ascontiguousarray(known[:, self.columns])

    def bias(self) -> np.ndarray:
        """Give what a head starts from: the floor of its genes, on the scale of its output."""
        floor = self.floor[..., self.columns]
        if self.task.classes:
            return np.log(floor)
        if not self.task.partial:
            return floor
        inside = np.clip(floor, 1e-4, 1 - 1e-4)
        return np.log(inside / (1 - inside))
