"""What a model is: it learns from a fold and predicts its test perturbations."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.folds import check_disjoint
from perturbcore.data.responses import dense
from perturbcore.score.task import Task, task_of

# all that a model is told of a test perturbation: the number of its cells would tell its effect
ASKED = ["perturbation", "cell_line", "fold"]
NEGATIVE, POSITIVE = "Negative control", "Positive control"
# the control that sees which pairs are labelled, and no more
MASK = "Which pairs are labelled, no embedding"
COVERING = 0.5  # share of the perturbations that an embedding must have a vector for to compete


@dataclass
class Prediction:
    """What a model says of the test perturbations of a fold.

    `values`: as `Task.shape` says; `threshold`: for partial labels cell line -> score from which a
    pair is called positive; `coverage`: share of the perturbations that the model knew anything of;
    `note`: plain values to keep with the unit; `covered`: which test perturbations have a vector,
    (n_test,) bool.
    """

    values: np.ndarray
    threshold: dict[str, float] | None = None
    chosen: str = ""
    coverage: float = 1.0
    note: dict = field(default_factory=dict)
    covered: np.ndarray | None = None


@dataclass(eq=False)
class Fold:
    """What a model gets: the training responses, and the names of the perturbations to predict.

    Nothing of the test responses can be reached from here, not even which of their labels are known
    (benchmarks chose which pairs to label partly by the answer): X of `test` is NaN.
    """

    number: int
    task: Task
    cell_lines: tuple[str, ...]
    train: AnnData
    test: AnnData
    cache: dict = field(default_factory=dict)

    @classmethod
    def of(cls, responses: AnnData, number: int, cell_lines: Sequence[str] | None = None) -> "Fold":
        """Cut a fold from responses, hiding those of its test perturbations."""
        line = responses.obs["cell_line"].astype(str)
        lines = tuple(cell_lines or pd.unique(line))
        here = line.isin(lines).to_numpy()
        test = here & (responses.obs["fold"].to_numpy().astype(int) == number)
        if not test.any():
            raise InputError(
                f"cell line {', '.join(map(repr, lines))} has no perturbation in fold {number}"
            )
        names, task = responses.obs["perturbation"].astype(str), task_of(responses)
        train = here & task.learned(responses.obs, test)
        for name in lines:
            at = (line == name).to_numpy()
            check_disjoint(names[train & at], names[test & at])
        # a copy, with nothing of `uns` but what declares the responses
        part = responses[train]
        copied = AnnData(
            np.array(dense(part.X), dtype=np.float32),
            obs=part.obs.copy(),
            var=part.var.copy(),
            layers={k: np.array(v) for k, v in part.layers.items()},
            uns={"perturbcore": dict(responses.uns["perturbcore"])},
        )
        return cls(int(number), task, lines, copied, blank(responses[test]))

    @cached_property
    def truth(self) -> Any:
        """Training truth in the form of the task: an (n, g) array, or `Labels`."""
        return self.task.truth(self.train)

    @cached_property
    def gram(self) -> np.ndarray | None:
        """Inner products of the training responses (n_train, n_train), where the task has them."""
        return self.task.products(self.truth)

    @cached_property
    def train_ids(self) -> pd.Index:
        """Training perturbations, one per row."""
        return pd.Index(self.train.obs["perturbation"].astype(str))

    @cached_property
    def test_ids(self) -> pd.Index:
        """Test perturbations, one per row."""
        return pd.Index(self.test.obs["perturbation"].astype(str))


def blank(rows: AnnData) -> AnnData:
    """Return what a model is told of test rows: who they are, with NaN for every response."""
    X = np.full(rows.shape, np.nan, dtype=np.float32)
    uns = {"perturbcore": dict(rows.uns["perturbcore"])}
    return AnnData(X, obs=rows.obs[ASKED].copy(), var=rows.var.copy(), uns=uns)


class Model:
    """A method: it learns from a fold and predicts its test perturbations.

    A subclass writes `predict`, and `fit` where learning is a step of its own; every fold gets a
    copy of the model. `name`, `modality`, `predictor`: columns `embedding`, `modality`, `predictor`
    of the scores. `spec`: every hyperparameter and the seed. `digest`: content of what it learns
    from besides the responses. `joint`: whether one model serves all cell lines. `tasks`: names of
    the tasks that it predicts (None: all). `cell_line`: the only line that it serves (None: all).
    `group`: models of one group may share work through `Fold.cache`, and groups run side by side.
    """

    name: str
    modality: str
    predictor: str
    digest: str = ""
    joint: bool = False
    tasks: tuple[str, ...] | None = None
    cell_line: str | None = None
    group: str | None = None

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """Every hyperparameter and the seed: the fields of a dataclass."""
        return spec_of(self, "embeddings", "digest")

    def fit(self, fold: Fold) -> "Model":
        """Learn from the training responses of a fold."""
        return self

    def predict(self, fold: Fold) -> Prediction:
        """Predict the test perturbations of the fold that it was fitted to."""
        raise NotImplementedError


def spec_of(method, *without: str) -> dict[str, Any]:
    """Return the class of a method and, of a dataclass, its fields but for some."""
    own = [f.name for f in fields(method)] if is_dataclass(method) else []
    return {"class": type(method).__name__} | {
        k: getattr(method, k) for k in own if k not in without
    }


def predicts(model, task: Task) -> bool:
    """Whether a model, or a class of models, predicts a task."""
    return model.tasks is None or task.name in model.tasks


def fit_predict(model, fold: Fold) -> Prediction:
    """Run a copy of a model on a fold."""
    return copy.copy(model).fit(fold).predict(fold)
