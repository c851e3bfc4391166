"""Chapters as they lie in ``notebooks/``: percent scripts with a header and parameters."""

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from yaml import YAMLError

from perturbcore import VERBS
from perturbcore.core.digest import digest, imports_in, imports_of
from perturbcore.core.errors import ParameterError, wrong_value
from perturbcore.core.files import parse_yaml
from perturbcore.core.profile import Profile, load_profile, profile_names, project_root

_SETS = {"dataset", "datasets"}  # parameters that say what a chapter opens
_KINDS = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a chapter, ``name: type = default  # help``."""

    name: str
    type: str
    default: Any = None
    help: str = ""

    def check(self, value: Any, where: str) -> Any:
        """Return the value if it fits the type; an int becomes a float where one is declared."""
        adapter = TypeAdapter(eval(self.type, {}, _KINDS), config=ConfigDict(strict=True))
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
        inside = "[" in self.type and any(isinstance(part, int) for part in first["loc"])
        wrong = first["input"] if inside else value
        says = f"but holds {wrong!r} ({type(wrong).__name__})"
        if not inside:
            says = f"not {type(value).__name__} ({value!r})"
        raise ParameterError(f"{where}: {self.name} must be {self.type}, {says}")

    def parse(self, text: str, where: str) -> Any:
        """Turn text from a command line into a value of the declared type."""
        kind = self.type.removesuffix(" | None")
        if kind != self.type and text.strip().lower() in ("none", "null"):
            return None
        if kind.startswith("list") and not text.lstrip().startswith("["):
            text = f"[{text}]"
        try:
            value = (_KINDS[kind] if kind in ("int", "float", "str") else parse_yaml)(text)
        except (ValueError, YAMLError):
            raise ParameterError(
                f"{where}: {self.name} must be {self.type}, not {text!r}"
            ) from None
        return self.check(value, where)


def declared(source: str, where: str) -> dict[str, Parameter]:
    """Read the parameters cell of a chapter."""
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.AnnAssign) and node.value is not None):
            raise ParameterError(
                f"{where}: a parameters cell holds only lines "
                f"'name: type = default', not {ast.unparse(node)!r}"
            )
        name = ast.unparse(node.target)
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise ParameterError(f"{where}: the default of {name} must be a plain value") from None
        rest = lines[node.end_lineno - 1][node.end_col_offset :]
        note = rest.split("#", 1)[1].strip() if "#" in rest else ""
        found[name] = Parameter(
            name, _type(ast.unparse(node.annotation), name, where), default, note
        )
        found[name].check(default, f"{where}, default")
    return found


def declared_types(annotations: dict, where: str) -> dict[str, Parameter]:
    """Read parameters from the annotations of a running notebook; defaults are not known there."""
    types = {name: inspect.formatannotation(kind) for name, kind in annotations.items()}
    return {name: Parameter(name, _type(text, name, where)) for name, text in types.items()}


def _type(text: str, name: str, where: str) -> str:
    options = [part.strip() for part in text.split("|")]
    kinds = [part for part in options if part != "None"]
    kind, _, item = kinds[0].removesuffix("]").partition("[")
    if len(kinds) == 1 and kind in _KINDS and (not item or (kind == "list" and item in _KINDS)):
        return f"{kinds[0]} | None" if "None" in options else kinds[0]
    raise ParameterError(
        f"{where}: {name}: a parameter's type is one of {', '.join(_KINDS)}, "
        f"list[...] of them, or one of these | None, not {text!r}"
    )


def resolve(parameters: dict[str, Parameter], given: dict, where: str, parse: bool = False) -> dict:
    """Check given values against the declared parameters; `parse`: texts, of a command line."""
    unknown = [name for name in given if name not in parameters]
    if unknown:
        known = "; ".join(f"{p.name}: {p.type}" for p in parameters.values())
        raise ParameterError(
            f"{where}: unknown parameter {', '.join(map(str, unknown))}; this chapter has {known}"
        )
    read = {True: Parameter.parse, False: Parameter.check}
    return {
        name: read[parse and isinstance(value, str)](parameters[name], value, where)
        for name, value in given.items()
    }


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Card(_Strict):
    """A chapter on the first page of the book.

    ``figure`` names one of the chapter's figures, ``alt`` describes it; ``text`` stands in place
    of the one line that the chapter leaves (`perturbcore.report.pages.take_home`).
    """

    title: str
    figure: str = ""
    alt: str = ""
    text: str = ""


class Header(_Strict):
    """What a chapter says of itself under ``perturbcore:`` in its header.

    ``after``: chapters whose results it shows, or "all". ``uses``: modules that its commands run
    without importing them. ``cell_seconds``: a cell that runs longer is stopped.
    """

    after: tuple[str, ...] | Literal["all"] = ()
    card: Card | None = None
    uses: tuple[str, ...] = ()
    cell_seconds: int = 12 * 3600


@dataclass(frozen=True)
class Chapter:
    """One chapter: its name and its source file."""

    name: str
    path: Path

    @cached_property
    def notebook(self):
        """The source as a notebook without outputs; cell ids depend on the position only."""
        import jupytext

        notebook = jupytext.read(self.path)
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata["kernelspec"] = kernel
        notebook.metadata.pop("jupytext", None)
        return notebook

    @cached_property
    def title(self) -> str:
        """First heading of the chapter."""
        for cell in self.notebook.cells:
            if cell.cell_type == "markdown":
                if found := re.search(r"^#\s+(.+)$", cell.source, re.M):
                    return found.group(1).strip()
        return self.name

    @cached_property
    def header(self) -> Header:
        """What the chapter says of itself."""
        try:
            return Header(**self.notebook.metadata.get("perturbcore", {}))
        except ValidationError as error:
            raise wrong_value(error, f"{self.path}, header", list(Header.model_fields)) from None

    @cached_property
    def after(self) -> tuple[str, ...]:
        """Chapters of the book that must have run before this one."""
        if self.header.after == "all":
            return tuple(name for name in published() if name != self.name)
        return self.header.after

    @cached_property
    def code(self) -> list[str]:
        """Sources of its code cells."""
        return [c.source for c in self.notebook.cells if c.cell_type == "code"]

    @cached_property
    def modules(self) -> set[str]:
        """Modules of the package that its code imports, directly or not."""
        roots = set()
        for source in self.code:
            tree = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", source))
            verbs = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in VERBS]
            verbs = [n for n in verbs if isinstance(n.value, ast.Name) and n.value.id == "pc"]
            roots |= {*imports_in(tree), *(VERBS[n.attr] for n in verbs)}
        return imports_of(*roots, *self.header.uses)

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Declared parameters; ``profile`` is always among them."""
        cells = [c for c in self.notebook.cells if "parameters" in c.metadata.get("tags", [])]
        if len(cells) != 1:
            raise ParameterError(f"{self.path} needs one cell tagged parameters, not {len(cells)}")
        found = declared(cells[0].source, self.name)
        if "profile" not in found or found["profile"].type != "str":
            raise ParameterError(f"{self.path}: the parameters cell must declare profile: str")
        return found

    def values(self, profile: Profile, given: dict | None = None) -> dict:
        """Parameter values of a run: those of the profile, then `given`, as text or as values.

        Data sets that are not there go; the place of ``dataset`` takes the first of ``also``.
        """
        for key in ("chapters", "without"):
            for name in getattr(profile, key):
                find_chapter(name, f"{profile.path}: {key}: ")
        where = f"{profile.path}, chapter {self.name}"
        values = self._own_sets(profile)
        values |= resolve(self.parameters, profile.chapters.get(self.name, {}), where)
        own = resolve(self.parameters, given or {}, self.name, parse=True)
        gone = absent(profile)
        if values.get("dataset") in gone and (also := _there(values.get("also", []), gone)):
            values |= {"dataset": also[0], "also": also[1:]}
        values = {k: v if k == "dataset" else _there(v, gone) for k, v in values.items()}
        return {**values, **own, "profile": profile.address}

    def _own_sets(self, profile: Profile) -> dict:
        """Let the first data set of a profile of one's own stand for the demo's first."""
        there, demo = [d.name for d in profile.datasets], []
        default = {n: self.parameters[n].default for n in _SETS & self.parameters.keys()}
        if "demo" in profile_names() and set(_flat(default)) - set(there):
            demo = [d.name for d in load_profile("demo").datasets]
        gone = set(demo) - set(there)
        out = {n: _there(v, gone) for n, v in default.items() if set(_flat({n: v})) & gone}
        if default.get("dataset") in demo[:1] and "dataset" in out:
            out["dataset"] = next(iter(there), "")
        return out

    def left_out(self, profile: Profile) -> dict[str, str]:
        """Find the data sets that the profile names for this chapter and that are not there."""
        given = profile.chapters.get(self.name, {}).values()
        named = sum((v if isinstance(v, list) else [v] for v in given), [])
        return {name: why for name, why in absent(profile).items() if name in named}

    def missing(self, profile: Profile) -> str:
        """Say why the chapter has nothing to show with a profile; empty where it has."""
        if self.name in profile.without:
            return f"profile {profile.name} leaves it out"
        values, gone = self.values(profile), self.left_out(profile)
        named = "datasets" in profile.chapters.get(self.name, {})
        default = {n: p.default for n, p in self.parameters.items()}
        none = (default | values).get("datasets") == []
        if values.get("dataset") == "" or (none and not named):
            return f"profile {profile.name} names no data set for it"
        nothing = none or values.get("dataset") in gone
        return "; ".join(f"{n}: {why}" for n, why in gone.items()) if gone and nothing else ""

    def changed(self, profile: Profile, values: dict) -> dict:
        """Return the values that differ from those of the book and can change a result."""
        book = {k: p.default for k, p in self.parameters.items()} | self.values(profile)
        rest = {k: v for k, v in values.items() if k not in ("profile", "n_jobs")}
        return {k: v for k, v in rest.items() if book[k] != v}


def absent(profile: Profile) -> dict[str, str]:
    """Find the data sets of a partial profile that are not there, each with what it lacks."""
    if not profile.partial:
        return {}
    from perturbcore.data.sets.base import absent as lacks

    found = {entry.name: lacks(entry.loader, entry.options) for entry in profile.datasets}
    return {name: why for name, why in found.items() if why}


def _there(value: Any, gone: dict) -> Any:
    """Take data sets that are not there out of the value of a parameter."""
    if isinstance(value, list):
        return [v for v in value if not (isinstance(v, str) and v in gone)]
    return "" if isinstance(value, str) and value in gone else value


def _flat(values: dict) -> list:
    """All names in some parameter values."""
    return [name for v in values.values() for name in (v if isinstance(v, list) else [v])]


def run_folder(profile: Profile, name: str, changed: dict) -> Path:
    """Folder of what a run leaves: the profile's, or one of its own where values are changed."""
    if not changed:
        return profile.results
    return profile.results / "runs" / f"{name}-{digest(changed)[:8]}"


def find_chapters() -> list[Chapter]:
    """All chapters, in the order of the table of contents, then by name."""
    root = project_root()
    names = sorted(p.stem for p in (root / "notebooks").glob("*.py"))
    order = published()
    names.sort(key=lambda n: order.index(n) if n in order else len(order))
    return [Chapter(name, root / "notebooks" / f"{name}.py") for name in names]


def find_chapter(name: str, where: str = "") -> Chapter:
    """Return one chapter by name; `where` the name stands, for the message, if there is none."""
    chapters = {c.name: c for c in find_chapters()}
    if name not in chapters:
        known = ", ".join(chapters)
        raise ParameterError(f"{where}there is no chapter {name!r}; there are {known}")
    return chapters[name]


def published() -> list[str]:
    """Names of the chapters that the table of contents shows, in its order."""
    toc = project_root() / "_toc.yml"
    if not toc.is_file():
        return []
    return re.findall(r"^[ -]*file:\s*book/chapters/(\w+)", toc.read_text(encoding="utf-8"), re.M)
