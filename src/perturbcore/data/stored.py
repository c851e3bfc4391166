"""Data sets on disk: responses are made once, under a key of all they depend on, then opened."""

import dataclasses
import pickle
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
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
        own = dict(key=facts["key"], _path=path, _facts=facts, _loader=loader, _options=options)
        vars(self).update(facts["plain"], **own)

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
        if name in self._facts["uns"]:
            value.uns = self._facts["uns"][name]  # the format of the file changes types
        return value

    @cached_property
    def extras(self) -> Mapping[str, Any]:
        """See `Dataset`."""
        with h5py.File(f"{self._path}.h5") as file:
            kept = {k: pickle.loads(v[()]) for k, v in file["extras"].items()}
        lost = {k: self._loaded.extras[k] for k in self._facts["extras"] if k not in kept}
        return MappingProxyType(kept | lost)


def open_dataset(name: str, loader: str, options: Mapping, folder: Path) -> Dataset:
    """Open a data set, kept under a key of its options, the code of its loader, and its files."""
    module = module_of(loader)
    each = [p for v in options.values() for p in (v if isinstance(v, list) else [v])]
    inputs = [str(p) for p in each if isinstance(p, str | Path)]
    if hasattr(module, "inputs"):
        inputs += [str(p) for p in module.inputs(**options)]
    stamps = [_stamp(p) for p in sorted(inputs)]
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
    """Whether a data set kept in `folder` was read from files of simulated cells.

    `loaders`: name of a data set -> its loader. What a loader simulates itself does not count.
    """
    read = [name for name, loader in loaders.items() if hasattr(module_of(loader), "inputs")]
    kept = [path for name in read for path in folder.glob(f"{name}-{'?' * 16}.h5")]
    facts = [_facts(path.with_suffix("")) for path in kept]
    return any(found["plain"]["simulated"] for found in facts if found)


def _stamp(text: str) -> list:
    path = Path(text).expanduser()
    return [str(path.resolve()), catalogue.hash_of(path)] if path.is_file() else []


def _facts(path: Path) -> dict | None:
    """Facts of a kept data set, or None where there is none or a file of the catalogue changed."""
    if not path.with_name(f"{path.name}.h5").is_file():
        return None
    with h5py.File(f"{path}.h5") as file:
        facts = pickle.loads(file["facts"][()])
    return facts if facts["files"] == _files(facts["plain"]["sources"]) else None


def _files(names) -> dict:
    known = catalogue.entries()["sha256"]
    return {name: known.get(name, "") for name in names}  # "": not of the catalogue


def _make(path: Path, data: Dataset, key: str) -> None:
    """Write a data set; both files appear when they are complete, that with the facts last."""
    there = {p: getattr(data, p) for p in _PARTS if getattr(data, p) is not None}
    elsewhere = [p for p, value in there.items() if _too_large(value)]
    written = {p: value for p, value in there.items() if p not in elsewhere}
    facts = {
        "key": key,
        "plain": {k: getattr(data, k) for k in _PLAIN},
        "parts": list(there),
        "elsewhere": elsewhere,
        "uns": {p: dict(v.uns) for p, v in written.items() if isinstance(v, AnnData)},
        "extras": list(data.extras),
        "files": _files(data.sources),
    }
    with replaced(f"{path}.h5") as rest:
        with h5py.File(rest, "w") as file:
            for part, value in written.items():
                if part != "responses":
                    write_elem(file, part, value, dataset_kwargs={"compression": "lzf"})
            file["facts"], extras = _pickled(facts), file.create_group("extras")
            for name, value in data.extras.items():
                if dataclasses.is_dataclass(value):  # a simulation: its cells are the screen
                    value = dataclasses.replace(value, screen=None)
                try:
                    extras[name] = _pickled(value)
                except (pickle.PicklingError, AttributeError, TypeError):
                    continue  # a function inside another: loaded anew
        if "responses" in written:
            with replaced(f"{path}.h5ad") as own, h5py.File(own, "w") as file:
                write_elem(file, "/", written["responses"])


def _pickled(value) -> np.ndarray:
    return np.frombuffer(pickle.dumps(value), dtype=np.uint8)


def _too_large(value) -> bool:
    cells = isinstance(value, AnnData)
    return cells and (value.isbacked or getattr(value.X, "data", value.X).nbytes > _LARGEST)
