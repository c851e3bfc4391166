"""How much of the way from floor to ceiling a method goes."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.score.uncertainty.intervals import t_statistics
from perturbcore.score.uncertainty.units import direction, groups_of

AGGREGATES = {"median": np.nanmedian, "mean": np.nanmean}


def gap_closed(
    scores,
    metric,
    *,
    floor="train_mean",
    ceiling="experimental_error",
    aggregate="median",
    by=("cell_line",),
    higher_is_better=None,
    confidence=0.95,
    test_ratio=None,
) -> pd.DataFrame:
    """Share of the gap between floor and ceiling that each method closes.

    Parameters
    ----------
    scores : DataFrame
        The tidy scores table, with rows of floor and ceiling.
    metric : str
    floor, ceiling : str or (embedding, predictor)
        Which methods are the two ends; a string may be a predictor or an embedding.
    aggregate : {"median", "mean"}
        Over folds, of method, floor and ceiling each, before the ratio is taken (the paper:
        median).
    by : sequence of str
        Groups besides dataset and task. ``()`` takes all (cell line, fold) units together.
    higher_is_better : bool, optional
        As registered in perturbcore.score.metrics if not given.
    confidence : float
    test_ratio : float, optional
        See :func:`perturbcore.score.uncertainty.differences.paired_differences`.

    Returns
    -------
    DataFrame
        dataset, task, `by`, embedding, predictor, (modality,) value, floor, ceiling, gap_closed,
        fold_mean (mean over folds of the gap closed in the fold), low, high (its interval,
        corrected for overlapping training sets), n (folds with a defined gap), reason.
        0 is the floor, 1 the ceiling; beyond both is possible. Where the ceiling is not better
        than the floor the value is NaN and `reason` says why.

    Raises
    ------
    InputError
        If floor or ceiling are missing or ambiguous.
    ParameterError
        If `aggregate` is unknown.

    References
    ----------
    Cole et al. 2026, Results, Fig. 1 (medians over folds).
    """
    if aggregate not in AGGREGATES:
        raise ParameterError(f"aggregate={aggregate!r}: choose from {', '.join(AGGREGATES)}")
    sign = -1.0 if direction(metric, higher_is_better) else 1.0
    tables = []
    for group in groups_of(scores, metric, by=by):
        ends = [group.find(floor), group.find(ceiling)]
        rest = [i for i in range(len(group.methods)) if i not in ends]
        table = group.methods.iloc[rest].reset_index(drop=True)
        for i, (column, value) in enumerate(group.keys.items()):
            table.insert(i, column, value)
        known = np.isfinite(group.values).any(axis=0)
        typical = np.full(len(known), np.nan)
        typical[known] = AGGREGATES[aggregate](group.values[:, known], axis=0)
        low_end, high_end = typical[ends]
        table["value"], table["floor"], table["ceiling"] = typical[rest], low_end, high_end
        table["gap_closed"] = _share(typical[rest], low_end, high_end, sign)
        per_unit = _share(
            group.values[:, rest], group.values[:, ends[:1]], group.values[:, ends[1:]], sign
        )
        folds = group.collapse(per_unit, ["fold"])
        ratio = group.test_ratio if test_ratio is None else test_ratio
        found = t_statistics(folds, ratio, confidence)
        table["fold_mean"], table["n"] = found["mean"], found["n"]
        table["low"], table["high"] = found["low"], found["high"]
        table["reason"] = _reasons(group.values, ends, rest, per_unit, typical, sign)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _share(value, floor, ceiling, sign) -> np.ndarray:
    gap = np.asarray(sign * (floor - ceiling), dtype=np.float64)
    gain = sign * (floor - np.asarray(value, dtype=np.float64))
    gap = np.broadcast_to(gap, gain.shape)
    return np.divide(gain, gap, out=np.full(gain.shape, np.nan), where=gap > 0)


def _reasons(values, ends, rest, per_unit, typical, sign) -> list:
    floor, ceiling = typical[ends]
    if not np.isfinite(floor) or not np.isfinite(ceiling):
        return ["floor or ceiling has no score"] * len(rest)
    if not sign * (floor - ceiling) > 0:
        return ["ceiling is not better than floor"] * len(rest)
    unit_gap = sign * (values[:, ends[0]] - values[:, ends[1]])
    closed = int((~(unit_gap > 0)).sum())
    out = []
    for i, method in enumerate(rest):
        if not np.isfinite(values[:, method]).any():
            out.append("method has no score")
        elif closed:
            out.append(f"{closed} of {len(values)} units without a gap left out of fold_mean")
        elif np.isnan(per_unit[:, i]).any():
            out.append(f"{int(np.isnan(per_unit[:, i]).sum())} of {len(values)} units missing")
        else:
            out.append("")
    return out
