"""The four Essential screens as partial labels: K562, RPE1, HepG2, Jurkat (Wu et al. 2025)."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import ParameterError, check_choice
from perturbcore.data.catalogue import fetch
from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.data.sets.base import Card, Dataset, make_dataset

LINES = {"K562": "k562", "RPE1": "rpe1", "HepG2": "hepg2", "Jurkat": "jurkat"}
TASKS = ("de", "dir")


def pairs(line: str, task: str = "de") -> pd.DataFrame:
    """Return the labelled pairs of one cell line as their authors give them."""
    check_choice("Essential cell line", line, LINES)
    check_choice("task", task, TASKS)
    table = pd.read_csv(fetch(f"perturbqa/{LINES[line]}-{task}"), keep_default_na=False)
    return table[["pert", "gene", "label", "split"]].astype({"label": np.int8})


def load(lines=tuple(LINES), n_folds: int = 5, seed: int = 0) -> Dataset:
    """Load the Essential screens as partial labels; one without a direction is not observed."""
    lines = [lines] if isinstance(lines, str) else list(lines)
    if not lines:
        raise ParameterError(f"lines is empty; choose from: {', '.join(LINES)}")
    card, tables = Card(), []
    for line in lines:
        table, note = _join_direction(line)
        names, genes = table["pert"].nunique(), table["gene"].nunique()
        card.step(f"{line}: labelled pairs", perturbations=names, genes=genes, note=note)
        tables.append(table)
    responses = add_folds(_responses(pd.concat(tables, ignore_index=True)), n_folds, seed)
    shared = int((responses.obs["perturbation"].value_counts() == len(lines)).sum())
    note = f"{responses.n_obs:,} rows; {shared:,} perturbations are in every line"
    card.responses(responses, note, "union of lines")
    sources = tuple(f"perturbqa/{LINES[line]}-{task}" for line in lines for task in TASKS)
    return make_dataset(responses, card, sources=sources)


def _join_direction(line: str) -> tuple[pd.DataFrame, str]:
    """Give every differentially expressed pair of a line its sign, and say the counts in words."""
    de = pairs(line, "de").rename(columns={"label": "de", "split": "split_de"})
    up = pairs(line, "dir").rename(columns={"label": "up", "split": "split_dir"})
    table = de.merge(up, on=["pert", "gene"], how="outer", validate="one_to_one")
    deg = (2 * table["up"] - 1).where(table["de"] == 1, 0.0)
    note = (
        f"{len(table):,} pairs, {int((table['de'] == 1).sum()):,} differentially expressed "
        f"({int((deg == 1).sum()):,} up, {int((deg == -1).sum()):,} down, "
        f"{int(deg.isna().sum()):,} without direction)"
    )
    return table.assign(cell_line=line, deg=deg), note


def _responses(table: pd.DataFrame) -> AnnData:
    """Spread the pairs of all lines over rows (cell line, perturbation) and genes."""
    table = table.assign(moved=table["deg"].abs())
    rows = table.groupby(["cell_line", "pert"], sort=False)
    obs = rows[["split_de", "split_dir"]].first().fillna({"split_dir": ""})
    obs = obs.assign(n_labels=rows["deg"].count(), n_de=rows["moved"].sum().astype(int))
    genes = pd.Index(sorted(table["gene"].unique()))
    known = table[table["deg"].notna()]
    row = obs.index.get_indexer(pd.MultiIndex.from_frame(known[["cell_line", "pert"]]))
    where = row, genes.get_indexer(known["gene"])
    deg = np.zeros((len(obs), len(genes)), np.int8)
    deg[where] = known["deg"]
    observed = np.zeros(deg.shape, bool)
    observed[where] = True
    obs = obs.rename_axis(["cell_line", "perturbation"]).reset_index()
    return make_responses(deg, obs, genes, dataset="essential", task="deg_pairs", observed=observed)
