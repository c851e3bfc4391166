"""Scores become a comparison: gains with intervals, ranking, share of the gap, answer.

Every chapter compares with this class, so that "better", "tie" and "share of the gap" mean the same
on every page. Floors and ceilings are shown, but they never compete: the best is the best method
that learns from data, and adjustments for many comparisons count competitors only.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.methods import interval_plot
from perturbcore.report.paired import CEILINGS, PREDICTORS, REPEATED, PairedScores, judged
from perturbcore.report.text import HEADINGS, listed, number, percent, plural, tell
from perturbcore.score.metrics.registry import metric as registered
from perturbcore.score.model import COVERING, MASK
from perturbcore.score.uncertainty import t_statistics

FULL_COVERAGE, LEAST_TAU, FAR_AHEAD = 0.995, 0.8, 3


class Comparison(PairedScores):
    """What a chapter says of methods on one data set; parameters as `PairedScores`.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=40, n_genes=80, n_control_cells=60)
    >>> from perturbcore.embeddings.base import Embedding
    >>> responses = pc.load_dataset("simulated", **sizes).responses
    >>> mine = Embedding("mine", "Expression", responses.obs["perturbation"], responses.X[:, :8])
    >>> scores = pc.evaluate(responses, [mine], ["knn"], progress=False)
    >>> int(pc.compare(scores).ranking()["competes"].sum())
    1
    """

    @property
    def noun(self) -> str:
        """What competes: embeddings, or methods where predictors differ."""
        same = self.methods.loc[self.competitors, "predictor"].nunique() == 1
        return "embedding" if same else "method"

    @cached_property
    def common(self) -> pd.Series:
        """Score on the perturbations that all embeddings cover; missing where it was not kept."""
        return self.mean_of("common")

    @cached_property
    def _order(self) -> list[str]:
        """All methods, best first."""
        return list((-self.sign * self.means).sort_values(kind="stable").index)

    def columns(self) -> dict[str, str]:
        """Columns of the ranking that a page shows, those without any value left out."""
        there = self.ranking().notna().any()
        return {name: head for name, head in HEADINGS["ranking"].items() if there[name]}

    def table(self, column: str = "value") -> pd.DataFrame:
        """Put a column of `gap` by method (rows, best first) and cell line, and over all lines."""
        wide = self.gap(("cell_line",)).pivot(index="method", columns="cell_line", values=column)
        wide["all lines"] = self.gap().set_index("method")[column]
        wide = wide.loc[self._order].rename_axis(columns=None).reset_index()
        wide.insert(1, "modality", wide["method"].map(self.methods["modality"]))
        return wide

    def ranking(self) -> pd.DataFrame:
        """Rank all methods over all cell lines, best first.

        Floors, ceilings and embeddings that cover too little do not compete.

        Returns
        -------
        pandas.DataFrame
            method, embedding, predictor, modality, value (mean over lines and folds), low, high
            (95 % interval over folds), coverage, common (score where all embeddings have vectors),
            seconds, competes, median_rank, floor, ceiling, gap_closed, behind (how much worse than
            the best), p_best, against_best, with_best (the best, or not shown to be worse),
            over_floor (gain over the Train Mean), p_floor, against_floor; p adjusted over
            competitors, verdicts as in `gains`.
        """
        return self._ranking.rename_axis("method").reset_index()

    @cached_property
    def _ranking(self) -> pd.DataFrame:
        """`ranking`, indexed by method, best first."""
        by_fold = self.units.groupby(level="fold").mean().to_numpy()
        interval = t_statistics(by_fold, self.test_ratio())
        bounds = registered(self.metric).bounds  # no interval reaches beyond what can be
        table = self.methods.assign(
            value=self.means,
            low=np.clip(interval["low"], *bounds),
            high=np.clip(interval["high"], *bounds),
            coverage=self.coverage,
            common=self.common,
            seconds=self.seconds,
            competes=self.methods.index.isin(self.competitors),
            median_rank=self.ranks().groupby("method")["rank"].median(),
        )
        table = table.join(self.gap().set_index("method")[["floor", "ceiling", "gap_closed"]])
        rivals = self.gains(self.best).set_index("method")
        table["behind"], table["p_best"] = -rivals["gain"], rivals["p_holm"]
        table["against_best"] = rivals["verdict"]
        level = rivals.index[rivals["verdict"].isin(["tie", "undecidable"])]
        table["with_best"] = table.index.isin([self.best, *level])
        beyond = self.gains(self.floor).set_index("method")
        table["over_floor"], table["p_floor"] = beyond["gain"], beyond["p_holm"]
        table["against_floor"] = beyond["verdict"]
        return table.loc[self._order]

    def neighbours(self, methods: Sequence[str] | None = None) -> pd.DataFrame:
        """Compare each method with the next in the ranking, adjusted over these pairs.

        `methods`: all competitors by default.

        Returns
        -------
        pandas.DataFrame
            place, method, value, next, behind (how much worse the next is), low, high (its 95 %
            interval), p_holm, verdict (of the next); the last has no next.
        """
        names = self.competitors if methods is None else list(methods)
        order = [m for m in self._order if m in names]
        pairs = [self.between(b, a) for a, b in zip(order, order[1:], strict=False)]
        found = pd.DataFrame(pairs, columns=["against", "method", "gain", "low", "high", "p"])
        found = judged(found).drop(columns="p")
        found.columns = ["method", "next", "behind", "low", "high", "p_holm", "verdict"]
        behind = -found[["behind", "high", "low"]].astype(float)
        found[["behind", "low", "high"]] = behind.to_numpy()
        out = pd.DataFrame({"place": range(1, len(order) + 1), "method": order})
        out["value"] = self.means[order].to_numpy()
        return out.merge(found, on="method", how="left")

    def unproven(self) -> list[str]:
        """Competitors that cannot be shown to beat the Train Mean, best first."""
        table = self._ranking[self._ranking["competes"]]
        return list(table.index[table["against_floor"] != "better"])

    def ties(self) -> list[str]:
        """Competitors that are not shown to be worse than the best, best first."""
        return [m for m in self._ranking.index[self._ranking["with_best"]] if m != self.best]

    def about(self, method: str) -> str:
        """Modality of a method in brackets, with its coverage where vectors are missing."""
        words = [self.methods.loc[method, "modality"].lower()]
        share = self.coverage[method]
        if share < FULL_COVERAGE:
            words.append(f"with a vector for {percent(share)} of the perturbations")
        return f"({', '.join(words)})"

    def score_said(self, method: str) -> str:
        """Write the score of a method with its 95 % interval, where it has one."""
        row = self._ranking.loc[method]
        known = np.isfinite(row["low"])
        return tell("comparison.score", row=row) if known else f"{row['value']:.3f}"

    def gap_said(self) -> str:
        """Say what the best closes of the gap; a clause without subject."""
        row = self._ranking.loc[self.best]
        if not self.ceiling:
            return "has no gap to close: these data have no ceiling"
        ceiling, share = f"{self.ceiling}, {row['ceiling']:.3f}", row["gap_closed"]
        again = self.named(predictor=REPEATED)
        if again not in ("", self.ceiling):
            ceiling += f"; a repeated experiment {self.means[again]:.3f}"
        if not np.isfinite(share):
            return tell("comparison.no_gap", ceiling=ceiling)
        gap = tell("comparison.gap", ceiling=ceiling)
        if share <= 0:
            return f"closes nothing {gap}: {percent(share)}"
        return f"{'reaches the ceiling and ' if share >= 1 else ''}closes {percent(share)} {gap}"

    def answer(self, title: str = "these data") -> str:
        """Say in three paragraphs what is best, what it closes of the gap, what ties or fails."""
        best, lead, floor = self.best, "", self.means[self.floor]
        if self.sign * (self.means[best] - floor) <= 0:
            lead = tell("comparison.lead", noun=self.noun)
        about = dict(about=self.about(best), score=self.score_said(best), floor=floor, lead=lead)
        first = tell("comparison.best", c=self, n=len(self.competitors), title=title, **about)
        gaps = self.gap(("cell_line",))
        gaps = gaps[(gaps["method"] == best) & gaps["gap_closed"].notna()]
        each = [f"{r.cell_line} {percent(r.gap_closed)}" for r in gaps.itertuples()]
        by_line = f"; by cell line: {', '.join(each)}" if len(each) > 1 else ""
        said = [first, f"It {self.gap_said()}{by_line}.", self.rest_said(), *self.caveats()]
        return "\n\n".join(said)

    def caveats(self) -> list[str]:
        """Say who lacks too many vectors to win, whether that decides, and what looks too good."""
        said, share, order = [*filter(None, [self.mask_said()])], self.coverage, self._order
        sparse = [m for m in order if share[m] < COVERING and m not in self.competitors]
        if sparse:
            each = [f"{m} ({percent(share[m])})" for m in sparse]
            said.append(tell("comparison.sparse", covering=COVERING, each=each))
        if rival := self.best_on_common:
            value, floor = self.common[[rival, self.floor]]
            said.append(tell("comparison.common", c=self, rival=rival, value=value, floor=floor))
        if self.uncalibrated:
            said.append(tell("comparison.uncalibrated", names=self.uncalibrated))
        if self.too_good:
            said.append(tell("comparison.too_good", best=self.best))
        return said

    def mask_said(self) -> str:
        """Say what knowing which labels are known is worth; empty where all are known."""
        if MASK not in self.means:
            return ""
        value, others = self.means[MASK], self.means[self.competitors]
        beaten = int((value > others).sum())
        return tell("comparison.mask", c=self, n=len(others), value=value, beaten=beaten)

    @cached_property
    def tau_on_common(self) -> float:
        """Kendall's tau of the competitors' order with that on what all embeddings cover."""
        both = pd.DataFrame({"all": self.means, "common": self.common}).loc[self.competitors]
        return float(both.corr("kendall").iloc[0, 1])

    @property
    def best_on_common(self) -> str:
        """The best where all embeddings have vectors, if that order differs; else empty."""
        there = (self.sign * self.common[self.competitors]).dropna()
        if there.empty or not (self.coverage < 1).any():
            return ""
        best = str(there.idxmax())
        return best if best != self.best or self.tau_on_common < LEAST_TAU else ""

    @property
    def too_good(self) -> bool:
        """Whether the best embedding is as far ahead as one that holds the labels would be."""
        ideal = self.named(embedding="idealized")
        good = (self.sign * self.means[self.competitors]).groupby(self.methods["embedding"]).max()
        steps = good.sort_values(ascending=False).to_list()
        if not ideal or len(steps) < 3:
            return False
        lead, *others = np.abs(np.diff(steps))
        way = self.sign * self.means[ideal] - steps[1]
        return bool(lead > FAR_AHEAD * max(others) and lead > way / 2)

    def rest_said(self) -> str:
        """Say which others tie with the best, and which do not beat the Train Mean."""
        n, ties, unproven = len(self.competitors), self.ties(), self.unproven()
        rivals = f"of the others, {listed(ties)} cannot be told apart from it, and "
        if n == 1:
            rivals = ""
        elif not ties:
            rivals = f"every other {self.noun} is distinguishably worse, and "
        elif len(ties) == n - 1:
            rivals = f"no other {self.noun} can be told apart from it, and "
        floor = f"{listed(unproven)} cannot be shown to beat the Train Mean"
        if not unproven:
            floor = f"every {self.noun} beats the Train Mean"
        elif len(unproven) == n:
            floor = f"no {self.noun} can be shown to beat the Train Mean"
        said = f"{rivals}{floor}."
        return said[0].upper() + said[1:]

    def tied_said(self) -> str:
        """Say in brackets how many others cannot be told apart from the best."""
        ties = self.ties()
        return f" ({len(ties)} {plural(ties, 'other ties', 'others tie')} with it)" if ties else ""

    def proven_said(self, what: str) -> str:
        """Say how many competitors are shown to do `what`, where the best by score is not."""
        n, k = len(self.competitors), len(self.competitors) - len(self.unproven())
        if not k:
            return f"no {self.noun} can be shown to {what}"
        return f"{k} of {n} {self.noun}s, the best by score not among them, can be shown to {what}"

    def one_line(self) -> str:
        """Condense the answer to one sentence."""
        n, unproven, best = len(self.competitors), self.unproven(), self.best
        if best in unproven:
            floor, value = self.means[[self.floor, best]]
            ceiling = number(float(self.means.get(self.ceiling, np.nan)), 2)
            proven = self.proven_said("beat the Train Mean")
            about = dict(
                proven=proven[0].upper() + proven[1:], about=self.about(best), ceiling=ceiling
            )
            return tell("comparison.unproven_best", c=self, n=n, floor=floor, value=value, **about)
        rest = f"{len(unproven)} of {n} cannot be shown to beat the Train Mean"
        if not unproven:
            rest = f"all {n} beat the Train Mean" if n > 1 else "it beats the Train Mean"
        lead = f"{best} {self.about(best)} is best of {n}{self.tied_said()}"
        return f"{lead} and {self.gap_said()}; {rest}."

    def reading(self) -> str:
        """Say what floor and ceiling mean: what is there to be learnt beyond the Train Mean."""
        floor, said = self.means[self.floor], []
        named = {p: m for m, p in self.methods["predictor"].items()}
        if "no_change" in named:
            none = self.means[named["no_change"]]
            beats = bool(self.sign * (floor - none) > 0)
            said.append(tell("comparison.floor", floor=floor, none=none, beats=beats))
        measured = [named[p] for p in CEILINGS if p in named and p != "idealized"]
        if not measured:
            return " ".join([*said, tell("comparison.no_noise")])
        limit = self.means[measured[0]]
        key = "beyond" if self.sign * (limit - floor) > 0 else "not_beyond"
        return " ".join([*said, tell(f"comparison.{key}", name=measured[0].lower(), limit=limit)])

    def figure(self) -> Figure:
        """Draw the ranking: means with intervals, best at the top, floor and ceiling as lines."""
        return interval_plot(self.ranking(), label=self.label, ceiling=self.ceiling)


def three_sentences(
    comparison: Comparison, *, simulated: bool, fused: Comparison | None = None, added: str = ""
) -> list[str]:
    """Give the answer of the first page: the best, what is added to it, the limit, with numbers.

    `comparison` is of single embeddings; `fused` has fusions (modality "Fusion"), floor and ceiling
    of the same data set; `added` says what foundation models add to all other sources, by default
    who else competes; `simulated` says whether the cells are.
    """
    c, n = comparison, len(comparison.competitors)
    where = "on simulated cells with known truth" if simulated else "on real cells"
    floor = f"where the Train Mean reaches {c.means[c.floor]:.3f}"
    score = f"{c.label} {c.score_said(c.best)}, {floor}"
    about = dict(n=n, best=c.best, about=c.about(c.best), score=score, tied=c.tied_said())
    about["proven"] = c.proven_said("predict unseen perturbations better than the Train Mean")
    key = "first_unproven" if c.best in c.unproven() else "first"
    first = tell(f"comparison.{key}", **about)
    third = f"The best {c.noun} {c.gap_said()}{_fusion_said(c, fused)}."
    return [f"In this build, {where}, {first}", added or c.rest_said(), third]


def _fusion_said(comparison: Comparison, fused: Comparison | None) -> str:
    """Say what the best fusion closes of the same gap; empty where it cannot be said."""
    if fused is None:
        return ""
    names = list(fused.methods.index[fused.methods["modality"] == "Fusion"])
    same = set(fused.scores["dataset"]) == set(comparison.scores["dataset"])
    if not names or not same or fused.ceiling != comparison.ceiling:
        return ""
    best = fused.best_of(names)
    share = fused.gap().set_index("method")["gap_closed"][best]
    if not np.isfinite(share):
        return ""
    return tell("comparison.fusion", n=len(names), best=best, share=share)


def predictor_agreement(scores: pd.DataFrame, metric: str, first: str, second: str) -> str:
    """Say how far two predictors rank the embeddings alike."""
    rows = scores[(scores["metric"] == metric) & ~scores["modality"].str.endswith("control")]
    mean = rows.groupby(["embedding", "predictor"])["value"].mean().unstack()
    mean = mean[[first, second]].dropna()
    rho = mean.corr("spearman").iloc[0, 1]
    sign = 1 if registered(metric).higher_is_better else -1
    better = int((sign * (mean[second] - mean[first]) > 0).sum())
    names = {"first": PREDICTORS.get(first, first), "second": PREDICTORS.get(second, second)}
    return tell("comparison.agreement", n=len(mean), rho=rho, better=better, **names)
