"""Chapters as they lie in ``notebooks/``: percent scripts with a parameters cell."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from perturbcore.book.parameters import Parameter, declared, resolve
from perturbcore.core.digest import digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.profile import Profile, project_root


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
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
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
    def after(self) -> tuple[str, ...]:
        """Chapters that must have run before this one."""
        return tuple(self.notebook.metadata.get("perturbcore", {}).get("after", ()))

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Declared parameters; ``profile`` is always among them."""
        cells = [c for c in self.notebook.cells if "parameters" in c.metadata.get("tags", [])]
        if len(cells) != 1:
            raise ParameterError(
                f"{self.path} needs exactly one cell tagged parameters, it has {len(cells)}"
            )
        found = declared(cells[0].source, self.name)
        if "profile" not in found or found["profile"].type != "str":
            raise ParameterError(f"{self.path}: the parameters cell must declare profile: str")
        return found

    def values(self, profile: Profile, given: dict | None = None) -> dict:
        """Parameter values that a run passes to the chapter.

        Parameters
        ----------
        profile
            Its ``chapters`` section overrides the chapter's defaults.
        given
            Values that override both; text is parsed by the declared type.

        Raises
        ------
        ParameterError
            A name is unknown or a value has the wrong type.
        """
        known = [c.name for c in find_chapters()]
        for name in profile.chapters:
            if name not in known:
                raise ParameterError(
                    f"{profile.path}: chapters: there is no chapter {name!r}; "
                    f"there are {', '.join(known)}"
                )
        where = f"{profile.path}, chapter {self.name}"
        values = resolve(self.parameters, profile.chapters.get(self.name, {}), where)
        given = dict(given or {})
        resolve(self.parameters, dict.fromkeys(set(given) - set(self.parameters)), self.name)
        for name, value in given.items():
            parameter = self.parameters[name]
            read = parameter.parse if isinstance(value, str) else parameter.check
            values[name] = read(value, self.name)
        return {**values, "profile": profile.address}

    def changed(self, profile: Profile, values: dict) -> dict:
        """Return the values that differ from those of the book and can change a result."""
        book = {k: p.default for k, p in self.parameters.items()} | self.values(profile)
        rest = {k: v for k, v in values.items() if k not in ("profile", "n_jobs")}
        return {k: v for k, v in rest.items() if book[k] != v}


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


def find_chapter(name: str) -> Chapter:
    """Return one chapter by name."""
    chapters = {c.name: c for c in find_chapters()}
    if name not in chapters:
        raise ParameterError(f"there is no chapter {name!r}; there are {', '.join(chapters)}")
    return chapters[name]


def published() -> list[str]:
    """Names of the chapters that the table of contents shows, in its order."""
    toc = project_root() / "_toc.yml"
    if not toc.is_file():
        return []
    return re.findall(r"^[ -]*file:\s*book/chapters/(\w+)", toc.read_text(encoding="utf-8"), re.M)
