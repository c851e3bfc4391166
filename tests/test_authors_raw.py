import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from authors_files import CONTROL, N_KEPT, TAHOE_LINES

from perturbcore.book.cli import main
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.authors.layout import LAYOUTS, VARIABLE
from perturbcore.data.authors.read import norman_folds, read_authors_responses
from perturbcore.data.deg import deg_labels
from perturbcore.data.published.tables import read_ceiling
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets.base import load
from perturbcore.embeddings.authors import own_embeddings


@pytest.fixture
def raw(root, tmp_path):
    """A copy of the raw cells that a test may damage."""
    for name in LAYOUTS:
        shutil.copytree(root / name, tmp_path / "in" / name)
    return tmp_path / "in"


def normalised(X):
    adata = ad.AnnData(sp.csr_matrix(X, dtype=np.float64))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return np.asarray(adata.X.todense())


def verb(*arguments):
    return main(["paper", *map(str, arguments)])


def made_of(dataset, raw, out, *options):
    """Responses that the command makes of raw cells."""
    assert verb("responses", dataset, "--raw", raw, "--out", out, *options) == 0
    return ad.read_h5ad(out)


# --- effects


def holds_against_means(made, X, cells, by, control, *, matched):
    """Mean of each batch, then of the batches; controls go off before (matched) or after."""
    perturbation, batch, named = by
    keys = [cells.obs[perturbation].astype(str).to_numpy(), cells.obs[batch].to_numpy()]
    mean = pd.DataFrame(X).groupby(keys).mean()
    if matched:
        mean = mean.sub(mean.loc[control], level=1)
    delta = mean.groupby(level=0).mean()
    delta = (delta if matched else delta - delta.loc[control]).drop(index=control)
    assert set(made.obs[named]) == set(delta.index)
    np.testing.assert_allclose(made.X, delta.loc[made.obs[named]], atol=2e-6)


def test_essential_effects_are_unweighted_over_all_batches(root, tmp_path):
    made = made_of("essential", root, tmp_path / "deltas.h5ad")
    cells = ad.read_h5ad(root / "essential" / "raw_data.h5ad")
    assert {"gene_id", "cell_line"} <= set(made.obs) and "test_split" not in made.obs
    assert list(made.var_names) == list(cells.var_names)
    for line in LAYOUTS["essential"].lines:
        here, rows = (table[table.obs["cell_line"] == line] for table in (cells, made))
        by = ("gene_id", "gem_group", "gene_id")
        holds_against_means(rows, normalised(here.X), here, by, "non-targeting", matched=False)


def test_norman_is_matched_filtered_first_and_folded_by_the_published_rule(root, tmp_path):
    out = tmp_path / "norman.h5ad"
    made = made_of("norman", root, out)
    cells = ad.read_h5ad(root / "norman" / "NormanWeissman2019_filtered.h5ad")
    ids = cells.var["ensemble_id"]
    assert list(made.obs["gene_id"]) == list(ids[made.obs["symbol"]])
    assert made.obs["symbol"].is_monotonic_increasing
    kept = ad.read_h5ad(root / "norman" / "GEARS_perturb_processed.h5ad").var_names
    cells = cells[cells.obs["nperts"] <= 1, ids.isin(kept)]
    assert list(made.var_names) == list(cells.var["ensemble_id"]) and made.n_vars == N_KEPT
    by = ("perturbation", "gemgroup", "symbol")
    holds_against_means(made, normalised(cells.X), cells, by, "control", matched=True)
    order = np.random.RandomState(42).permutation(110)
    for fold, rows in enumerate(np.array_split(order, 5)):
        assert (made.obs["test_split"].to_numpy()[rows] == fold).all()
    assert np.bincount(norman_folds(105)).tolist() == [21] * 5
    assert read_authors_responses("norman", path=out).n_obs == 110


def test_renamed_norman_symbols_have_their_known_ids(raw):
    path, out = raw / "norman" / "NormanWeissman2019_filtered.h5ad", raw / "n.h5ad"
    cells = ad.read_h5ad(path)
    names = cells.obs["perturbation"].astype(str)
    first, second = sorted(set(names[cells.obs["nperts"] == 1]))[:2]
    cells.obs["perturbation"] = names.replace({first: "C19orf26", second: "NOBODY"})
    cells.write_h5ad(path)
    with pytest.warns(UserWarning, match="1 symbols have no Ensembl id .* such as NOBODY"):
        made = made_of("norman", raw, out).obs.set_index("symbol")["gene_id"]
    assert (made["C19orf26"], made["NOBODY"]) == ("ENSG00000099625", "NOBODY")


def test_three_files_of_sciplex_are_enough_and_row_names_are_accepted(raw, root):
    before = ad.read_h5ad(root / LAYOUTS["sciplex"].files["lfc"])
    next((raw / "sciplex").glob("*cell.annotations*")).unlink()
    path = next((raw / "sciplex").glob("*gene.annotations*"))
    genes = [line.split("\t") for line in path.read_text().splitlines()]
    rows = "".join(f'"{n}" "{a}" "{b}"\n' for n, (a, b) in enumerate(genes, 1))
    path.write_text(f'"id" "gene_short_name"\n{rows}')
    after = made_of("sciplex", raw, raw / "t.h5ad")
    np.testing.assert_array_equal(before.X, after.X)
    assert list(before.var_names) == list(after.var_names)


def chemical(root, dataset):
    """Cells of the small raw files, read here from scratch."""
    if dataset == "tahoe":
        cells = ad.concat([ad.read_h5ad(root / "tahoe" / "raw" / f"{c}.h5ad") for c in TAHOE_LINES])
        cells = cells[cells.obs["pass_filter"] == "full"].copy()
        dose = cells.obs["drugname_drugconc"].astype(str).str.extract(r"', ([\d.]+), 'uM'")[0]
        drug = cells.obs["drug"].astype(str).str.strip()
        cells.obs = cells.obs.assign(dose=dose.astype(float), drug=drug)
        return cells
    folder = root / "sciplex"
    gene, cell, count = np.loadtxt(next(folder.glob("*matrix")), dtype=int, unpack=True)
    obs = pd.read_csv(folder / "sciPlex3_pData.txt", sep=" ").set_index("cell")
    genes = pd.read_csv(next(folder.glob("*gene.ann*")), sep="\t", header=None)
    X = sp.csr_matrix((count.astype(float), (cell - 1, gene - 1)), (len(obs), len(genes)))
    names = {"cell_type": "cell_line", "product_name": "drug", "plate_oligo": "plate"}
    cells = ad.AnnData(X, obs=obs.rename(columns=names), var=genes.set_index(0)[[1]].rename(str))
    return cells[cells.obs["cell_line"].notna()].copy()


@pytest.mark.parametrize("dataset", ["sciplex", "tahoe"])
def test_chemical_effects_are_matched_on_plates_and_filtered_last(root, tmp_path, dataset):
    layout, cells = LAYOUTS[dataset], chemical(root, dataset)
    out = tmp_path / "out.h5ad"
    made = made_of(dataset, root, out, "--folds", root / layout.files["lfc"])
    assert list(made.var_names) == list(cells.var_names[:N_KEPT])
    assert set(made.obs["dose"]) == {layout.dose}
    last, first = normalised(cells.X)[:, :N_KEPT], normalised(cells.X[:, :N_KEPT])
    kept = made_of(dataset, root, tmp_path / "k.h5ad", "--totals", "kept")
    for table, X in ((made, last), (kept, first)):
        for line in table.obs["cell_line"].unique():
            rows = table[table.obs["cell_line"] == line]
            here = (cells.obs["cell_line"] == line) & cells.obs["dose"].isin([0, layout.dose])
            here, by = here.to_numpy(), ("drug", "plate", "drug")
            holds_against_means(rows, X[here], cells[here], by, CONTROL[dataset], matched=True)
    one, two = read_authors_responses(dataset, path=out), read_authors_responses(dataset, root=root)
    pd.testing.assert_series_equal(one.obs["fold"], two.obs["fold"])
    assert dataset == "sciplex" or made.obs["pubchem_cid"].notna().all()


def test_folds_are_taken_from_a_table_by_drug(root, tmp_path):
    stored = ad.read_h5ad(root / LAYOUTS["tahoe"].files["lfc"]).obs
    stored = stored[["drug", *(f"fold_{k}" for k in range(5))]].astype(str)
    splits = stored.drop_duplicates("drug")
    splits = splits.assign(drug=splits["drug"] + " ")
    out, folds = tmp_path / "t.h5ad", tmp_path / "tahoe_splits_drug.csv"
    splits.to_csv(folds, index=False)
    made = made_of("tahoe", root, out, "--folds", folds).obs[list(stored)].astype(str)
    pd.testing.assert_frame_equal(made, stored, check_names=False)
    splits.iloc[1:].to_csv(folds, index=False)
    assert verb("responses", "tahoe", "--raw", root, "--out", out, "--folds", folds) == 2


# --- labels


@pytest.mark.filterwarnings("ignore:DataFrame is highly fragmented")
@pytest.mark.parametrize("dataset, least", [("essential", 8), ("sciplex", 3)])
def test_labels_are_pooled_or_votes_of_what_has_enough_cells(root, tmp_path, dataset, least):
    """`test_deg.py` holds the labels themselves; here, of which cells and genes they are."""
    made = made_of(dataset, root, tmp_path / "d.h5ad", "--task", "deg", "--min-cells", least)
    assert made.X.dtype == np.int8
    facts = dict(dataset="s", control=CONTROL[dataset], scale="counts", unmatched="keep")
    if dataset == "essential":
        cells = ad.read_h5ad(root / "essential" / "raw_data.h5ad")
        facts |= dict(perturbation="gene_id", batch="gem_group", identifier="ensembl")
        how = dict(variant="pooled", min_cells=least)
    else:
        cells = chemical(root, "sciplex")
        # cells of a drug on a plate, over all doses; genes first, then totals, unlike the effects
        n = cells.obs.groupby(["cell_line", "plate", "drug"])["drug"].transform("size")
        used = (n > least) & cells.obs["dose"].isin([0, 10000])
        cells = cells[used.to_numpy(), :N_KEPT].copy()
        facts |= dict(perturbation="drug", batch="plate", identifier="drug")
        how = dict(variant="per_batch", min_cells=1)
    want = deg_labels(declare_screen(cells, **facts), progress=False, **how)
    want.obs_names = want.obs["perturbation"] + "_" + want.obs["cell_line"]
    assert set(made.obs_names) == set(want.obs_names)
    np.testing.assert_array_equal(made[want.obs_names].X, want.layers["deg"])


@pytest.mark.parametrize("dataset", ["essential", "sciplex", "tahoe"])
def test_label_files_of_the_layout_are_read(root, dataset):
    read, lfc = (read_authors_responses(dataset, task, root) for task in ("deg", "lfc"))
    assert read.uns["perturbcore"]["task"] == "deg"
    assert set(np.unique(read.layers["deg"])) == {-1, 0, 1}
    assert read.obs["fold"].equals(lfc.obs["fold"].reindex(read.obs_names))
    assert dataset != "essential" or list(read.var_names) == sorted(read.var_names)


def test_label_rows_without_a_gene_drop_out_with_a_note(raw):
    path = raw / "essential" / "essential_deg_with_split.h5ad"
    table = ad.read_h5ad(path)
    table.obs["gene_id"] = [np.nan, np.nan, *table.obs["gene_id"][2:]]
    table.write_h5ad(path)
    read = read_authors_responses("essential", "deg", path=path)
    assert read.n_obs == table.n_obs - 2
    assert "2 rows without gene" in read.uns["perturbcore"]["notes"][0]


# --- experimental error


def test_experimental_error_has_the_published_columns_and_is_readable(root, tmp_path):
    out = tmp_path / "error.csv"

    def error(dataset, *options):
        few = ["--outer", 3, "--inner", 2, "--force", *options]
        return verb("error", dataset, "--raw", root, "--out", out, *few)

    assert error("norman") == 0
    head = ["quantile", "L2", "MSE", "MAE", "Spearman", "Pearson", "pert_id", "n_batches_pert"]
    assert list(pd.read_csv(out)) == head
    table = read_ceiling(out, dataset="norman", cell_line="K-562")
    assert table["perturbation"].nunique() == 110 and set(table["quantile"]) >= {0.1, 0.9}
    assert error("sciplex") == 0
    assert list(pd.read_csv(out)) == ["quantile", "value", "pert_id", "n_batches_pert", "cell_line"]
    table = read_ceiling(out, dataset="sciplex")
    assert set(table["cell_line"]) == set(LAYOUTS["sciplex"].lines)
    assert error("essential", "--cell-line", "Jurkat") == 0 and "cell_line" not in pd.read_csv(out)
    assert error("essential", "--cell-line", "HeLa") == 2


# --- wrong raw files


def test_wrong_raw_files_are_named(raw, capsys):
    def says(dataset, *texts, options=()):
        assert verb("responses", dataset, "--raw", raw, "--out", raw / "x.h5ad", *options) == 2
        error = capsys.readouterr().err
        assert all(t in error for t in texts), error

    def change(path, how):
        cells = ad.read_h5ad(path)
        cells.obs = how(cells.obs)
        cells.write_h5ad(path)

    change(raw / "essential" / "raw_data.h5ad", lambda obs: obs.drop(columns="gem_group"))
    says("essential", "'gem_group'", "raw_data.h5ad")
    says("essential", "--min-cells is for", options=("--min-cells", 3))
    (raw / "norman" / "GEARS_perturb_processed.h5ad").unlink()
    says("norman", "GEARS_perturb_processed.h5ad")
    says("norman", "no labels for 'norman'", options=("--task", "deg"))
    next((raw / "sciplex").glob("*matrix")).write_text("1\t99999999\t1\n")
    says("sciplex", "matrix", "'cell' has '99999999'")
    says("tahoe", "'dose' never equals 7", options=("--dose", 7))
    cells = raw / "tahoe" / "raw" / f"{TAHOE_LINES[0]}.h5ad"
    change(cells, lambda obs: obs.assign(drugname_drugconc="much"))
    says("tahoe", "'drugname_drugconc' has 'much'")
    (raw / "tahoe" / "tahoe_coding_non_mt_genes.txt").unlink()
    says("tahoe", "tahoe_coding_non_mt_genes.txt")


# --- as data sets


def test_data_sets_bring_their_embeddings(root, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(root))
    for name in LAYOUTS:
        data = load("cole", dataset=name)
        assert (data.name, data.task, data.simulated) == (name, "lfc", True)
    labels = load("cole", task="deg")
    assert labels.task == "deg" and "PCA" in {e.name for e in own_embeddings(labels)}
    pytest.raises(ParameterError, load, "cole", folds=3).match("no option 'folds'")
    monkeypatch.setenv(VARIABLE, str(root / "nowhere"))
    pytest.raises(InputError, load, "cole").match("make data PROFILE=paper")
