"""Decide the claims of the papers: read them, ask their relations, judge by their conditions."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import read_yaml
from perturbcore.data.published.tables import HOW_TO_GET, Published
from perturbcore.report.published.claims import printed, relations
from perturbcore.report.published.claims.language import fill, holds
from perturbcore.report.published.claims.relations import Evidence
from perturbcore.report.published.figures import FIGURES, at_hand
from perturbcore.report.text import HEADINGS

HOLDS = "holds"
QUALIFIED = "holds with a qualification"
FAILS = "fails"
UNDECIDED = "cannot be decided from what is public"
NEEDS_TABLES = "needs the full tables"
VERDICTS = (HOLDS, QUALIFIED, FAILS, UNDECIDED, NEEDS_TABLES)
PAPERS = HEADINGS["papers with claims"]
# Columns of an audit that are kept, decided on single folds, for readers without the full tables.
DATED = ["verdict", "sensitivity", "number", "why", "on_medians", "on_means", "by_fold"]
KINDS = ("superiority", "equivalence", "count", "fact")
WEIGHTS = ("abstract", "result", "detail")


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, as its file has it."""

    id: str
    paper: str
    where: str
    weight: str  # one of WEIGHTS: how much hangs on it
    kind: str  # one of KINDS
    scope: str  # data set and task
    quote: str  # at most 25 words of the paper; empty if the claim is in a figure, or our own
    claim: str  # our reading
    test: str  # the test in words
    why: str | list[str]  # like `number`, `medians`, `means` and `folds` a text with values
    ask: dict = field(default_factory=dict)  # values by name: a relation and its parameters
    holds: str | bool = False  # conditions on the values
    partly: str | bool = False
    number: str | None = None
    medians: str | None = None
    means: str | None = None
    folds: str | None = None
    needs: str = "medians"  # or "folds", or the figure whose own tables are needed
    until: dict = field(default_factory=dict)  # fields that stand in until these are at hand
    undecided: bool = False  # nothing public decides it
    own: bool = False  # an observation of ours, which the paper does not claim

    @property
    def rule(self) -> str:
        """Both cut-offs in words."""
        if self.undecided:
            return ""
        partly = f"; with a qualification if {self.partly}" if self.partly else ""
        partly = "; else with a qualification" if self.partly is True else partly
        return f"holds if {self.holds}{partly}"


@dataclass(frozen=True)
class Answer:
    """Verdict of a claim, number that decides, why, on medians, means and folds, and how firm."""

    verdict: str
    number: str = ""
    why: str = ""
    on_medians: str = ""
    on_means: str = ""
    by_fold: str = ""
    sensitivity: str = ""  # what the verdict would be with milder or stricter cut-offs


@cache
def claims() -> tuple[Claim, ...]:
    """Read the claims of all papers."""
    out = []
    for paper in PAPERS:
        entries = read_yaml(Path(__file__).with_name(f"{paper}.yml"))
        out += [Claim(paper=paper, **entry) for entry in entries["claims"]]
        own = entries.get("observations", [])
        out += [Claim(paper=paper, own=True, **entry) for entry in own]
    return tuple(out)


def decide(claim: Claim, evidence: Evidence | Published) -> Answer:
    """Decide one claim on the published scores.

    The verdict is "needs the full tables" where only medians are at hand and single folds decide.
    """
    on = Evidence(evidence) if isinstance(evidence, Published) else replace(evidence, values={})
    published = on.published
    if claim.needs == "folds" and published.level == "medians":
        why = f"This is decided on single folds or other rows: {HOW_TO_GET}."
        return Answer(NEEDS_TABLES, why=why)
    waiting = claim.needs in FIGURES and not at_hand(claim.needs, published)
    claim = replace(claim, **claim.until) if waiting else claim
    for name, question in claim.ask.items():
        parameters = {k: v for k, v in question.items() if k != "relation"}
        relation = (vars(printed) | vars(relations)).get(question["relation"])
        if relation is None:
            raise ParameterError(f"a claim names an unknown relation {question['relation']!r}")
        on.values[name] = relation(on, **parameters)
    sensitivity = ""
    if claim.undecided:
        verdict = UNDECIDED
    elif waiting:
        verdict = NEEDS_TABLES
    else:
        verdict = _judge(claim, on.values)
        # what it would be with every cut-off one step milder, and one step stricter
        other = {
            word: _judge(claim, on.values, by) for word, by in (("milder", 1), ("stricter", -1))
        }
        changed = [f"{word}: {said}" for word, said in other.items() if said != verdict]
        sensitivity = "; ".join(changed) or "stands"
    texts = (claim.number, claim.why, claim.medians, claim.means, claim.folds)
    filled = (fill(text, on.values) for text in texts)
    return replace(Answer(verdict, *filled), sensitivity=sensitivity)


def _judge(claim: Claim, values: dict, slack: int = 0) -> str:
    if holds(claim.holds, values, slack):
        return HOLDS
    return QUALIFIED if holds(claim.partly, values, slack) else FAILS


def answer(claim_id: str, published: Published) -> Answer:
    """Decide the claim of an id, such as "cole-44"."""
    found = [c for c in claims() if c.id == claim_id]
    if not found:
        raise ParameterError(f"no claim {claim_id!r}; there are cole-01, bendidi-01, ...")
    return decide(found[0], published)


def audit(published: Published) -> pd.DataFrame:
    """Decide every claim of all papers.

    Returns
    -------
    pandas.DataFrame
        One row per claim: id, paper, where, weight, kind, scope, quote, claim, test, rule (both
        cut-offs), verdict, number that decides, why, on_medians, on_means, by_fold, sensitivity
        (verdict with milder or stricter cut-offs), and own (an observation of ours).
    """
    evidence = Evidence(published)
    rows = []
    for claim in claims():
        head = ("id", "where", "weight", "kind", "scope", "quote", "claim", "test", "rule", "own")
        about = {name: getattr(claim, name) for name in head}
        rows.append(about | {"paper": PAPERS[claim.paper]} | vars(decide(claim, evidence)))
    return pd.DataFrame(rows)


def dated() -> pd.DataFrame:
    """Read the verdicts kept in the package, decided on single folds: `DATED` and date, by id."""
    # Three lines of comment stand at its top.
    options: dict = dict(skiprows=3, index_col="id", dtype=str, keep_default_na=False)
    return pd.read_csv(Path(__file__).with_name("dated.csv"), **options)


def with_dated(table: pd.DataFrame, published: Published) -> pd.DataFrame:
    """Put the kept fold-level verdicts and texts into an audit made on medians, with their date.

    `here` keeps the verdict computed on what is at hand.
    """
    if published.level == "folds":
        return table.assign(date="", here=table["verdict"])
    kept = dated().reindex(table["id"])
    return table.assign(here=table["verdict"], **{name: kept[name].to_numpy() for name in kept})


def counts(table: pd.DataFrame, by: str = "paper") -> pd.DataFrame:
    """Count the verdicts of an audit by paper, weight or kind, with a row and a column "all"."""
    out = pd.crosstab(table[by], table["verdict"]).reindex(index=table[by].unique())
    out = out.reindex(columns=[v for v in VERDICTS if v in out.columns or v != NEEDS_TABLES])
    out = out.fillna(0).astype(int)
    out.loc["all"] = out.sum()
    out["all"] = out.sum(axis=1)
    return out.rename_axis(index=by, columns=None)
