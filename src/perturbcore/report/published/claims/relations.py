"""The relations that claims are made of: each takes the published scores and gives named values.

A claim file names a relation and its parameters; conditions and texts of the claim read the values.
Methods are chosen as in `FigureData.select`. Where only medians over folds are at hand, what
needs single folds is None. Here are those on the published figures, `printed` has the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd

from perturbcore.data.published.tables import LINES, Published
from perturbcore.report.published.claims.language import compare, holds, look_up
from perturbcore.report.published.figures import FigureData, FigureSpec, figure_data
from perturbcore.report.text import plural
from perturbcore.score.uncertainty import t_statistics

# Five folds: the test set is a quarter of the training set (Nadeau and Bengio 2003).
TEST_RATIO = 0.25
WAVEGC = "STRING WaveGC"


@dataclass
class Evidence:
    """What a relation is asked on: the published scores by figure, and a claim's values so far."""

    published: Published
    values: dict = field(default_factory=dict)
    _figures: dict[str, FigureData] = field(default_factory=dict)

    def fig(self, name: str) -> FigureData:
        """Return the data of one figure; "full set" has advanced methods that no figure shows."""
        if name not in self._figures:
            make = _full_set if name == "full set" else figure_data
            self._figures[name] = make(name, self.published)
        return self._figures[name]


def _full_set(name: str, published: Published) -> FigureData:
    """Select generative models and GEARS on the full set of Essential, beside kNN on WaveGC."""
    title = "Essential (full set), LFC: generative models"
    rows = published.scores
    rows = rows[(rows["dataset"] == "essential") & (rows["perturbation_set"] == "full")]
    knn = (rows["predictor"] == "knn") & (rows["display"] == WAVEGC)
    rows = rows[(rows["metric"] == "L2") & ((rows["modality"] == "Advanced") | knn)]
    spec, order = (
        FigureSpec("box", title, panels=LINES["essential"]),
        sorted(rows["display"].unique()),
    )
    return FigureData(name, spec, rows, order, published.level)


def _wins(gain: pd.Series | None, unit: str) -> str | None:
    if gain is None:
        return None
    word = "in" if unit == "fold" else "on"
    return f"better {word} {(gain > 0).sum()} of {len(gain)} {plural(gain, unit)}"


def pair(
    on: Evidence, *, figure: str, method: str, reference: str, only: Sequence[str] = ()
) -> SimpleNamespace:
    """Compare one method with one reference on medians, on means and fold by fold.

    A gain is positive where the method is better. On medians alone, lines stand for folds.
    """
    data = on.fig(figure)

    def gain(wide: pd.DataFrame) -> pd.Series:
        wide = data.better(wide[[method, reference]]).dropna()
        if only:
            wide = wide[wide.index.get_level_values("cell_line").isin(only)]
        return wide[method] - wide[reference]

    lines, of_means, of_folds = gain(data.medians()), data.means(), data.folds()
    means = None if of_means is None else gain(of_means)
    folds = None if of_folds is None else gain(of_folds)
    every_line, units = bool((lines > 0).all()), lines if folds is None else folds
    wide = data.medians() if of_folds is None else of_folds
    certainty = per_line = None
    if folds is not None:
        interval = t_statistics(folds.groupby("fold").mean().to_numpy()[:, None], TEST_RATIO)
        low, high = (float(interval[side][0]) for side in ("low", "high"))
        certainty = f"{low:+.3f} to {high:+.3f}"
        by = (folds >= 0).groupby("cell_line")
        per_line = by.sum().astype(str) + " of " + by.size().astype(str) + " folds"
    return SimpleNamespace(
        method=method,
        reference=reference,
        metric=data.spec.metric,
        wins=int((lines > 0).sum()),
        lines=len(lines),
        every_line=every_line,
        every_mean=means is None or bool((means > 0).all()),
        every_fold=bool((units > 0).all()),
        most_folds=folds is None or bool((folds > 0).mean() > 0.5),
        gain=float(units.mean()),
        relative=abs(units.mean()) / wide[reference].mean(),
        superior=every_line if certainty is None else low > 0,
        not_worse=bool((lines >= 0).any()) if certainty is None else high >= 0,
        certainty=certainty,
        folds_per_line=per_line,
        medians=_wins(lines, "line"),
        means=_wins(means, "line"),
        folds=_wins(folds, "fold"),
        text=_wins(folds, "fold") or _wins(lines, "line"),
    )


def against(
    on: Evidence, *, figure: str, methods: list[str], references: list[str]
) -> SimpleNamespace:
    """Compare each of some methods with all of some references, on every line and in every fold."""
    data = on.fig(figure)
    names = data.select(*methods)
    pairs = {
        name: [pair(on, figure=figure, method=name, reference=other) for other in references]
        for name in names
    }
    sure = [name for name in names if all(p.every_fold for p in pairs[name])]
    medians, folds = data.better(data.medians()), data.folds()
    won = medians[names].gt(medians[references].max(axis=1), axis=0)
    wide = medians if folds is None else data.better(folds)
    ahead = wide[names].gt(wide[references].max(axis=1), axis=0).sum()
    each = ahead.astype(str) + " of " + wide[names].notna().sum().astype(str)
    units = "medians" if folds is None else "folds"
    return SimpleNamespace(
        names=names,
        sure=sure,
        rest=[name for name in names if name not in sure],
        always=[] if folds is None else sure,
        everywhere=[name for name in names if won[name].all()],
        superior=[name for name in names if all(p.superior for p in pairs[name])],
        ahead=ahead,
        each=[f"{name} in {n} {units}" for name, n in each.items()],
        ahead_in=[f"{name} in {n}" for name, n in each.items() if ahead[name]],
        won=won.sum(),
        total=int(won.to_numpy().sum()),
        cells=won.size,
        throughout="on every line" if folds is None else "in every fold",
        in_folds=None if folds is None else len(sure),
        units=len(wide),
    )


def beyond(
    on: Evidence, *, figure: str, method: str, other: str, methods: list[str]
) -> SimpleNamespace:
    """Gain of a method, per line on medians, over the best of some methods of another figure."""
    data, second = on.fig(figure), on.fig(other)
    medians = data.better(data.medians()[method])
    rivals = second.better(second.medians()[second.select(*methods)])
    gain = medians - rivals.loc[medians.index].max(axis=1)
    ahead = int((gain > 0).sum())
    return SimpleNamespace(gain=gain, ahead=ahead, best=rivals.idxmax(axis=1), lines=len(gain))


def crossing(
    on: Evidence, *, figure: str, methods: list[str], references: list[str]
) -> SimpleNamespace:
    """Pairs (method, reference) in which the reference is not better on every line."""
    data = on.fig(figure)
    medians = data.better(data.medians())
    names = data.select(*methods)
    lost = [(m, r) for m in names for r in references if (medians[m] > medians[r]).any()]
    total = len(names) * len(references)
    return SimpleNamespace(
        names=names,
        total=total,
        kept=total - len(lost),
        lost=lost,
        through=sorted({r for _, r in lost}) if lost else None,
        below_best=bool(medians[names].lt(medians[references].max(axis=1), axis=0).all().all()),
    )


def reached(on: Evidence, *, settings: dict[str, dict], target: str) -> SimpleNamespace:
    """Methods whose median is as good as a target on some line, setting by setting."""
    found: dict[str, list[str]] = {}
    for name, figures in settings.items():
        there = []
        for figure, methods in figures.items():
            data = on.fig(figure)
            medians = data.better(data.medians())
            as_good = medians.ge(medians[target], axis=0).any()
            there += [one for one in data.select(*methods) if as_good[one]]
        found[name] = list(dict.fromkeys(there))
    each = "; ".join(f"{name}: {', '.join(part)}" for name, part in found.items() if part)
    names = sum(found.values(), [])
    return SimpleNamespace(names=names, each=each or "none", settings=len(found))


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
    best, worst, of_means = better.idxmax(), better.idxmin(), None
    if means is not None:
        of_means = data.better(means.loc[line, value.index]).groupby(modality).median().idxmax()
    return SimpleNamespace(
        value=value,
        list=list(value.map("{:.3f}".format)),
        best=best,
        worst=worst,
        high=value[best],
        low=value[worst],
        neighbours=len(neighbours),
        swaps=[f"{a} above {b}" for a, b in neighbours if better[a] > better[b]],
        by_modality=by,
        leading=by.index[0],
        best_modality=modality[best],
        worst_modality=modality[worst],
        leading_on_means=of_means,
        leading_n=None if of_means is None else int((modality == of_means).sum()),
    )


def agreement(on: Evidence, *, figure: str, other: str | None = None) -> SimpleNamespace:
    """Rank correlation of embeddings: between two figures per line, or between lines of one."""
    data = on.fig(figure)
    names = data.select("single")
    if other is not None:
        second = on.fig(other).medians()[names]
        return SimpleNamespace(value=data.medians()[names].T.corrwith(second.T, method="spearman"))

    def pairs(table: pd.DataFrame) -> np.ndarray:
        return table[names].T.corr("spearman").to_numpy()[np.triu_indices(len(table), 1)]

    value, of_means = pairs(data.medians()), data.means()
    means = None if of_means is None else pairs(of_means).mean()
    return SimpleNamespace(names=names, mean=value.mean(), low=value.min(), means=means)


def metric_agreement(on: Evidence, *, figure: str, metric: str) -> SimpleNamespace:
    """Rank correlation of one metric with the others over methods and folds."""
    data = on.fig(figure)
    rows = data.scores.pivot_table(index=["display", "fold"], columns="metric", values="value")
    panels, folds = list(data.spec.panels), data.level == "folds"
    value = rows.corr("spearman").loc[metric, panels]
    centred = rows - rows.groupby("fold").transform("mean")
    return SimpleNamespace(
        value=value,
        strength=value.abs(),
        n=len(rows),
        points="points" if folds else "medians",
        within=centred.corr("spearman").loc[metric, panels] if folds else None,
        folds=value if folds else None,
    )


def modality_share(on: Evidence, *, figure: str) -> SimpleNamespace:
    """Share of the variance between embeddings that lies between modalities, per line."""
    data = on.fig(figure)
    names = data.select("single")
    modality = data.modality[names]

    def between(table: pd.DataFrame | None) -> pd.Series | None:
        if table is None:
            return None
        centred = table[names].T - table[names].T.mean()
        fitted = centred.groupby(modality).transform("mean")
        return (fitted**2).sum() / (centred**2).sum()

    n, chance = len(names), (modality.nunique() - 1) / (len(names) - 1)
    means = between(data.means())
    return SimpleNamespace(value=between(data.medians()), means=means, n=n, chance=chance)


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
    parts = (minus, plus, over)
    minus, plus, over = (look_up(on.values, v) if isinstance(v, str) else v for v in parts)
    return (look_up(on.values, of) - minus + plus) / over


def said(on: Evidence, **stated) -> dict:
    """Give numbers that the paper states, to compare with."""
    return {k: pd.Series(v) if isinstance(v, dict) else v for k, v in stated.items()}
