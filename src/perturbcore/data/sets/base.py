"""What every data set hands over, and finding it by name."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import read_yaml
from perturbcore.data.effects import not_estimable_said

CARD_COLUMNS = ("step", "cells", "perturbations", "genes", "batches", "note")


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for effects or evaluation, with what a reader must know of it.

    `name`: key in the scores table; `replicates`: wells by genes with their controls; `ceiling`:
    published experimental error of each perturbation; `sources, citations`: names in the catalogue,
    keys in the bibliography; `notes`: what the data can and cannot carry; `extras`: such as the
    truth of a simulation or a table of drugs; `key`: of a data set that was opened from disk.
    """

    name: str
    title: str
    task: str
    card: pd.DataFrame
    responses: AnnData | None = None
    screen: AnnData | None = None
    replicates: AnnData | None = None
    ceiling: pd.DataFrame | None = None
    sources: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    simulated: bool = False
    extras: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    key: str = ""

    def holds(self, part: str) -> bool:
        """Whether the data set has "responses", a "screen", "replicates" or a "ceiling"."""
        return getattr(self, part) is not None


class Card:
    """Counts before and after each filter: one row per step from the file to what is used."""

    def __init__(self):
        self._rows: list[dict] = []

    def step(self, step: str, *, note: str = "", **counts: int) -> None:
        """Add a row from plain counts, each named by its column."""
        self._rows.append({"step": step, **counts, "note": note})

    def step_of(self, step: str, screen: AnnData, note: str = "") -> None:
        """Add a row with the counts of a declared screen; controls are no perturbation."""
        obs = screen.obs
        named = obs.loc[~obs["is_control"].astype(bool), "perturbation"]
        batches = len(obs[["cell_line", "batch"]].drop_duplicates())
        counts = dict(cells=screen.n_obs, genes=screen.n_vars, batches=batches)
        self.step(step, perturbations=named.nunique(), note=note, **counts)

    def responses(self, responses: AnnData, note: str, step: str = "responses", **counts) -> None:
        """Add a row with the perturbations and genes of responses."""
        perturbations = responses.obs["perturbation"].nunique()
        counts |= dict(perturbations=perturbations, genes=responses.n_vars)
        said = [text for text in (note, not_estimable_said(responses)) if text]
        self.step(step, note="; ".join(said), **counts)

    def frame(self) -> pd.DataFrame:
        """Return the card; counts are nullable integers."""
        frame = pd.DataFrame(self._rows, columns=list(CARD_COLUMNS))
        return frame.astype(dict.fromkeys(CARD_COLUMNS[1:5], "Int64"))


@cache
def _cards() -> dict[str, dict]:
    return read_yaml(Path(__file__).with_name("cards.yml"))


def constants_of(name: str) -> dict[str, Any]:
    """Return the constants of ``cards.yml`` that reading the files of a data set needs."""
    return _cards()[name]["constants"]


def make_dataset(responses: AnnData, card: Card, *, about=None, notes=(), **parts) -> Dataset:
    """Assemble a data set; `about`: title and the like, instead of those of ``cards.yml``."""
    declared = responses.uns["perturbcore"]
    about = _cards()[declared["dataset"]] if about is None else about
    about = {k: tuple(v) if isinstance(v, list) else v for k, v in about.items()}
    about.pop("constants", None)
    about["notes"] = (*about.get("notes", ()), *notes)
    parts["extras"] = MappingProxyType(parts.get("extras", {}))
    said = dict(name=declared["dataset"], task=declared["task"], card=card.frame())
    simulated = bool(declared.get("simulated", False))
    return Dataset(responses=responses, simulated=simulated, **(said | about | parts))


def available() -> list[str]:
    """List the data sets that `load` knows: the modules of this package."""
    package = importlib.import_module("perturbcore.data.sets")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(n for n in names if n != "base" and not n.startswith("_"))


def module_of(name: str) -> ModuleType:
    """Return the module that loads a data set."""
    names = available()
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise ParameterError(f"no data set '{name}'{hint}; there are: {', '.join(names)}")
    return importlib.import_module(f"perturbcore.data.sets.{name}")


def load(name: str, /, **options) -> Dataset:
    """Load a data set by the name of its module (one of `available`), with its options.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> data = pc.load_dataset("simulated", **sizes)
    >>> data.task, data.responses.shape
    ('lfc', (12, 80))
    """
    loader = module_of(name).load
    check_options(f"data set '{name}'", loader, options)
    return loader(**options)


def absent(name: str, options: Mapping[str, Any]) -> str:
    """Say which files a data set lacks; empty where they are there, or its loader fetches them."""
    module = module_of(name)
    return module.absent(**options) if hasattr(module, "absent") else ""


def check_options(what: str, function: Callable, options: Mapping[str, Any]) -> None:
    """Refuse an option that `function` does not take, and list those that it takes."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.name != "adata"]
    unknown = [o for o in options if o not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ParameterError(f"{what} has no option '{unknown[0]}'; it has: {', '.join(known)}")
