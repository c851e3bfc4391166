"""Execute a chapter with papermill, and say what Make must know: a stamp of each, and rules.

Nothing that failed is ever published.
"""

import ast
import copy
import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat

from perturbcore import VERBS
from perturbcore.book.source import Chapter, absent, find_chapters, published, run_folder
from perturbcore.core.digest import code_digest, digest, imports_in, imports_of, module_exists
from perturbcore.core.errors import FailedError, ParameterError
from perturbcore.core.files import replaced, sweep, write_atomically
from perturbcore.core.profile import Profile, project_root
from perturbcore.core.provenance import record
from perturbcore.data.catalogue import hash_of

_PROMPTS = {
    "injected-parameters": "the values of this run",
    "parameters": "the parameters and their defaults",
}
# builders are found by name: who builds embeddings depends on every family of them
_REGISTRY = "perturbcore.embeddings.registry"
_FAMILIES = Path(__file__).parents[1] / "embeddings"
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
    facts = _facts(chapter, profile, values)
    clock = time.perf_counter()
    try:
        _execute(chapter, values, partial)
        executed = nbformat.read(partial, as_version=4)
        _gate(chapter, executed)
        facts["seconds"] = round(time.perf_counter() - clock, 1)
        _publish(executed, facts, partial, note)
        os.replace(partial, target)
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


def _publish(notebook, facts: dict, path: Path, note: Path) -> None:
    _tidy(notebook, facts)
    nbformat.write(notebook, path)
    write_atomically(note, (json.dumps(facts, indent=1) + "\n").encode())


def _leave_out(chapter: Chapter, profile: Profile, why: str, target: Path, note: Path) -> Path:
    """Write the page of a chapter whose data are not there: its question, and what is missing."""
    page = copy.deepcopy(chapter.notebook)
    first = [c.cell_type for c in page.cells].index("code")
    said = f":::{{note}}\n**Left out of this build:** {why}.\n:::"
    page.cells = [*page.cells[:first], nbformat.v4.new_markdown_cell(said)]
    (profile.results / "answers" / f"{chapter.name}.md").unlink(missing_ok=True)
    with replaced(target) as partial:
        _publish(page, _facts(chapter, profile, chapter.values(profile)), partial, note)
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
                cwd=str(project_root()), progress_bar=sys.stderr.isatty(), start_timeout=120,
                execution_timeout=chapter.header.cell_seconds,
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
                raise ChapterError(_explain(chapter, number, cell, output))


def _explain(chapter: Chapter, number: int, cell, output) -> str:
    trace = _ANSI.sub("", "\n".join(output.get("traceback", []))).splitlines()
    if len(trace) > 30:
        trace = [*trace[:8], f"... {len(trace) - 30} lines left out ...", *trace[-22:]]
    source = "\n".join(f"    {line}" for line in cell.source.splitlines()[:12])
    said = "\n".join(trace or [f"{output.ename}: {output.evalue}"])
    return f"chapter {chapter.name} failed in code cell {number}:\n{source}\n{said}"


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


def write_rules(profile: Profile) -> Path:
    """Write the stamps of a profile and ``results/<profile>/rules.mk``, each only if it changed."""
    there = {c.name: c for c in find_chapters()}
    names = published()
    if missing := [n for n in names if n not in there]:
        raise ParameterError(f"_toc.yml names chapters that notebooks/ does not have: {missing[0]}")
    profile.claim_results()
    out = profile.results
    gone = absent(profile)
    sets = [entry.name for entry in profile.datasets if entry.name not in gone]
    rules = [f"CHAPTERS := {' '.join(names)}", f"DATASETS := {' '.join(sets)}"]
    for entry in profile.datasets:
        _update(out / "stamps" / f"data-{entry.name}", _data(entry))
    for name in names:
        chapter = there[name]
        for other in chapter.after:
            if other not in names:
                raise ParameterError(f"{chapter.path}: after: the book has no chapter '{other}'")
        _update(out / "stamps" / name, f"{code_stamp(chapter, profile)} {prose_stamp(chapter)}")
        notes = " ".join(f"$(OUT)/runs/{other}.json" for other in chapter.after)
        rules.append(f"$(OUT)/chapters/{name}.ipynb: $(OUT)/stamps/{name} {notes}".rstrip())
    pages = [code_digest("perturbcore.book.build"), profile.title, profile.summary]
    _update(out / "stamps" / "book", digest(pages, profile.digest))
    path = out / "rules.mk"
    _update(path, "\n".join(rules))
    return path


def code_stamp(chapter: Chapter, profile: Profile) -> str:
    """Digest of all that a chapter's results depend on."""
    roots = set()
    for source in chapter.code:
        tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", source))
        roots |= {*imports_in(tree), *_named(tree)}
    modules = imports_of(*roots, *chapter.header.uses)
    if _REGISTRY in modules:
        modules |= {f"perturbcore.embeddings.{p.stem}" for p in _FAMILIES.glob("[a-z]*.py")}
    about = [profile.title, profile.summary, profile.simulated, list(profile.data)]
    about += [profile.inner_order, profile.lasso_tolerance, absent(profile), profile.models]
    about.append(chapter.missing(profile))
    data = [_data(entry) for entry in profile.datasets]
    specs = [[spec, _file(spec.get("file"), profile)] for spec in profile.embeddings]
    pins = project_root() / "constraints.txt"
    pinned = pins.read_text() if pins.is_file() else ""
    code = [code_digest(*sorted(modules)) if modules else "", _told(modules)]
    return digest(chapter.code, chapter.values(profile), *code, about, data, specs, pinned)


def prose_stamp(chapter: Chapter) -> str:
    """Digest of what a chapter says and how its cells are shown."""
    cells = [[c.source, c.metadata] for c in chapter.notebook.cells]
    return digest(cells, chapter.header.model_dump())


def _named(tree: ast.AST) -> list[str]:
    """Modules behind ``pc.name`` and behind dotted names in strings."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "pc" and node.attr in VERBS:
                found.append(VERBS[node.attr])
        if isinstance(node, ast.Constant) and str(node.value).startswith("perturbcore."):
            name = re.match(r"[\w.]+", node.value)[0]
            while "." in name and not module_exists(name):
                name = name.rpartition(".")[0]
            found += [name] if "." in name else []
    return found


def _told(modules: set[str]) -> str:
    # pages that quote docstrings change with them
    if "perturbcore.book.about" not in modules:
        return ""
    root = Path(__file__).parents[1]
    files = [root.joinpath(*m.split(".")[1:]).with_suffix(".py") for m in sorted(modules)]
    return digest([f.read_text(encoding="utf-8") for f in files if f.is_file()])


def _data(entry) -> str:
    given = [p for v in entry.options.values() for p in (v if isinstance(v, list) else [v])]
    files = [_file(value) for value in given]
    code = code_digest(f"perturbcore.data.sets.{entry.loader}")
    return digest(entry.name, entry.loader, dict(entry.options), code, files)


def _file(value, profile: Profile | None = None) -> list:
    path = Path(value).expanduser() if isinstance(value, str) else None
    if path is not None and profile is not None and not path.is_absolute():
        path = profile.path.parent / path
    return [hash_of(path)] if path is not None and path.is_file() else []


def _update(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text + "\n":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")


def unchanged(chapter: Chapter, profile: Profile, executed: Path) -> bool:
    """Whether an executed chapter still holds: same code, same inputs, nothing before it newer."""
    if not executed.is_file():
        return False
    kept = nbformat.read(executed, as_version=4).metadata.get("perturbcore", {})
    ours = profile.results / "runs" / f"{chapter.name}.json"
    before = [profile.results / "runs" / f"{name}.json" for name in chapter.after]
    newer = [p for p in before if p.is_file() and p.stat().st_mtime > ours.stat().st_mtime]
    return kept.get("stamp") == code_stamp(chapter, profile) and not newer
