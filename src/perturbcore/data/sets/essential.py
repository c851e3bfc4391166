"""The four Essential screens as partial labels: K562, RPE1, HepG2, Jurkat (Wu et al. 2025)."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.catalogue import fetch
from perturbcore.data.folds import add_folds
from perturbcore.data.read import read_csv
from perturbcore.data.responses import make_responses
from perturbcore.data.sets.base import Card, Dataset, card_of, check_choice

LINES = {"K562": "k562", "RPE1": "rpe1", "HepG2": "hepg2", "Jurkat": "jurkat"}
TASKS = ("de", "dir")


def pairs(line: str, task: str = "de") -> pd.DataFrame:
    """Return the labelled pairs of one cell line as their authors give them.

    `task`: "de": is the gene differentially expressed (1) or not (0); "dir": given that it is,
    does it go up (1) or down (0).

    Returns columns `pert`, `gene` (symbols), `label` (int8), `split` ("train" or "test").

    Wu et al. 2025, section 4.
    """
    check_choice("Essential cell line", line, LINES)
    check_choice("task", task, TASKS)
    return read_pairs(fetch(f"perturbqa/{LINES[line]}-{task}", progress=False))


def read_pairs(path) -> pd.DataFrame:
    """Read and check one file of labelled pairs; see `pairs`."""
    table = read_csv(path, ("pert", "gene", "label", "split"))
    for column, allowed in (("label", ("0", "1")), ("split", ("train", "test"))):
        wrong = ~table[column].isin(allowed)
        if wrong.any():
            raise InputError(
                f"{path}: column '{column}' has '{table[column][wrong].iloc[0]}' in line "
                f"{int(wrong.to_numpy().argmax()) + 2}; it must be {' or '.join(allowed)}"
            )
    twice = table.duplicated(["pert", "gene"])
    if twice.any():
        first = table[twice].iloc[0]
        raise InputError(
            f"{path}: the pair (pert '{first['pert']}', gene '{first['gene']}') is there twice"
        )
    both = table.groupby("pert")["split"].nunique()
    if (both > 1).any():
        raise InputError(
            f"{path}: column 'split' puts pert '{both.index[both > 1][0]}' in train and in test"
        )
    return table.astype({"label": np.int8}).reset_index(drop=True)


def load(lines=tuple(LINES), n_folds: int = 5, seed: int = 0) -> Dataset:
    """Load the Essential screens as partial labels of differential expression.

    `lines`: cell lines to load; `n_folds, seed`: folds are by symbol, the same in all lines;
    see `perturbcore.data.folds.assign_folds`.

    Returns ``responses``: one row per (cell line, perturbation), columns the union of the
    lines' genes; ``layers["observed"]``: is the label known; ``layers["deg"]``: 1 up, -1 down,
    0 not differentially expressed (or not observed). A pair that is differentially expressed
    but has no direction has no sign, so it is not observed; `pairs` keeps it. ``obs`` has the
    authors' split (`split_de`; `split_dir`, empty where no pair has a direction) and the counts
    `n_labels` and `n_de`. Cell and batch counts are not in these files.

    Wu et al. 2025; Replogle et al. 2022; Nadig et al. 2025.
    """
    lines = [lines] if isinstance(lines, str) else list(lines)
    if not lines:
        raise ParameterError(f"lines is empty; choose from: {', '.join(LINES)}")
    card = Card()
    tables = {}
    for line in lines:
        labels, note = join_direction(pairs(line, "de"), pairs(line, "dir"), line)
        card.step(
            f"{line}: labelled pairs",
            perturbations=labels["pert"].nunique(),
            genes=labels["gene"].nunique(),
            note=note,
        )
        tables[line] = labels
    responses = _responses(tables)
    add_folds(responses, n_folds, seed)
    obs = responses.obs
    shared = int((obs.groupby("perturbation")["cell_line"].nunique() == len(lines)).sum())
    card.step(
        "union of lines",
        perturbations=obs["perturbation"].nunique(),
        genes=responses.n_vars,
        note=f"{responses.n_obs:,} rows; {shared:,} perturbations are in every line",
    )
    return Dataset(
        name="essential",
        task="deg_pairs",
        responses=responses,
        card=card.frame(),
        sources=tuple(f"perturbqa/{LINES[line]}-{task}" for line in lines for task in TASKS),
        **card_of("essential"),
    )


def join_direction(
    de: pd.DataFrame, direction: pd.DataFrame, line: str
) -> tuple[pd.DataFrame, str]:
    """Give every differentially expressed pair its sign, and say the counts in words.

    Both tables are those of `pairs`. Returns a table with columns `pert`, `gene`, `deg` (-1, 0, 1;
    missing where the direction is unknown), `split_de`, `split_dir`; and the counts.
    """
    de = de.rename(columns={"label": "de", "split": "split_de"})
    direction = direction.rename(columns={"label": "up", "split": "split_dir"})
    labels = de.merge(direction, on=["pert", "gene"], how="outer", validate="one_to_one")
    stray = labels["up"].notna() & (labels["de"] != 1)
    if stray.any():
        first = labels[stray].iloc[0]
        raise InputError(
            f"{line}: pert '{first['pert']}', gene '{first['gene']}' has a direction in the -dir "
            "file but is not differentially expressed (label 1) in the -de file"
        )
    labels["deg"] = (2 * labels["up"] - 1).where(labels["de"] == 1, 0.0)
    unsigned = int(labels["deg"].isna().sum())
    note = (
        f"{len(labels):,} pairs, {int((labels['de'] == 1).sum()):,} differentially expressed "
        f"({int((labels['deg'] == 1).sum()):,} up, {int((labels['deg'] == -1).sum()):,} down, "
        f"{unsigned:,} without direction)"
    )
    return labels[["pert", "gene", "deg", "split_de", "split_dir"]], note


def _responses(tables: dict[str, pd.DataFrame]) -> AnnData:
    genes = pd.Index(sorted(set().union(*(t["gene"] for t in tables.values()))))
    obs, rows, columns, values, start = [], [], [], [], 0
    for line, table in tables.items():
        grouped = table.assign(de=table["deg"].abs()).groupby("pert", sort=True)
        part = pd.DataFrame(
            {
                "cell_line": line,
                "split_de": grouped["split_de"].first(),
                "split_dir": grouped["split_dir"].first().fillna(""),
                "n_labels": grouped["deg"].count(),
                "n_de": grouped["de"].sum().astype(int),
            }
        ).rename_axis("perturbation")
        known = table[table["deg"].notna()]
        rows.append(start + part.index.get_indexer(known["pert"]))
        columns.append(genes.get_indexer(known["gene"]))
        values.append(known["deg"].to_numpy(np.int8))
        obs.append(part.reset_index())
        start += len(part)
    obs = pd.concat(obs, ignore_index=True)
    deg = np.zeros((len(obs), len(genes)), np.int8)
    observed = np.zeros(deg.shape, bool)
    where = np.concatenate(rows), np.concatenate(columns)
    deg[where] = np.concatenate(values)
    observed[where] = True
    return make_responses(deg, obs, genes, dataset="essential", task="deg_pairs", observed=observed)
