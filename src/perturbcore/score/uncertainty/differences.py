"""Which differences between methods are real."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.score.uncertainty.intervals import holm, sign_flip_p, t_statistics
from perturbcore.score.uncertainty.units import METHOD, REFERENCES, direction, groups_of, nan_mean

TESTS = {"corrected": "p", "t": "p_t", "flip": "p_flip"}


def paired_differences(
    scores,
    metric,
    *,
    reference=None,
    by=("cell_line",),
    units=("fold",),
    higher_is_better=None,
    confidence=0.95,
    test="corrected",
    test_ratio=None,
    exclude=REFERENCES,
    seed=0,
) -> pd.DataFrame:
    """Differences of methods on the same units, with interval and p-values.

    Parameters
    ----------
    scores : DataFrame
        The tidy scores table.
    metric : str
    reference : None, "best", str or (embedding, predictor)
        None compares every pair; else every other method is compared with the best of its group
        (by mean), or with the one named.
    by : sequence of str
        Comparisons are made within each data set, task and value of these columns. ``()`` makes
        them over all cell lines at once.
    units : sequence of str
        What counts as an independent observation. Scores are subtracted within (cell_line, fold)
        after averaging over seeds, and differences are then averaged to these units. The same
        perturbations are in the same fold in every line, so folds, not (line, fold) pairs, are
        the default even over all lines.
    higher_is_better : bool, optional
        As registered in perturbcore.score.metrics if not given.
    confidence : float
    test : {"corrected", "t", "flip"}
        Which p-value is adjusted and decides `distinguishable`: see Notes.
    test_ratio : float, optional
        Test size over training size; from n_test and n_train of the scores if not given.
    exclude : sequence of str
        Embeddings or predictors to leave out; by default the ceilings, which do not compete.
    seed : int
        Of the random sign flips, used beyond 12 units.

    Returns
    -------
    DataFrame
        dataset, task, `by`, embedding_a, predictor_a, embedding_b, predictor_b, n, mean_a,
        mean_b, difference (a - b), low, high, t, p, p_t, p_flip, p_holm, better ("a", "b" or
        "" where equal), distinguishable. With a reference, a is the reference. The means are over
        the units that both have.

    Raises
    ------
    InputError
        If columns, the metric or the reference are missing.
    ParameterError
        If a choice is unknown.

    Notes
    -----
    `p` and the interval are those of the corrected resampled t-test, because training sets of
    different folds overlap and the plain test is too sure of itself: the variance of the mean is
    taken as s^2 (1 / n + n_test / n_train). `p_t` is the plain paired t-test, `p_flip` the
    sign-flip permutation test (5 folds cannot give less than 1/16). `p_holm` adjusts over all
    comparisons of a group. The best is chosen on the data it is then compared on, so that a
    difference from "best" looks a little larger than it is.

    References
    ----------
    Nadeau and Bengio 2003, Machine Learning 52. Holm 1979, Scandinavian Journal of Statistics 6.
    """
    if test not in TESTS:
        raise ParameterError(f"test={test!r}: choose from {', '.join(TESTS)}")
    if not units:
        raise ParameterError("units=(): name at least one column, such as 'fold'")
    higher = direction(metric, higher_is_better)
    tables = []
    for group in groups_of(scores, metric, by=by, units=units, exclude=exclude):
        first, second = _pairs(group, reference, higher, units)
        if not len(first):
            continue
        values = group.values
        difference = values[:, first] - values[:, second]
        # Equal methods may differ by rounding, in the same direction in every fold.
        scale = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 0.0
        difference[np.abs(difference) <= 1e-12 * scale] = 0.0
        both = np.isfinite(difference)
        means = [
            nan_mean(group.collapse(np.where(both, values[:, side], np.nan), units))
            for side in (first, second)
        ]
        paired = group.collapse(difference, units)
        ratio = group.test_ratio if test_ratio is None else test_ratio
        found = t_statistics(paired, ratio, confidence)
        table = pd.DataFrame(group.keys, index=range(len(first)))
        for name, side in (("a", first), ("b", second)):
            for column in METHOD:
                table[f"{column}_{name}"] = group.methods[column].to_numpy()[side]
        table["n"], table["mean_a"], table["mean_b"] = found["n"], means[0], means[1]
        table["difference"] = found["mean"]
        for column in ("low", "high", "t", "p"):
            table[column] = found[column]
        table["p_t"] = t_statistics(paired)["p"]
        table["p_flip"] = sign_flip_p(paired, seed)
        table["p_holm"] = holm(table[TESTS[test]])
        gain = found["mean"] if higher else -found["mean"]
        table["better"] = np.select([gain > 0, gain < 0], ["a", "b"], "")
        table["distinguishable"] = (table["p_holm"] < 1 - confidence).to_numpy()
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def verdicts(table: pd.DataFrame) -> np.ndarray:
    """Say in words how the second method of each row of `paired_differences` does against the first.

    Returns
    -------
    (n,) array of str
        "better", "worse"; either with ", not after adjustment" where the interval excludes zero but the
        p-value adjusted for the number of comparisons does not reach the level; else "not told apart".
    """
    word = np.where(table["better"] == "b", "better", "worse").astype(object)
    apart = (table["low"] > 0) | (table["high"] < 0)
    return np.select(
        [table["distinguishable"], apart], [word, word + ", not after adjustment"], "not told apart"
    )


def gain_table(scores, metric, *, reference, by=("cell_line",), **options) -> pd.DataFrame:
    """`paired_differences` as gains over one method: positive is better, whatever the metric.

    Parameters
    ----------
    scores, metric, by, options
        As `paired_differences`.
    reference : "best", str or (embedding, predictor)

    Returns
    -------
    DataFrame
        The columns of `by`; embedding, predictor, value, reference (score of the reference), gain, low,
        high, p_holm, distinguishable, verdict (see `verdicts`).
    """
    found = paired_differences(scores, metric, reference=reference, by=by, **options)
    # the reference comes first, so that less is a gain where more is better
    sign = -1.0 if direction(metric, options.get("higher_is_better")) else 1.0
    bounds = np.sort(sign * found[["low", "high"]].to_numpy(dtype=float), axis=1)
    return found[list(by)].assign(
        embedding=found["embedding_b"], predictor=found["predictor_b"], value=found["mean_b"],
        reference=found["mean_a"], gain=sign * found["difference"], low=bounds[:, 0], high=bounds[:, 1],
        p_holm=found["p_holm"], distinguishable=found["distinguishable"], verdict=verdicts(found),
    )  # fmt: skip


def indistinguishable(scores, metric, **options) -> pd.DataFrame:
    """Which methods are not distinguishable from the best of their group.

    Parameters
    ----------
    scores, metric
        See :func:`paired_differences`.
    **options
        Of :func:`paired_differences`, except `reference`.

    Returns
    -------
    DataFrame
        dataset, task, `by`, embedding, predictor, mean, place (1 = best mean), best,
        behind (how much worse than the best: positive is worse), low, high, p, p_holm,
        distinguishable (from the best; False for the best itself and where there is one unit).
    """
    higher = direction(metric, options.get("higher_is_better"))
    table = paired_differences(scores, metric, reference="best", **options)
    order = _ordered(scores, metric, higher, options)
    if table.empty:
        return order.assign(best=True, distinguishable=False)
    keys = [c for c in order.columns if c not in (*METHOD, "mean", "place")]
    sign = 1.0 if higher else -1.0
    bounds = np.sort(sign * table[["low", "high"]].to_numpy(), axis=1)
    behind = pd.DataFrame(
        {
            **{k: table[k] for k in keys},
            "embedding": table["embedding_b"],
            "predictor": table["predictor_b"],
            "behind": sign * table["difference"],
            "low": bounds[:, 0],
            "high": bounds[:, 1],
            "p": table[TESTS[options.get("test", "corrected")]],
            "p_holm": table["p_holm"],
            "distinguishable": table["distinguishable"],
        }
    )
    out = order.merge(behind, how="left", on=[*keys, *METHOD])
    out["best"] = out["place"] == 1
    out["distinguishable"] = out["distinguishable"].eq(True)
    columns = ["mean", "place", "best", "behind", "low", "high", "p", "p_holm", "distinguishable"]
    return out[[*keys, *METHOD, *columns]]


def neighbour_table(scores, metric, **options) -> pd.DataFrame:
    """Say for each method of a ranking whether it is distinguishable from the next.

    Parameters
    ----------
    scores, metric
        See :func:`paired_differences`.
    **options
        Of :func:`paired_differences`, except `reference`.

    Returns
    -------
    DataFrame
        dataset, task, `by`, place, embedding, predictor, mean, next_embedding, next_predictor,
        behind (how much worse the next is), low, high, p, p_holm (over the neighbours of a
        group), distinguishable. The last of a group has no next (NaN, False).
    """
    higher = direction(metric, options.get("higher_is_better"))
    order = _ordered(scores, metric, higher, options)
    keys = [c for c in order.columns if c not in (*METHOD, "mean", "place")]
    nxt = order.groupby(keys, sort=False)[METHOD].shift(-1)
    order["next_embedding"], order["next_predictor"] = nxt["embedding"], nxt["predictor"]
    pairs = paired_differences(scores, metric, reference=None, **options)
    if pairs.empty:
        return order.assign(distinguishable=False)
    p = TESTS[options.get("test", "corrected")]
    swapped = pairs.rename(
        columns={f"{c}_{x}": f"{c}_{y}" for c in METHOD for x, y in (("a", "b"), ("b", "a"))}
    )
    swapped[["difference", "low", "high"]] = -pairs[["difference", "high", "low"]].to_numpy()
    sign = -1.0 if higher else 1.0
    both = pd.concat([pairs, swapped], ignore_index=True)
    bounds = np.sort(sign * both[["low", "high"]].to_numpy(), axis=1)
    both = pd.DataFrame(
        {
            **{k: both[k] for k in keys},
            "next_embedding": both["embedding_a"],
            "next_predictor": both["predictor_a"],
            "embedding": both["embedding_b"],
            "predictor": both["predictor_b"],
            "behind": sign * both["difference"],
            "low": bounds[:, 0],
            "high": bounds[:, 1],
            "p": both[p],
        }
    )
    out = order.merge(both, how="left", on=[*keys, *METHOD, "next_embedding", "next_predictor"])
    out["p_holm"] = out.groupby(keys, sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
    out["distinguishable"] = out["p_holm"] < 1 - options.get("confidence", 0.95)
    columns = ["next_embedding", "next_predictor", "behind", "low", "high", "p", "p_holm"]
    return out[[*keys, "place", *METHOD, "mean", *columns, "distinguishable"]]


def _pairs(group, reference, higher, units):
    n = len(group.methods)
    if reference is None:
        return np.triu_indices(n, 1)
    best = reference == "best" if isinstance(reference, str) else False
    at = _best(group, higher, units) if best else group.find(reference)
    others = np.array([i for i in range(n) if i != at], dtype=int)
    return np.full(len(others), at), others


def _best(group, higher, units) -> int:
    means = nan_mean(group.collapse(group.values, units))
    return int(np.nanargmax(means) if higher else np.nanargmin(means))


def _ordered(scores, metric, higher, options) -> pd.DataFrame:
    """Every group's methods from best to worst mean."""
    units = options.get("units", ("fold",))
    tables = []
    for group in groups_of(
        scores,
        metric,
        by=options.get("by", ("cell_line",)),
        units=units,
        exclude=options.get("exclude", REFERENCES),
    ):
        mean = nan_mean(group.collapse(group.values, units))
        order = np.argsort(-mean if higher else mean, kind="stable")
        table = pd.DataFrame(group.keys, index=range(len(order)))
        table[METHOD] = group.methods[METHOD].to_numpy()[order]
        table["mean"], table["place"] = mean[order], np.arange(1, len(order) + 1)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
