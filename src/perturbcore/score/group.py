"""Score the units of a group: predictions of log fold-changes, of labels, or of partial labels."""

import time

import numpy as np

from perturbcore.data.folds import check_disjoint
from perturbcore.models.simple.base import Targets
from perturbcore.models.simple.deg import most_frequent
from perturbcore.models.simple.labels import Labels
from perturbcore.models.simple.space import NestedSpace
from perturbcore.score.controls import Baseline
from perturbcore.score.metrics.deg import deg_metrics
from perturbcore.score.metrics.ranks import row_ranks
from perturbcore.score.metrics.registry import metric
from perturbcore.score.metrics.regression import pearson
from perturbcore.score.plan import Group, Line, Protocol
from perturbcore.score.store import UnitResult


class _Reduced:
    """The reduced space of a group, made when first needed and shared by its units."""

    def __init__(self, embedding, protocol: Protocol, task: str):
        self.embedding, self.protocol = embedding, protocol
        shuffle = protocol.inner_shuffle
        self.shuffle = task != "deg" if shuffle is None else shuffle
        self._made: dict = {}

    def of(self, line: Line, train: np.ndarray, test: np.ndarray):
        """Return the space, and which training and test rows have the embedding."""
        at = self.embedding.ids.get_indexer(line.ids)
        has_train, has_test = train[at[train] >= 0], test[at[test] >= 0]
        key = (tuple(line.ids[has_train]), tuple(line.ids[has_test]))
        if key not in self._made:
            X = self.embedding.X
            self._made[key] = NestedSpace(
                X[at[has_train]],
                X[at[has_test]],
                self.protocol.n_components,
                reduce=getattr(self.embedding, "reduce", True),
                inner_folds=self.protocol.inner_folds,
                inner_seed=self.protocol.inner_seed,
                inner_shuffle=self.shuffle,
            )
        return self._made[key], has_train, has_test


def score_group(
    group: Group, protocol: Protocol, metrics: list[str], detail: list[str], truth: dict
):
    """Score all units of a group.

    Parameters
    ----------
    group : Group
    protocol : Protocol
    metrics, detail : list of str
        Metrics to report, and those of which single perturbations are kept.
    truth : dict
        Scratch shared by all groups: true responses of a fold, their ranks, the training mean; known labels.

    Returns
    -------
    list of UnitResult
    """
    task = group.units[0].about["task"]
    reduced = _Reduced(group.units[0].embedding, protocol, task)
    results = []
    for unit in group.units:
        started = time.perf_counter()
        train, test = unit.line.rows(unit.fold)
        check_disjoint(unit.line.ids[train], unit.line.ids[test])
        score = {"lfc": _score_lfc, "deg": _score_deg}.get(task, _score_pairs)
        values, per_perturbation, chosen, covered = score(
            unit, reduced, train, test, metrics, detail, truth
        )
        about = {
            **unit.about,
            "n_train": len(train),
            "n_test": len(test),
            "coverage": covered,
            "chosen": "" if chosen is None else str(chosen),
            "seconds": round(time.perf_counter() - started, 4),
        }
        results.append(UnitResult(unit.key, about, values, per_perturbation))
    return results


def _score_lfc(unit, reduced, train, test, metrics, detail, truth):
    line = unit.line
    if (line.name, unit.fold) not in truth:
        mean = line.Y[train].mean(axis=0, dtype=np.float64).astype(line.Y.dtype)
        truth[line.name, unit.fold] = (line.Y[test], mean, row_ranks(line.Y[test]))
    observed, mean, ranks = truth[line.name, unit.fold]
    chosen, covered = None, float("nan")
    if isinstance(unit.predictor, Baseline):
        prediction = unit.predictor.predict_lfc(line.Y[train], len(test))
    else:
        space, has_train, has_test = reduced.of(line, train, test)
        covered = (len(has_train) + len(has_test)) / (len(train) + len(test))
        prediction, chosen = None, None
        if len(has_test):
            targets = Targets(line.Y, line.gram, has_train)
            prediction, chosen = unit.predictor.predict(space, targets)
        if len(has_test) < len(test):
            # as published: without embedding, a test perturbation gets the mean of all training ones
            filled = np.tile(mean, (len(test), 1))
            if prediction is not None:
                filled[np.isin(test, has_test)] = prediction
            prediction = filled
    each = lfc_metrics(observed, prediction, mean, metrics, ranks)
    names = line.ids[test]
    kept = {m: (names, each[m]) for m in detail if m in each}
    return {m: float(v.mean()) for m, v in each.items()}, kept, chosen, covered


def _score_deg(unit, reduced, train, test, metrics, detail, truth):
    line = unit.line
    chosen, covered = None, float("nan")
    if isinstance(unit.predictor, Baseline):
        prediction = unit.predictor.predict_deg(line.Y[train], len(test))
    else:
        space, has_train, has_test = reduced.of(line, train, test)
        covered = (len(has_train) + len(has_test)) / (len(train) + len(test))
        # as published: without embedding, a test perturbation gets each gene's most frequent class
        prediction = most_frequent(line.Y[train], len(test))
        if len(has_test):
            values, chosen = unit.predictor.predict(space, line.Y[has_train])
            prediction[:, np.isin(test, has_test)] = values
    return deg_metrics(line.Y[test], prediction, metrics), {}, chosen, covered


def lfc_metrics(Y, prediction, mean, metrics, ranks=None) -> dict[str, np.ndarray]:
    """Evaluate metrics of log fold-changes, one value a perturbation.

    Parameters
    ----------
    Y, prediction : (n, g) arrays
        True and predicted responses.
    mean : (g,) array
        Mean training response.
    metrics : list of str
        Names of registered "lfc" metrics.
    ranks : (n, g) array, optional
        ``row_ranks(Y)``, where several predictions are scored against the same `Y`.
    """
    out = {}
    for name in metrics:
        if name == "Spearman" and ranks is not None:
            out[name] = pearson(ranks, row_ranks(prediction))
        else:
            out[name] = metric(name).function(Y, prediction, mean)
    return out


def _score_pairs(unit, reduced, train, test, metrics, detail, truth):
    line = unit.line
    if line.name not in truth:
        truth[line.name] = Labels.from_dense(line.Y, line.observed)
    known, query = truth[line.name].take(train), truth[line.name].take(test)
    rate = known.rates()
    score, chosen, threshold, covered = rate[query.genes], None, None, float("nan")
    if not isinstance(unit.predictor, Baseline):
        space, has_train, has_test = reduced.of(line, train, test)
        covered = (len(has_train) + len(has_test)) / (len(train) + len(test))
        if len(has_test):
            here = np.isin(test, has_test)
            part = query.take(np.flatnonzero(here))
            values, chosen, threshold = unit.predictor.predict(
                space, known.take(np.searchsorted(train, has_train)), part, rate
            )
            score[np.repeat(here, np.diff(query.indptr))] = values
    values = {m: metric(m).function(query.label, score, query.genes, threshold) for m in metrics}
    return values, {}, chosen, covered
