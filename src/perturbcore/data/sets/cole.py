"""The data sets of Cole et al. 2026 as preprocessed by the authors, with their stored folds."""

import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.authors.layout import absent, data_root, layout_of
from perturbcore.data.authors.raw import raw_screens
from perturbcore.data.authors.read import read_authors_responses, read_control_profiles
from perturbcore.data.folds import check_leakage
from perturbcore.data.published.tables import load_published
from perturbcore.data.sets.base import Card, Dataset, make_dataset

__all__ = ["absent", "inputs", "load"]
SIMULATED = (
    "These files are a small fixture in the authors' layout, written from simulated cells: they "
    "say nothing about real cells or about the models whose file names they bear."
)


def load(dataset: str = "essential", task: str = "lfc", root=None, cells: bool = False) -> Dataset:
    """Load responses with stored folds, perhaps raw `cells`, and the embeddings beside them."""
    layout = layout_of(dataset)
    responses = read_authors_responses(dataset, task, root)
    check_leakage(responses)
    about = responses.uns["perturbcore"]
    card = Card()
    for line, part in responses.obs.groupby("cell_line", sort=False):
        sizes = part.loc[part["fold"] >= 0, "fold"].value_counts().sort_index()
        note = f"stored folds of {', '.join(str(n) for n in sizes)}"
        names = part["perturbation"].nunique()
        card.step(str(line), perturbations=names, genes=responses.n_vars, note=note)
    notes = [*about["notes"], *([SIMULATED] if about["simulated"] else [])]
    screen = None
    if cells:
        try:
            screen = next(iter(raw_screens(dataset, data_root(root))))
        except InputError as error:
            notes.append(f"No cells: {error}.")
    ceiling = _published_error(responses, notes) if task == "lfc" else None
    extras = {"authors": {"dataset": dataset, "root": root}}
    if (controls := read_control_profiles(dataset, root)) is not None:
        extras["controls"] = controls
    simulated = ", simulated in the authors' layout" if about["simulated"] else ""
    known = {"title": layout.title + simulated, "citations": layout.citations}
    parts = dict(screen=screen, ceiling=ceiling, extras=extras)
    return make_dataset(responses, card, about=known, notes=notes, **parts)


def inputs(root=None, **_) -> list:
    """Files that `load` reads: a change of one makes what is kept of the data set out of date."""
    return [p for p in data_root(root).rglob("*") if p.is_file()]


def _published_error(responses: AnnData, notes: list[str]) -> pd.DataFrame | None:
    """Return the published experimental error, or None and note why there is none."""
    table, why = load_published().ceilings, "the published tables are not on this machine"
    if table is not None:
        table = table[table["dataset"] == responses.uns["perturbcore"]["dataset"]]
        keys = ["cell_line", "perturbation"]
        wanted = pd.MultiIndex.from_frame(responses.obs[keys].astype(str))
        lost = wanted[~wanted.isin(pd.MultiIndex.from_frame(table[keys]))]
        why = "none is published for these responses"
        if len(table) and not len(lost):
            return table
        if len(table):
            why = f"the published tables lack {len(lost)} responses, such as {'|'.join(lost[0])}"
    notes.append(f"No experimental error: {why}.")
    return None
