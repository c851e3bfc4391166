"""Data sets on disk: responses are made once, under a key of all they depend on, then opened."""

import dataclasses
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem, write_elem

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.files import replaced
from perturbcore.data import catalogue
from perturbcore.data.sets.base import Dataset, load, module_of

_PLAIN = ("name", "title", "task", "simulated", "sources", "citations", "notes")
_PARTS = ("card", "responses", "screen", "replicates", "ceiling")
# larger screens stay where they are, and are read from there when a chapter asks for cells
_LARGEST = 2 * 10**9


class StoredDataset(Dataset):
    """A data set of which only what is asked for is read; what files cannot hold is loaded anew."""

    card, responses, screen, replicates, ceiling = (
        cached_property(lambda self, part=part: self._part(part)) for part in _PARTS
    )

    def __init__(self, path: Path, facts: dict, loader: str, options: Mapping):
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["plain"].items()}
        kept = {**plain, "key": facts["key"]}
        vars(self).update(kept, _path=path, _facts=facts, _loader=loader, _options=options)

    def holds(self, part: str) -> bool:
        """Whether a part is there; it is not read for that."""
        return part in self._facts["parts"]

    @cached_property
    def _loaded(self) -> Dataset:
        return load(self._loader, **self._options)

    def _part(self, name: str) -> Any:
        if not self.holds(name):
            return None
        if name in self._facts["elsewhere"]:
            return getattr(self._loaded, name)
        own = name == "responses"
        with h5py.File(f"{self._path}.{'h5ad' if own else 'h5'}") as file:
            value = read_elem(file if own else file[name])
        if self._facts["uns"].get(name) is not None:
            value.uns = self._facts["uns"][name]
        return value

    @cached_property
    def extras(self) -> Mapping[str, Any]:
        """See `Dataset`."""
        with h5py.File(f"{self._path}.h5") as file:
            found = {
                name: self._loaded.extras[name]
                if kind is None
                else _unpack(file, f"extras/{name}", kind)
                for name, kind in self._facts["extras"].items()
            }
        return MappingProxyType(found)


def open_dataset(name: str, loader: str, options: Mapping, folder: Path) -> Dataset:
    """Open a data set, kept under a key of its options, the code of its loader, and its files.

    Files are those that an option names and those that ``inputs(**options)`` beside ``load`` gives.
    """
    module = module_of(loader)
    each = [p for v in options.values() for p in (v if isinstance(v, list) else [v])]
    inputs = [str(p) for p in each if isinstance(p, str | Path)]
    if hasattr(module, "inputs"):
        inputs += [str(p) for p in module.inputs(**options)]
    there = [p for p in (Path(text).expanduser() for text in sorted(inputs)) if p.is_file()]
    stamps = [[str(p.resolve()), catalogue.hash_of(p)] for p in there]
    key = digest(loader, dict(options), code_digest(module.__name__), stamps)
    path = Path(folder) / f"{name}-{key}"
    facts = _facts(path)
    if facts is None:
        _make(path, load(loader, **options), key)
        for old in path.parent.glob(f"{name}-{'?' * len(key)}.h5*"):
            if not old.name.startswith(path.name):
                old.unlink(missing_ok=True)
        facts = _facts(path)
    return StoredDataset(path, facts, loader, options)


def from_simulated_files(folder: Path, loaders: Mapping[str, str]) -> bool:
    """Whether a data set kept in `folder` (name -> loader) was read from simulated files."""
    read = [name for name, loader in loaders.items() if hasattr(module_of(loader), "inputs")]
    kept = [path for name in read for path in folder.glob(f"{name}-{'?' * 16}.h5")]
    facts = [_facts(path.with_suffix("")) for path in kept]
    return any(found["plain"]["simulated"] for found in facts if found)


def _facts(path: Path) -> dict | None:
    """Facts of a kept data set, or None where there is none or a file of the catalogue changed."""
    if not path.with_name(f"{path.name}.h5").is_file():
        return None
    with h5py.File(f"{path}.h5") as file:
        facts = json.loads(file.attrs["facts"])
    return facts if facts["files"] == _files(facts["plain"]["sources"]) else None


def _files(names) -> dict:
    known = catalogue.entries()["sha256"]
    return {name: known.get(name, "") for name in names}  # "": not of the catalogue


def _make(path: Path, data: Dataset, key: str) -> None:
    """Write a data set; both files appear when they are complete, that with the facts last."""
    there = {p: getattr(data, p) for p in _PARTS if getattr(data, p) is not None}
    cells = {p: value for p, value in there.items() if isinstance(value, AnnData)}
    large = {
        p for p, v in cells.items() if v.isbacked or getattr(v.X, "data", v.X).nbytes > _LARGEST
    }
    written = {p: value for p, value in there.items() if p not in large}
    with replaced(f"{path}.h5") as rest:
        with h5py.File(rest, "w") as file:
            for part, value in written.items():
                if part != "responses":
                    write_elem(file, part, value, dataset_kwargs={"compression": "lzf"})
            facts = {
                "key": key,
                "plain": {k: getattr(data, k) for k in _PLAIN},
                "parts": list(there),
                "elsewhere": [p for p in there if p not in written],
                "uns": {p: _jsonable(dict(v.uns)) for p, v in written.items() if hasattr(v, "uns")},
                "extras": {k: _pack(file, f"extras/{k}", v) for k, v in data.extras.items()},
                "files": _files(data.sources),
            }
            file.attrs["facts"] = json.dumps(facts)
        if "responses" in written:
            with replaced(f"{path}.h5ad") as own, h5py.File(own, "w") as file:
                write_elem(file, "/", written["responses"])


def _jsonable(value):
    """Return a value if JSON gives it back as it is, otherwise None."""
    try:
        return value if json.loads(json.dumps(value)) == value else None
    except (TypeError, ValueError):
        return None


def _pack(file: h5py.File, place: str, value) -> Any:
    """Write a value and return how it was written; None where files cannot hold it."""
    numeric = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    if numeric or isinstance(value, AnnData | pd.DataFrame):
        write_elem(file, place, value)
        return "table"
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        fields.pop("screen", None)
        kinds = {name: _pack(file, f"{place}/{name}", v) for name, v in fields.items()}
        return {name: kind for name, kind in kinds.items() if kind is not None}
    value = dict(value) if isinstance(value, Mapping) else value
    try:
        text = json.dumps(value, default=np.generic.item)  # of numpy's types only numbers
    except (TypeError, ValueError):
        return None
    file.create_dataset(place, data=text)
    return "tuple" if isinstance(value, tuple) else "plain"


def _unpack(file: h5py.File, place: str, kind) -> Any:
    if isinstance(kind, dict):
        return SimpleNamespace(**{n: _unpack(file, f"{place}/{n}", k) for n, k in kind.items()})
    if kind == "table":
        return read_elem(file[place])
    value = json.loads(file[place][()])
    return tuple(value) if kind == "tuple" else value
