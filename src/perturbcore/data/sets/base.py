"""What every data set hands over, and finding it by name."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError

CARD_COLUMNS = ("step", "cells", "perturbations", "genes", "batches", "note")
NOT_DATASETS = ("base",)


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for effects or evaluation, with what a reader must know of it.

    Parameters
    ----------
    name, title : str
        Key in the scores table; what a page calls it.
    task : str
        "lfc", "deg" or "deg_pairs".
    card : pandas.DataFrame
        One row a step from the file to what is used, with the counts after that step; columns
        `step`, `cells` (wells, for plate screens), `perturbations` (controls not counted), `genes`,
        `batches`, `note`. A count that has no meaning for the data is missing.
    responses : anndata.AnnData, optional
        With folds; see `perturbcore.data.responses`.
    screen : anndata.AnnData, optional
        Cells, or wells, by genes; see `perturbcore.data.screens`.
    replicates : anndata.AnnData, optional
        Wells by genes with their controls, for a ceiling from replicates.
    ceiling : pandas.DataFrame, optional
        Noise ceiling a perturbation, where it comes with the data.
    sources, citations : tuple of str
        Names in the catalogue; keys in the bibliography.
    notes : tuple of str
        Sentences: what the data can and cannot carry.
    simulated : bool
        Whether the cells were simulated.
    extras : mapping
        Anything more, such as the truth of a simulation.
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


class Card:
    """Collect the counts before and after each filter."""

    def __init__(self):
        self._rows: list[dict] = []

    def step(self, step: str, *, cells=None, perturbations=None, genes=None, batches=None, note=""):
        """Add a row from plain counts; None means that the count has no meaning here."""
        counts = (cells, perturbations, genes, batches)
        self._rows.append(dict(zip(CARD_COLUMNS, (step, *counts, note), strict=True)))

    def step_of(self, step: str, screen: AnnData, note: str = ""):
        """Add a row with the counts of a declared screen; controls are no perturbation."""
        obs = screen.obs
        self.step(
            step,
            cells=screen.n_obs,
            perturbations=int(obs.loc[~obs["is_control"].astype(bool), "perturbation"].nunique()),
            genes=screen.n_vars,
            batches=int(obs[["cell_line", "batch"]].drop_duplicates().shape[0]),
            note=note,
        )

    def frame(self) -> pd.DataFrame:
        """Return the card; counts are nullable integers."""
        frame = pd.DataFrame(self._rows, columns=list(CARD_COLUMNS))
        return frame.astype(dict.fromkeys(CARD_COLUMNS[1:5], "Int64"))


def available() -> list[str]:
    """List the data sets that `load` knows: the modules of this package."""
    package = importlib.import_module("perturbcore.data.sets")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(n for n in names if n not in NOT_DATASETS and not n.startswith("_"))


def load(name: str, /, **options) -> Dataset:
    """Load a data set by the name of its module.

    Parameters
    ----------
    name : str
        One of `available`.
    **options
        Handed to the `load` of that module.

    Returns
    -------
    Dataset

    Raises
    ------
    ParameterError
        The name or an option is unknown; the message lists what exists.
    """
    names = available()
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise ParameterError(f"no data set '{name}'{hint}; there are: {', '.join(names)}")
    loader = importlib.import_module(f"perturbcore.data.sets.{name}").load
    _check_options(name, loader, options)
    return loader(**options)


def _check_options(name: str, loader, options: dict) -> None:
    parameters = inspect.signature(loader).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters]
    unknown = [o for o in options if o not in known]
    if unknown:
        raise ParameterError(
            f"data set '{name}' has no option '{unknown[0]}'; it has: {', '.join(known)}"
        )
