"""How a page of the book opens and ends: answer, verdict and main figure; what to take along."""

import nbformat
from nbformat.v4 import new_markdown_cell

from perturbcore.book.source import Chapter
from perturbcore.report.pages import ONE_LINE

ALONG = (
    "Take this page along: {{download}}`notebook with all outputs <along/{0}.ipynb>`, "
    "{{download}}`script <along/{0}.py>`."
)


def opened(chapter: Chapter, executed: bytes, *, drawn: bool) -> bytes:
    """Put the answer that an executed chapter left, and its main figure, behind the page's title.

    The answer is what `perturbcore.report.pages.take_home` showed, which is taken out below; the
    figure that of the chapter's card, where it was `drawn`. At the end the page can be taken along.
    """
    notebook = nbformat.reads(executed.decode(), as_version=4)
    parts = [_taken(notebook)]
    card = chapter.header.card
    if card is not None and card.figure and drawn:
        where = f"figures/{chapter.name}/{card.figure}.svg"
        parts.append(f"![{card.alt or card.title}]({where})")
    at = next((i for i, c in enumerate(notebook.cells) if c.cell_type == "markdown"), None)
    if at is not None and any(parts):
        title, _, rest = notebook.cells[at].source.partition("\n")
        inside = "\n\n".join(filter(None, parts))
        box = new_markdown_cell(f":::::{{div}} result-box\n{inside}\n:::::", id="opening")
        after = [new_markdown_cell(rest.strip(), id="after-title")] if rest.strip() else []
        notebook.cells[at : at + 1] = [new_markdown_cell(title, id="title"), box, *after]
    notebook.cells.append(new_markdown_cell(ALONG.format(chapter.name), id="along"))
    return nbformat.writes(notebook).encode()


def _taken(notebook) -> str:
    """Take the answer in one line out of the outputs; "" where there is none."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("data", {}).get("text/markdown", ""))
            if text.startswith(ONE_LINE):
                cell.outputs.remove(output)
                return text
    return ""
