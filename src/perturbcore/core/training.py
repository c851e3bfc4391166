"""Training: what a learner says of itself, its batches, and a loop that survives a kill."""

import inspect
import json
import logging
import math
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.files import replaced


class Learner(lightning.LightningModule):
    """A lightning module that only needs a loss, and a learning rate `lr`."""

    lr: float

    def loss(self, batch) -> dict[str, torch.Tensor]:
        """Return the parts of the loss of a batch; the key "loss" is minimised."""
        raise NotImplementedError

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser: Adam over what learns."""
        learning = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(learning, lr=self.lr, fused=True)

    def validation_loss(self, batch) -> torch.Tensor:
        """Return the loss by which epochs are compared, a mean over the batch."""
        return self.loss(batch)["loss"]

    def schedule(self, optimizer) -> LambdaLR | None:
        """Return a learning-rate scheduler stepped after every batch, or None."""
        return None

    def training_step(self, batch, _):
        """Answer lightning."""
        parts = self.loss(batch)
        self._sums = getattr(self, "_sums", {})
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        return parts["loss"]

    def validation_step(self, batch, _):
        """Answer lightning."""
        value = self.validation_loss(batch)
        self.log("val", value, on_epoch=True, batch_size=_size(batch))

    def configure_optimizers(self):
        """Answer lightning."""
        optimizer = self.optimizer()
        scheduler = self.schedule(optimizer)
        if scheduler is None:
            return optimizer
        scheduler = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def _size(batch) -> int:
    """Examples of a batch: the first dimension of its first tensor."""
    if isinstance(batch, dict):
        batch = list(batch.values())
    while isinstance(batch, list | tuple):
        batch = batch[0]
    return len(batch)


def constant_after_warmup(optimizer, steps: int) -> LambdaLR:
    """Rise linearly from 1e-8 times the learning rate over `steps` batches, then stay."""
    start = 1e-8
    return LambdaLR(optimizer, lambda i: min(1.0, start + (1 - start) * i / max(steps, 1)))


def cosine_after_warmup(optimizer, steps: int, total: int) -> LambdaLR:
    """Rise linearly over `steps` batches, then fall along half a cosine to zero at `total`."""

    def rate(i):
        if i < steps:
            return i / max(steps, 1)
        done = torch.tensor(min(1.0, (i - steps) / max(total - steps, 1)))
        return float(0.5 * (1 + torch.cos(torch.pi * done)))

    return LambdaLR(optimizer, rate)


class Batches:
    """Cut `n` examples into batches by index: the same ones for the same seed and epoch.

    ``make(index)`` or ``make(index, rng)`` makes one; without `shuffle` all epochs are the same.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        make: Callable[..., Any],
        *,
        seed: int = 0,
        shuffle: bool = True,
        steps: int | None = None,
    ):
        if n < 1 or batch_size < 1 or (steps is not None and steps < 1):
            raise ParameterError(
                f"{n} examples in batches of {batch_size} (steps {steps}): each must be at least 1"
            )
        self.n, self.batch_size, self.make = n, batch_size, make
        self.seed, self.shuffle, self.steps = seed, shuffle, steps
        self._draws = len(inspect.signature(make).parameters) > 1

    def __len__(self) -> int:
        return self.steps or -(-self.n // self.batch_size)

    def epoch(self, number: int) -> "_Epoch":
        """Return an iterable over the batches of one epoch."""
        return _Epoch(self, number)

    def indices(self, number: int) -> list[np.ndarray]:
        """Return the example numbers of each batch of an epoch."""
        order = np.arange(self.n)
        if self.shuffle:
            order = np.random.default_rng([self.seed, number, 0]).permutation(self.n)
        if self.steps:
            order = np.resize(order, self.steps * self.batch_size)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]


class _Epoch:
    def __init__(self, batches: Batches, number: int):
        self.batches, self.number = batches, number if batches.shuffle else 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self) -> Iterator:
        b = self.batches
        rng = np.random.default_rng([b.seed, self.number, 1])
        for index in b.indices(self.number):
            yield b.make(index, rng) if b._draws else b.make(index)


WEIGHTS, CHECKPOINT, DONE, KEY = "weights.safetensors", "last.ckpt", "done.json", "key.txt"
# advice on loaders and devices stays out of the pages
for _name in ("lightning.pytorch", "lightning.fabric", "lightning"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Trained:
    """How a training went: a row per epoch, the epoch kept, epochs run, seconds."""

    history: pd.DataFrame
    best_epoch: int
    epochs: int
    seconds: float


def fit(
    learner: Learner,
    train: Batches,
    validation: Batches | None = None,
    *,
    max_epochs: int,
    patience: int | None = None,
    folder: Path | None = None,
    key: str = "",
    grad_clip: float | None = None,
    ema: float | None = None,
    ema_every: int = 1,
    device: str = "auto",
    seed: int = 0,
    checkpoint_seconds: float = 10.0,
) -> Trained:
    """Train `learner` in place; it ends with the best weights, or the last without validation.

    `folder`: keeps a checkpoint and the weights: a killed training resumes there and ends in the
    same weights; `key`: what decides the result; `ema`: decay of the moving average that is kept.
    """
    if patience is not None and validation is None:
        raise ParameterError("patience needs validation batches: give them, or leave patience out")
    folder = _own(folder, key)
    if folder is not None and (folder / DONE).exists():
        return _load(learner, folder)
    keep = _Keep(seed, ema, ema_every, folder, checkpoint_seconds, validation is not None)
    callbacks: list[Callback] = [keep]
    if patience is not None:
        # before our own callback, so that a checkpoint knows of the epoch that it ends
        callbacks.insert(0, EarlyStopping("val", patience=patience, check_finite=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=max_epochs, accelerator=device, devices=1, logger=False,
            callbacks=callbacks, gradient_clip_val=grad_clip, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False, num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1, inference_mode=False,
            use_distributed_sampler=False,
        )  # fmt: skip
        torch.manual_seed(seed)
        old = folder / CHECKPOINT if folder is not None else None
        old = old if old is not None and old.exists() else None
        try:
            data = _Data(train, validation)
            trainer.fit(learner, datamodule=data, ckpt_path=old, weights_only=True)
        except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            if old is not None and not keep.rows:
                raise InputError(
                    f"{old}: not a checkpoint of this model ({error}); delete {folder} to train "
                    "anew"
                ) from error
            raise
    learner.to("cpu")
    learner.load_state_dict(keep.best)
    learner.eval()
    trained = keep.trained()
    if folder is not None:
        _finish(learner, folder, trained)
    return trained


class _Data(lightning.LightningDataModule):
    def __init__(self, train, validation):
        super().__init__()
        self._train, self._validation = train, validation

    def train_dataloader(self):
        return self._train.epoch(self.trainer.current_epoch)

    def val_dataloader(self):
        # plain epoch 0: the same validation batches, and the same draws, in every epoch
        return self._validation.epoch(0) if self._validation is not None else []


class _Keep(Callback):
    """Seed each epoch, keep history, average and best weights, checkpoint now and then."""

    def __init__(self, seed, ema, ema_every, folder, interval, validated):
        self.seed, self.decay, self.every = seed, ema, ema_every
        self.folder, self.interval, self.validated = folder, interval, validated
        self.rows: list[dict] = []
        self.best: dict = {}
        self.best_epoch = -1
        self.average = self._resumed = None
        self.before, self.started, self.saved = 0.0, time.perf_counter(), time.perf_counter()

    def on_fit_start(self, trainer, learner):
        if self.decay is not None:
            self.average = AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
            if self._resumed is not None:
                self.average.load_state_dict(self._resumed)

    def on_train_epoch_start(self, trainer, learner):
        torch.manual_seed(1_000_003 * (self.seed + 1) + trainer.current_epoch)
        learner._sums = {}

    def on_validation_epoch_start(self, trainer, learner):
        torch.manual_seed(self.seed)

    def on_train_batch_end(self, trainer, learner, outputs, batch, batch_idx):
        if self.average is not None and trainer.global_step % self.every == 0:
            self.average.update_parameters(learner)

    # lightning runs validation before this hook, inside the epoch
    def on_train_epoch_end(self, trainer, learner):
        n = max(trainer.num_training_batches, 1)
        row = {"epoch": trainer.current_epoch}
        row |= {f"train_{k}": float(v) / n for k, v in learner._sums.items()}
        if self.validated:
            row["val"] = float(trainer.callback_metrics["val"])
        row["seconds"] = self.seconds()
        wrong = [k for k, v in row.items() if not math.isfinite(v)]
        if wrong:
            raise InputError(
                f"the loss is not finite in epoch {row['epoch']} ({wrong[0]}): lower the learning "
                "rate, or clip the gradient"
            )
        if not self.validated or row["val"] < min((r["val"] for r in self.rows), default=math.inf):
            source = self.average.module if self.average is not None else learner
            self.best = {k: v.detach().to("cpu", copy=True) for k, v in source.state_dict().items()}
            self.best_epoch = row["epoch"]
        self.rows.append(row)
        due = time.perf_counter() - self.saved >= self.interval
        if self.folder is not None and due and not trainer.should_stop:
            with replaced(self.folder / CHECKPOINT) as path:
                trainer.save_checkpoint(path)
            self.saved = time.perf_counter()

    def state_dict(self):
        average = self.average.state_dict() if self.average is not None else None
        own = {"rows": self.rows, "best": self.best, "best_epoch": self.best_epoch}
        return own | {"average": average}

    def load_state_dict(self, state):
        self.rows, self.best, self.best_epoch = state["rows"], state["best"], state["best_epoch"]
        self._resumed = state["average"]
        self.before = self.rows[-1]["seconds"] if self.rows else 0.0

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def trained(self) -> Trained:
        history = pd.DataFrame(self.rows)
        return Trained(history, self.best_epoch, len(self.rows), self.seconds())


def _own(folder, key: str) -> Path | None:
    if folder is None:
        return None
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / KEY
    if not mark.exists():
        mark.write_text(key)
    elif mark.read_text() != key:
        raise ParameterError(
            f"{folder} holds a training with other data or parameters: give another folder, or "
            "delete it"
        )
    return folder


def _finish(learner: Learner, folder: Path, trained: Trained) -> None:
    with replaced(folder / WEIGHTS) as path:
        save_file({k: v.contiguous() for k, v in learner.state_dict().items()}, path)
    with replaced(folder / DONE) as path:
        path.write_text(json.dumps(vars(trained) | {"history": trained.history.to_dict("list")}))
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _load(learner: Learner, folder: Path) -> Trained:
    try:
        learner.load_state_dict(load_file(folder / WEIGHTS))
        about = json.loads((folder / DONE).read_text())
    except Exception as error:  # safetensors and torch raise many kinds on a damaged file
        raise InputError(
            f"{folder}: the weights there do not fit this model ({error}); delete the folder to "
            "train anew"
        ) from error
    learner.eval()
    return Trained(**about | {"history": pd.DataFrame(about["history"])})
