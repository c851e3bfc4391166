"""What a chapter shows: tables and figures, each with a file, and computed sentences."""

import html

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

from perturbcore.core.files import write_atomically
from perturbcore.data.read import check_table
from perturbcore.report.text import HEADINGS, number, p_value
from perturbcore.score.leaks import leaks_said

MOST_LINES = 5
ONE_LINE = "**In one line.**"


def say(text: str) -> None:
    """Show a computed sentence (Markdown), or nothing where there is none."""
    if text.strip():  # an empty one would be shown as a printed object
        display(Markdown(text))


def take_home(chapter, text: str, *facts: str) -> None:
    """Show the one-line answer of a chapter and keep it for the first page of the book.

    `facts`: a verdict on each data set (`perturbcore.report.comparison.Comparison.verdict_said`).
    The page of the book opens with both.
    """
    path = chapter.folder / "answers" / f"{chapter.name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    display(Markdown("\n\n".join([f"{ONE_LINE} {text}", *filter(None, facts)])))


def show_table(
    chapter,
    table: pd.DataFrame,
    name: str,
    *,
    caption: str,
    digits: int = 3,
    keep=None,
    bold=None,
    link: str = "",
) -> None:
    """Show a table, sortable; ``tables/<chapter>/<name>.csv`` among the results has all of it.

    `table`: its index is shown only where it has a name; `digits`: decimals of floating-point
    numbers; `keep`: columns to show, a mapping from column to heading, or the name of one in
    `headings.yml`; `bold`: boolean column that marks rows to stress (best, or not distinguishable
    from the best); `link`: start of the anchors that the first column leads to.
    """
    if table.index.name is not None:
        table = table.reset_index()
    table = table.reset_index(drop=True)
    chapter.save_table(table, name)
    keep = HEADINGS[keep] if isinstance(keep, str) else keep
    heads = dict(keep) if isinstance(keep, dict) else {c: str(c) for c in keep or table.columns}
    check_table(table, list(heads), f"table '{name}'", way_out="drop it from the columns to show")
    shown = table_html(table, heads, name, caption=caption, digits=digits, bold=bold, link=link)
    display(HTML(shown), Markdown(f"[{name}.csv](tables/{chapter.name}/{name}.csv)"))


def table_html(
    table: pd.DataFrame,
    heads: dict[str, str],
    name: str,
    *,
    caption: str,
    digits: int = 3,
    bold: str | None = None,
    link: str = "",
) -> str:
    """Write the columns `heads` of a table as HTML; see `show_table`."""
    strong = table[bold].to_numpy(dtype=bool) if bold else np.zeros(len(table), bool)
    numeric = [c for c in heads if pd.api.types.is_numeric_dtype(table[c])]
    rows = []
    for i, values in enumerate(table[list(heads)].itertuples(index=False)):
        texts = [_cell(c, v, digits) for c, v in zip(heads, values, strict=True)]
        if link:
            texts[0] = f'<a href="#{link}{texts[0]}">{texts[0]}</a>'
        cells = "".join(
            f'<td class="{"num" if c in numeric else "txt"}">{text}</td>'
            for c, text in zip(heads, texts, strict=True)
        )
        rows.append(f'<tr class="best">{cells}</tr>' if strong[i] else f"<tr>{cells}</tr>")
    head = "".join(f'<th scope="col">{html.escape(str(h))}</th>' for h in heads.values())
    title = f"<caption>{html.escape(caption)}</caption>"
    return (
        f'<table class="dataframe scores" id="table-{name}">{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(column: str, value, digits: int) -> str:
    """Write a value; p-values (columns "p", "p_...") never as 0.000."""
    is_p = isinstance(value, float) and (column == "p" or column.startswith("p_"))
    return html.escape(p_value(value) if is_p else number(value, digits))


def show_coverage(chapter, table: pd.DataFrame, *, caption: str) -> None:
    """Show one row per embedding with the share of each cell line that it covers."""
    heads = {"embedding": "Embedding", "modality": "Modality", "dim": "Dimensions"}
    shown, about = table.rename(columns=heads), list(heads.values())
    share = shown.groupby([*about, "cell_line"], sort=False)["coverage"].mean().unstack()
    share = share.loc[list(dict.fromkeys(shown[about].itertuples(index=False, name=None)))]
    if share.shape[1] > MOST_LINES:
        share = pd.DataFrame({"least": share.min(axis=1), "most": share.max(axis=1)})
    wide = share.rename_axis(columns=None).reset_index()
    caption = f"{caption} One column per cell line; the file has the counts."
    show_table(chapter, wide, "coverage", caption=caption)
    for line in table.attrs.get("left_out", ()):
        say(f"Not at hand, left out: {line}")
    chapter.save_table(table.reset_index(drop=True), "coverage")


def show_leaks(chapter, table: pd.DataFrame) -> None:
    """Say what could have leaked into the scores, and show the checks; `table`: `Study.leaks`."""
    if table.empty:
        return
    several = table["data"].nunique() > 1
    for title, part in table.groupby("data", sort=False):
        say((f"{title}: " if several else "") + leaks_said(part))
    heads = {"data": "Data"} if several else {}
    heads |= {"check": "Looked for", "kind": "What it is", "found": "Found", "example": "Such as"}
    caption = "Leak report: what would let a model see a test perturbation in training."
    show_table(chapter, table, "leaks", keep=heads, caption=caption)


def show_figure(chapter, figure, name: str, data: pd.DataFrame | None = None, live=False) -> None:
    """Show a figure; write it as SVG, and the numbers behind it as CSV, among the results.

    Caption and alternative text stand in the notebook, at the cell; the caption links to
    ``figures/<chapter>/<name>.svg`` and, with `data`, to ``tables/<chapter>/<name>-data.csv``.
    `live`: its points say more where one points at them, and can be chosen and searched.
    """
    chapter.save_figure(figure, name, live=live)
    if data is not None:
        chapter.save_table(data.reset_index(drop=True), f"{name}-data")
    drawn = (chapter.figures / f"{name}.svg").read_text(encoding="utf-8")
    display({"image/svg+xml": drawn, "text/plain": name}, raw=True)  # drawing again takes as long
