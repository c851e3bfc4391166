"""The layout of Cole et al., small, from simulated cells: what the tests read instead of their files.

Raw cells are written in the documented raw layout (see `perturbcore.data.authors.raw`) and turned
into responses by the functions that the command line uses. No number in it says anything about real
cells, or about the models whose file names it uses.
"""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.files import read_yaml
from perturbcore.data.authors.layout import GENE_EMBEDDINGS, LAYOUTS
from perturbcore.data.authors.raw import raw_screens
from perturbcore.data.authors.read import effects_of_raw, labels_of_raw
from perturbcore.data.effects import pseudobulk
from perturbcore.data.folds import assign_folds
from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.embeddings import network, words

ESSENTIAL_LINES = LAYOUTS["essential"].lines
TAHOE_LINES = ("CVCL_0023", "CVCL_0028")
CONTROL = {name: layout.raw["control"] for name, layout in LAYOUTS.items()}
N_KEPT, N_NORMAN, DRUG_CELLS = 180, 110, 6
_ABOUT = read_yaml(Path(__file__).with_name("authors_files.yml"))
# share of genes that no embedding file knows, so that the rule for missing ones is at work
UNKNOWN_SHARE = 0.04


def write_fixture(folder, *, tasks) -> Path:
    """Write the documented layout, small, from a simulated screen; return its root.

    176 perturbations per data set (Norman 110), so that 100 components fit in the inner folds.
    """
    root = Path(folder)
    simulation = simulate_screen(**_ABOUT["sizes"])
    drugs = drugs_of(simulation)
    for dataset, layout in LAYOUTS.items():
        (root / dataset).mkdir(parents=True)
        RAW[dataset](root / dataset, simulation, np.random.default_rng(len(dataset)))
        for task in set(tasks) & set(layout.files):
            deg = task == "deg"
            table = (
                labels_of_raw(dataset, root, min_cells=3) if deg else effects_of_raw(dataset, root)
            )
            _add_folds(table, layout, drugs.index if layout.chemical else drugs["gene_id"])
            table.uns["perturbcore"] = {"simulated": True}
            if dataset == "essential" and deg:
                # as in the authors' files: other gene order, align by name
                table = table[:, sorted(table.var_names)].copy()
            table.write_h5ad(root / layout.files[task])
    # mean profiles of control cells, a row per line and batch
    screen = next(raw_screens("essential", root, backed=False))
    controls = screen[screen.obs["is_control"].to_numpy(bool)].copy()
    bulk = pseudobulk(controls, by=("cell_line", "batch"))
    bulk.obs["gene"] = CONTROL["essential"]
    bulk.write_h5ad(root / LAYOUTS["essential"].controls)
    sources = _sources(simulation)
    _write_gene_embeddings(root / GENE_EMBEDDINGS, simulation, sources)
    for dataset, ids in (("sciplex", drugs.index), ("tahoe", drugs["pubchem_cid"])):
        _write_drug_embeddings(root / LAYOUTS[dataset].drug_embeddings, ids, drugs["gene"], sources)
    return root


def _add_folds(table: ad.AnnData, layout, names) -> None:
    """Give responses and labels the same folds: those of all perturbations."""
    if layout.only_line:  # Norman has its own
        return
    folds = assign_folds(names, 5, 0)
    fold = folds.loc[table.obs["drug" if layout.chemical else "gene_id"].astype(str)].to_numpy()
    if layout.splits == "test_split":
        table.obs["test_split"] = fold.astype(float)
        return
    for k in range(5):
        table.obs[f"fold_{k}"] = np.where(fold == k, "test", "train")


def ensembl(simulation) -> pd.Series:
    """Made-up Ensembl ids of the simulated genes by name, in another order than the names."""
    names = simulation.screen.var_names
    return pd.Series([f"ENSG{90_000_000_000 - 37 * n}" for n in range(len(names))], index=names)


def drugs_of(simulation) -> pd.DataFrame:
    """Made-up drugs: indexed by name, the gene each stands for, its id, and a `pubchem_cid`."""
    obs = simulation.screen.obs
    genes = sorted(obs.loc[~obs["is_control"], "perturbation"].unique())
    names = pd.Index([f"Simulated drug {n:03d}" for n in range(len(genes))], name="drug")
    cid = [900_000_000 + 11 * n for n in range(len(genes))]
    ids = ensembl(simulation)[genes].to_numpy()
    return pd.DataFrame({"gene": genes, "gene_id": ids, "pubchem_cid": cid}, index=names)


# --- raw cells


def _cells(simulation, line: int) -> ad.AnnData:
    """Counts of one simulated line; obs: perturbation, is_control, and batch as a number."""
    screen = simulation.screen
    name = sorted(screen.obs["cell_line"].unique())[line]
    cells = screen[(screen.obs["cell_line"] == name).to_numpy()]
    obs = cells.obs[["perturbation", "is_control"]].astype({"perturbation": str})
    obs["batch"] = cells.obs["batch"].str.removeprefix("batch").astype(int)
    return ad.AnnData(cells.X.astype(np.float32), obs=obs, var=pd.DataFrame(index=cells.var_names))


def _essential(folder: Path, simulation, rng) -> None:
    ids, parts = ensembl(simulation), []
    for n, line in enumerate(ESSENTIAL_LINES):
        cells = _cells(simulation, n)
        cells.obs_names = line + "-" + cells.obs_names
        cells.obs["cell_line"], cells.var_names = line, ids.to_numpy()
        parts.append(cells)
    out = ad.concat(parts).copy()
    gene = out.obs["perturbation"].mask(out.obs["is_control"], CONTROL["essential"])
    out.obs["gene_id"], out.obs["gene"] = gene.map(ids).fillna(CONTROL["essential"]), gene
    out.obs = out.obs.rename(columns={"batch": "gem_group"}).drop(columns="perturbation")
    # lines lie mixed, as in a merged file
    out[rng.permutation(out.n_obs)].copy().write_h5ad(folder / "raw_data.h5ad")


def _norman(folder: Path, simulation, rng) -> None:
    ids, raw = ensembl(simulation), _cells(simulation, 0)
    control, name = raw.obs["is_control"].to_numpy(), raw.obs["perturbation"].to_numpy()
    kept = control | np.isin(name, np.unique(name[~control])[:N_NORMAN])
    # the others stand for doubles, which the published task leaves out
    label = np.where(control, "control", np.where(kept, name, name + "_" + name[0]))
    n = np.where(control, 0, np.where(kept, 1, 2))
    raw.obs = raw.obs.assign(perturbation=label, nperts=n).rename(columns={"batch": "gemgroup"})
    raw.var["ensemble_id"] = ids
    raw[rng.permutation(raw.n_obs)].copy().write_h5ad(folder / "NormanWeissman2019_filtered.h5ad")
    genes = pd.DataFrame({"gene_name": ids.index[:N_KEPT]}, index=ids.to_numpy()[:N_KEPT])
    gears = ad.AnnData(sp.csr_matrix((1, N_KEPT), dtype=np.float32), var=genes)
    gears.write_h5ad(folder / "GEARS_perturb_processed.h5ad")


def _drug_cells(simulation, line: int, rng, doses) -> ad.AnnData:
    """Choose a few cells of each drug, some of them at a low dose, and the controls."""
    cells = _cells(simulation, line)
    order = rng.permutation(cells.n_obs)
    shuffled = cells.obs.iloc[order]
    few = shuffled.groupby("perturbation").cumcount() < DRUG_CELLS
    cells = cells[np.sort(order[few | shuffled["is_control"]])].copy()
    obs, drugs = cells.obs, drugs_of(simulation)
    obs["drug"] = (
        pd.Series(drugs.index, index=drugs["gene"]).reindex(obs["perturbation"]).to_numpy()
    )
    low = (rng.random(len(obs)) < 0.1) & ~obs["is_control"]
    # each drug keeps a cell at the full dose
    low &= (~low).groupby(obs["perturbation"]).transform("any")
    obs["dose"] = np.where(obs["is_control"], 0, np.where(low, *doses))
    return cells


def _sciplex(folder: Path, simulation, rng) -> None:
    ids, parts, tables = ensembl(simulation), [], []
    for n, line in enumerate(LAYOUTS["sciplex"].lines):
        cells = _drug_cells(simulation, n, rng, (10, 10000))
        obs = cells.obs
        parts.append(cells.X)
        tables.append(
            pd.DataFrame(
                {
                    "cell": line + "_" + obs.index,
                    "cell_type": line,
                    "product_name": obs["drug"].mask(obs["is_control"], CONTROL["sciplex"]),
                    "plate_oligo": "plate_" + obs["batch"].astype(str),
                    "dose": obs["dose"],
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table.loc[len(table)] = ["lost", None, None, None, None]  # a cell that no sample could be given
    X = sp.coo_matrix(sp.vstack([*parts, parts[0][:1]]))
    entries = pd.DataFrame({"gene": X.col + 1, "cell": X.row + 1, "count": X.data.astype(int)})
    genes = pd.DataFrame({"id": ids.to_numpy(), "gene_short_name": ids.index})
    files = {
        "UMI.count.matrix": entries,
        "gene.annotations.txt": genes,
        "cell.annotations.txt": table[["cell"]],
    }
    for name, content in files.items():
        path = folder / f"sciPlex3_A549_MCF7_K562_screen_{name}"
        content.to_csv(path, sep="\t", header=False, index=False)
    quoted = dict(sep=" ", index=False, quotechar='"', quoting=2, na_rep="NA")
    table.to_csv(folder / "sciPlex3_pData.txt", **quoted)
    coding = genes[:N_KEPT].set_axis(["Gene stable ID", "Gene name"], axis=1)
    coding.to_csv(folder / "mart_export_protein_coding.txt", index=False)


def _tahoe(folder: Path, simulation, rng) -> None:
    ids = ensembl(simulation)
    (folder / "raw").mkdir()
    for n, line in enumerate(TAHOE_LINES):
        cells = _drug_cells(simulation, n, rng, (0.5, 5.0))
        cells.obs_names = f"{line}-" + cells.obs_names
        obs = cells.obs
        # blanks around a name are the authors' files' own
        name = (obs["drug"] + " ").mask(obs["is_control"], CONTROL["tahoe"])
        both = zip(name.str.strip(), obs["dose"], strict=True)
        cells.obs = pd.DataFrame(
            {
                "cell_line": line,
                "plate": "plate" + obs["batch"].astype(str),
                "drug": name,
                "drugname_drugconc": [f"[({drug!r}, {dose}, 'uM')]" for drug, dose in both],
                "pass_filter": np.where(rng.random(cells.n_obs) < 0.02, "minimal", "full"),
            }
        )
        cells.var = pd.DataFrame({"gene_symbol": ids.index}, index=ids.to_numpy())
        cells.write_h5ad(folder / "raw" / f"{line}.h5ad")
    listed = "\n".join(ids.index[:N_KEPT]) + "\n"
    (folder / "tahoe_coding_non_mt_genes.txt").write_text(listed, encoding="utf-8")
    table = drugs_of(simulation).reset_index()[["drug", "pubchem_cid"]]
    table = table.assign(targets="", canonical_smiles="")
    table.to_parquet(folder / "drug_metadata.parquet", index=False)


RAW = {"essential": _essential, "norman": _norman, "sciplex": _sciplex, "tahoe": _tahoe}


# --- embeddings


def _sources(simulation) -> dict[str, pd.DataFrame]:
    """Vectors of every simulated gene, from each kind of knowledge."""
    known = simulation.knowledge
    built = {
        "network": network.network_embedding(known.network, dim=40, name="n"),
        "annotation": words.annotation_embedding(known.annotation, dim=40, name="a"),
    }
    return {k: pd.DataFrame(e.X, e.ids).reindex(known.genes).fillna(0.0) for k, e in built.items()}


def _expression(simulation, line: int) -> pd.DataFrame:
    """Genes by the control cells of one line: what an expression embedding is made from."""
    cells = _cells(simulation, line)
    X = cells[cells.obs["is_control"]].X[:60].toarray().astype(np.float64)
    return pd.DataFrame(np.log1p(X).T, index=cells.var_names)


def _widen(vectors: np.ndarray, width: int, rng) -> np.ndarray:
    """Turn vectors into `width` dense columns without losing what they say, with a little noise."""
    scaled = (vectors - vectors.mean(axis=0)) / max(vectors.std(), 1e-9)
    mixed = scaled @ rng.standard_normal((vectors.shape[1], width)) / np.sqrt(vectors.shape[1])
    return (mixed + 0.1 * rng.standard_normal(mixed.shape)).astype(np.float32)


def _write_gene_embeddings(folder: Path, simulation, sources: dict) -> None:
    folder.mkdir()
    for number, (stem, (kind, width)) in enumerate(_ABOUT["genes"].items()):
        for n, line in enumerate(ESSENTIAL_LINES if "CELL_LINE" in stem else [""]):
            rng = np.random.default_rng([number, n])
            base = _expression(simulation, n) if kind == "expression" else sources[kind]
            known = base.index[rng.random(len(base)) >= UNKNOWN_SHARE]
            X = _widen(base.loc[known].to_numpy(), width, rng)
            obs = pd.DataFrame(index=ensembl(simulation)[known].to_numpy())
            path = folder / f"{stem.replace('CELL_LINE', line)}.h5ad"
            ad.AnnData(sp.csr_matrix(X), obs=obs).write_h5ad(path)


def _write_drug_embeddings(path: Path, ids, genes: pd.Series, sources: dict) -> None:
    """Give each drug the vectors of the gene it stands for."""
    obs = pd.DataFrame(index=pd.Index(ids.astype(str), name=None))
    out = ad.AnnData(sp.csr_matrix((len(obs), 1), dtype=np.float32), obs=obs)
    for number, (key, (kind, width)) in enumerate(_ABOUT["drugs"].items()):
        rng = np.random.default_rng([100, number])
        out.obsm[key] = _widen(sources[kind].loc[genes].to_numpy(), width, rng)
    out.write_h5ad(path)
