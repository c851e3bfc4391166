"""Methods against each other in the published figures: what superiority and equivalence rest on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pandas as pd

from perturbcore.data.published.names import LINES
from perturbcore.data.published.tables import Published
from perturbcore.report.published.figures import FigureData, FigureSpec, figure_data
from perturbcore.report.text import plural
from perturbcore.score.uncertainty import mean_ci

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
    spec = FigureSpec(
        "box", "Essential (full set), LFC: generative models", panels=LINES["essential"]
    )
    rows = published.scores
    rows = rows[(rows["dataset"] == "essential") & (rows["perturbation_set"] == "full")]
    knn = (rows["predictor"] == "knn") & (rows["display"] == WAVEGC)
    rows = rows[(rows["metric"] == "L2") & ((rows["modality"] == "Advanced") | knn)]
    order = sorted(rows["display"].unique())
    return FigureData(name, spec, rows, order, pd.DataFrame(), published.level)


def _wins(gain: pd.Series | None, unit: str) -> str | None:
    if gain is None:
        return None
    word = "in" if unit == "fold" else "on"
    return f"better {word} {(gain > 0).sum()} of {len(gain)} {plural(gain, unit)}"


def pair(
    on: Evidence, *, figure: str, method: str, reference: str, only: Sequence[str] = ()
) -> SimpleNamespace:
    """Compare one method with one reference on medians, on means and fold by fold.

    A gain is positive where the method is better. Its 95 % interval (`certainty`) is over folds,
    lines averaged, corrected for overlapping training sets. On medians alone, lines stand for
    folds.
    """
    return _pair(on.fig(figure), method, reference, only)


def _pair(
    data: FigureData, method: str, reference: str, only: Sequence[str] = ()
) -> SimpleNamespace:
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
    interval = certainty = per_line = None
    if folds is not None:
        interval = mean_ci(folds.groupby("fold").mean().to_numpy(), test_ratio=TEST_RATIO)
        certainty = f"{interval.low:+.3f} to {interval.high:+.3f}"
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
        superior=every_line if interval is None else interval.low > 0,
        not_worse=bool((lines >= 0).any()) if interval is None else interval.high >= 0,
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
    pairs = {name: [_pair(data, name, other) for other in references] for name in names}
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
    return SimpleNamespace(
        gain=gain, ahead=int((gain > 0).sum()), best=rivals.idxmax(axis=1), lines=len(gain)
    )


def crossing(
    on: Evidence, *, figure: str, methods: list[str], references: list[str]
) -> SimpleNamespace:
    """Pairs (method, reference) in which the reference is not better on every line."""
    data = on.fig(figure)
    medians = data.better(data.medians())
    names = data.select(*methods)
    lost = [(m, r) for m in names for r in references if (medians[m] > medians[r]).any()]
    return SimpleNamespace(
        names=names,
        total=len(names) * len(references),
        kept=len(names) * len(references) - len(lost),
        lost=lost,
        through=sorted({r for _, r in lost}) if lost else None,
        below_best=bool(medians[names].lt(medians[references].max(axis=1), axis=0).all().all()),
    )


def reached(on: Evidence, *, settings: dict[str, dict], target: str) -> SimpleNamespace:
    """Methods whose median is as good as a target on some line, setting by setting.

    `settings` has for each name one figure or more, and the methods to look for in it.
    """
    found: dict[str, list[str]] = {name: [] for name in settings}
    for name, figures in settings.items():
        for figure, methods in figures.items():
            data = on.fig(figure)
            medians = data.better(data.medians())
            for one in data.select(*methods):
                if (medians[one] >= medians[target]).any() and one not in found[name]:
                    found[name].append(one)
    names = [one for part in found.values() for one in part]
    each = "; ".join(f"{name}: {', '.join(part)}" for name, part in found.items() if part)
    return SimpleNamespace(names=names, each=each or "none", settings=len(found))
