"""Training: options, what a learner says of itself, its batches, a loop that survives a kill."""

import inspect
import json
import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_leaves, tree_map_only

from perturbcore.core.errors import InputError, ParameterError, check_choice, wrong_value
from perturbcore.core.files import read_yaml, replaced


class Learner(nn.Module):
    """A module that only needs a loss, and a learning rate `lr`."""

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
            raise ParameterError(f"n={n}, batch_size={batch_size}, steps={steps}: each at least 1")
        self.n, self.batch_size, self.make = n, batch_size, make
        self.seed, self.shuffle, self.steps = seed, shuffle, steps
        self._draws = len(inspect.signature(make).parameters) > 1

    def __len__(self) -> int:
        return self.steps or -(-self.n // self.batch_size)

    def epoch(self, number: int) -> Iterator:
        """Make the batches of one epoch, one after the other."""
        rng = np.random.default_rng([self.seed, number if self.shuffle else 0, 1])
        for index in self.indices(number):
            yield self.make(index, rng) if self._draws else self.make(index)

    def indices(self, number: int) -> list[np.ndarray]:
        """Return the example numbers of each batch of an epoch."""
        order = np.arange(self.n)
        if self.shuffle:
            order = np.random.default_rng([self.seed, number, 0]).permutation(self.n)
        if self.steps:
            order = np.resize(order, self.steps * self.batch_size)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]


WEIGHTS, CHECKPOINT, DONE, KEY = "weights.safetensors", "last.ckpt", "done.json", "key.txt"


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
    where = "cuda" if device == "auto" and torch.cuda.is_available() else device
    run = _Run(learner.to("cpu" if where == "auto" else where), ema)
    if folder is not None and (folder / CHECKPOINT).exists():
        run.resume(folder / CHECKPOINT)
    before, started = run.seconds, time.perf_counter()
    saved = started
    while len(run.rows) < max_epochs and (patience is None or run.waited < patience):
        number = len(run.rows)
        torch.manual_seed(1_000_003 * (seed + 1) + number)
        row = {"epoch": number} | run.train(train, grad_clip, ema_every)
        if validation is not None:
            torch.manual_seed(seed)
            # plain epoch 0: the same validation batches, and the same draws, in every epoch
            row["val"] = run.validate(validation.epoch(0))
        now = time.perf_counter()
        row["seconds"] = before + now - started
        run.keep(row)
        if folder is not None and now - saved >= checkpoint_seconds:
            with replaced(folder / CHECKPOINT) as path:
                torch.save(run.state(), path)
            saved = time.perf_counter()
    learner.to("cpu")
    learner.load_state_dict(run.best)
    learner.eval()
    trained = Trained(pd.DataFrame(run.rows), run.best_epoch, len(run.rows), run.seconds)
    if folder is not None:
        with replaced(folder / WEIGHTS) as path:
            save_file({k: v.contiguous() for k, v in learner.state_dict().items()}, path)
        about = vars(trained) | {"history": trained.history.to_dict("list")}
        with replaced(folder / DONE) as path:
            path.write_text(json.dumps(about))
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return trained


class _Run:
    """A training under way: everything that a checkpoint holds."""

    def __init__(self, learner: Learner, ema: float | None):
        self.learner, self.optimizer = learner, learner.optimizer()
        self.device = next(learner.parameters()).device
        self.schedule = learner.schedule(self.optimizer)
        self.average = None
        if ema is not None:
            self.average = AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self.rows: list[dict] = []
        self.best: dict = {}
        self.best_epoch, self.waited, self.steps = -1, 0, 0

    @property
    def seconds(self) -> float:
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def train(self, batches: Batches, grad_clip: float | None, ema_every: int) -> dict:
        """Run one epoch; return the mean of each part of the loss over its batches."""
        sums: dict = {}
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        for batch in batches.epoch(len(self.rows)):
            parts = self.learner.loss(self._moved(batch))
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
            self.optimizer.zero_grad()
            parts["loss"].backward()
            if grad_clip is not None:
                nn.utils.clip_grad_norm_(learning, grad_clip)
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            self.steps += 1
            if self.average is not None and self.steps % ema_every == 0:
                self.average.update_parameters(self.learner)
        return {f"train_{name}": float(total) / len(batches) for name, total in sums.items()}

    def _moved(self, batch):
        """Put the tensors of a batch onto the device."""
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to(self.device), batch)

    @torch.no_grad()
    def validate(self, epoch) -> float:
        """Mean validation loss over the examples, without what belongs to training alone."""
        modes = [(module, module.training) for module in self.learner.modules()]
        self.learner.eval()
        total, n = torch.zeros((), device=self.device), 0
        for batch in epoch:
            size = len(tree_leaves(batch)[0])  # examples: the length of the first tensor
            total = total + self.learner.validation_loss(self._moved(batch)) * size
            n += size
        for module, mode in modes:
            module.training = mode
        return float(total / n)

    def keep(self, row: dict) -> None:
        """Note an epoch, and its weights where they are the best."""
        if wrong := [k for k, v in row.items() if not math.isfinite(v)]:
            raise InputError(
                f"{wrong[0]} is not finite in epoch {row['epoch']}: lower lr or clip gradients"
            )
        self.waited += 1
        if "val" not in row or row["val"] < min((r["val"] for r in self.rows), default=math.inf):
            source = self.average.module if self.average is not None else self.learner
            self.best = {k: v.detach().to("cpu", copy=True) for k, v in source.state_dict().items()}
            self.best_epoch, self.waited = row["epoch"], 0
        self.rows.append(row)

    def _parts(self) -> dict:
        """Name what has a state of its own."""
        parts = [self.learner, self.optimizer, self.schedule, self.average]
        return {str(i): part for i, part in enumerate(parts) if part is not None}

    def state(self) -> dict:
        """Return everything that decides how the training goes on."""
        names = ("rows", "best", "best_epoch", "waited", "steps")
        plain = {name: getattr(self, name) for name in names}
        return {"plain": plain, "parts": {k: v.state_dict() for k, v in self._parts().items()}}

    def resume(self, path: Path) -> None:
        """Go on where a killed training was."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state["parts"][name])
            vars(self).update(state["plain"])
        except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path}: not a checkpoint of this model ({error}); delete {path.parent} to train "
                "anew"
            ) from error


def _own(folder, key: str) -> Path | None:
    if folder is None:
        return None
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / KEY
    if not mark.exists():
        mark.write_text(key)
    elif mark.read_text() != key:
        raise ParameterError(f"{folder} holds another training: give another folder, or delete it")
    return folder


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


Share = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel, frozen=True, extra="forbid"):
    """Everything that decides what a method is; a wrong value raises `ParameterError`."""

    def __init__(self, **options: Any):
        try:
            super().__init__(**options)
        except ValidationError as error:
            kind = type(self)
            raise wrong_value(error, kind.__name__, list(kind.model_fields)) from None

    def changed(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return type(self)(**{**self.model_dump(), **changes})

    @classmethod
    def preset(cls, path, *names: str, **changes: Any) -> Self:
        """Return the options that a YAML file has under some names, some of them changed."""
        found = read_yaml(path)
        for name in names:
            check_choice("preset", name, found)
            found = found[name]
        return cls(**{**found, **changes})
