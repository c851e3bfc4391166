"""What a chapter shows: tables and figures, each with a file to take away, and computed sentences."""

import base64
import html
import io

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from perturbcore.errors import InputError

SIMULATED = "These cells are simulated. Nothing on this page is a statement about real cells."


def say(text: str) -> Markdown:
    """Return a computed sentence for display."""
    return Markdown(text)


def banner(chapter) -> HTML:
    """Say which profile a page was computed from; first thing where cells are simulated."""
    profile = chapter.profile
    kind, lead = ("warning", SIMULATED) if profile.simulated else ("note", profile.title)
    detail = f"Profile <code>{html.escape(profile.name)}</code>: {html.escape(profile.summary)}"
    return HTML(
        f'<div class="admonition {kind}"><p class="admonition-title">{html.escape(lead)}</p>'
        f"<p>{detail}</p></div>"
    )


def number(value, digits: int = 3) -> str:
    """Write a number as a table does; a missing one is an en dash."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)) or value is pd.NA:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}".replace("-", "\u2212")
    return str(value)


def show_table(
    chapter, table: pd.DataFrame, name: str, *, caption: str, digits: int = 3, keep=None, bold=None
) -> HTML:
    """Show a table, sortable, and write all of it as CSV among the results.

    Parameters
    ----------
    chapter : OpenChapter
        Whose table it is: the CSV goes to ``results/<profile>/tables/<chapter>/<name>.csv``.
    table : pandas.DataFrame
        Its index is shown only where it has a name.
    name, caption : str
        File name; sentence above the table.
    digits : int
        Decimals of floating-point numbers on the page (the file has all).
    keep : list or dict, optional
        Columns to show, or a mapping from column to heading; the file has all.
    bold : str, optional
        Boolean column that marks rows to stress (best, or not distinguishable from the best).

    Raises
    ------
    InputError
        A column to show is not in the table.
    """
    if table.index.name is not None:
        table = table.reset_index()
    table = table.reset_index(drop=True)
    chapter.save_table(table, name)
    heads = dict(keep) if isinstance(keep, dict) else {c: str(c) for c in keep or table.columns}
    missing = [c for c in heads if c not in table]
    if missing:
        raise InputError(f"table '{name}' has no column '{missing[0]}'; it has: {', '.join(table)}")
    strong = table[bold].to_numpy(dtype=bool) if bold else np.zeros(len(table), bool)
    numeric = [c for c in heads if pd.api.types.is_numeric_dtype(table[c])]
    rows = []
    for i, values in enumerate(table[list(heads)].itertuples(index=False)):
        cells = "".join(
            f'<td class="{"num" if c in numeric else "txt"}">{html.escape(number(v, digits))}</td>'
            for c, v in zip(heads, values, strict=True)
        )
        rows.append(f'<tr class="best">{cells}</tr>' if strong[i] else f"<tr>{cells}</tr>")
    head = "".join(f'<th scope="col">{html.escape(str(h))}</th>' for h in heads.values())
    data = table.to_csv(index=False).encode()
    return HTML(
        f'<table class="dataframe scores" id="table-{name}"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<p class="download">{_link(data, f"{name}.csv", "text/csv", "Download this table (CSV)")}</p>'
    )


def show_figure(chapter, figure, name: str, data: pd.DataFrame | None = None):
    """Show a figure; write it as SVG, and the numbers behind it as CSV, among the results.

    Caption and alternative text stand in the notebook, at the cell.
    """
    chapter.save_figure(figure, name)
    if data is not None:
        chapter.save_table(data.reset_index(drop=True), f"{name}-data")
    return figure


def figure_links(chapter, figure, name: str, data: pd.DataFrame | None = None) -> HTML:
    """Links to take a figure and its numbers away, for the cell after the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    links = [_link(buffer.getvalue(), f"{name}.svg", "image/svg+xml", "Download the figure (SVG)")]
    if data is not None:
        csv = data.to_csv(index=False).encode()
        links.append(_link(csv, f"{name}.csv", "text/csv", "its numbers (CSV)"))
    return HTML(f'<p class="download">{" · ".join(links)}</p>')


def _link(content: bytes, name: str, kind: str, text: str) -> str:
    # inside the page, so that a page saved or sent alone keeps its downloads
    coded = base64.b64encode(content).decode()
    return f'<a download="{html.escape(name)}" href="data:{kind};base64,{coded}">{html.escape(text)}</a>'
