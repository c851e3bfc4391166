"""What a claim is decided on: the published scores, asked in the ways the figures and we ask them."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from perturbcore.data.published.tables import HOW_TO_GET, Published
from perturbcore.report.published.figures import FigureData, figure_data

HOLDS = "holds"
QUALIFIED = "holds with a qualification"
FAILS = "fails"
UNDECIDED = "cannot be decided from what is public"
NEEDS_TABLES = "needs the full tables"
VERDICTS = (HOLDS, QUALIFIED, FAILS, UNDECIDED, NEEDS_TABLES)


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`.
    number : str
        The number that decides.
    why : str
        A computed sentence.
    medians, means, folds : str
        The same question on medians over folds, on means, and fold by fold; empty where the
        question has no such answer.
    """

    verdict: str
    number: str
    why: str
    medians: str = ""
    means: str = ""
    folds: str = ""


@dataclass(frozen=True)
class Versus:
    """One method against another: wins on medians, on means, fold by fold."""

    lines: int
    median_wins: int
    mean_wins: int | None
    fold_wins: int | None
    n_folds: int
    mean_gain: float

    @property
    def medians(self) -> str:
        """Wins on medians, in words."""
        return f"better on {self.median_wins} of {self.lines} {_plural(self.lines)}"

    @property
    def means(self) -> str:
        """Wins on means, in words."""
        if self.mean_wins is None:
            return ""
        return f"better on {self.mean_wins} of {self.lines} {_plural(self.lines)}"

    @property
    def folds(self) -> str:
        """Wins fold by fold, in words."""
        return (
            "" if self.fold_wins is None else f"better in {self.fold_wins} of {self.n_folds} folds"
        )

    @property
    def every_fold(self) -> bool:
        """Whether every fold was won (on medians alone: every line)."""
        if self.fold_wins is None:
            return self.median_wins == self.lines
        return self.fold_wins == self.n_folds


def _plural(n: int) -> str:
    return "line" if n == 1 else "lines"


@dataclass
class Evidence:
    """The published scores of Cole et al. 2026, figure by figure.

    Parameters
    ----------
    published : Published
        As `load_published` returns.
    """

    published: Published
    _figures: dict[str, FigureData] = field(default_factory=dict)

    @property
    def level(self) -> str:
        """Whether folds or only medians are at hand."""
        return self.published.level

    def fig(self, name: str) -> FigureData:
        """Return the data of one figure."""
        if name not in self._figures:
            self._figures[name] = figure_data(name, self.published)
        return self._figures[name]

    def modality(self, name: str) -> dict[str, str]:
        """Display name -> modality, in the order of the figure."""
        rows = self.fig(name).scores.drop_duplicates("display").set_index("display")["modality"]
        return {d: rows[d] for d in self.fig(name).order if d in rows}

    def embeddings(self, name: str, *modalities: str) -> list[str]:
        """Embeddings of a figure: neither controls nor fusion, or those of given modalities."""
        skip = ("Negative control", "Positive control", "Fusion", "Advanced")
        return [
            d
            for d, m in self.modality(name).items()
            if (m in modalities if modalities else m not in skip)
        ]

    def better(self, name: str, values: pd.Series | pd.DataFrame):
        """Sign the values so that larger is better."""
        return -values if self.fig(name).spec.lower_is_better else values

    def gap(self, name: str, methods: list[str], how: str = "medians") -> pd.DataFrame:
        """Share of the way from Train Mean to the experimental error: lines x methods.

        References
        ----------
        Cole et al. 2026, Section 2.1 ("closes ... of the gap"), on medians over folds.
        """
        table = getattr(self.fig(name), how)()
        floor, ceiling = table["Train Mean"], table["Experimental Error"]
        return table[methods].rsub(floor, axis=0).div(floor - ceiling, axis=0)

    def versus(self, name: str, a: str, b: str, metric: str | None = None) -> Versus:
        """Compare method a with method b in one figure."""
        figure = self.fig(name)
        medians = self.better(name, figure.medians(metric)[[a, b]])
        wins = int((medians[a] > medians[b]).sum())
        gain = float((medians[a] - medians[b]).mean())
        if self.level == "medians":
            return Versus(len(medians), wins, None, None, 0, gain)
        means = self.better(name, figure.means(metric)[[a, b]])
        folds = self.better(name, figure.folds(metric)[[a, b]]).dropna()
        difference = folds[a] - folds[b]
        return Versus(
            len(medians),
            wins,
            int((means[a] > means[b]).sum()),
            int((difference > 0).sum()),
            len(difference),
            float(difference.mean()),
        )

    def beats_all(self, name: str, method: str, others: list[str]) -> bool:
        """Whether a method is better than each of the others in every fold of every line."""
        return all(self.versus(name, method, o).every_fold for o in others)

    def means_gap(self, name: str, methods: list[str]) -> str:
        """Gap closed on means, in words; empty where only medians are at hand."""
        if self.level == "medians":
            return ""
        return by_line(self.gap(name, methods, "means").iloc[:, 0])


def needs_tables() -> Finding:
    """Return the finding of a rule that needs single folds where only medians are at hand."""
    return Finding(
        NEEDS_TABLES, "", f"This is decided on single folds or other rows: {HOW_TO_GET}."
    )


def verdict(full: bool, partly: bool = False) -> str:
    """Grade: holds if `full`, else holds with a qualification if `partly`, else fails."""
    return HOLDS if full else QUALIFIED if partly else FAILS


def percent(value: float, digits: int = 0) -> str:
    """Write a share as a percentage."""
    return f"{100 * value:.{digits}f}%"


def by_line(values: pd.Series, form=percent) -> str:
    """Write a value for each line, such as 'K-562 77%, Hep-G2 62%'."""
    return ", ".join(f"{line} {form(value)}" for line, value in values.items())


def listed(names) -> str:
    """Join names in a sentence."""
    names = list(names)
    if not names:
        return "none"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def mean_off_diagonal(table: pd.DataFrame) -> tuple[float, float]:
    """Mean and smallest value above the diagonal of a square table."""
    values = table.to_numpy()[np.triu_indices(len(table), 1)]
    return float(values.mean()), float(values.min())
