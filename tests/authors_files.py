"""The layout of Cole et al., small, from simulated cells: what the tests read instead of their files.

Raw cells are written in the documented raw layout (see `perturbcore.data.authors.raw`) and turned
into responses by the functions that the command line uses. No number in it says anything about real
cells, or about the models whose file names it uses.
"""

from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.files import read_yaml
from perturbcore.data.authors.layout import GENE_EMBEDDINGS, LAYOUTS, layout_of
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


def write_fixture(folder, *, seed: int = 0, tasks=("lfc",), datasets=tuple(LAYOUTS)) -> Path:
    """Write the documented layout, small, from a simulated screen; return its root.

    176 perturbations per data set (Norman 110), so that 100 components fit in the inner folds.
    """
    root = Path(folder)
    simulation = simulate_screen(**_ABOUT["sizes"], seed=seed)
    for dataset in datasets:
        layout = layout_of(dataset)
        inside = root / dataset
        inside.mkdir(parents=True, exist_ok=True)
        RAW[dataset](inside, simulation, np.random.default_rng([seed, len(dataset)]))
        for task in set(tasks) & set(layout.files):
            make = effects_of_raw if task == "lfc" else partial(labels_of_raw, min_cells=3)
            table = make(dataset, root)
            _add_folds(table, layout, simulation, seed)
            table.uns["perturbcore"] = {"simulated": True}
            if dataset == "essential" and task == "deg":
                # as in the authors' files: other gene order, align by name
                table = table[:, sorted(table.var_names)].copy()
            table.write_h5ad(root / layout.files[task])
    if "essential" in datasets:
        # mean profiles of control cells, a row per line and batch
        screen = next(raw_screens("essential", root, backed=False))
        controls = screen[screen.obs["is_control"].to_numpy(bool)].copy()
        bulk = pseudobulk(controls, by=("cell_line", "batch"))
        bulk.obs["gene"] = CONTROL["essential"]
        bulk.write_h5ad(root / LAYOUTS["essential"].controls)
    sources = _sources(simulation)
    _write_gene_embeddings(root / GENE_EMBEDDINGS, simulation, sources, seed)
    for dataset in {"sciplex", "tahoe"} & set(datasets):
        _write_drug_embeddings(root, dataset, drugs_of(simulation), sources, seed)
    return root


def _add_folds(table: ad.AnnData, layout, simulation, seed: int) -> None:
    if layout.only_line:  # Norman has its own
        return
    drugs = drugs_of(simulation)
    # folds of all perturbations, so that responses and labels have the same
    key = "drug" if layout.chemical else "gene_id"
    names = drugs.index if layout.chemical else ensembl(simulation)[drugs["gene"]]
    folds = assign_folds(names, 5, seed)
    fold = folds.loc[table.obs[key].astype(str)].to_numpy()
    if layout.splits == "test_split":
        table.obs["test_split"] = fold.astype(float)
        return
    for k in range(5):
        table.obs[f"fold_{k}"] = np.where(fold == k, "test", "train")


def ensembl(simulation) -> pd.Series:
    """Made-up Ensembl ids of the simulated genes, indexed by their names."""
    names = list(simulation.screen.var_names)
    return pd.Series([f"ENSG{90_000_000_000 + 37 * n}" for n in range(len(names))], index=names)


def drugs_of(simulation) -> pd.DataFrame:
    """Made-up drugs: indexed by name, the `gene` each stands for, and its `pubchem_cid`."""
    obs = simulation.screen.obs
    genes = sorted(obs.loc[~obs["is_control"], "perturbation"].unique())
    names = pd.Index([f"Simulated drug {n:03d}" for n in range(len(genes))], name="drug")
    cid = [900_000_000 + 11 * n for n in range(len(genes))]
    return pd.DataFrame({"gene": genes, "pubchem_cid": cid}, index=names)


# --- raw cells


def _cells(simulation, line: int) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Cells of one simulated line, which are controls, and their batch as a number."""
    screen = simulation.screen
    name = sorted(screen.obs["cell_line"].unique())[line]
    cells = screen[(screen.obs["cell_line"] == name).to_numpy()]
    batch = cells.obs["batch"].str.removeprefix("batch").astype(int).to_numpy()
    return cells, cells.obs["is_control"].to_numpy(), batch


def _counts(cells: ad.AnnData, obs: pd.DataFrame, var: pd.DataFrame) -> ad.AnnData:
    return ad.AnnData(cells.X.astype(np.float32), obs=obs, var=var)


def _essential(folder: Path, simulation, rng) -> None:
    ids, parts = ensembl(simulation), []
    for n, line in enumerate(ESSENTIAL_LINES):
        cells, control, batch = _cells(simulation, n)
        gene = cells.obs["perturbation"].where(~control, CONTROL["essential"])
        obs = pd.DataFrame(
            {
                "gene_id": np.where(control, CONTROL["essential"], gene.map(ids)),
                "gene": gene.to_numpy(),
                "cell_line": line,
                "is_control": control,
                "gem_group": batch,
                "organism": "simulated",
            },
            index=line + "-" + cells.obs_names,
        )
        parts.append(_counts(cells, obs, pd.DataFrame(index=ids.to_numpy())))
    out = ad.concat(parts)
    out.obs.index.name = "obs_id"
    # lines lie mixed, as in a merged file
    out[rng.permutation(out.n_obs)].copy().write_h5ad(folder / "raw_data.h5ad")


def _norman(folder: Path, simulation, rng) -> None:
    ids = ensembl(simulation)
    cells, control, batch = _cells(simulation, 0)
    name = cells.obs["perturbation"].astype(str).to_numpy(dtype=object)
    kept = control | np.isin(name, sorted(set(name[~control]))[:N_NORMAN])
    # the others stand for doubles, which the published task leaves out
    label = np.where(kept, name, name + "_" + name[0])
    obs = pd.DataFrame(
        {
            "perturbation": np.where(control, "control", label),
            "nperts": np.where(control, 0, np.where(kept, 1, 2)),
            "gemgroup": batch,
        },
        index=cells.obs_names,
    )
    var = pd.DataFrame({"ensemble_id": ids.to_numpy()}, index=ids.index)
    raw = _counts(cells, obs, var)
    raw[rng.permutation(raw.n_obs)].copy().write_h5ad(folder / "NormanWeissman2019_filtered.h5ad")
    genes = pd.DataFrame({"gene_name": ids.index[:N_KEPT]}, index=ids.to_numpy()[:N_KEPT])
    empty = sp.csr_matrix((1, N_KEPT), dtype=np.float32)
    gears = ad.AnnData(empty, obs=pd.DataFrame(index=["cell"]), var=genes)
    gears.write_h5ad(folder / "GEARS_perturb_processed.h5ad")


def _drug_cells(simulation, line: int, rng) -> tuple:
    """Choose a few cells of each drug, some of them at a low dose, and the controls."""
    cells, control, batch = _cells(simulation, line)
    order = rng.permutation(cells.n_obs)
    nth = cells.obs.iloc[order].groupby("perturbation").cumcount().to_numpy()
    kept = np.sort(order[(nth < DRUG_CELLS) | control[order]])
    cells, control, batch = cells[kept], control[kept], batch[kept]
    drugs = drugs_of(simulation)
    gene = cells.obs["perturbation"]
    name = pd.Series(drugs.index, index=drugs["gene"]).reindex(gene).to_numpy()
    low = (rng.random(len(kept)) < 0.1) & ~control
    # each drug keeps a cell at the full dose
    low &= pd.Series(~low).groupby(gene.to_numpy()).transform("any").to_numpy()
    return cells, control, batch, name, low


def _sciplex(folder: Path, simulation, rng) -> None:
    ids, parts, tables = ensembl(simulation), [], []
    for n, line in enumerate(LAYOUTS["sciplex"].lines):
        cells, control, batch, drug, low = _drug_cells(simulation, n, rng)
        parts.append(cells.X)
        tables.append(
            pd.DataFrame(
                {
                    "cell": line + "_" + cells.obs_names,
                    "cell_type": line,
                    "product_name": np.where(control, CONTROL["sciplex"], drug),
                    "plate_oligo": [f"plate_{b}" for b in batch],
                    "dose": np.where(control, 0, np.where(low, 10, 10000)),
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table.loc[len(table)] = ["lost", None, None, None, None]  # a cell that no sample could be given
    X = sp.coo_matrix(sp.vstack([*parts, parts[0][:1]]))
    entries = pd.DataFrame({"gene": X.col + 1, "cell": X.row + 1, "count": X.data.astype(int)})
    genes = pd.DataFrame({"id": ids.to_numpy(), "gene_short_name": ids.index})
    prefix = folder / "sciPlex3_A549_MCF7_K562_screen"
    files = {
        "UMI.count.matrix": entries,
        "gene.annotations.txt": genes,
        "cell.annotations.txt": table[["cell"]],
    }
    for name, content in files.items():
        content.to_csv(f"{prefix}_{name}", sep="\t", header=False, index=False)
    quoted = dict(sep=" ", index=False, quotechar='"', quoting=2, na_rep="NA")
    table.to_csv(folder / "sciPlex3_pData.txt", **quoted)
    coding = genes[:N_KEPT].set_axis(["Gene stable ID", "Gene name"], axis=1)
    coding.to_csv(folder / "mart_export_protein_coding.txt", index=False)


def _tahoe(folder: Path, simulation, rng) -> None:
    ids = ensembl(simulation)
    (folder / "raw").mkdir(exist_ok=True)
    for n, line in enumerate(TAHOE_LINES):
        cells, control, batch, drug, low = _drug_cells(simulation, n, rng)
        dose = np.where(control, 0.0, np.where(low, 0.5, 5.0))
        # blanks around a name are the authors' files' own
        name = np.where(control, CONTROL["tahoe"], [f"{d} " for d in drug])
        both = zip(name, dose, strict=True)
        obs = pd.DataFrame(
            {
                "cell_line": line,
                "plate": [f"plate{b}" for b in batch],
                "drug": name,
                "drugname_drugconc": [f"[({d.strip()!r}, {c}, 'uM')]" for d, c in both],
                "pass_filter": np.where(rng.random(cells.n_obs) < 0.02, "minimal", "full"),
            },
            index=f"{line}-" + cells.obs_names,
        )
        var = pd.DataFrame({"gene_symbol": ids.index}, index=ids.to_numpy())
        _counts(cells, obs, var).write_h5ad(folder / "raw" / f"{line}.h5ad")
    listed = "\n".join(ids.index[:N_KEPT]) + "\n"
    (folder / "tahoe_coding_non_mt_genes.txt").write_text(listed, encoding="utf-8")
    table = drugs_of(simulation).reset_index().drop(columns="gene")
    table.assign(targets="", canonical_smiles="").to_parquet(
        folder / "drug_metadata.parquet", index=False
    )


RAW = {"essential": _essential, "norman": _norman, "sciplex": _sciplex, "tahoe": _tahoe}


# --- embeddings


def _sources(simulation) -> dict[str, pd.DataFrame]:
    """Vectors of every simulated gene, from each kind of knowledge."""
    built = {
        "network": network.network_embedding(simulation.knowledge.network, dim=40, name="n"),
        "annotation": words.annotation_embedding(simulation.knowledge.annotation, dim=40, name="a"),
        "text": words.text_embedding(simulation.knowledge.descriptions, dim=40, name="t"),
        "sequence": words.sequence_embedding(simulation.knowledge.sequences, dim=40, name="s"),
    }
    genes = list(simulation.knowledge.genes)
    return {k: pd.DataFrame(e.X, e.ids).reindex(genes).fillna(0.0) for k, e in built.items()}


def _expression(simulation, line: int) -> pd.DataFrame:
    """Genes by the control cells of one line: what an expression embedding is made from."""
    cells, control, _ = _cells(simulation, line)
    X = cells.X[np.flatnonzero(control)[:60]].toarray().astype(np.float64)
    return pd.DataFrame(np.log1p(X).T, index=cells.var_names)


def _widen(vectors: np.ndarray, width: int, rng) -> np.ndarray:
    """Turn vectors into `width` dense columns without losing what they say, with a little noise."""
    scaled = (vectors - vectors.mean(axis=0)) / max(vectors.std(), 1e-9)
    mixed = scaled @ rng.standard_normal((vectors.shape[1], width)) / np.sqrt(vectors.shape[1])
    return (mixed + 0.1 * rng.standard_normal(mixed.shape)).astype(np.float32)


def _write_gene_embeddings(folder: Path, simulation, sources: dict, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (stem, (kind, width)) in enumerate(_ABOUT["genes"].items()):
        for n, line in enumerate(ESSENTIAL_LINES if "CELL_LINE" in stem else [""]):
            rng = np.random.default_rng([seed, number, n])
            base = _expression(simulation, n) if kind == "expression" else sources[kind]
            known = base.index[rng.random(len(base)) >= UNKNOWN_SHARE]
            X = _widen(base.loc[known].to_numpy(), width, rng)
            obs = pd.DataFrame(index=pd.Index(ensembl(simulation)[known].to_numpy(), dtype=str))
            name = stem.replace("CELL_LINE", line)
            ad.AnnData(sp.csr_matrix(X), obs=obs).write_h5ad(folder / f"{name}.h5ad")


def _write_drug_embeddings(
    root: Path, dataset: str, drugs: pd.DataFrame, sources: dict, seed: int
) -> None:
    """Give each drug the vectors of the gene it stands for."""
    names = drugs.index if dataset == "sciplex" else drugs["pubchem_cid"].astype(str)
    obs = pd.DataFrame(index=pd.Index(names, dtype=str, name=None))
    out = ad.AnnData(sp.csr_matrix((len(drugs), 1), dtype=np.float32), obs=obs)
    for number, (key, (kind, width)) in enumerate(_ABOUT["drugs"].items()):
        rng = np.random.default_rng([seed, 100 + number])
        out.obsm[key] = _widen(sources[kind].loc[drugs["gene"]].to_numpy(), width, rng)
    out.write_h5ad(root / LAYOUTS[dataset].drug_embeddings)
