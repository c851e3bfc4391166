"""From a tidy scores table to matrices of units x methods."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, ParameterError

METHOD = ["embedding", "predictor"]
ALWAYS = ["dataset", "task"]
FINE = ["cell_line", "fold"]
CEILING = ("experimental_error",)
REFERENCES = ("experimental_error", "idealized")


@dataclass
class Group:
    """The scores of one group (data set, task and what `by` names) as a matrix.

    Attributes
    ----------
    keys : dict
        What the group is.
    methods : DataFrame
        embedding, predictor (and modality where known), one row a column of `values`.
    index : DataFrame
        cell_line, fold and what else makes a unit, one row a row of `values`.
    values : ndarray, (units, methods)
        Averaged over seeds; NaN where a method has no score in a unit.
    test_ratio : float
        Test size over training size.
    """

    keys: dict
    methods: pd.DataFrame
    index: pd.DataFrame
    values: np.ndarray
    test_ratio: float

    def collapse(self, values, units) -> np.ndarray:
        """Average rows of a matrix that belong to the same unit, leaving out NaN."""
        codes = self.index.groupby(list(units), sort=True).ngroup().to_numpy()
        there = np.isfinite(values)
        total = np.zeros((codes.max() + 1, values.shape[1]))
        count = np.zeros_like(total)
        np.add.at(total, codes, np.where(there, values, 0.0))
        np.add.at(count, codes, there)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    def find(self, method) -> int:
        """Column of a method, named by (embedding, predictor) or by one of both."""
        if isinstance(method, str):
            hits = (self.methods[METHOD] == method).any(axis=1)
        else:
            hits = (self.methods[METHOD] == list(method)).all(axis=1)
        hits = np.flatnonzero(hits)
        if len(hits) == 1:
            return int(hits[0])
        have = ", ".join("/".join(filter(None, m)) for m in self.methods[METHOD].to_numpy()[:12])
        raise InputError(
            f"{len(hits)} methods are called {method!r} in {self.keys}; name one by (embedding, "
            f"predictor). There are: {have}"
        )


def groups_of(scores, metric, *, by=(), units=(), exclude=()) -> Iterator[Group]:
    """Split a scores table into groups and make each a matrix.

    Parameters
    ----------
    scores : DataFrame
        The tidy scores table.
    metric : str
    by : sequence of str
        Columns that make a group, besides dataset and task.
    units : sequence of str
        Columns that make a unit, besides cell_line and fold; seeds are averaged unless named.
    exclude : sequence of str
        Embeddings or predictors to leave out.

    Raises
    ------
    InputError
        If columns or the metric are missing.
    """
    by, units, exclude = _names("by", by), _names("units", units), _names("exclude", exclude)
    scores = scores.assign(**{c: "" for c in (*ALWAYS, "cell_line") if c not in scores})
    lacking = [c for c in (*METHOD, "fold", "metric", "value", *by, *units) if c not in scores]
    if lacking:
        raise InputError(f"the scores table has no column {', '.join(lacking)}")
    here = scores[scores["metric"] == metric].copy()
    if here.empty:
        have = ", ".join(sorted(map(str, scores["metric"].unique())))
        raise InputError(f"the scores table has no metric {metric!r}; it has: {have}")
    here[METHOD] = here[METHOD].astype(object).where(here[METHOD].notna(), "").astype(str)
    here = here[~here["embedding"].isin(exclude) & ~here["predictor"].isin(exclude)]
    keys = list(dict.fromkeys([*ALWAYS, *by]))
    fine = [c for c in dict.fromkeys([*FINE, *units]) if c not in by]
    found = False
    for key, part in here.groupby(keys, sort=True, observed=True):
        _refuse_doubles(part, [*fine, *METHOD])
        means = part.groupby([*fine, *METHOD], sort=True, observed=True)["value"].mean()
        table = means.unstack(METHOD)
        if not np.isfinite(table.to_numpy()).any():
            continue
        found = True
        index = table.index.to_frame(index=False)
        for column in by:
            if column in FINE or column in units:
                index[column] = key[keys.index(column)]
        methods = table.columns.to_frame(index=False)
        if "modality" in part:
            first = part.drop_duplicates(METHOD).set_index(METHOD)["modality"]
            methods["modality"] = first.reindex(table.columns).to_numpy()
        yield Group(
            dict(zip(keys, key, strict=True)),
            methods,
            index,
            table.to_numpy(dtype=np.float64),
            _test_ratio(part),
        )
    if not found:
        raise InputError(
            f"no method has a score of {metric!r}"
            + (f" after leaving out {exclude}" if exclude else "")
        )


def direction(metric, higher_is_better) -> bool:
    """Whether higher is better: as given, else as the metric is registered.

    Raises
    ------
    ParameterError
        If it is not given and the metric is not registered.
    """
    if higher_is_better is not None:
        return bool(higher_is_better)
    from perturbcore.score.metrics.registry import metric as registered

    try:
        return bool(registered(metric).higher_is_better)
    except (KeyError, ValueError) as error:
        raise ParameterError(
            f"metric {metric!r} is not registered; say higher_is_better=True or False"
        ) from error


def nan_mean(values) -> np.ndarray:
    """Mean of every column over what is there; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    total = np.where(there, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _refuse_doubles(part, unit) -> None:
    unit = [*unit, "seed"] if "seed" in part and "seed" not in unit else unit
    twice = part.duplicated(unit)
    if twice.any():
        where = ", ".join(f"{c}={v}" for c, v in part.loc[twice, unit].iloc[0].items())
        raise InputError(
            f"the scores table has {int(twice.sum())} unit(s) twice, such as {where}; keep one row "
            "a unit and metric"
        )


def _names(what, names) -> tuple:
    if isinstance(names, str):
        raise ParameterError(f"{what}={names!r}: give a list of names, such as [{names!r}]")
    return tuple(names or ())


def _test_ratio(part) -> float:
    """Mean test size over training size; k folds of equal size where sizes are not known."""
    if {"n_test", "n_train"} <= set(part.columns):
        sizes = part[["n_test", "n_train"]].apply(pd.to_numeric, errors="coerce")
        sizes = sizes[(sizes > 0).all(axis=1)]
        if len(sizes):
            return float((sizes["n_test"] / sizes["n_train"]).mean())
    folds = part["fold"].nunique()
    return 1 / (folds - 1) if folds > 1 else 1.0
