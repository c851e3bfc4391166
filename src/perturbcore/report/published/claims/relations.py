"""The relations that claims are made of: each takes the published scores and gives named values.

A claim file names a relation and its parameters; conditions and texts of the claim read the values.
Methods are chosen as in `FigureData.select`. Where only medians over folds are at hand, what
needs single folds is None. `pairs` has the relations between two methods, `named` the rest.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd

from perturbcore.data.published.facts import facts
from perturbcore.report.published.claims.language import compare, holds, look_up
from perturbcore.report.published.claims.pairs import Evidence


def gap(
    on: Evidence,
    *,
    figure: str,
    methods: list[str],
    floor: Sequence[str] = ("Train Mean",),
    floor_in: str | None = None,
    limit: str | int = "Experimental Error",
    lines: list[str] | None = None,
) -> SimpleNamespace:
    """Share of the way from the best floor to the limit that methods close, on medians.

    `limit` 0 gives the gain over the floor as a share of the floor's own score.

    Cole et al. 2026, Section 2.1 ("closes ... of the gap"), on medians over folds.
    """
    data, other = on.fig(figure), on.fig(floor_in or figure)

    def shares(table: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
        table = data.better(table if lines is None else table.loc[lines])
        start = other.better(floors.loc[table.index, list(floor)]).max(axis=1)
        way = table[limit] - start if limit else start.abs()
        return table[data.select(*methods)].sub(start, axis=0).div(way, axis=0)

    table = shares(data.medians(), other.medians())
    of_means = data.means(), other.means()
    means = None if of_means[0] is None or of_means[1] is None else shares(*of_means)
    return SimpleNamespace(
        methods=table.iloc[0],
        best=table.max(axis=1),
        name=table.idxmax(axis=1),
        top=table.max().idxmax(),
        n=table.shape[1],
        none=(table <= 0).sum(axis=1),
        half=(table >= 0.5).sum(axis=1),
        above=int((table > 0).all().sum()),
        never=list(table.columns[(table <= 0).all()]),
        not_always=list(table.columns[(table <= 0).any()]),
        means=None if means is None else means.max(axis=1),
        means_name=None if means is None else means.idxmax(axis=1),
        means_top=None if means is None else means.max().idxmax(),
    )


def ranks(
    on: Evidence, *, figure: str, methods: list[str], show=("*",), without=(), first=None
) -> SimpleNamespace:
    """Rank methods: median rank over folds in a rank plot, else mean rank of medians of lines.

    `methods` are ranked among each other (in a rank plot they were ranked among all); the `first`
    of those to `show` and not `without` are kept.
    """
    data = on.fig(figure)
    pool = data.select(*methods)
    if data.spec.kind == "rank":
        rows = data.scores.groupby("display")["value"]
        value, counts = rows.median(), rows.size()
    else:
        medians = data.better(data.medians())[pool]
        value, counts = medians.rank(axis=1, ascending=False).mean(), medians.count()
    shown, hidden = data.select(*show), data.select(*without)
    value = value[[n for n in pool if n in shown and n not in hidden]].sort_values(kind="stable")
    value = value.iloc[:first]
    modality = data.modality[value.index]
    return SimpleNamespace(
        value=value,
        names=list(value.index),
        best=value.index[0],
        worst=value.index[-1],
        first=value.iloc[0],
        last=value.iloc[-1],
        counts=counts,
        modality=modality,
        worst_modality=modality.iloc[-1],
        leading=value.groupby(modality).median().idxmin(),
    )


def order(
    on: Evidence, *, figure: str, methods: Sequence[str] = ("*",), line: str | None = None
) -> SimpleNamespace:
    """Scores of methods on one line, neighbours out of order, and the leading modality."""
    data = on.fig(figure)
    medians, means = data.medians(), data.means()
    line = line or medians.index[0]
    value = medians.loc[line, data.select(*methods)]
    better, modality = data.better(value), data.modality[value.index]
    neighbours = list(zip(value.index, value.index[1:], strict=False))
    by = data.better(better.groupby(modality).median().sort_values(ascending=False))
    of_means = None
    if means is not None:
        of_means = data.better(means.loc[line, value.index]).groupby(modality).median().idxmax()
    return SimpleNamespace(
        value=value,
        list=list(value.map("{:.3f}".format)),
        best=better.idxmax(),
        worst=better.idxmin(),
        high=value[better.idxmax()],
        low=value[better.idxmin()],
        neighbours=len(neighbours),
        swaps=[f"{a} above {b}" for a, b in neighbours if better[a] > better[b]],
        modality=modality,
        by_modality=by,
        leading=by.index[0],
        best_modality=modality[better.idxmax()],
        worst_modality=modality[better.idxmin()],
        leading_on_means=of_means,
        leading_n=None if of_means is None else int((modality == of_means).sum()),
    )


def agreement(
    on: Evidence, *, figure: str, other: str | None = None, methods=("single",)
) -> SimpleNamespace:
    """Rank correlation of methods: between two figures per line, or between lines of one figure."""
    data = on.fig(figure)
    names = data.select(*methods)
    if other is not None:
        second = on.fig(other).medians()[names]
        return SimpleNamespace(value=data.medians()[names].T.corrwith(second.T, method="spearman"))

    def pairs(table: pd.DataFrame) -> np.ndarray:
        return table[names].T.corr("spearman").to_numpy()[np.triu_indices(len(table), 1)]

    value, means = pairs(data.medians()), data.means()
    return SimpleNamespace(
        names=names,
        mean=value.mean(),
        low=value.min(),
        means=None if means is None else pairs(means).mean(),
    )


def metric_agreement(on: Evidence, *, figure: str, metric: str) -> SimpleNamespace:
    """Rank correlation of one metric with the others over methods and folds."""
    data = on.fig(figure)
    rows = data.scores.pivot_table(index=["display", "fold"], columns="metric", values="value")
    panels = list(data.spec.panels)
    value = rows.corr("spearman").loc[metric, panels]
    centred = rows - rows.groupby("fold").transform("mean")
    folds = data.level == "folds"
    return SimpleNamespace(
        value=value,
        strength=value.abs(),
        n=len(rows),
        points="points" if folds else "medians",
        within=centred.corr("spearman").loc[metric, panels] if folds else None,
        folds=value if folds else None,
    )


def screen(on: Evidence, *, dataset: str) -> SimpleNamespace | None:
    """Perturbations and batches of a data set in its experimental-error tables; None on medians."""
    table = on.published.ceilings
    if table is None:
        return None
    table = table[table["dataset"] == dataset].drop_duplicates(["cell_line", "perturbation"])
    batches = table["n_batches"]
    return SimpleNamespace(
        perturbations=table.groupby("cell_line").size(),
        batches=table.groupby("cell_line")["n_batches"].max(),
        most=batches.max(),
        pairs=int(batches.sum()),
        least=int(table.groupby("perturbation")["n_batches"].max().sum()),
    )


def _long_facts(table: str, rows: dict, **labels: list[str]) -> pd.DataFrame:
    """Rows of a table of printed numbers, with joined columns as labels."""
    long = facts(table).replace({"Replogle2022": "Replogle"})
    for column, wanted in rows.items():
        long = long[long[column].isin(wanted if isinstance(wanted, list) else [wanted])]
    for name, columns in labels.items():
        joined = long[list(columns)].astype(str).agg(" ".join, axis=1)
        long = long.assign(**{name: joined.str.replace(" none", "")})
    return long


def wide_facts(
    table: str, rows: dict, unit: list[str], method: Sequence[str] = ("model",)
) -> pd.DataFrame:
    """Arrange printed numbers: one row per unit, one column per method."""
    long = _long_facts(table, rows, _unit=unit, _method=list(method))
    wide = long.pivot_table("value", "_unit", "_method", sort=False, aggfunc="first")
    return wide.rename_axis(index=None, columns=None)


def lead(on: Evidence, *, methods: list[str], references: list[str], **table) -> SimpleNamespace:
    """Best of some methods minus best of some references, row by row of a printed table."""
    wide = wide_facts(**table)
    value = (wide[methods].max(axis=1) - wide[references].max(axis=1)).round(10)
    return SimpleNamespace(
        value=value,
        ahead=list(value.index[value > 0]),
        tied=list(value.index[value == 0]),
        behind=list(value.index[value < 0]),
    )


def standing(on: Evidence, *, methods: list[str], **table) -> SimpleNamespace:
    """First places (ties counted) and mean rank of methods over the rows of a printed table."""
    wide = wide_facts(**table)[methods]
    firsts = wide.eq(wide.max(axis=1), axis=0).sum()
    rank = wide.rank(axis=1, ascending=False).mean().sort_values()
    places = pd.Series(range(1, len(rank) + 1), rank.index)
    return SimpleNamespace(firsts=firsts, most=firsts.max(), rank=rank, place=places, n=len(wide))


def printed(on: Evidence, *, table: str, rows: dict, unit: list[str]) -> SimpleNamespace:
    """Numbers as a paper prints them: one value per unit."""
    value = _long_facts(table, rows, _unit=unit).set_index("_unit")["value"]
    return SimpleNamespace(value=value, low=value.min(), high=value.max(), best=value.idxmax())


def change(on: Evidence, *, table: str, rows: dict, method: str, reference: str) -> SimpleNamespace:
    """Relative improvement of a method on a reference per data set and metric; MAE is an error."""
    wide = wide_facts(table, rows, ["dataset", "metric"], ["method"])
    value = wide[method] / wide[reference] - 1
    value = value.where(~value.index.str.endswith("mae"), -value)
    return SimpleNamespace(
        value=value, high=value.max(), low=value.min(), best=value.idxmax(), worst=value.idxmin()
    )


def checks(on: Evidence, *, of: dict[str, str]) -> SimpleNamespace:
    """Which of some conditions hold, by name."""
    found = pd.Series({name: holds(condition, on.values) for name, condition in of.items()})
    return SimpleNamespace(found=found, true=list(found.index[found]), n=len(found))


def those(on: Evidence, *, of: str) -> SimpleNamespace | None:
    """Names for which a condition without quantifier holds, such as "ranks.value <= 7"."""
    found = compare(of, on.values)
    if found is None:
        return None
    return SimpleNamespace(names=list(found.index[found]), n=int(found.sum()))


def number(on: Evidence, *, of: str, minus=0, plus=0, over=1) -> float | pd.Series:
    """Take from a value of the claim, add to it, or divide it: differences and shares."""
    minus, plus, over = (
        look_up(on.values, v) if isinstance(v, str) else v for v in (minus, plus, over)
    )
    return (look_up(on.values, of) - minus + plus) / over


def read_off(on: Evidence, *, figure: str) -> SimpleNamespace:
    """Share of the gap that the best embedding closes in a figure read off by eye (kNN, Tahoe)."""
    table = facts("cole2026_tahoe_lfc_read_off").set_index(["figure", "display_name"])
    value = table.loc[figure, "L2_median"]
    best = value[[name for name in value.index if "best by median" in name][0]]
    floor = value["Train Mean"]
    return SimpleNamespace(
        value=value, best=best, share=(floor - best) / (floor - value["Experimental Error"])
    )


def said(on: Evidence, **stated) -> dict:
    """Give numbers that the paper states, to compare with."""
    return {k: pd.Series(v) if isinstance(v, dict) else v for k, v in stated.items()}
