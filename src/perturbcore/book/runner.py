"""Execute a chapter with papermill; nothing that failed is ever published."""

import copy
import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat

from perturbcore.book.rules import code_stamp, unchanged
from perturbcore.book.source import Chapter, run_folder
from perturbcore.core.errors import FailedError
from perturbcore.core.files import replaced, sweep, write_atomically
from perturbcore.core.profile import Profile, working_folder
from perturbcore.core.provenance import record

_PROMPTS = {
    "injected-parameters": "the values of this run",
    "parameters": "the parameters and their defaults",
}
# a kernel makes millions of lasting objects when it imports: looking through them is a tenth of all
_KERNEL = ["--IPKernelApp.exec_lines=import gc; gc.set_threshold(50_000, 50, 50)"]
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ChapterError(FailedError):
    """A chapter failed; the message shows the cell and what it raised."""


def run_for_book(chapter: Chapter, profile: Profile, *, update: bool = False) -> Path:
    """Run a chapter with the profile's parameters; `update`: not where only its prose is new."""
    target = profile.results / "chapters" / f"{chapter.name}.ipynb"
    note = profile.results / "runs" / f"{chapter.name}.json"
    if why := chapter.missing(profile):
        return _leave_out(chapter, profile, why, target, note)
    if update and note.is_file() and unchanged(chapter, profile, target):
        return _reword(chapter, target)
    return run(chapter, profile, chapter.values(profile), target, note)


def run_aside(chapter: Chapter, profile: Profile, given: dict, out: Path | None = None) -> Path:
    """Run a chapter with other values, without touching the book; `out` names the notebook."""
    values = chapter.values(profile, given)
    changed = chapter.changed(profile, values)
    folder = run_folder(profile, chapter.name, changed)
    if not changed:
        folder = folder / "runs" / chapter.name
    target = Path(out) if out else folder / f"{chapter.name}.ipynb"
    return run(chapter, profile, values, target, target.with_suffix(".json"))


def run(chapter: Chapter, profile: Profile, values: dict, target: Path, note: Path) -> Path:
    """Execute a chapter into ``target`` and write its provenance to ``note``.

    A failed run leaves ``<name>.failed.ipynb`` beside it and whatever was there before.
    """
    profile.claim_results()
    target, note = target.resolve(), note.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    partial = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    failed.unlink(missing_ok=True)
    sweep(target)
    note.unlink(missing_ok=True)  # until it is whole: its tables and figures are being replaced
    facts = _facts(chapter, profile, values)
    clock = time.perf_counter()
    try:
        _execute(chapter, values, partial)
        executed = nbformat.read(partial, as_version=4)
        _gate(chapter, executed)
        facts["seconds"] = round(time.perf_counter() - clock, 1)
        _write(executed, facts, partial)
        os.replace(partial, target)
        _write_note(facts, note)
    except ChapterError as error:
        if partial.exists():
            os.replace(partial, failed)
            raise ChapterError(f"{error}\nThe partial notebook is {failed}") from None
        raise
    finally:
        partial.unlink(missing_ok=True)
    return target


def _facts(chapter: Chapter, profile: Profile, values: dict) -> dict:
    return {
        **record(),
        "chapter": chapter.name,
        "title": chapter.title,
        "seconds": 0.0,
        "stamp": code_stamp(chapter, profile),
        "profile": profile.name,
        "profile_digest": profile.digest,
        "simulated": profile.simulated,
        "parameters": {**{n: p.default for n, p in chapter.parameters.items()}, **values},
        "folder": str(run_folder(profile, chapter.name, chapter.changed(profile, values))),
    }


def _write(notebook, facts: dict, path: Path) -> None:
    _tidy(notebook, facts)
    nbformat.write(notebook, path)


def _write_note(facts: dict, note: Path) -> None:
    write_atomically(note, (json.dumps(facts, indent=1) + "\n").encode())


def _leave_out(chapter: Chapter, profile: Profile, why: str, target: Path, note: Path) -> Path:
    """Write the page of a chapter whose data are not there: its question, and what is missing."""
    page = copy.deepcopy(chapter.notebook)
    first = [c.cell_type for c in page.cells].index("code")
    said = f":::{{note}}\n**Left out of this build:** {why}.\n:::"
    page.cells = [*page.cells[:first], nbformat.v4.new_markdown_cell(said)]
    note.unlink(missing_ok=True)
    (profile.results / "answers" / f"{chapter.name}.md").unlink(missing_ok=True)
    facts = _facts(chapter, profile, chapter.values(profile))
    with replaced(target) as partial:
        _write(page, facts, partial)
    _write_note(facts, note)
    return target


def _execute(chapter: Chapter, values: dict, partial: Path) -> None:
    # A kernel named python3 in the user's own folder must not win over this environment's.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    import papermill
    from papermill.exceptions import PapermillExecutionError

    for attempt in (1, 2):
        try:
            papermill.execute_notebook(
                chapter.notebook, str(partial), parameters=values, kernel_name="python3",
                cwd=str(working_folder()), progress_bar=sys.stderr.isatty(), start_timeout=120,
                execution_timeout=chapter.header.cell_seconds, extra_arguments=_KERNEL,
            )  # fmt: skip
            return
        except TimeoutError:
            limit = f"a cell ran longer than {chapter.header.cell_seconds} s"
            raise ChapterError(
                f"{chapter.name}: {limit}; finished units are kept, so run it again, or raise "
                f"cell_seconds in the header of {chapter.path}"
            ) from None
        except PapermillExecutionError as error:
            with suppress(FileNotFoundError):
                _gate(chapter, nbformat.read(partial, as_version=4))
            raise ChapterError(f"{chapter.name}: {error.ename}: {error.evalue}") from None
        except RuntimeError as error:
            # Two kernels that start at once can pick the same port: the loser never answers.
            started = partial.exists() and any(
                c.get("execution_count") for c in nbformat.read(partial, as_version=4).cells
            )
            if started or attempt == 2:
                raise ChapterError(f"{chapter.name}: {error}") from None


def _gate(chapter: Chapter, notebook) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            allowed = "raises-exception" in cell.metadata.get("tags", [])
            if output.output_type == "error" and not allowed:
                trace = _ANSI.sub("", "\n".join(output.get("traceback", []))).splitlines()
                if len(trace) > 30:
                    trace = [*trace[:8], f"... {len(trace) - 30} lines left out ...", *trace[-22:]]
                source = "\n".join(f"    {line}" for line in cell.source.splitlines()[:12])
                said = "\n".join(trace or [f"{output.ename}: {output.evalue}"])
                where = f"chapter {chapter.name} failed in code cell {number}"
                raise ChapterError(f"{where}:\n{source}\n{said}")


def _reword(chapter: Chapter, target: Path) -> Path:
    """Give an executed chapter the prose and captions of its source."""
    executed = nbformat.read(target, as_version=4)
    old = [c for c in executed.cells if c.cell_type == "code"]
    cells = []
    for cell in chapter.notebook.cells:
        if cell.cell_type == "code":
            if "injected-parameters" in old[0].metadata.get("tags", []):
                cells.append(old.pop(0))
            cell = {**old.pop(0), "metadata": cell.metadata}
        cells.append(nbformat.from_dict(cell))
    executed.cells = cells
    _tidy(executed, executed.metadata["perturbcore"] | {"title": chapter.title})
    with replaced(target) as partial:
        nbformat.write(executed, partial)
    return target


def _tidy(notebook, facts: dict) -> None:
    """Put the facts in and fold the code: never hidden, and open where ``show-input`` says so."""
    notebook.metadata["perturbcore"] = facts
    papermill = notebook.metadata.get("papermill", {})
    for key in ("input_path", "output_path", "environment_variables"):
        papermill.pop(key, None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        tags = cell.metadata.get("tags", [])
        # a reworded chapter would not have the times of its run
        for key in ("papermill", "execution", *([] if tags else ["tags"])):
            cell.metadata.pop(key, None)
        as_is = any(tag.startswith(("show-input", "hide-", "remove-")) for tag in tags)
        if cell.cell_type != "code" or as_is:
            continue
        cell.metadata["tags"] = [*tags, "hide-input"]
        for tag in _PROMPTS.keys() & tags:
            said = {f"code_prompt_{do.lower()}": f"{do} {_PROMPTS[tag]}" for do in ("Show", "Hide")}
            cell.metadata["mystnb"] = said
