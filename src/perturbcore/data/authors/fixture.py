"""The authors' layout, small, from simulated cells: a developer tool and test fixture.

No number in it says anything about real cells, or about the models whose file names it uses.
"""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.errors import ParameterError
from perturbcore.data.authors.fixture_raw import (
    ESSENTIAL_LINES,
    drugs_of,
    ensembl,
    write_raw,
)
from perturbcore.data.authors.layout import GENE_EMBEDDINGS, LAYOUTS
from perturbcore.data.authors.write import effects_of_raw, labels_of_raw
from perturbcore.data.folds import assign_folds
from perturbcore.embeddings import network, words

# file name -> what of the simulation it is derived from, and its width
GENE_FILES = {
    "KG_WaveGC_G_StringDB_combined_0.0_(D=128)": ("network", 128),
    "STRING_Spectral_Medium_Conf_(D=128)": ("network", 128),
    "GenotypeVAE_(D=256)": ("annotation", 256),
    "DepMap_Gene_Effect_(D=318)": ("text", 318),
    "AIDOprot_mean_(D=384)": ("sequence", 384),
    "PCA_Fair_essential_CELL_LINE_controls_(D=128)": ("expression", 128),
    "AIDOcell_3M_essential_CELL_LINE_2025_11_26_(D=128)": ("expression", 128),
    "AIDOcell_3M_Norman_Aligned_(D=128)": ("expression", 128),
}
DRUG_FILES = {
    "ChemBERTa-77M-MTR": ("text", 384),
    "maccs": ("annotation", 167),
    "avalon": ("network", 200),
}
# share of genes that no embedding file knows, so that the rule for missing ones is at work
UNKNOWN_SHARE = 0.04


def write_fixture(
    folder, *, seed: int = 0, tasks=("lfc",), datasets=tuple(LAYOUTS), leak: int = 0
) -> Path:
    """Write the documented layout, small, from a simulated screen.

    Raw cells are written in the documented raw layout and turned into responses by the same functions
    that the command line uses. 176 perturbations a data set (Norman 110), so that 100
    components fit in the inner folds; 200 genes.

    Parameters
    ----------
    folder : path
        Made where absent; files there are written over.
    seed : int
        Equal seeds give equal values.
    tasks : sequence of {"lfc", "deg"}
    datasets : sequence of str
        Only these.
    leak : int
        Essential: this many genes get another fold in the second cell line, as a test of the check.

    Returns
    -------
    Path
        The root, to be given as ``PERTURBCORE_PAPER_DATA``.
    """
    unknown = [d for d in datasets if d not in LAYOUTS]
    if unknown:
        raise ParameterError(f"no data set '{unknown[0]}'; there are: {', '.join(LAYOUTS)}")
    root = Path(folder)
    simulation = write_raw(root, seed=seed, datasets=datasets)
    for dataset in datasets:
        layout = LAYOUTS[dataset]
        for task in tasks:
            if task not in layout.files:
                continue
            make = effects_of_raw if task == "lfc" else labels_of_raw
            few = {} if task == "lfc" else {"min_cells": 3}
            table = make(dataset, root, progress=False, **few)
            _add_folds(table, dataset, simulation, seed, leak if dataset == "essential" else 0)
            table.uns["perturbcore"] = {"simulated": True}
            if dataset == "essential" and task == "deg":
                # as in the authors' files: other gene order, align by name
                table = table[:, sorted(table.var_names)].copy()
            table.write_h5ad(root / layout.files[task])
    _write_gene_embeddings(root, simulation, seed)
    for dataset in ("sciplex", "tahoe"):
        if dataset in datasets:
            _write_drug_embeddings(root, dataset, simulation, seed)
    return root


def _add_folds(table, dataset: str, simulation, seed: int, leak: int) -> None:
    layout = LAYOUTS[dataset]
    if dataset == "norman":
        return
    drugs = drugs_of(simulation)
    # folds of all perturbations, so that responses and labels have the same
    key, names = "drug", drugs.index
    if layout.identifier == "ensembl":
        key, names = "gene_id", ensembl(simulation)[drugs["gene"]]
    folds = assign_folds(names, 5, seed)
    fold = folds.loc[table.obs[key].astype(str)].to_numpy()
    if layout.splits == "test_split":
        moved = table.obs[key].isin(folds.index[:leak]) & (
            table.obs["cell_line"] == ESSENTIAL_LINES[1]
        )
        table.obs["test_split"] = np.where(moved, (fold + 1) % 5, fold).astype(float)
        return
    for k in range(5):
        table.obs[f"fold_{k}"] = np.where(fold == k, "test", "train")


def _sources(simulation) -> dict:
    """Vectors of every simulated gene, from each kind of knowledge."""
    genes = list(simulation.modules.index)
    out = {}
    built = {
        "network": network.network_embedding(simulation.network, dim=40, name="n"),
        "annotation": words.annotation_embedding(simulation.annotation, dim=40, name="a"),
        "text": words.text_embedding(simulation.descriptions, dim=40, name="t"),
        "sequence": words.sequence_embedding(simulation.sequences, dim=40, name="s"),
    }
    for kind, embedding in built.items():
        out[kind] = pd.DataFrame(embedding.X, index=embedding.ids).reindex(genes).fillna(0.0)
    return out


def _expression(simulation, line: int) -> pd.DataFrame:
    """Genes by the control cells of one line: what an expression embedding is made from."""
    screen = simulation.screen
    name = sorted(screen.obs["cell_line"].unique())[line]
    rows = np.flatnonzero((screen.obs["cell_line"] == name) & screen.obs["is_control"])[:60]
    X = np.log1p(np.asarray(screen.X[rows].todense(), dtype=np.float64)).T
    return pd.DataFrame(X, index=screen.var_names)


def _widen(vectors: np.ndarray, width: int, rng) -> np.ndarray:
    """Turn vectors into `width` dense columns without losing what they say, with a little noise."""
    scaled = (vectors - vectors.mean(axis=0)) / max(vectors.std(), 1e-9)
    mixed = scaled @ rng.standard_normal((vectors.shape[1], width)) / np.sqrt(vectors.shape[1])
    return (mixed + 0.1 * rng.standard_normal(mixed.shape)).astype(np.float32)


def _write_gene_embeddings(root: Path, simulation, seed: int) -> None:
    folder = root / GENE_EMBEDDINGS
    folder.mkdir(parents=True, exist_ok=True)
    sources = _sources(simulation)
    for number, (stem, (kind, width)) in enumerate(GENE_FILES.items()):
        lines = list(enumerate(ESSENTIAL_LINES)) if "CELL_LINE" in stem else [(0, None)]
        for n, line in lines:
            rng = np.random.default_rng([seed, number, n])
            base = _expression(simulation, n) if kind == "expression" else sources[kind]
            known = base.index[rng.random(len(base)) >= UNKNOWN_SHARE]
            X = _widen(base.loc[known].to_numpy(), width, rng)
            name = stem.replace("CELL_LINE", line) if line else stem
            obs = pd.DataFrame(index=pd.Index(ensembl(simulation)[known].to_numpy(), dtype=str))
            ad.AnnData(sp.csr_matrix(X), obs=obs).write_h5ad(folder / f"{name}.h5ad")


def _write_drug_embeddings(root: Path, dataset: str, simulation, seed: int) -> None:
    """Give each drug the vectors of the gene it stands for."""
    layout = LAYOUTS[dataset]
    target = drugs_of(simulation)
    names = target.index if dataset == "sciplex" else target["pubchem_cid"].astype(str)
    sources = _sources(simulation)
    out = ad.AnnData(
        sp.csr_matrix((len(target), 1), dtype=np.float32),
        obs=pd.DataFrame(index=pd.Index(names, dtype=str, name=None)),
    )
    for number, (key, (kind, width)) in enumerate(DRUG_FILES.items()):
        rng = np.random.default_rng([seed, 100 + number])
        out.obsm[key] = _widen(sources[kind].loc[target["gene"]].to_numpy(), width, rng)
    out.write_h5ad(root / layout.drug_embeddings)
