"""The loop: lightning drives it, a folder makes it survive a kill."""

import json
import logging
import os
import pickle
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.learner import Learner

WEIGHTS, CHECKPOINT, DONE, KEY = "weights.safetensors", "last.ckpt", "done.json", "key.txt"


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Attributes
    ----------
    history : pandas.DataFrame
        One row an epoch: `epoch`, `train_<part>` (mean over batches), `val` where there is
        validation, `seconds` since the start.
    best_epoch, epochs : int
        Epoch whose weights were kept; epochs run.
    seconds : float
        Of training, over all the runs that it took.
    """

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
    precision: str = "32-true",
    device: str = "auto",
    seed: int = 0,
    checkpoint_seconds: float = 10.0,
    progress: bool = False,
) -> Trained:
    """Train `learner`; afterwards it holds the best weights.

    Parameters
    ----------
    learner : Learner
        Trained in place.
    train, validation : Batches
        Without validation the last weights are kept.
    max_epochs : int
        Upper limit of epochs.
    patience : int, optional
        Stop after that many epochs without a better validation loss.
    folder : path, optional
        Where a checkpoint and, at the end, the weights are kept. A killed training resumes after the
        last epoch checkpointed and ends in the same weights as an uninterrupted one; a finished one
        is loaded.
    key : str
        What decides the result (data, parameters, code): the content key of the folder.
    grad_clip : float, optional
        Largest norm of the gradient.
    ema : float, optional
        Decay of the exponential moving average of the weights, which is then what is kept;
        validation uses the weights themselves.
    ema_every : int
        Batches between updates of the average.
    precision, device : str
        Lightning's `precision` and `accelerator`.
    seed : int
        All randomness of an epoch starts from (seed, epoch).
    checkpoint_seconds : float
        Shortest time between two checkpoints.
    progress : bool
        Show a bar.

    Returns
    -------
    Trained

    Raises
    ------
    ParameterError
        `folder` belongs to another key, or patience is given without validation.
    InputError
        The loss is not finite, or the checkpoint cannot be read.
    """
    if patience is not None and validation is None:
        raise ParameterError("patience needs validation batches: give them, or leave patience out")
    folder = _own(folder, key)
    if folder is not None and (folder / DONE).exists():
        return _load(learner, folder)
    keep = _Keep(seed, ema, ema_every, folder, checkpoint_seconds, validation is not None)
    callbacks = [keep]
    if patience is not None:
        # after our own callback, so that a checkpoint knows of the epoch that it ends
        callbacks.insert(
            0, EarlyStopping("val", patience=patience, min_delta=0.0, check_finite=False)
        )
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=max_epochs, accelerator=device, devices=1, precision=precision, logger=False,
            callbacks=callbacks, gradient_clip_val=grad_clip, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=progress, num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1, inference_mode=False, use_distributed_sampler=False,
        )  # fmt: skip
        data = _Data(train, validation)
        torch.manual_seed(seed)
        checkpoint = folder / CHECKPOINT if folder is not None else None
        resumed = checkpoint is not None and checkpoint.exists()
        try:
            trainer.fit(
                learner,
                datamodule=data,
                ckpt_path=checkpoint if resumed else None,
                weights_only=True,
            )
        except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            if resumed and not keep.rows:
                raise InputError(
                    f"{checkpoint}: not a checkpoint of this model ({error}); delete {folder} to train anew"
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
    """Seed each epoch, keep the history, the average and the best weights, checkpoint now and then."""

    def __init__(self, seed, ema, ema_every, folder, interval, validated):
        self.seed, self.decay, self.every = seed, ema, ema_every
        self.folder, self.interval, self.validated = folder, interval, validated
        self.rows: list[dict] = []
        self.best: dict = {}
        self.best_epoch, self.average = -1, None
        self.before, self.started, self.saved = 0.0, time.perf_counter(), time.perf_counter()

    def on_fit_start(self, trainer, learner):
        if self.decay is not None:
            self.average = AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
            if getattr(self, "_average_state", None) is not None:
                self.average.load_state_dict(self._average_state)

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
        row["seconds"] = self.before + time.perf_counter() - self.started
        wrong = [k for k, v in row.items() if v != v or v in (float("inf"), float("-inf"))]
        if wrong:
            raise InputError(
                f"the loss is not finite in epoch {row['epoch']} ({wrong[0]}): lower the learning rate, "
                "or clip the gradient"
            )
        best = min((r["val"] for r in self.rows), default=float("inf")) if self.validated else None
        self.rows.append(row)
        if best is None or row["val"] < best:
            source = self.average.module if self.average is not None else learner
            self.best = {k: v.detach().to("cpu", copy=True) for k, v in source.state_dict().items()}
            self.best_epoch = row["epoch"]
        due = time.perf_counter() - self.saved >= self.interval
        if self.folder is not None and due and not trainer.should_stop:
            partial = self.folder / f".{CHECKPOINT}"
            trainer.save_checkpoint(partial)
            os.replace(partial, self.folder / CHECKPOINT)
            self.saved = time.perf_counter()

    def state_dict(self):
        return {
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "average": self.average.state_dict() if self.average is not None else None,
        }

    def load_state_dict(self, state):
        self.rows, self.best, self.best_epoch = state["rows"], state["best"], state["best_epoch"]
        self._average_state = state["average"]
        self.before = self.rows[-1]["seconds"] if self.rows else 0.0

    def trained(self) -> Trained:
        seconds = self.before + time.perf_counter() - self.started
        return Trained(pd.DataFrame(self.rows), self.best_epoch, len(self.rows), seconds)


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
            f"{folder} holds a training with other data or parameters: give another folder, or delete it"
        )
    return folder


def _finish(learner: Learner, folder: Path, trained: Trained) -> None:
    partial = folder / f".{WEIGHTS}"
    save_file({k: v.contiguous() for k, v in learner.state_dict().items()}, partial)
    os.replace(partial, folder / WEIGHTS)
    about = {
        "history": trained.history.to_dict("list"),
        "best_epoch": trained.best_epoch,
        "epochs": trained.epochs,
        "seconds": trained.seconds,
    }
    partial = folder / f".{DONE}"
    partial.write_text(json.dumps(about))
    os.replace(partial, folder / DONE)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _load(learner: Learner, folder: Path) -> Trained:
    try:
        learner.load_state_dict(load_file(folder / WEIGHTS))
        about = json.loads((folder / DONE).read_text())
    except Exception as error:  # safetensors and torch raise many kinds on a damaged file
        raise InputError(
            f"{folder}: the weights there do not fit this model ({error}); delete the folder to train anew"
        ) from error
    learner.eval()
    return Trained(
        pd.DataFrame(about["history"]), about["best_epoch"], about["epochs"], about["seconds"]
    )


@contextmanager
def _quiet():
    """Keep lightning's advice on loaders and devices out of the pages."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
