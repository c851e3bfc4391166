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
# an attribute stands in single quotes where it holds double ones
_GROUP = re.compile(r"""<g id=(["'])mark:(.*?)\1>((?:(?!<g id=).)*)""", re.S)


def mark(rows: pd.DataFrame, points: Any = None, *others: Any) -> None:
    """Let each point of an artist say the facts of one row, and `others` be shown with them.

    `rows`: one row per point that is drawn, named by `display`, of which the columns in `SAID` and
    `BY` are used; `points`: line or scatter; `others`: lines and texts that belong to these rows.
    """
    same = {c: set(rows[c].dropna()) - {""} for c in BY if c in rows}
    by = {BY[c]: str(*values) for c, values in same.items() if len(values) == 1}
    names = rows["display"].unique()
    own = by | ({"": names[0]} if len(names) == 1 else {})
    said = [[row["display"], *_facts(row), *(f"{k}: {v}" for k, v in by.items())]
            for _, row in rows.iterrows()]  # fmt: skip
    for artist, texts in ((points, said), *((other, []) for other in others)):
        if artist is not None:
            artist.set_gid("mark:" + json.dumps([own, ["\n".join(t) for t in texts]]))


def _facts(row: pd.Series) -> list[str]:
    facts = {}
    for column, head in SAID.items():
        if column in row and not pd.isna(row[column]) and row[column] != "":
            write = percent if column == "coverage" else number
            facts[head] = write(row[column])
    if pd.notna(row.get("low")) and pd.notna(row.get("high")):
        facts["95 % interval"] = f"{number(row['low'])} to {number(row['high'])}"
    return [f"{head}: {fact}" for head, fact in facts.items()]


def svg(figure: Any, *, live: bool = False) -> str:
    """Write a figure as SVG; where it is `live`, marked points have titles, else none is marked."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _GROUP.sub(_told if live else r"<g>\3", drawn.getvalue())


def _told(group: re.Match) -> str:
    own, said = json.loads(unescape(group[2]))
    uses = re.split(r"(?<=/>)", group[3]) if said else [group[3]]
    places = [i for i, part in enumerate(uses) if "<use " in part]
    for place, text in zip(places if said else [], said, strict=True):
        uses[place] = f"{uses[place].removesuffix('/>')}><title>{escape(text)}</title></use>"
    return f'<g class="marks" data-by="{escape(json.dumps(own))}">{"".join(uses)}'
