"""Decide the claims of the papers: read them, ask their relations, judge by their conditions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

import pandas as pd
import yaml

from perturbcore.core.errors import ParameterError
from perturbcore.data.published.tables import HOW_TO_GET, Published
from perturbcore.report.published.claims import named, pairs, relations
from perturbcore.report.published.claims.language import fill, holds
from perturbcore.report.published.figures import FIGURES, at_hand

HOLDS = "holds"
QUALIFIED = "holds with a qualification"
FAILS = "fails"
UNDECIDED = "cannot be decided from what is public"
NEEDS_TABLES = "needs the full tables"
VERDICTS = (HOLDS, QUALIFIED, FAILS, UNDECIDED, NEEDS_TABLES)
PAPERS = {
    "cole2026": "Cole et al. 2026",
    "bendidi2024": "Bendidi et al. 2024",
    "csendes2025": "Csendes et al. 2025",
}
KINDS = ("superiority", "equivalence", "count", "fact")
WEIGHTS = ("abstract", "result", "detail")


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, as its file has it.

    `id, paper, where, weight, kind, scope`: for instance "cole-20", "cole2026", "Sec. 2.1", one
    of `WEIGHTS` (how much hangs on it), one of `KINDS`, and the data set and task it speaks of;
    `quote, claim, test`: at most 25 words of the paper (empty where the claim is in a figure,
    or is our own), our reading of them, and the test in words; `ask`: values by name: a
    relation and its parameters; `holds, partly`: conditions on the values: for "holds", and for
    "holds with a qualification"; `number, why, medians, means, folds`: texts with values;
    `needs`: "medians" (those kept in the package are enough), "folds", or the figure whose own
    tables are needed; `until` they are at hand, its fields stand in for those of the claim;
    `undecided`: whether nothing public decides it; `own`: whether it is an observation of ours,
    which the paper does not claim.
    """

    id: str
    paper: str
    where: str
    weight: str
    kind: str
    scope: str
    quote: str
    claim: str
    test: str
    why: str | list[str]
    ask: dict = field(default_factory=dict)
    holds: str | bool = False
    partly: str | bool = False
    number: str | None = None
    medians: str | None = None
    means: str | None = None
    folds: str | None = None
    needs: str = "medians"
    until: dict = field(default_factory=dict)
    undecided: bool = False
    own: bool = False

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
    """Verdict of a claim, the number that decides, why; the same on medians, means and folds."""

    verdict: str
    number: str = ""
    why: str = ""
    on_medians: str = ""
    on_means: str = ""
    by_fold: str = ""


@cache
def _all_claims() -> tuple[Claim, ...]:
    out = []
    for paper in PAPERS:
        file = files("perturbcore.report.published.claims").joinpath(f"{paper}.yml")
        entries = yaml.safe_load(file.read_text("utf-8"))
        out += [Claim(paper=paper, **entry) for entry in entries["claims"]]
        own = entries.get("observations", [])
        out += [Claim(paper=paper, own=True, **entry) for entry in own]
    return tuple(out)


def claims(paper: str | None = None) -> list[Claim]:
    """List the claims of all papers, or of one ("cole2026", "bendidi2024", "csendes2025")."""
    if paper is not None and paper not in PAPERS:
        raise ParameterError(f"no paper {paper!r}; there are {', '.join(PAPERS)}")
    return [c for c in _all_claims() if paper in (None, c.paper)]


def _relation(name: str) -> Callable:
    for module in (pairs, relations, named):
        if hasattr(module, name):
            return getattr(module, name)
    raise ParameterError(f"a claim names an unknown relation {name!r}")


def _values(claim: Claim, evidence: pairs.Evidence) -> dict:
    on = replace(evidence, values={})
    for name, question in claim.ask.items():
        parameters = {k: v for k, v in question.items() if k != "relation"}
        on.values[name] = _relation(question["relation"])(on, **parameters)
    return on.values


def decide(claim: Claim, evidence: pairs.Evidence | Published) -> Answer:
    """Decide one claim on the published scores.

    The verdict is "needs the full tables" where only medians are at hand and single folds decide.
    """
    if isinstance(evidence, Published):
        evidence = pairs.Evidence(evidence)
    if claim.needs == "folds" and evidence.published.level == "medians":
        why = f"This is decided on single folds or other rows: {HOW_TO_GET}."
        return Answer(NEEDS_TABLES, why=why)
    waiting = claim.needs in FIGURES and not at_hand(claim.needs, evidence.published)
    claim = replace(claim, **claim.until) if waiting else claim
    values = _values(claim, evidence)
    if claim.undecided:
        verdict = UNDECIDED
    elif waiting:
        verdict = NEEDS_TABLES
    elif holds(claim.holds, values):
        verdict = HOLDS
    else:
        verdict = QUALIFIED if holds(claim.partly, values) else FAILS
    texts = (claim.number, claim.why, claim.medians, claim.means, claim.folds)
    return Answer(verdict, *(fill(text, values) for text in texts))


def answer(claim_id: str, published: Published) -> Answer:
    """Decide the claim of an id, such as "cole-44"."""
    found = [c for c in _all_claims() if c.id == claim_id]
    if not found:
        raise ParameterError(
            f"no claim {claim_id!r}; there are cole-01, bendidi-01, csendes-01, ..."
        )
    return decide(found[0], published)


def audit(published: Published, paper: str | None = None) -> pd.DataFrame:
    """Decide every claim, of all papers or one.

    Returns
    -------
    pandas.DataFrame
        One row per claim: id, paper, where, weight, kind, scope, quote, claim, test, rule (both
        cut-offs), verdict, number that decides, why, on_medians, on_means, by_fold, and own (an
        observation of ours).
    """
    evidence = pairs.Evidence(published)
    rows = []
    for claim in claims(paper):
        head = ("id", "where", "weight", "kind", "scope", "quote", "claim", "test", "rule", "own")
        about = {name: getattr(claim, name) for name in head}
        rows.append(about | {"paper": PAPERS[claim.paper]} | vars(decide(claim, evidence)))
    return pd.DataFrame(rows)


def counts(table: pd.DataFrame, by: str = "paper") -> pd.DataFrame:
    """Count the verdicts of an audit by paper, weight or kind, with a row and a column "all"."""
    out = pd.crosstab(table[by], table["verdict"])
    out = out.reindex(index=[v for v in dict.fromkeys(table[by])])
    out = out.reindex(columns=[v for v in VERDICTS if v in out.columns or v != NEEDS_TABLES])
    out = out.fillna(0).astype(int)
    out.loc["all"] = out.sum()
    out["all"] = out.sum(axis=1)
    out.columns.name = None
    return out.rename_axis(by)
