"""The claims of the papers, each decided by a rule on the published numbers."""

from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from perturbcore.core.errors import ParameterError
from perturbcore.data.published.tables import Published
from perturbcore.report.published.evidence import (
    NEEDS_TABLES,
    VERDICTS,
    Evidence,
    Finding,
    needs_tables,
)
from perturbcore.report.published.rules import RULES

PAPERS = {
    "cole2026": "Cole et al. 2026",
    "bendidi2024": "Bendidi et al. 2024",
    "csendes2025": "Csendes et al. 2025",
}
AUDIT_COLUMNS = [
    "id",
    "paper",
    "where",
    "claim",
    "test",
    "verdict",
    "number",
    "why",
    "on_medians",
    "on_means",
    "by_fold",
]


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, in our words.

    Attributes
    ----------
    id, paper, where : str
        For instance "cole-20", "cole2026", "Sec. 2.1".
    claim, test : str
        What is claimed, and the test that decides it.
    rule : str
        Key into the registry of rules.
    needs : {"medians", "folds"}
        Whether the medians kept in the package are enough.
    """

    id: str
    paper: str
    where: str
    claim: str
    rule: str
    test: str
    needs: str


def claims(paper: str | None = None) -> list[Claim]:
    """List the claims.

    Parameters
    ----------
    paper : {"cole2026", "bendidi2024", "csendes2025"}, optional
        One paper only.

    Returns
    -------
    list of Claim

    Raises
    ------
    ParameterError
        If there is no such paper.
    """
    if paper is not None and paper not in PAPERS:
        raise ParameterError(f"no paper {paper!r}; there are {', '.join(PAPERS)}")
    rows = pd.read_csv(
        files("perturbcore.report.published").joinpath("claims_old.csv"), comment="#"
    )
    if paper:
        rows = rows[rows["paper"] == paper]
    return [Claim(**row) for row in rows.to_dict("records")]


def decide(claim: Claim, evidence: Evidence) -> Finding:
    """Decide one claim.

    Parameters
    ----------
    claim : Claim
        As `claims` lists.
    evidence : Evidence
        The published scores.

    Returns
    -------
    Finding
        Verdict "needs the full tables" if only medians are at hand and single folds decide.
    """
    if claim.rule not in RULES:
        raise ParameterError(f"claim {claim.id} names an unknown rule {claim.rule!r}")
    if claim.needs == "folds" and evidence.level == "medians":
        return needs_tables()
    return RULES[claim.rule](evidence)


def audit(published: Published, paper: str | None = None) -> pd.DataFrame:
    """Decide every claim.

    Parameters
    ----------
    published : Published
        As `perturbcore.data.published.tables.load_published` returns.
    paper : str, optional
        One paper only.

    Returns
    -------
    pandas.DataFrame
        One row a claim, columns `AUDIT_COLUMNS`: where it stands, the test, verdict, the number that
        decides, the same question on medians, means and fold by fold, and why.
    """
    evidence = Evidence(published)
    rows = []
    for claim in claims(paper):
        found = decide(claim, evidence)
        rows.append(
            (
                claim.id,
                PAPERS[claim.paper],
                claim.where,
                claim.claim,
                claim.test,
                found.verdict,
                found.number,
                found.why,
                found.medians,
                found.means,
                found.folds,
            )
        )
    return pd.DataFrame(rows, columns=AUDIT_COLUMNS)


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts by paper.

    Parameters
    ----------
    table : pandas.DataFrame
        As `audit` returns.

    Returns
    -------
    pandas.DataFrame
        Papers x verdicts, with a row and a column "all".
    """
    out = pd.crosstab(table["paper"], table["verdict"])
    out = out.reindex(index=[p for p in PAPERS.values() if p in out.index])
    out = out.reindex(columns=[v for v in VERDICTS if v in out.columns or v != NEEDS_TABLES])
    out = out.fillna(0).astype(int)
    out.loc["all"] = out.sum()
    out["all"] = out.sum(axis=1)
    out.columns.name = None
    return out.rename_axis("paper")
