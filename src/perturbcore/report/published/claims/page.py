"""The claims page in MyST: summary, a card for each claim, and what is not reported."""

from typing import Any

import pandas as pd

from perturbcore.data.published.tables import HOW_TO_GET, Published
from perturbcore.report.published import unreported
from perturbcore.report.published.claims.audit import (
    FAILS,
    HOLDS,
    NEEDS_TABLES,
    QUALIFIED,
    UNDECIDED,
    counts,
)
from perturbcore.report.published.draw import markdown_table, plain
from perturbcore.report.text import signed, tell

# A sign beside the word, so that a verdict is told without colour; and the word for several.
SIGNS = {HOLDS: "✓", QUALIFIED: "◐", FAILS: "✗", UNDECIDED: "?", NEEDS_TABLES: "…"}
PLURAL = {
    HOLDS: "hold",
    QUALIFIED: "hold with a qualification",
    FAILS: "fail",
    UNDECIDED: UNDECIDED,
    NEEDS_TABLES: "still open for want of tables",
}
DETAILS = {
    "On medians": "on_medians",
    "On means": "on_means",
    "Fold by fold": "by_fold",
    "With other cut-offs": "sensitivity",
    "Decided on single folds": "date",
}


def summary(table: pd.DataFrame, published: Published) -> str:
    """Say in a few sentences how many claims hold, and on what that rests (MyST)."""
    total = counts(table).loc["all"]
    words = [f"**{n}** {PLURAL[v]}" for v, n in total.drop("all").items() if n]
    text = tell("claims.summary", n=total["all"], words=words)
    failed = table.loc[table["verdict"] == FAILS, "id"]
    if len(failed):
        text += " " + tell("claims.failed", links=[f"[{i}](#claim-{i})" for i in failed])
    note = published.note
    if published.level == "medians":
        here = table[table["here"] != NEEDS_TABLES]
        same = int((here["here"] == here["verdict"]).sum())
        about = dict(date=table["date"].max(), same=same, n=len(here), how=HOW_TO_GET)
        note = tell("claims.medians", **about)
    return f"{text}\n\n:::{{note}}\n{note}\n:::\n"


def cards(table: pd.DataFrame, *, dropdown: bool = False, anchors: bool = False) -> str:
    """Write each claim of an audit with its place, words, test, cut-offs, verdict, number, reason.

    `dropdown` folds the details; with `anchors` a card can be linked to as ``claim-<id>``.
    """
    if table.empty:
        return "None."
    kind, out = "dropdown" if dropdown else "admonition", []
    for row in table.itertuples():
        out += [f"(claim-{row.id})="] if anchors else []
        out += [f"::::{{{kind}}} {SIGNS[row.verdict]} {row.id}: {row.claim} ({row.verdict})"]
        words = f" “{plain(row.quote)}”" if row.quote else ""
        about = f"Kind: {row.kind}; weight: {row.weight}; scope: {plain(row.scope)}"
        place = f"*{row.paper}, {plain(row.where)}.*{words}"
        out += [place, "", f"{about}. Test: {plain(row.test)}.", ""]
        out += [f"**{plain(row.number)}**", ""] if row.number else []
        out += [plain(row.why), ""]
        details = {name: getattr(row, column, "") for name, column in DETAILS.items()}
        out += [f"- {name}: {plain(value)}" for name, value in details.items() if value]
        out += [f"- Rule: `{row.rule}`"] if row.rule else []
        out += ["::::", ""]
    return "\n".join(out)


def _waiting(published: Published) -> str:
    return f"This is decided on single folds. {published.note}"


def certainty(published: Published, chapter: Any) -> str:
    """Say which neighbours of each ranking are distinguishable; tables go to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(unreported.ranking_certainty(published), "rankings")
    pairs = chapter.save_table(unreported.neighbours("1", published), "neighbours-figure-1")
    first = table.set_index("figure").loc["1"]
    clear = list(pairs.loc[pairs["low"] > 0, "method"])
    about = dict(n=len(clear), clear=clear, others=first["methods"] - 1)
    text = tell("claims.certainty", first=first, **about)
    link = f"[Neighbours of Figure 1](tables/{chapter.name}/neighbours-figure-1.csv)"
    return f"{text}\n\n{markdown_table(table)}\n\n{link}\n"


def choice(published: Published, chapter: Any) -> str:
    """Say what choosing a run for each line does in Figure S14; the table goes to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(unreported.run_choice(published), "run-choice")
    gain = table.groupby("model")["gain"].agg(["min", "max"])
    each = [f"{name} {low:.3f} to {high:.3f}" for name, low, high in gain.itertuples()]
    above = (table["drawn"] > table["WaveGC_kNN"]).all()
    still = tell("claims.above" if above else "claims.below")
    text = tell("claims.choice", each=", ".join(each), still=still)
    return f"{text}\n\n{markdown_table(table)}\n"


def unused(published: Published, chapter: Any) -> str:
    """Say what the rows that no figure uses hold; the table goes to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(unreported.unused_rows(published), "unused-rows")
    here = table[(table["dataset"] == "essential") & (table["task"] == "lfc")]
    named = [
        f"{plain(r.display)} ({r.ahead} of {r.n} folds, {signed(r.difference)})"
        for r in here[here["difference"] > 0].itertuples()
    ]
    about = dict(n=len(table), here=len(here), best=here["reference"].iloc[0], named=named)
    text = tell("claims.unused", **about)
    best = table.groupby(["dataset", "task"], sort=False).head(5)
    best = best.drop(columns=["method", "modality"])
    link = f"[All of them](tables/{chapter.name}/unused-rows.csv)"
    return f"{text}\n\n{markdown_table(best)}\n\n{link}\n"
