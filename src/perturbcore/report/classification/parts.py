"""Several data sets of labels, each through the same classifiers, and their scores side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.sets.base import Dataset
from perturbcore.models.simple.label_logistic import LabelLogistic
from perturbcore.models.simple.labels import LabelKNN
from perturbcore.score.plan import Protocol
from perturbcore.score.run import PAIR_TARGETS

CONTROLS = ("train_mean", "most_frequent", "no_change", "idealized")
NEGATIVE, RANDOM = "Negative control", "random"


@dataclass(frozen=True)
class Part:
    """One data set of a chapter, scored.

    Attributes
    ----------
    name : str
        In the profile.
    data : Dataset
    scores : pandas.DataFrame
        Of all embeddings, predictors, floors and ceilings.
    left_out : list of str
        Embeddings asked for that this data set has not, or hardly has.
    """

    name: str
    data: Dataset
    scores: pd.DataFrame
    left_out: list

    @property
    def title(self) -> str:
        """Return the title without what stands in brackets."""
        return self.data.title.split(" (")[0]

    @property
    def lines(self) -> list[str]:
        """Cell lines in the order of the responses."""
        return [str(c) for c in pd.unique(self.data.responses.obs["cell_line"].astype(str))]


def models_of(study, task: str, *, k, C, max_iter: int) -> list:
    """Return the classifier and kNN for a task: complete labels, or pairs with partial labels.

    Raises
    ------
    ParameterError
        The task has no labels.
    """
    if task in PAIR_TARGETS:
        return [LabelLogistic(C), LabelKNN(k)]
    if task != "deg":
        raise ParameterError(
            f"task '{task}' has no labels; give data sets of task deg or deg_pairs"
        )
    return study.models("deg", knn=k, C=C, softmax={"max_iter": max_iter})[::-1]


def evaluate_parts(
    study,
    names: Sequence[str],
    *,
    embeddings: Sequence[str] = (),
    k: Sequence[int],
    C: Sequence[float],
    C_of: Mapping[str, Sequence[float]] | None = None,
    max_iter: int = 100,
    n_components: int = 100,
    n_outer: int = 3,
    n_inner: int = 3,
    n_trials: int = 20,
    seed: int = 0,
) -> tuple[dict[str, Part], dict[str, str]]:
    """Score embeddings on data sets of labels with the logistic classifier and with kNN.

    Parameters
    ----------
    study : Study
    names : sequence of str
        Data sets of the profile.
    embeddings : sequence of str
        Only these, and random vectors; all of the profile by default.
    k, C, max_iter
        Grids of kNN and of the logistic classifier; its iterations (complete labels).
    C_of : mapping, optional
        C of single data sets, where it is not `C`.
    n_components : int
        Principal components of an embedding.
    n_outer, n_inner, n_trials
        Resamples of the experimental error, where there are cells.
    seed : int

    Returns
    -------
    parts : dict of str to Part
    absent : dict of str to str
        Data sets that are not at hand, with the reason.

    Raises
    ------
    ParameterError
        A data set has no labels.
    InputError
        None of `embeddings` is in the profile, serves the data set and covers enough of it.
    """
    parts, absent, C_of = {}, {}, dict(C_of or {})
    for name in names:
        try:
            data = study.dataset(name)
        except InputError as error:
            absent[name] = str(error)
            continue
        built = study.embeddings(name, seed=seed, only=embeddings)
        if all(e.modality == NEGATIVE for e in built):
            raise InputError(
                f"data set '{name}': no embedding of embeddings={list(embeddings)} has vectors for enough of "
                "its perturbations; name others"
            )
        limit = study.ceiling(name, n_outer=n_outer, n_inner=n_inner, n_trials=n_trials)
        options = {"controls": CONTROLS} if data.task == "deg" else {}
        scores = study.evaluate(
            name, models_of(study, data.task, k=k, C=C_of.get(name, C), max_iter=max_iter),
            protocol=Protocol(n_components=n_components), embeddings=built, ceiling=limit, seed=seed, **options,
        )  # fmt: skip
        parts[name] = Part(name, data, scores, sorted(set(embeddings) - {e.name for e in built}))
    return parts, absent


def averaged(scores: pd.DataFrame, label: str | None = None) -> pd.DataFrame:
    """Average over the cell lines within each fold, as published for Tahoe: one row a fold.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy scores of one data set.
    label : str, optional
        What to call the average in column `cell_line`.
    """
    n = scores["cell_line"].nunique()
    keys = ["dataset", "task", "fold", "embedding", "modality", "predictor", "metric"]
    out = scores.groupby(keys, as_index=False)[["value", "n_train", "n_test"]].mean()
    # a method that is missing in a line would be averaged over other lines than the rest
    whole = scores.groupby(keys)["cell_line"].nunique().to_numpy() == n
    return out[whole].assign(cell_line=label or f"mean of {n} cell lines")


def panels(parts: Mapping[str, Part], by_line: Sequence[str] = ()) -> pd.DataFrame:
    """Lay the scores of several data sets out as panels of one figure (column `cell_line`).

    Parameters
    ----------
    parts : mapping
        Of `evaluate_parts`.
    by_line : sequence of str
        Data sets of which each cell line gets a panel too, as published for Sci-Plex.
    """
    out = []
    several = len(parts) > 1
    for name, part in parts.items():
        front = f"{part.title}: " if several else ""
        n = part.scores["cell_line"].nunique()
        if name in by_line or n == 1:
            out.append(part.scores.assign(cell_line=front + part.scores["cell_line"].astype(str)))
        if n > 1:
            out.append(averaged(part.scores, f"{front}mean of {n} lines"))
    return pd.concat(out, ignore_index=True)
