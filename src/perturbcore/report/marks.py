"""Points of a figure that say more on a screen: what they say travels inside the SVG."""

import io
import json
import re
from html import escape, unescape
from typing import Any

import pandas as pd

from perturbcore.report.text import HEADINGS, number, percent

# columns that a point says, and those that the points of a page are chosen by, with their names
SAID, BY = HEADINGS["said by points"], HEADINGS["points chosen by"]
_GROUP = re.compile(r"""<g id=(["'])mark:(.*?)\1>((?:(?!<g id=).)*)""", re.S)


def mark(rows: pd.DataFrame, points: Any = None, *others: Any) -> None:
    """Let each point of an artist say the facts of one row, and `others` be shown with them.

    `rows`: one row per point that is drawn, named by `display`, of which the columns in `SAID` and
    `BY` are used; `points`: line or scatter; `others`: lines and texts that belong to these rows.
    """
    same = {c: set(rows[c].dropna()) - {""} for c in BY if c in rows}
    by = {BY[c]: str(*values) for c, values in same.items() if len(values) == 1}
    own = by | ({"": rows["display"].iloc[0]} if rows["display"].nunique() == 1 else {})
    for other in others:
        other.set_gid("mark:" + json.dumps([own, []]))
    if points is not None:
        said = ["\n".join([r["display"], *_facts(r, by)]) for r in rows.to_dict("records")]
        points.set_gid("mark:" + json.dumps([own, said]))


def _facts(row: dict, by: dict) -> list[str]:
    there = {c: row[c] for c in SAID if c in row and pd.notna(row[c]) and row[c] != ""}
    facts = {SAID[c]: (percent if c == "coverage" else number)(v) for c, v in there.items()}
    if pd.notna(row.get("low")) and pd.notna(row.get("high")):
        facts["95 % interval"] = f"{number(row['low'])} to {number(row['high'])}"
    return [f"{head}: {fact}" for head, fact in (facts | by).items()]


def svg(figure: Any, *, live: bool = False) -> str:
    """Write a figure as SVG; where it is `live`, marked points have titles, else none is marked."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _GROUP.sub(_told if live else r"<g>\3", drawn.getvalue())


def _told(group: re.Match) -> str:
    own, said = json.loads(unescape(group[2]))
    ends = (f"><title>{escape(text)}</title></use>" for text in said)  # in the order of the points
    told = re.sub(r"(<use [^>]*)/>", lambda u: u[1] + next(ends, "/>"), group[3])
    return f'<g class="marks" data-by="{escape(json.dumps(own))}">{told}'
