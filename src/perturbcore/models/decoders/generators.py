"""What turns control cells into cells of a perturbation: a trained decoder, or a plain shift."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import ParameterError

# cells generated together: a handful of perturbations of a small screen, a part of one of a large
TOGETHER = 8192


@dataclass
class Training:
    """What a generator may learn from: one cell line, one fold.

    Attributes
    ----------
    controls, cells : csr_matrix of float32, shapes (n_control, n_genes), (n_perturbed, n_genes)
    control_batch, cell_batch, perturbation : ndarray of str
        Labels of the rows of `controls` and of `cells`.
    responses : AnnData
        Of all training perturbations.
    vectors : DataFrame, perturbations x d
        Embedding of training and of test perturbations, where there is one.
    test : list of str
        Perturbations to be generated.
    seed : int
    folder : Path, optional
        Where checkpoints go.
    """

    controls: sp.csr_matrix
    cells: sp.csr_matrix
    control_batch: np.ndarray
    cell_batch: np.ndarray
    perturbation: np.ndarray
    responses: AnnData
    vectors: pd.DataFrame
    test: list[str]
    seed: int
    folder: Path | None = None


class Generator(Protocol):
    """What `DecoderModel` asks of a generator.

    Attributes
    ----------
    spec : dict
        Plain values that decide what it generates.
    chosen : str
        What was tuned, for the table.
    history : DataFrame or None
        One row an epoch: `epoch`, `train_loss`, `val`.
    seconds : float
        Of a training that was found finished, 0 where it was not.
    """

    spec: dict
    chosen: str
    history: pd.DataFrame | None
    seconds: float

    def fit(self, data: Training) -> None:
        """Learn."""

    def sample(
        self, controls: sp.csr_matrix, index: np.ndarray, names: Sequence[str], seed: int
    ) -> np.ndarray:
        """Generate one cell from each control cell, for perturbation ``names[index]``: (n, n_genes)."""


class DecoderGenerator:
    """A `perturbcore.models.decoders.model.Decoder` behind the interface of generators.

    Parameters
    ----------
    options : DecoderOptions
    validation : float
        Share of the training perturbations kept out of training to decide when to stop.
    device : str
    """

    def __init__(self, options, validation: float = 0.15, device: str = "auto"):
        self.options, self.validation, self.device = options, validation, device
        self.chosen, self.history, self.seconds = "", None, 0.0

    @property
    def spec(self) -> dict:
        """Options and share of validation perturbations; the device does not decide the result."""
        return {"class": "decoder", "validation": self.validation, **self.options.as_dict()}

    def fit(self, data: Training) -> None:
        """Train on the cells of training perturbations; see `Decoder.fit`."""
        from perturbcore.models.decoders.model import Decoder

        self.decoder = Decoder(self.options, self.device).fit(
            data.controls, data.cells, data.perturbation, data.vectors, validation=self.validation,
            source_batch=data.control_batch, target_batch=data.cell_batch, folder=data.folder, seed=data.seed,
        )  # fmt: skip
        self.vectors = data.vectors
        self.history, self.seconds = self.decoder.trained.history, self.decoder.trained.seconds
        self.chosen = (
            f"epoch {self.decoder.trained.best_epoch + 1} of {self.decoder.trained.epochs}"
        )

    def sample(self, controls, index, names, seed):
        """See `Decoder.sample`."""
        return self.decoder.sample(
            controls, self.vectors.loc[list(names)].to_numpy(), index, seed=seed
        )


class Shift:
    """Control cells moved by a vector a perturbation: what a distribution model must beat.

    Parameters
    ----------
    by : {"knn", "train_mean", "nothing"}
        Where the vector comes from: kNN on the embedding, exactly as `evaluate` has it; the mean
        training response; or no vector, so that controls stay as they are.
    k : sequence of int
        Grid of neighbours.
    n_components : int
        Of the embedding.
    inner_folds : int
        By which k is chosen.

    Notes
    -----
    Shifted values may be below zero, as no expression is; they are left so, because cutting them would
    change the mean that is scored.
    """

    def __init__(
        self,
        by: str = "knn",
        k: Sequence[int] = (20, 40, 60, 80, 100),
        n_components: int = 100,
        inner_folds: int = 5,
    ):
        if by not in ("knn", "train_mean", "nothing"):
            raise ParameterError(f"by={by!r}: choose 'knn', 'train_mean' or 'nothing'")
        self.by, self.k, self.n_components, self.inner_folds = (
            by,
            list(k),
            n_components,
            inner_folds,
        )
        self.chosen, self.history, self.seconds = "", None, 0.0

    @property
    def spec(self) -> dict:
        """Its parameters."""
        own = {"k": self.k, "n_components": self.n_components, "inner_folds": self.inner_folds}
        return {"class": "shift", "by": self.by, **own}

    def fit(self, data: Training) -> None:
        """Compute the vector of each test perturbation."""
        n_genes = data.controls.shape[1]
        self.shift = dict.fromkeys(data.test, np.zeros(n_genes, dtype=np.float32))
        if self.by == "train_mean":
            mean = np.asarray(data.responses.X, dtype=np.float64).mean(axis=0).astype(np.float32)
            self.shift = dict.fromkeys(data.test, mean)
        elif self.by == "knn":
            self._neighbours(data)

    def _neighbours(self, data: Training) -> None:
        from perturbcore.models.simple.base import Targets
        from perturbcore.models.simple.knn import KNN
        from perturbcore.models.simple.space import NestedSpace

        names = data.responses.obs["perturbation"].astype(str).to_numpy()
        order = np.argsort(names)
        order = order[np.isin(names[order], data.vectors.index)]
        test = [p for p in data.test if p in data.vectors.index]
        vectors = data.vectors.astype(np.float32)
        space = NestedSpace(
            vectors.loc[names[order]].to_numpy(), vectors.loc[test].to_numpy(), self.n_components,
            inner_folds=self.inner_folds, inner_seed=42, inner_shuffle=True,
        )  # fmt: skip
        targets = Targets(np.asarray(data.responses.X, dtype=np.float32)[order])
        values, k = KNN(self.k).predict(space, targets)
        self.chosen = str(k)
        self.shift.update(zip(test, values, strict=True))

    def sample(self, controls, index, names, seed):
        """Add the vector of each perturbation to its control cells."""
        move = np.stack([self.shift[name] for name in names])
        return controls.toarray() + move[np.asarray(index)]


def generate(
    generator: Generator, controls, rows_of, names, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Generate cells of one perturbation after the other, several in one call where they are few.

    Parameters
    ----------
    generator : Generator
        Fitted.
    controls : callable
        ``controls(rows)`` gives control cells as CSR.
    rows_of : dict
        Perturbation -> rows of its control cells.
    names : list of str
    seed : int
        Of the draws; the same for the same names in the same order.

    Yields
    ------
    (str, ndarray)
        Perturbation and its generated cells (n, n_genes), in the order of its control cells.
    """
    part: list[str] = []
    size = number = 0
    for name in [*names, None]:
        n = len(rows_of[name]) if name is not None else 0
        if part and (name is None or size + n > TOGETHER):
            index = np.repeat(np.arange(len(part)), [len(rows_of[p]) for p in part])
            rows = np.concatenate([rows_of[p] for p in part])
            made = generator.sample(controls(rows), index, part, seed + number)
            for i, p in enumerate(part):
                yield p, made[index == i]
            part, size, number = [], 0, number + 1
        if name is not None:
            part, size = [*part, name], size + n
