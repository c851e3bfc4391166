"""What data cards say of the cells and of the perturbed genes of a data set."""

import gseapy
import pandas as pd
import scanpy as sc
from anndata import AnnData

from perturbcore.data.screens.values import blocks
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.report.text import HEADINGS


def cell_quality(data: Dataset) -> pd.DataFrame | None:
    """Median counts and genes seen per cell, of controls and perturbed cells of each cell line."""
    screen = data.screen if data.holds("screen") else None
    if screen is None or screen.uns["perturbcore"]["scale"] != "counts":
        return None
    obs = screen.obs
    qc = (sc.pp.calculate_qc_metrics(AnnData(x), percent_top=None)[0] for *_, x in blocks(screen))
    cells = pd.concat(qc).set_axis(obs.index)
    who = obs["is_control"].map({True: "control", False: "perturbed"}).astype(str)
    groups = cells.groupby([obs["cell_line"].astype(str), who.rename("who")])
    table = groups.agg(
        cells=("total_counts", "size"),
        counts=("total_counts", "median"),
        genes=("n_genes_by_counts", "median"),
    )
    return table.astype(int).reset_index()


def perturbed_processes(data: Dataset, specs: list[dict], most: int = 5) -> pd.DataFrame | None:
    """Gene sets that the perturbed genes over-represent, among all genes that a set names."""
    spec = next((dict(s) for s in specs if s.get("builder") == "annotation"), None)
    responses = data.responses
    if spec is None or responses is None or responses.uns["perturbcore"]["identifier"] != "symbol":
        return None
    sets = find_source(spec, "sets", BuildContext(dataset=data)).read()
    known = {gene for genes in sets.values() for gene in genes}
    perturbed = sorted(known & set(responses.obs["perturbation"].astype(str)))
    if not perturbed:
        return None
    found = gseapy.enrich(
        gene_list=perturbed, gene_sets=sets, background=sorted(known), outdir=None, no_plot=True
    )
    table = found.results.sort_values(["Adjusted P-value", "Term"], kind="stable")
    return table.head(most).reset_index(drop=True)[[*HEADINGS["processes"], "Genes"]]
