"""Simulated cells in the authors' raw layout: the first half of the fixture."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.data.authors.layout import LAYOUTS
from perturbcore.data.authors.raw import CONTROL
from perturbcore.data.authors.raw_drugs import SOLVENT, VEHICLE
from perturbcore.data.simulate.screen import simulate_screen

ESSENTIAL_LINES = LAYOUTS["essential"].lines
SCIPLEX_LINES = LAYOUTS["sciplex"].lines
TAHOE_LINES = ("CVCL_0023", "CVCL_0028")
N_GENES, N_KEPT = 200, 180
N_PERTURBATIONS, N_NORMAN = 176, 110
CELLS, N_CONTROLS, N_BATCHES = (4, 12), 200, 4
DRUG_CELLS = 6


def write_raw(root: Path, *, seed: int = 0, datasets=tuple(LAYOUTS)):
    """Write the raw cells of some data sets and return the simulation they come from.

    Parameters
    ----------
    root : Path
        Gets a folder a data set; see `perturbcore.data.authors.raw` for the files.
    seed : int
    datasets : sequence of str

    Returns
    -------
    SimulatedScreen
    """
    simulation = simulate_screen(
        n_cell_lines=len(ESSENTIAL_LINES),
        n_perturbations=N_PERTURBATIONS,
        n_genes=N_GENES,
        n_batches=N_BATCHES,
        cells_per_perturbation=CELLS,
        n_control_cells=N_CONTROLS,
        n_modules=12,
        seed=seed,
    )
    writers = {"essential": _essential, "norman": _norman, "sciplex": _sciplex, "tahoe": _tahoe}
    for dataset in datasets:
        folder = root / dataset
        folder.mkdir(parents=True, exist_ok=True)
        writers[dataset](folder, simulation, np.random.default_rng([seed, len(dataset)]))
    return simulation


def ensembl(simulation) -> pd.Series:
    """Made-up Ensembl ids of the simulated genes, indexed by their names."""
    names = list(simulation.screen.var_names)
    return pd.Series([f"ENSG{90_000_000_000 + 37 * n}" for n in range(len(names))], index=names)


def drugs_of(simulation) -> pd.DataFrame:
    """Made-up drugs: indexed by name, the `gene` each stands for, and its `pubchem_cid`."""
    genes = sorted(
        simulation.screen.obs.loc[~simulation.screen.obs["is_control"], "perturbation"].unique()
    )
    names = [f"Simulated drug {n:03d}" for n in range(len(genes))]
    cid = [900_000_000 + 11 * n for n in range(len(genes))]
    return pd.DataFrame({"gene": genes, "pubchem_cid": cid}, index=pd.Index(names, name="drug"))


def _lines(simulation) -> list[str]:
    return sorted(simulation.screen.obs["cell_line"].unique())


def _cells(simulation, line: int) -> ad.AnnData:
    screen = simulation.screen
    return screen[(screen.obs["cell_line"] == _lines(simulation)[line]).to_numpy()]


def _batch(cells) -> np.ndarray:
    return cells.obs["batch"].str.removeprefix("batch").astype(int).to_numpy()


def _essential(folder: Path, simulation, rng) -> None:
    ids, parts = ensembl(simulation), []
    for n, line in enumerate(ESSENTIAL_LINES):
        cells = _cells(simulation, n)
        control = cells.obs["is_control"].to_numpy()
        gene = cells.obs["perturbation"].where(~control, CONTROL)
        obs = pd.DataFrame(
            {
                "gene_id": np.where(control, CONTROL, gene.map(ids)),
                "gene": gene.to_numpy(),
                "cell_line": line,
                "is_control": control,
                "gem_group": _batch(cells),
                "organism": "simulated",
            },
            index=line + "-" + cells.obs_names,
        )
        parts.append(ad.AnnData(cells.X.astype(np.float32), obs=obs))
    out = ad.concat(parts)
    out.var_names = ids.to_numpy()
    out.obs.index.name = "obs_id"
    # lines lie mixed, as in a merged file
    out[rng.permutation(out.n_obs)].copy().write_h5ad(folder / "raw_data.h5ad")


def _norman(folder: Path, simulation, rng) -> None:
    ids = ensembl(simulation)
    cells = _cells(simulation, 0)
    chosen = set(
        sorted(cells.obs.loc[~cells.obs["is_control"], "perturbation"].unique())[:N_NORMAN]
    )
    control = cells.obs["is_control"].to_numpy()
    name = cells.obs["perturbation"].astype(str).to_numpy(dtype=object)
    kept = control | np.isin(name, list(chosen))
    # the others stand for doubles, which the published task leaves out
    label = np.where(kept, name, name + "_" + name[0])
    obs = pd.DataFrame(
        {
            "perturbation": np.where(control, "control", label),
            "nperts": np.where(control, 0, np.where(kept, 1, 2)),
            "gemgroup": _batch(cells),
        },
        index=cells.obs_names,
    )
    var = pd.DataFrame({"ensemble_id": ids.to_numpy()}, index=ids.index)
    raw = ad.AnnData(cells.X.astype(np.float32), obs=obs, var=var)
    raw[rng.permutation(raw.n_obs)].copy().write_h5ad(folder / "NormanWeissman2019_filtered.h5ad")
    genes = pd.DataFrame({"gene_name": ids.index[:N_KEPT]}, index=ids.to_numpy()[:N_KEPT])
    empty = sp.csr_matrix((1, N_KEPT), dtype=np.float32)
    gears = ad.AnnData(empty, obs=pd.DataFrame(index=["cell"]), var=genes)
    gears.write_h5ad(folder / "GEARS_perturb_processed.h5ad")


def _drug_cells(simulation, line: int, rng):
    """Return a few cells of each drug, some of them at a low dose, and the controls."""
    cells = _cells(simulation, line)
    control = cells.obs["is_control"].to_numpy()
    order = rng.permutation(cells.n_obs)
    nth = cells.obs.iloc[order].groupby("perturbation").cumcount().to_numpy()
    kept = np.sort(order[(nth < DRUG_CELLS) | control[order]])
    cells, control = cells[kept], control[kept]
    drugs = drugs_of(simulation)
    name = pd.Series(drugs.index, index=drugs["gene"]).reindex(cells.obs["perturbation"]).to_numpy()
    low = (rng.random(len(kept)) < 0.1) & ~control
    # each drug keeps a cell at the full dose
    full_dose = (
        pd.Series(~low).groupby(cells.obs["perturbation"].to_numpy()).transform("any").to_numpy()
    )
    return cells, control, name, low & full_dose


def _sciplex(folder: Path, simulation, rng) -> None:
    ids, parts, tables = ensembl(simulation), [], []
    for n, line in enumerate(SCIPLEX_LINES):
        cells, control, drug, low = _drug_cells(simulation, n, rng)
        parts.append(cells.X)
        tables.append(
            pd.DataFrame(
                {
                    "cell": line + "_" + cells.obs_names,
                    "cell_type": line,
                    "product_name": np.where(control, VEHICLE, drug),
                    "plate_oligo": [f"plate_{b}" for b in _batch(cells)],
                    "dose": np.where(control, 0, np.where(low, 10, 10000)),
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table.loc[len(table)] = ["lost", None, None, None, None]  # a cell that no sample could be given
    X = sp.coo_matrix(sp.vstack([*parts, parts[0][:1]]))
    entries = pd.DataFrame({"gene": X.col + 1, "cell": X.row + 1, "count": X.data.astype(int)})
    prefix = "sciPlex3_A549_MCF7_K562_screen"
    entries.to_csv(folder / f"{prefix}_UMI.count.matrix", sep="\t", header=False, index=False)
    genes = pd.DataFrame({"id": ids.to_numpy(), "gene_short_name": ids.index})
    genes.to_csv(folder / f"{prefix}_gene.annotations.txt", sep="\t", header=False, index=False)
    table[["cell"]].to_csv(
        folder / f"{prefix}_cell.annotations.txt", sep="\t", header=False, index=False
    )
    table.to_csv(
        folder / "sciPlex3_pData.txt", sep=" ", index=False, quotechar='"', quoting=2, na_rep="NA"
    )
    coding = pd.DataFrame(
        {"Gene stable ID": ids.to_numpy()[:N_KEPT], "Gene name": ids.index[:N_KEPT]}
    )
    coding.to_csv(folder / "mart_export_protein_coding.txt", index=False)


def _tahoe(folder: Path, simulation, rng) -> None:
    ids, drugs = ensembl(simulation), drugs_of(simulation)
    (folder / "raw").mkdir(exist_ok=True)
    for n, line in enumerate(TAHOE_LINES):
        cells, control, drug, low = _drug_cells(simulation, n, rng)
        dose = np.where(control, 0.0, np.where(low, 0.5, 5.0))
        # blanks around a name are the authors' files' own
        name = np.where(control, SOLVENT, [f"{d} " for d in drug])
        obs = pd.DataFrame(
            {
                "cell_line": line,
                "plate": [f"plate{b}" for b in _batch(cells)],
                "drug": name,
                "drugname_drugconc": [
                    f"[({d.strip()!r}, {c}, 'uM')]" for d, c in zip(name, dose, strict=True)
                ],
                "pass_filter": np.where(rng.random(cells.n_obs) < 0.02, "minimal", "full"),
            },
            index=f"{line}-" + cells.obs_names,
        )
        var = pd.DataFrame({"gene_symbol": ids.index}, index=ids.to_numpy())
        ad.AnnData(cells.X.astype(np.float32), obs=obs, var=var).write_h5ad(
            folder / "raw" / f"{line}.h5ad"
        )
    (folder / "tahoe_coding_non_mt_genes.txt").write_text(
        "\n".join(ids.index[:N_KEPT]) + "\n", encoding="utf-8"
    )
    table = drugs.reset_index()[["drug", "pubchem_cid"]]
    table.assign(targets="", canonical_smiles="").to_parquet(
        folder / "drug_metadata.parquet", index=False
    )
