"""Genetic perturbations of LINCS L1000 as consensus signatures (dhimmel/lincs)."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.catalogue import fetch
from perturbcore.data.identifiers import convert
from perturbcore.data.read import check_table, numbers, read_table
from perturbcore.data.responses import make_responses
from perturbcore.data.sets._make import folded
from perturbcore.data.sets.base import Card, Dataset, make_dataset

FILES = {"labels": "lincs/dysreg", "z": "lincs/consensi"}
HITS = ("perturbagen", "entrez_gene_id", "z_score")


def load(
    values: str = "labels",
    of: str = "overexpression",
    readouts: str = "measured",
    min_labels: int = 5,
    n_folds: int = 5,
    seed: int = 0,
) -> Dataset:
    """Load what each over-expressed or knocked-down gene moves, and how far or in which direction.

    `values`: "labels", of over-expressions: significantly up (1), down (-1) or not (0); or "z": all
    consensus z-scores, in files too large for a mirror that are fetched by their git blob ids;
    `of`: "overexpression" or "knockdown"; `min_labels`: significant genes that a perturbation must
    have (labels only).
    """
    check_choice("values", values, ("labels", "z"))
    check_choice("of", of, ("overexpression", "knockdown")[: 1 + (values == "z")])
    check_choice("readouts", readouts, ("measured", "all"))
    card, read = Card(), _scores if values == "z" else _labels
    genes = read_table(fetch("lincs/genes")).astype(str).set_index("entrez_gene_id")
    table = read(of, genes)
    card.step("file", perturbations=len(table), genes=len(genes))
    if readouts == "measured":
        genes = genes[genes["status"] == "measured"]
        moving = (table[genes.index.intersection(table.columns)] != 0).any(axis=1)
        card.step("measured genes", perturbations=int(moving.sum()), genes=len(genes))
    names = convert([*genes.index, *table.index], "entrez", "symbol")["value"]
    called = names[genes.index].fillna(genes["symbol"])
    genes = genes[~called.duplicated(keep=False).to_numpy() & genes.index.isin(table.columns)]
    table = table[genes.index]
    enough = (table != 0).sum(axis=1) >= (min_labels if values == "labels" else 1)
    kept = names[table.index[enough]].dropna().sort_values()
    kept = kept[~kept.duplicated(keep=False)]
    if kept.empty:
        raise InputError(f"min_labels={min_labels}: no perturbation has so many significant genes")
    obs = pd.DataFrame({"perturbation": kept.to_numpy(), "cell_line": "consensus"})
    obs["entrez"] = kept.index.to_numpy()
    how = dict(dataset="lincs", task="deg")
    if values == "z":
        how = dict(dataset="lincs_scores", task="lfc")
    made = make_responses(table.loc[kept.index].to_numpy(), obs, called[genes.index], **how)
    made.var["measured"] = (genes["status"] == "measured").to_numpy()
    folded(made, n_folds, seed)
    said = f", and at least {min_labels} significant genes" if values == "labels" else ""
    card.responses(made, f"one symbol each{said}")
    return make_dataset(made, card, sources=(f"{FILES[values]}-{of}", "lincs/genes"))


def _labels(of: str, genes: pd.DataFrame) -> pd.DataFrame:
    """Read the significant genes of each perturbation as signs, perturbations x readouts."""
    path = fetch(f"{FILES['labels']}-{of}")
    hits = read_table(path)
    check_table(hits, HITS, path)
    z = numbers(hits["z_score"], "z_score", path)
    hits = hits.astype({"perturbagen": str, "entrez_gene_id": str}).assign(z=np.sign(z))
    _check_readouts(hits["entrez_gene_id"], genes, path)
    table = hits.pivot_table(index="perturbagen", columns="entrez_gene_id", values="z")
    return table.reindex(columns=genes.index).fillna(0).astype(np.int8)


def _scores(of: str, genes: pd.DataFrame) -> pd.DataFrame:
    """Read consensus z-scores, perturbations x readouts."""
    path = fetch(f"{FILES['z']}-{of}")
    try:
        table = pd.read_csv(path, sep="\t", converters={HITS[0]: str})
    except (OSError, EOFError, ValueError) as error:  # what pandas and bz2 raise for a cut file
        raise InputError(f"{path} cannot be read as a table ({error}): fetch it again") from None
    check_table(table, HITS[:1], path)
    table = table.set_index(HITS[0])
    _check_readouts(table.columns, genes, path)
    checked = {gene: numbers(table[gene], gene, path) for gene in table}
    return pd.DataFrame(checked, dtype=np.float32)


def _check_readouts(found, genes: pd.DataFrame, path) -> None:
    lost = [gene for gene in found if gene not in genes.index]
    if lost:
        raise InputError(f"{path}: '{lost[0]}' is no known readout (lincs/genes)")
