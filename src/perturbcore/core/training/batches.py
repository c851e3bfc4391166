"""Batches by index: the same ones for the same seed and epoch, whatever was run before."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from perturbcore.core.errors import ParameterError


class Batches:
    """Cut `n` examples into batches, anew in each epoch.

    `make`: ``make(index)`` or ``make(index, rng)`` returns a batch (tensors, or a dict, tuple
    or list of them) for the example numbers `index`; what it draws must come from `rng`
    (`numpy.random.Generator`); `shuffle`: whether examples are permuted in each epoch; without
    it every epoch is the same, draws included (for validation); `steps`: batches per epoch,
    drawn from the start of the permutation, which is repeated where it is too short; all
    examples once by default.
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
