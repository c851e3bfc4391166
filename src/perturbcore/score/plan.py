"""What is to be computed: units, grouped so that work they share is done once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError


@dataclass(frozen=True)
class Protocol:
    """How embeddings are turned into predictions; the defaults are the published ones.

    Parameters
    ----------
    n_components : int
        Principal components kept (100; Norman 50).
    inner_folds, inner_seed : int
        Inner cross-validation: K-fold.
    inner_shuffle : bool, optional
        Whether inner folds are shuffled; as published by default: for log fold-changes and pairs,
        not for complete labels.
    inner_order : {"id", "file"}
        Order in which training perturbations enter the inner folds: sorted by id, which does not
        depend on the file, or as they lie in the file, as the published code does.
    missing : {"train_mean"}
        A test perturbation without embedding gets the mean of all training responses, or for
        complete labels each gene's most frequent class.
    """

    n_components: int = 100
    inner_folds: int = 5
    inner_seed: int = 42
    inner_shuffle: bool | None = None
    inner_order: str = "id"
    missing: str = "train_mean"

    def __post_init__(self):
        if self.inner_order not in ("id", "file"):
            raise ParameterError(f"inner_order '{self.inner_order}' is not one of: id, file")
        if self.missing != "train_mean":
            raise ParameterError(f"missing '{self.missing}' is not one of: train_mean")
        if self.n_components < 1 or self.inner_folds < 2:
            raise ParameterError("n_components must be at least 1 and inner_folds at least 2")


@dataclass(eq=False)
class Line:
    """Responses of one cell line, laid out for evaluation.

    `Y` (n, g) responses; `ids` perturbations; `fold`; `observed` (n, g) or None; `content` digest.
    """

    name: str
    ids: pd.Index
    fold: np.ndarray
    Y: np.ndarray
    observed: np.ndarray | None = None
    gram: np.ndarray | None = None
    content: str = ""

    def __post_init__(self):
        if not self.content:
            parts = [self.Y] if self.observed is None else [self.Y, self.observed]
            self.content = digest(self.name, self.ids, *parts)

    def rows(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Return row numbers of the training and of the test perturbations of a fold."""
        test = self.fold == fold
        return np.flatnonzero(~test), np.flatnonzero(test)


@dataclass(eq=False)
class Unit:
    """One dataset, task, cell line, fold, embedding, predictor and seed."""

    line: Line
    fold: int
    embedding: Any
    predictor: Any
    key: str
    about: dict = field(default_factory=dict)


@dataclass(eq=False)
class Group:
    """Units that share an embedding, its reduced space, and so the neighbours in it."""

    units: list[Unit]


def unit_key(line: Line, fold: int, embedding, predictor, protocol: Protocol, about: dict) -> str:
    """Content key of a unit: equal names, inputs, parameters and code give an equal key."""
    train, test = line.rows(fold)
    return digest(
        about,
        line.content,
        line.ids[train],
        line.ids[test],
        embedding.digest if embedding is not None else "",
        dict(predictor.spec),
        vars(protocol),
        code_digest("perturbcore.score.run", type(predictor)),
    )


def check_names(embeddings: Sequence, predictors: Sequence) -> None:
    """Refuse two embeddings of one name (and line), or two predictors of one name."""
    seen = pd.Series([(e.name, e.cell_line) for e in embeddings], dtype=object)
    if seen.duplicated().any():
        raise InputError(
            f"two embeddings are called '{seen[seen.duplicated()].iloc[0][0]}': rename one, since "
            "scores are told apart by name"
        )
    names = [p.name for p in predictors]
    if len(set(names)) < len(names):
        raise InputError(f"two predictors have one name among {names}: give one another name=")


def group_units(units: Sequence[Unit]) -> list[Group]:
    """Group units whose training and test perturbations have the same embedding rows."""
    groups: Mapping[tuple, list[Unit]] = {}
    for unit in units:
        train, test = unit.line.rows(unit.fold)
        # a control (no embedding) shares nothing but its own line and fold
        name = unit.embedding.digest if unit.embedding is not None else unit.line.name
        shared = digest(unit.line.ids[train], unit.line.ids[test])
        groups.setdefault((name, shared, unit.fold), []).append(unit)
    return [Group(units) for units in groups.values()]
