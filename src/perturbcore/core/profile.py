"""Profiles: one YAML file holds every parameter of a whole run of the book."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import pydantic

from perturbcore.core.digest import digest
from perturbcore.core.errors import (
    InputError,
    ParameterError,
    check_choice,
    check_name,
    wrong_value,
)
from perturbcore.core.files import read_yaml, write_atomically

# in a folder of results: whose they are; make clean removes no folder without it
OWNER = "profile.txt"
# options of data sets that are paths, see `perturbcore.data.sets.from_files`
_PATHS = ("screen", "responses", "cells")

# chapters, profiles and pages as a wheel brings them; not in a checkout
PACKAGED = Path(__file__).parents[1] / "start"


def project_root() -> Path:
    """Find the folder that holds ``notebooks/profiles``: above here, of this checkout, packaged."""
    if declared := os.environ.get("PERTURBCORE_ROOT"):
        candidates = [Path(declared)]
    else:
        here = Path.cwd()
        candidates = [here, *here.parents, Path(__file__).parents[3], PACKAGED]
    for folder in candidates:
        if (folder / "notebooks" / "profiles").is_dir():
            return folder.resolve()
    raise InputError(
        f"no folder notebooks/profiles in {candidates[0]} or above it: run from a checkout of the "
        "project, or set PERTURBCORE_ROOT to one"
    )


def working_folder() -> Path:
    """Folder that chapters run in: the project's, or this one where there is only the package."""
    return Path.cwd() if (root := project_root()) == PACKAGED.resolve() else root


def results_root() -> Path:
    """Folder of everything that is computed: ``results``, or where ``PERTURBCORE_RESULTS`` says."""
    return Path(os.environ.get("PERTURBCORE_RESULTS") or working_folder() / "results").resolve()


class _Settings(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class DatasetEntry(_Settings):
    """One data set of a profile: its name, the module that loads it, and what to pass to it."""

    name: str
    loader: str
    options: Annotated[Mapping[str, Any], pydantic.AfterValidator(MappingProxyType)] = (
        MappingProxyType({})
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "name" not in value:
            return value
        return {"loader": value["name"], **value, "options": value.get("options") or {}}


class Profile(_Settings):
    """All parameters of one run of the book; results go to ``results/<name>``.

    `data`: catalogue entries to fetch before any chapter runs; `chapters`: per chapter, the
    parameter values that differ from its own defaults; `without`: chapters left out, and named;
    `partial`: so are data sets whose files are not there; `inner_order, lasso_tolerance`: of the
    inner folds and of lasso in every chapter, see `perturbcore.models.simple`. Relative paths start
    at the folder of the profile.
    """

    name: str
    path: Path
    title: str
    simulated: bool
    summary: str = ""
    data: tuple[str, ...] = ()
    datasets: tuple[DatasetEntry, ...] = ()
    embeddings: tuple[dict[str, Any], ...] = ()
    models: tuple[str | dict[str, Any], ...] = ()
    chapters: dict[str, dict[str, Any]] = {}
    without: tuple[str, ...] = ()
    partial: bool = False
    inner_order: Literal["id", "file"] = "id"
    lasso_tolerance: float = 0.0

    @pydantic.field_validator("data", "datasets", "embeddings", "models", "without", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @pydantic.field_validator("chapters", mode="before")
    @classmethod
    def _without_none(cls, value: Any) -> Any:
        # a chapter may be named without parameters
        return {k: v or {} for k, v in value.items()} if isinstance(value, dict) else value

    @pydantic.field_validator("datasets", "embeddings")
    @classmethod
    def _each_once(cls, value: tuple) -> tuple:
        names = [v.get("name") if isinstance(v, dict) else v.name for v in value]
        if None in names:
            raise ValueError(f"each is a mapping with a name, not {value[names.index(None)]!r}")
        if twice := sorted({str(n) for n in names if names.count(n) > 1}):
            raise ValueError(f"named twice: {', '.join(twice)}")
        for entry, name in zip(value, map(str, names), strict=True):
            check_name(name, "name")
            if isinstance(entry, DatasetEntry) and ("/" in name or name.startswith(".")):
                raise ValueError(f"{name!r} looks like a path: a name has no slash, no dot first")
        return value

    @property
    def results(self) -> Path:
        """Folder of this profile's results."""
        return results_root() / self.name

    def claim_results(self) -> None:
        """Make the folder of results this profile's own, or refuse one of another profile."""
        owner = self.results / OWNER
        other = owner.read_text(encoding="utf-8") if owner.is_file() else ""
        if other == self.address:
            return
        if other and ("/" not in other or Path(other).is_file()):
            raise ParameterError(
                f"{self.results} has the results of the profile {other}: rename one of the two, or "
                "set PERTURBCORE_RESULTS to another folder"
            )
        write_atomically(owner, self.address.encode())

    @property
    def digest(self) -> str:
        """Content of the profile as 16 hexadecimal characters."""
        datasets = [[d.name, d.loader, dict(d.options)] for d in self.datasets]
        rest = [list(self.data), datasets, list(self.embeddings), list(self.models), self.without]
        return digest(self.simulated, *rest, self.chapters, self.inner_order, self.lasso_tolerance)

    @property
    def address(self) -> str:
        """What to pass to :func:`load_profile` to get this profile again from anywhere."""
        bundled = self.path.parent == project_root() / "notebooks" / "profiles"
        return self.name if bundled else str(self.path)

    def dataset(self, name: str) -> DatasetEntry:
        """Return one data set of the profile by name."""
        there = {entry.name: entry for entry in self.datasets}
        return there[check_choice(f"profile {self.name} ({self.path}): data set", name, there)]


def load_profile(name_or_path: str | Path) -> Profile:
    """Read a profile by name (``demo``) or by path (``path/to/my.yml``).

    A profile that is not there, or a key that is unknown, missing or of the wrong type, is refused.

    Examples
    --------
    >>> pc.load_profile("demo").simulated
    True
    """
    path, text = Path(name_or_path).expanduser(), str(name_or_path)
    if not text.endswith((".yml", ".yaml")) and "/" not in text:
        path = project_root() / "notebooks" / "profiles" / f"{text}.yml"
        if not path.is_file():
            raise ParameterError(
                f"no profile named {text!r}; there are {', '.join(profile_names())}, "
                "or give the path of a .yml file"
            )
    if not path.is_file():
        raise ParameterError(f"the profile {path} does not exist")
    path = path.resolve()
    keys = [name for name in Profile.model_fields if name not in ("name", "path")]
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ParameterError(f"{path}: a profile is a mapping with the keys {', '.join(keys)}")
    if unknown := sorted({str(k) for k in raw} - set(keys)):
        raise ParameterError(f"{path}: unknown key {unknown[0]}; known are {', '.join(keys)}")
    try:
        return Profile(**_placed(raw, path.parent), name=path.stem, path=path)
    except pydantic.ValidationError as error:
        raise wrong_value(error, str(path), list(DatasetEntry.model_fields)) from None


def _placed(raw: dict, folder: Path) -> dict:
    """Let the paths of one's own data sets start at the folder of the profile."""

    def at(value: Any) -> Any:
        if isinstance(value, list):
            return [at(v) for v in value]
        return str(folder / Path(value).expanduser()) if isinstance(value, str) else value

    entries = raw.get("datasets")
    for entry in entries if isinstance(entries, list) else ():
        options = entry.get("options") if isinstance(entry, dict) else None
        if isinstance(options, dict):
            options.update({k: at(v) for k, v in options.items() if k in _PATHS})
    return raw


def profile_names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(p.stem for p in (project_root() / "notebooks" / "profiles").glob("*.yml"))
