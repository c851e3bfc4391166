"""Methods against each other in the published figures: what superiority and equivalence rest on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace

import pandas as pd

from perturbcore.data.published.names import LINES
from perturbcore.data.published.tables import Published
from perturbcore.report.published.figures import FigureData, FigureSpec, figure_data
from perturbcore.score.uncertainty.intervals import mean_ci

# Five folds: the test set is a quarter of the training set (Nadeau and Bengio 2003).
TEST_RATIO = 0.25
WAVEGC = "STRING WaveGC"


@dataclass
class Evidence:
    """The published scores of Cole et al. 2026, figure by figure."""

    published: Published
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


@dataclass(frozen=True)
class Pair:
    """One method against another in one figure; a gain is positive where the method is better."""

    figure: FigureData
    method: str
    reference: str
    only: tuple[str, ...] = ()

    def _gain(self, wide: pd.DataFrame | None) -> pd.Series | None:
        if wide is None:
            return None
        wide = self.figure.better(wide[[self.method, self.reference]]).dropna()
        if self.only:
            wide = wide[wide.index.get_level_values("cell_line").isin(self.only)]
        return wide[self.method] - wide[self.reference]

    @cached_property
    def on_medians(self) -> pd.Series:
        """Gain per line on medians over folds."""
        return self._gain(self.figure.medians())

    @cached_property
    def on_means(self) -> pd.Series | None:
        """Gain per line on means over folds."""
        return self._gain(self.figure.means())

    @cached_property
    def by_fold(self) -> pd.Series | None:
        """Gain per line and fold."""
        return self._gain(self.figure.folds())

    @cached_property
    def wins(self) -> int:
        """Lines with a better median."""
        return int((self.on_medians > 0).sum())

    @property
    def lines(self) -> int:
        """Number of lines."""
        return len(self.on_medians)

    @property
    def every_line(self) -> bool:
        """Whether the median is better on every line."""
        return self.wins == self.lines

    @property
    def every_mean(self) -> bool:
        """Whether the mean is better on every line; true where folds are not at hand."""
        return self.on_means is None or bool((self.on_means > 0).all())

    @property
    def every_fold(self) -> bool:
        """Whether every fold was won (on medians alone: every line)."""
        return self.every_line if self.by_fold is None else bool((self.by_fold > 0).all())

    @property
    def most_folds(self) -> bool:
        """Whether more than half of the folds were won; true where folds are not at hand."""
        return self.by_fold is None or bool((self.by_fold > 0).mean() > 0.5)

    @property
    def gain(self) -> float:
        """Mean gain over folds (on medians alone: over lines)."""
        gain = self.on_medians if self.by_fold is None else self.by_fold
        return float(gain.mean())

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the gain, lines averaged in a fold, corrected for overlapping folds."""
        if self.by_fold is None:
            return None
        found = mean_ci(self.by_fold.groupby("fold").mean().to_numpy(), test_ratio=TEST_RATIO)
        return found.low, found.high

    @property
    def superior(self) -> bool:
        """Whether the interval lies above zero (on medians alone: every line is better)."""
        return self.every_line if self.interval is None else self.interval[0] > 0

    @property
    def not_worse(self) -> bool:
        """Whether the interval reaches zero (on medians alone: a line is as good)."""
        if self.interval is None:
            return bool((self.on_medians >= 0).any())
        return self.interval[1] >= 0

    @property
    def relative(self) -> float:
        """Size of the gain as a share of the reference's score."""
        folds = self.figure.folds()
        values = (self.figure.medians() if folds is None else folds)[self.reference]
        return abs(self.gain) / values.mean()

    @property
    def certainty(self) -> str | None:
        """The interval in words."""
        if self.interval is None:
            return None
        return f"{self.interval[0]:+.3f} to {self.interval[1]:+.3f}"

    @property
    def medians(self) -> str:
        """Wins on medians, in words."""
        return _wins(self.on_medians, "line")

    @property
    def means(self) -> str | None:
        """Wins on means, in words."""
        return None if self.on_means is None else _wins(self.on_means, "line")

    @property
    def folds(self) -> str | None:
        """Wins fold by fold, in words."""
        return None if self.by_fold is None else _wins(self.by_fold, "fold")

    @property
    def folds_per_line(self) -> pd.Series | None:
        """Folds won on each line, in words."""
        if self.by_fold is None:
            return None
        by = (self.by_fold >= 0).groupby("cell_line")
        return by.sum().astype(str) + " of " + by.size().astype(str) + " folds"

    @property
    def text(self) -> str:
        """Wins fold by fold where folds are at hand, else on medians."""
        return self.folds or self.medians


def _wins(gain: pd.Series, unit: str) -> str:
    word = "in" if unit == "fold" else "on"
    return f"better {word} {(gain > 0).sum()} of {len(gain)} {unit}{'s' * (len(gain) != 1)}"


def pair(
    evidence: Evidence, values: Mapping, *, figure: str, method: str, reference: str, only=()
) -> Pair:
    """Compare one method with one reference, on all lines or some."""
    return Pair(evidence.fig(figure), method, reference, tuple(only))


def against(evidence, values, *, figure: str, methods: list[str], references: list[str]):
    """Compare each of some methods with all of some references, on every line and in every fold."""
    data = evidence.fig(figure)
    names = data.select(*methods)
    pairs = {name: [Pair(data, name, other) for other in references] for name in names}
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


def beyond(evidence, values, *, figure: str, method: str, other: str, methods: list[str]):
    """Gain of a method, per line on medians, over the best of some methods of another figure."""
    data, second = evidence.fig(figure), evidence.fig(other)
    medians = data.better(data.medians()[method])
    rivals = second.better(second.medians()[second.select(*methods)])
    gain = medians - rivals.loc[medians.index].max(axis=1)
    return SimpleNamespace(
        gain=gain, ahead=int((gain > 0).sum()), best=rivals.idxmax(axis=1), lines=len(gain)
    )


def crossing(evidence, values, *, figure: str, methods: list[str], references: list[str]):
    """Pairs (method, reference) in which the reference is not better on every line."""
    data = evidence.fig(figure)
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


def reached(evidence, values, *, settings: dict[str, list], target: str):
    """Methods whose median is as good as a target on some line, setting by setting.

    `settings` has for each name a figure and its methods; two figures may share a name by a list.
    """
    found = {}
    for name, parts in settings.items():
        found[name] = []
        for figure, methods in parts.items():
            data = evidence.fig(figure)
            medians = data.better(data.medians())
            for one in data.select(*methods):
                if (medians[one] >= medians[target]).any() and one not in found[name]:
                    found[name].append(one)
    names = [one for part in found.values() for one in part]
    each = "; ".join(f"{name}: {', '.join(part)}" for name, part in found.items() if part)
    return SimpleNamespace(names=names, each=each or "none", settings=len(found))
