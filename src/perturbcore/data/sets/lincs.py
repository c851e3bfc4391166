"""Over-expressed genes of LINCS L1000: complete labels of consensus signatures (dhimmel/lincs)."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.catalogue import fetch
from perturbcore.data.identifiers import convert
from perturbcore.data.read import check_table, numbers, read_table
from perturbcore.data.responses import make_responses
from perturbcore.data.sets._make import folded
from perturbcore.data.sets.base import Card, Dataset, make_dataset

HITS = ("perturbagen", "entrez_gene_id", "z_score")


def load(
    readouts: str = "measured", min_labels: int = 5, n_folds: int = 5, seed: int = 0
) -> Dataset:
    """Load which genes each over-expressed gene moves up (1) or down (-1), or not (0)."""
    check_choice("readouts", readouts, ("measured", "all"))
    path, card = fetch("lincs/dysreg-overexpression"), Card()
    hits, genes = read_table(path), read_table(fetch("lincs/genes"))
    check_table(hits, HITS, path)
    z = numbers(hits["z_score"], "z_score", path)
    hits = hits.astype({"perturbagen": str, "entrez_gene_id": str}).assign(z=z)
    genes = genes.astype(str).set_index("entrez_gene_id")
    lost = hits.loc[~hits["entrez_gene_id"].isin(genes.index), "entrez_gene_id"]
    if len(lost):
        raise InputError(f"{path}: column 'entrez_gene_id' has '{lost.iloc[0]}', no known readout")
    card.step("file", perturbations=hits["perturbagen"].nunique(), genes=len(genes))
    if readouts == "measured":
        genes = genes[genes["status"] == "measured"]
        hits = hits[hits["entrez_gene_id"].isin(genes.index)]
        card.step("measured genes", perturbations=hits["perturbagen"].nunique(), genes=len(genes))
    names = convert([*genes.index, *hits["perturbagen"].unique()], "entrez", "symbol")["value"]
    called = names[genes.index].fillna(genes["symbol"])
    genes = genes[~called.duplicated(keep=False).to_numpy()]
    hits = hits[hits["entrez_gene_id"].isin(genes.index)]
    n = hits.groupby("perturbagen").size()
    kept = names[n.index[n >= min_labels]].dropna().sort_values()
    kept = kept[~kept.duplicated(keep=False)]
    if kept.empty:
        raise InputError(f"min_labels={min_labels}: no perturbation has so many significant genes")
    hits = hits[hits["perturbagen"].isin(kept.index)]
    label = np.zeros((len(kept), len(genes)), dtype=np.int8)
    rows = kept.index.get_indexer(hits["perturbagen"])
    columns = genes.index.get_indexer(hits["entrez_gene_id"])
    label[rows, columns] = np.sign(hits["z"]).astype(np.int8)
    obs = pd.DataFrame({"perturbation": kept.to_numpy(), "cell_line": "consensus"})
    obs["entrez"] = kept.index.to_numpy()
    made = make_responses(label, obs, called[genes.index], dataset="lincs", task="deg")
    made.var["measured"] = (genes["status"] == "measured").to_numpy()
    folded(made, n_folds, seed)
    card.responses(made, f"one symbol each, and at least {min_labels} significant genes")
    return make_dataset(made, card)
