"""Profiles: one YAML file holds every parameter of a whole run of the book."""

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType

import yaml

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError


def project_root() -> Path:
    """Find the folder that holds ``notebooks/profiles``.

    ``PERTURBCORE_ROOT`` decides if it is set; otherwise the working directory and its parents are
    searched, then the checkout this package was installed from.

    Raises
    ------
    InputError
        No such folder is found.
    """
    if declared := os.environ.get("PERTURBCORE_ROOT"):
        candidates = [Path(declared)]
    else:
        here = Path.cwd()
        candidates = [here, *here.parents, Path(__file__).parents[3]]
    for folder in candidates:
        if (folder / "notebooks" / "profiles").is_dir():
            return folder.resolve()
    raise InputError(
        f"no folder notebooks/profiles in {candidates[0]} or above it: run from a checkout of the "
        "project, or set PERTURBCORE_ROOT to one"
    )


def results_root() -> Path:
    """Folder of everything that is computed: ``results``, or where ``PERTURBCORE_RESULTS`` says."""
    return Path(os.environ.get("PERTURBCORE_RESULTS") or project_root() / "results").resolve()


@dataclass(frozen=True)
class DatasetEntry:
    """One data set of a profile: its name, the module that loads it, and what to pass to it."""

    name: str
    loader: str
    options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Profile:
    """All parameters of one run of the book.

    Attributes
    ----------
    name
        Stem of the file; results go to ``results/<name>``.
    path
        The file it was read from.
    title, summary
        One line and one paragraph for the reader.
    simulated
        Whether the cells are simulated; pages say so.
    data
        Names of catalogue entries to fetch before any chapter runs.
    datasets
        What to load, in order.
    embeddings
        Specifications for the embedding builders, each a mapping with at least ``name``.
    models
        Models that every chapter whose task they predict scores besides its own: names or mappings
        with at least ``name``, see `perturbcore.models.registry`.
    chapters
        For each chapter, the parameter values that differ from the chapter's own defaults.
    """

    name: str
    path: Path
    title: str
    simulated: bool
    summary: str = ""
    data: tuple[str, ...] = ()
    datasets: tuple[DatasetEntry, ...] = ()
    embeddings: tuple[dict, ...] = ()
    models: tuple[str | dict, ...] = ()
    chapters: dict = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """Folder of this profile's results."""
        return results_root() / self.name

    @property
    def digest(self) -> str:
        """Content of the profile as 16 hexadecimal characters."""
        datasets = [[d.name, d.loader, dict(d.options)] for d in self.datasets]
        return digest(
            self.simulated,
            list(self.data),
            datasets,
            list(self.embeddings),
            list(self.models),
            self.chapters,
        )

    @property
    def address(self) -> str:
        """What to pass to :func:`load_profile` to get this profile again from anywhere."""
        bundled = self.path.parent == project_root() / "notebooks" / "profiles"
        return self.name if bundled else str(self.path)

    def dataset(self, name: str) -> DatasetEntry:
        """Return one data set of the profile by name."""
        for entry in self.datasets:
            if entry.name == name:
                return entry
        raise ParameterError(
            f"profile {self.name} has no data set {name!r}; it has "
            f"{', '.join(d.name for d in self.datasets) or 'none'} ({self.path})"
        )


_KINDS = {
    "title": str,
    "simulated": bool,
    "summary": str,
    "data": list,
    "datasets": list,
    "embeddings": list,
    "models": list,
    "chapters": dict,
}


def load_profile(name_or_path: str | Path) -> Profile:
    """Read a profile by name (``demo``) or by path (``path/to/my.yml``).

    Parameters
    ----------
    name_or_path
        A name under ``notebooks/profiles``, or any YAML file.

    Raises
    ------
    ParameterError
        The profile does not exist, a key is unknown, missing or of the wrong type.
    """
    path = _locate(str(name_or_path))
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ParameterError(f"{path}: a profile is a mapping with the keys {', '.join(_KINDS)}")
    _refuse_unknown(raw, _KINDS, path, "key")
    for key in ("title", "simulated"):
        if key not in raw:
            raise ParameterError(f"{path}: the key {key!r} is missing")
    for key, value in raw.items():
        if not isinstance(value, _KINDS[key]):
            raise ParameterError(
                f"{path}: {key} must be a {_KINDS[key].__name__}, "
                f"not {type(value).__name__} ({value!r})"
            )
    chapters = {name: values or {} for name, values in raw.get("chapters", {}).items()}
    for chapter, values in chapters.items():
        if not isinstance(values, dict):
            raise ParameterError(f"{path}: chapters: {chapter} must map parameters to values")
    embeddings = tuple(raw.get("embeddings", []))
    for spec in embeddings:
        if not isinstance(spec, dict) or "name" not in spec:
            raise ParameterError(f"{path}: each embedding is a mapping with a name, not {spec!r}")
    data = tuple(raw.get("data", []))
    for entry in data:
        if not isinstance(entry, str):
            raise ParameterError(f"{path}: data lists names of catalogue entries, not {entry!r}")
    datasets = tuple(_dataset(spec, path) for spec in raw.get("datasets", []))
    for kind, names in (
        ("data set", [d.name for d in datasets]),
        ("embedding", [e["name"] for e in embeddings]),
    ):
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ParameterError(f"{path}: {kind} named twice: {', '.join(map(str, twice))}")
    return Profile(
        name=path.stem,
        path=path,
        title=raw["title"],
        simulated=raw["simulated"],
        summary=raw.get("summary", ""),
        data=data,
        datasets=datasets,
        embeddings=embeddings,
        models=tuple(raw.get("models", [])),
        chapters=chapters,
    )


def profile_names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(p.stem for p in (project_root() / "notebooks" / "profiles").glob("*.yml"))


def _locate(text: str) -> Path:
    if text.endswith((".yml", ".yaml")) or "/" in text:
        path = Path(text).expanduser()
        if not path.is_file():
            raise ParameterError(f"the profile {path} does not exist")
        return path.resolve()
    path = project_root() / "notebooks" / "profiles" / f"{text}.yml"
    if not path.is_file():
        raise ParameterError(
            f"no profile named {text!r}; there are {', '.join(profile_names())}, "
            "or give the path of a .yml file"
        )
    return path


def _dataset(spec, path: Path) -> DatasetEntry:
    if not isinstance(spec, dict) or "name" not in spec:
        raise ParameterError(f"{path}: each data set is a mapping with a name, not {spec!r}")
    _refuse_unknown(spec, [f.name for f in fields(DatasetEntry)], path, "key of a data set")
    options = spec.get("options") or {}
    if not isinstance(options, dict):
        raise ParameterError(f"{path}: options of {spec['name']} must be a mapping")
    return DatasetEntry(
        name=spec["name"],
        loader=spec.get("loader", spec["name"]),
        options=MappingProxyType(options),
    )


def _refuse_unknown(given, known, path: Path, what: str) -> None:
    unknown = [str(k) for k in given if k not in known]
    if unknown:
        raise ParameterError(
            f"{path}: unknown {what} {', '.join(unknown)}; known are {', '.join(known)}"
        )
