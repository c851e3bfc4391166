"""What a model must say of itself to be trained, and the batches it is trained on."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from perturbcore.core.errors import ParameterError


class Learner(lightning.LightningModule):
    """A lightning module that only needs a loss, and a learning rate `lr`.

    Subclasses define `loss`; where it is not Adam, `optimizer`; where validation is measured in
    another way than training, `validation_loss`; where the learning rate changes, `schedule`.
    """

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

    ``make(index)`` or ``make(index, rng)`` returns a batch; `shuffle`: permute the examples in each
    epoch; without it every epoch is the same, draws included; `steps`: batches per epoch, from the
    start of the repeated permutation; all examples once by default.
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
