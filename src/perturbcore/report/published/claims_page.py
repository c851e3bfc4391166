"""The claims page in MyST: summary, a card for each claim, and what is not reported."""

import pandas as pd

from perturbcore.data.published.tables import Published
from perturbcore.report.published.claims import counts
from perturbcore.report.published.draw import markdown_table, plain
from perturbcore.report.published.evidence import (
    FAILS,
    HOLDS,
    NEEDS_TABLES,
    QUALIFIED,
    UNDECIDED,
    by_line,
    listed,
)
from perturbcore.report.published.unreported import (
    neighbours,
    ranking_certainty,
    run_choice,
    unused_rows,
)

# A word and a sign, so that a verdict is told without colour.
SIGNS = {HOLDS: "✓", QUALIFIED: "◐", FAILS: "✗", UNDECIDED: "?", NEEDS_TABLES: "…"}
PLURAL = {
    HOLDS: "hold",
    QUALIFIED: "hold with a qualification",
    FAILS: "fail",
    UNDECIDED: "cannot be decided from what is public",
    NEEDS_TABLES: "need the full tables",
}


def summary(table: pd.DataFrame, published: Published) -> str:
    """Say in a few sentences how many claims hold, and on what that rests.

    Parameters
    ----------
    table : pandas.DataFrame
        As `perturbcore.report.published.claims.audit` returns.
    published : Published
        What it was decided on.

    Returns
    -------
    str
        MyST.
    """
    total = counts(table).loc["all"]
    words = [f"**{n}** {PLURAL[v]}" for v, n in total.drop("all").items() if n]
    text = f"Of {total['all']} claims, {listed(words)}."
    failed = table.loc[table["verdict"] == FAILS, "id"]
    if len(failed):
        text += f" Those that fail: {listed(failed)}."
    return f"{text}\n\n:::{{note}}\n{published.note}\n:::\n"


def cards(table: pd.DataFrame, *, dropdown: bool = False) -> str:
    """Write each claim with its place, test, verdict, number and reason.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of the audit.
    dropdown : bool
        Whether the details are folded.

    Returns
    -------
    str
        MyST; "None." for an empty table.
    """
    if table.empty:
        return "None."
    out = []
    for row in table.itertuples():
        title = f"{SIGNS[row.verdict]} {row.id}: {row.claim} ({row.verdict})"
        lines = [f"*{row.paper}, {row.where}.* Test: {plain(row.test)}.", ""]
        if row.number:
            lines += [f"**{plain(row.number)}**", ""]
        lines += [plain(row.why), ""]
        for name, value in (
            ("On medians", row.on_medians),
            ("On means", row.on_means),
            ("Fold by fold", row.by_fold),
        ):
            if value:
                lines += [f"- {name}: {plain(value)}"]
        kind = "dropdown" if dropdown else "admonition"
        out += [f"::::{{{kind}}} {title}", *lines, "::::", ""]
    return "\n".join(out)


def _waiting(published: Published) -> str:
    return f"This is decided on single folds. {published.note}"


def certainty(published: Published, chapter) -> str:
    """Say which neighbours of each ranking are distinguishable; tables go to the chapter.

    Parameters
    ----------
    published : Published
        The published scores.
    chapter : perturbcore.book.inside.OpenChapter
        Where the tables go.

    Returns
    -------
    str
        MyST.
    """
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(ranking_certainty(published), "rankings")
    pairs = chapter.save_table(neighbours("1", published), "neighbours-figure-1")
    first = table.set_index("figure").loc["1"]
    clear = pairs.loc[pairs["low"] > 0, "method"]
    text = (
        f"In Figure 1, averaged over the four lines, {first['distinguishable']} of "
        f"{first['neighbours']} neighbours "
        f"are distinguishable after adjustment; the interval of the difference leaves out zero for "
        f"{len(clear)} (below {listed(clear)}). Not distinguishable from the best, {first['best']}, "
        f"{'is' if first['as_good_as_best'] == 1 else 'are'} {first['as_good_as_best']} of "
        f"{first['methods'] - 1} methods. So groups of embeddings can be told apart, and single places "
        "mostly "
        "cannot."
    )
    link = f"[Neighbours of Figure 1](tables/{chapter.name}/neighbours-figure-1.csv)"
    return f"{text}\n\n{markdown_table(table)}\n\n{link}\n"


def choice(published: Published, chapter) -> str:
    """Say what choosing a run for each line does in Figure S14; the table goes to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(run_choice(published), "run-choice")
    gain = table.groupby("model")["gain"].agg(["min", "max"])
    still = bool((table["drawn"] > table["WaveGC_kNN"]).all())
    text = (
        "What is drawn is lower than the worse run by "
        + by_line(gain.apply(lambda r: f"{r['min']:.3f} to {r['max']:.3f}", axis=1), str)
        + " median L2. "
        + (
            "Even so it stays above kNN on WaveGC on every line: the choice does not carry the claim."
            if still
            else "On some line that takes it below kNN on WaveGC."
        )
    )
    return f"{text}\n\n{markdown_table(table)}\n"


def unused(published: Published, chapter) -> str:
    """Say what the rows that no figure uses hold; the table goes to the chapter."""
    if published.level != "folds":
        return _waiting(published)
    table = chapter.save_table(unused_rows(published), "unused-rows")
    here = table[(table["dataset"] == "essential") & (table["task"] == "lfc")]
    ahead = here[here["difference"] > 0]
    named = [
        f"{plain(r.display)} ({r.ahead} of {r.n} folds, {r.difference:+.3f})"
        for r in ahead.itertuples()
    ]
    text = (
        f"{len(table)} methods of the tables of the full sets are in no figure, {len(here)} of them "
        "for Essential "
        f"LFC. On average better than {here['reference'].iloc[0]} with kNN there: {listed(named)}. The "
        "best "
        "five of each data set and task:"
    )
    best = (
        table.groupby(["dataset", "task"], sort=False).head(5).drop(columns=["method", "modality"])
    )
    return f"{text}\n\n{markdown_table(best)}\n\n[All of them](tables/{chapter.name}/unused-rows.csv)\n"
