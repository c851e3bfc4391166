"""Methods scored on the same folds and lines: means, gains with intervals, share of the gap."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, check_choice
from perturbcore.report.figures.style import display_names
from perturbcore.report.text import plural, tell
from perturbcore.score.metrics.registry import metric as registered
from perturbcore.score.model import COVERING, MASK
from perturbcore.score.task import primary_metric
from perturbcore.score.uncertainty import holm, resampled_means, t_statistics

FLOOR, REPEATED = "train_mean", "repeated_experiment"
CEILINGS = ("noise_floor", REPEATED, "experimental_error", "idealized")
LEVEL = 0.05
# the four verdicts, distinguishable without colour
SIGNS = {"better": "▲", "worse": "▼", "tie": "=", "undecidable": "?"}
PREDICTORS = {"knn": "kNN", "forest": "random forest", "elastic_net": "elastic net"}
GAINS = "method value against reference gain low high p p_holm lines".split()


def verdict(gain: float, p: float) -> str:
    """Say how a method does against a reference, given its gain and the adjusted p-value.

    "better" or "worse" where p < 0.05, else "tie"; "undecidable" without a p-value (one fold only).
    """
    if not np.isfinite(p):
        return "undecidable"
    return "tie" if p >= LEVEL else "better" if gain > 0 else "worse"


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Adjust the p of gains over all rows of a table (Holm), and say what each amounts to."""
    p = holm(table["p"].astype(float))
    told = [verdict(gain, adjusted) for gain, adjusted in zip(table["gain"], p, strict=True)]
    return table.assign(p_holm=p, verdict=told)


def method_names(scores: pd.DataFrame) -> pd.Series:
    """Name the method of each row: its embedding, with the predictor where it has several."""
    name = display_names(scores.drop(columns=["display", "method"], errors="ignore"))["display"]
    several = scores.groupby("embedding")["predictor"].transform("nunique") > 1
    with_predictor = name + ", " + scores["predictor"].replace(PREDICTORS)
    return name.where(~several | (scores["embedding"] == ""), with_predictor)


def _by_fold(units: pd.DataFrame) -> pd.DataFrame:
    return units.groupby(level="fold").mean()


class PairedScores:
    """Methods scored on the same folds and cell lines of one data set, by one metric.

    A unit is a cell line and fold; seeds are averaged. The same perturbations are in the same
    fold in every line, so that folds are the observations: differences are taken within units
    and averaged over lines before they are tested. Intervals and p-values are those of the
    corrected resampled t-test, because training sets of folds overlap (Nadeau and Bengio 2003,
    Machine Learning 52). Of the idealized embedding only the predictor with the best score is
    kept: it is to be a ceiling.

    Parameters
    ----------
    scores : pandas.DataFrame
        Of one data set and task, floors and ceilings among them. A column `method` (or `display`)
        names the methods; otherwise `method_names` does. What a column `calibrated` calls false is
        shown, but no ceiling of shares of the gap.
    metric : str, optional
        The primary metric of the task by default.
    reference : str, optional
        Method that `gains` compares with by default.
    predictor : str, optional
        Keep only this predictor, and what has none.
    needs_ceiling : bool
        Scores without any ceiling are refused; otherwise they have no shares of a gap.
    """

    def __init__(
        self,
        scores: pd.DataFrame,
        metric: str | None = None,
        reference: str | None = None,
        *,
        predictor: str | None = None,
        needs_ceiling: bool = True,
    ):
        self.needs_ceiling = needs_ceiling
        self.metric = metric or primary_metric(scores)
        known, self.reference = registered(self.metric), reference
        self.label, self.higher_is_better = known.label, known.higher_is_better
        self.sign = 1.0 if known.higher_is_better else -1.0
        rows = scores[scores["metric"] == self.metric]
        if rows.empty:
            there = ", ".join(sorted(scores["metric"].unique()))
            raise InputError(f"the scores have no metric '{self.metric}'; they have: {there}")
        if "dataset" in rows and rows["dataset"].nunique() > 1:
            names = ", ".join(sorted(rows["dataset"].unique()))
            raise InputError(f"scores of one data set are needed, not of {names}")
        rows = self._kept(rows, predictor)
        name = rows.get("method", rows.get("display"))
        self.scores = rows.assign(method=method_names(rows) if name is None else name)
        unit = [c for c in ("cell_line", "fold", "method", "seed") if c in self.scores]
        twice = self.scores.duplicated(unit)
        if twice.any():
            where = ", ".join(f"{c}={v}" for c, v in self.scores.loc[twice, unit].iloc[0].items())
            raise InputError(tell("comparison.twice", n=int(twice.sum()), where=where))
        columns = ["method", "embedding", "predictor", "modality"]
        self.methods = self.scores.drop_duplicates("method")[columns].set_index("method")
        table, place = self.scores, ["cell_line", "fold"]
        units = table.pivot_table("value", place, "method", observed=True)
        self.units = units.reindex(columns=self.methods.index)

    def _kept(self, rows: pd.DataFrame, predictor: str | None) -> pd.DataFrame:
        """Keep rows of one predictor or of fusions, and of the idealized embedding the best's."""
        ideal = rows["embedding"] == "idealized"
        if predictor is not None:
            any_way = ideal | rows["embedding"].isin(["", MASK]) | rows["modality"].eq("Fusion")
            rows = rows[any_way | (rows["predictor"] == predictor)]
            ideal = rows["embedding"] == "idealized"
        mean = self.sign * rows[ideal].groupby("predictor")["value"].mean()
        return rows[~ideal | (rows["predictor"] == mean.idxmax())] if len(mean) else rows

    @cached_property
    def competitors(self) -> list[str]:
        """Methods that compete: all but controls and embeddings of too low coverage."""
        names = self.methods.index[~self.methods["modality"].str.endswith("control")]
        if not len(names):
            raise InputError("only controls were scored: add an embedding or a method to compare")
        enough = names[~(self.coverage[names] < COVERING)]
        return list(enough if len(enough) else names)

    @cached_property
    def coverage(self) -> pd.Series:
        """Share of the perturbations that a method has a vector for; missing if it needs none."""
        return self.mean_of("coverage")

    @cached_property
    def means(self) -> pd.Series:
        """Score of each method, as every table prints it: mean over lines, then over folds."""
        return _by_fold(self.units).mean()

    @cached_property
    def best(self) -> str:
        """Competitor of the best mean score, named after the fact."""
        return self.best_of(self.competitors)

    def best_of(self, methods: Sequence[str]) -> str:
        """Return the one of best mean score among `methods`."""
        return str((self.sign * self.means[list(methods)]).idxmax())

    def named(self, **what: str) -> str:
        """Return the first method of this `embedding` and `predictor`; "" if none was scored."""
        found = self.methods[[*what]].eq(pd.Series(what)).all(axis=1)
        return str(found.idxmax()) if found.any() else ""

    @property
    def floor(self) -> str:
        """What the Train Mean is called here."""
        return self._control((FLOOR,), "floor")

    @property
    def ceiling(self) -> str:
        """The first calibrated one of `CEILINGS`; "" where none is there and none is needed."""
        far = set(self.methods.loc[self.uncalibrated, "predictor"])
        near = [c for c in CEILINGS if c not in far]
        there = self.methods[["embedding", "predictor"]].isin(near).any(axis=None)
        return self._control(near, "ceiling") if there or self.needs_ceiling else ""

    @cached_property
    def uncalibrated(self) -> list[str]:
        """Ceilings that were not within 5 % of a known truth: shown, and no more."""
        there = self.scores.get("calibrated", pd.Series(True, self.scores.index))
        return list(dict.fromkeys(self.scores.loc[~there.astype(bool), "method"]))

    def _control(self, names: Sequence[str], what: str) -> str:
        for name in names:
            if found := self.named(embedding=name) or self.named(predictor=name):
                return found
        raise InputError(f"no {what} in the scores ({' or '.join(names)}): evaluate with controls")

    def mean_of(self, column: str) -> pd.Series:
        """Mean of a column of the scores per method; missing where it was not measured."""
        values = self.scores.get(column, pd.Series(np.nan, self.scores.index))
        return values.astype(float).groupby(self.scores["method"]).mean()

    @cached_property
    def seconds(self) -> pd.Series:
        """Mean seconds per fold and line of each method."""
        return self.mean_of("seconds")

    def test_ratio(self, line: str | None = None) -> float:
        """Test over training size; k folds of equal size where sizes are not known."""
        rows = self.scores if line is None else self.scores[self.scores["cell_line"] == line]
        if {"n_test", "n_train"} <= set(rows):
            ratio = rows["n_test"] / rows["n_train"]
            known = ratio[(rows["n_test"] > 0) & (rows["n_train"] > 0)]
            if len(known):
                return float(known.mean())
        folds = rows["fold"].nunique()
        return 1 / (folds - 1) if folds > 1 else 1.0

    def gains(
        self,
        reference: str | Mapping[str, str] | None = None,
        by: Sequence[str] = (),
        methods: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Compare methods with a reference on the same units; a positive gain is better.

        Parameters
        ----------
        reference : str or mapping, optional
            One method for all, or the reference of each method; that of the comparison, or the best
            competitor, by default.
        by : sequence of str
            Nothing, over all cell lines; "cell_line", within each.
        methods : sequence of str, optional
            Which to compare: all competitors but the reference by default.

        Returns
        -------
        pandas.DataFrame
            (cell_line,) method, value, against (the reference), reference (its score on the same
            units), gain, low, high (95 % interval over folds), p, p_holm (adjusted over the methods
            compared with the same reference; Holm 1979), lines ("3 of 4": in how many cell lines it
            is ahead on average), verdict, seconds (mean per fold and line), embedding, predictor,
            modality; largest gain first.
        """
        if not isinstance(reference, Mapping):
            name = reference or self.reference or self.best
            names = self.competitors if methods is None else methods
            reference = {m: name for m in names if m != name}
        for name in (*reference, *reference.values()):
            check_choice("method", name, list(self.units))
        lines = self.units.index.unique("cell_line") if by else [None]
        return pd.concat([self._against(reference, line) for line in lines], ignore_index=True)

    def _against(self, reference: Mapping[str, str], line: str | None) -> pd.DataFrame:
        units = self.units if line is None else self.units.xs(line, drop_level=False)
        ratio, parts = self.test_ratio(line), [judged(pd.DataFrame(columns=GAINS))]
        for name in dict.fromkeys(reference.values()):
            mine = units[[m for m, r in reference.items() if r == name]]
            gain = self.sign * mine.sub(units[name], axis=0)
            # equal methods may differ by rounding, in the same direction in every fold
            gain = gain.mask(gain.abs() <= 1e-12 * mine.abs().max().max(), 0.0)
            there = gain.notna()
            found = t_statistics(_by_fold(gain).to_numpy(), ratio)
            ahead = gain.groupby(level="cell_line", observed=True).mean() > 0
            part = {
                "value": _by_fold(mine.where(there)).mean(),
                "against": name,
                "reference": _by_fold(mine.where(there).sub(self.sign * gain)).mean(),
                "gain": found["mean"],
                **{c: found[c] for c in ("low", "high", "p")},
                "lines": [f"{n} of {len(ahead)}" for n in ahead.sum()],
            }
            table = pd.DataFrame(part, index=mine.columns.rename("method"))
            parts.append(judged(table.reset_index())[[*GAINS, "verdict"]])
        table = pd.concat([p for p in parts if len(p)] or parts[:1])
        table["seconds"] = table["method"].map(self.seconds)
        table = table.join(self.methods, on="method")
        if line is not None:
            table.insert(0, "cell_line", line)
        return table.sort_values("gain", ascending=False, kind="stable")

    def own_gains(self) -> pd.DataFrame:
        """Compare each use of a representation with kNN on it, see `gains`.

        Embeddings with one use are left out.
        """
        named = self.methods.loc[self.competitors].reset_index()
        base = named[named["predictor"] == "knn"].set_index("embedding")["method"]
        rest = named[(named["predictor"] != "knn") & named["embedding"].isin(base.index)]
        return self.gains(dict(zip(rest["method"], rest["embedding"].map(base), strict=True)))

    def between(self, a: str, b: str) -> pd.Series:
        """Return how much better `a` is than `b` over all cell lines: one row of `gains`."""
        return self.gains(b, methods=[a]).iloc[0]

    def gap(self, by: Sequence[str] = ()) -> pd.DataFrame:
        """Share of the way from floor to ceiling that each method goes.

        (score - floor) / (ceiling - floor), each a mean over the same lines and folds. 0 is the
        floor, 1 the ceiling; beyond is possible.

        Returns
        -------
        pandas.DataFrame
            (cell_line,) method, value, floor, ceiling, gap_closed; missing where the ceiling is not
            better than the floor.
        """
        lines = self.units.groupby(level="cell_line", observed=True)
        parts = []
        for line, units in lines if by else [(None, self.units)]:
            there = units.notna()
            means = {"value": _by_fold(units).mean()}
            for end, name in (("floor", self.floor), ("ceiling", self.ceiling)):
                known = units[name] if name else pd.Series(np.nan, units.index)
                means[end] = _by_fold(there.mul(known, axis=0).where(there)).mean()
            table = pd.DataFrame(means).rename_axis("method").reset_index()
            way = table["ceiling"] - table["floor"]
            share = (table["value"] - table["floor"]) / way + 0.0  # no negative zero
            table["gap_closed"] = share.where(self.sign * way > 0)
            if line is not None:
                table.insert(0, "cell_line", line)
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def ranks(self) -> pd.DataFrame:
        """Rank of each method in each cell line and fold (1 is best, ties share); no ceilings."""
        ceilings = self.methods.index[self.methods["modality"] == "Positive control"]
        rank = (-self.sign * self.units.drop(columns=ceilings)).rank(axis=1)
        return rank.stack().dropna().rename("rank").reset_index().join(self.methods, on="method")

    def rank_table(self, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Median and mean rank of each method, with a bootstrap interval of the mean rank.

        Since folds share training data, the intervals are somewhat too narrow. `n_boot`: how often
        units (cell line and fold) are drawn with replacement; `seed`: of these draws.

        Returns
        -------
        pandas.DataFrame
            method, median_rank, mean_rank, low, high (95 %), embedding, predictor, modality; best
            first.
        """
        rank = self.ranks().pivot(index=["cell_line", "fold"], columns="method", values="rank")
        there, rng = rank.notna().to_numpy(float), np.random.default_rng(seed)
        means = resampled_means(rank.fillna(0).to_numpy(), there, n_boot, rng)
        low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
        table = pd.DataFrame(
            {"median_rank": rank.median(), "mean_rank": rank.mean(), "low": low, "high": high}
        )
        table = table.join(self.methods).sort_values(["median_rank", "mean_rank"], kind="stable")
        return table.rename_axis("method").reset_index()

    def verdict_said(self, title: str, gains: pd.DataFrame | None = None) -> str:
        """Say in one word what the best is against its reference, and on how many of what (MyST).

        `gains`: of `gains`, whose first row counts; of the best over the Train Mean by default.
        """
        table = self.gains(self.floor) if gains is None else gains
        if not len(table):
            return ""
        row, rows = table.iloc[0], self.scores[self.scores["method"] == self.floor]
        n = rows.groupby(["cell_line", "fold"])["n_test"].mean().groupby("cell_line").sum().max()
        counts = [(int(n), "perturbation"), (rows["cell_line"].nunique(), "cell line")]
        counts.append((rows["fold"].nunique(), "fold"))
        sizes = ", ".join(f"{k:,} {plural(k, what)}" for k, what in counts)
        word = f"[{SIGNS[row['verdict']]} {row['verdict']}]{{.verdict .{row['verdict']}}}"
        return tell("comparison.verdict", row=row, word=word, c=self, title=title, sizes=sizes)
