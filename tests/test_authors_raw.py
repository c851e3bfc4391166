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


def test_essential_effects_are_unweighted_over_all_batches(root, tmp_path):
    made = made_of("essential", root, tmp_path / "deltas.h5ad")
    cells = ad.read_h5ad(root / "essential" / "raw_data.h5ad")
    assert {"gene_id", "cell_line"} <= set(made.obs) and "test_split" not in made.obs
    assert list(made.var_names) == list(cells.var_names)
    for line in ("K-562", "hTERT-RPE1"):
        here = cells[cells.obs["cell_line"] == line]
        X = pd.DataFrame(normalised(here.X))
        keys = [here.obs["gene_id"].to_numpy(), here.obs["gem_group"].to_numpy()]
        # mean of each batch, then of the batches, whether or not a batch has controls
        mean = X.groupby(keys).mean().groupby(level=0).mean()
        delta = mean.drop(index="non-targeting") - mean.loc["non-targeting"]
        rows = made[made.obs["cell_line"] == line]
        np.testing.assert_allclose(rows.X, delta.loc[rows.obs["gene_id"]], atol=2e-6)
        assert rows.n_obs == len(delta)


def test_norman_is_matched_filtered_first_and_folded_by_the_published_rule(root, tmp_path):
    out = tmp_path / "norman.h5ad"
    made = made_of("norman", root, out)
    cells = ad.read_h5ad(root / "norman" / "NormanWeissman2019_filtered.h5ad")
    kept = ad.read_h5ad(root / "norman" / "GEARS_perturb_processed.h5ad").var_names
    cells = cells[cells.obs["nperts"] <= 1, cells.var["ensemble_id"].isin(kept)]
    assert list(made.var_names) == list(cells.var["ensemble_id"]) and made.n_vars == N_KEPT
    X = normalised(cells.X)
    group, gene = cells.obs["gemgroup"].to_numpy(), cells.obs["perturbation"].astype(str).to_numpy()
    assert list(made.obs["symbol"]) == sorted(set(gene) - {"control"})
    for n in (0, 7, 50):
        symbol = made.obs["symbol"].iloc[n]
        assert made.obs["gene_id"].iloc[n] == cells.var.loc[symbol, "ensemble_id"]
        deltas = [
            X[(group == g) & (gene == symbol)].mean(0)
            - X[(group == g) & (gene == "control")].mean(0)
            for g in np.unique(group[gene == symbol])
        ]
        np.testing.assert_allclose(made.X[n], np.mean(deltas, axis=0), atol=2e-6)
    order = np.random.RandomState(42).permutation(110)
    for fold, rows in enumerate(np.array_split(order, 5)):
        assert (made.obs["test_split"].to_numpy()[rows] == fold).all()
    assert np.bincount(norman_folds(105)).tolist() == [21] * 5
    assert read_authors_responses("norman", path=out).n_obs == 110


def test_renamed_norman_symbols_have_their_known_ids(raw):
    path = raw / "norman" / "NormanWeissman2019_filtered.h5ad"
    cells = ad.read_h5ad(path)
    names = cells.obs["perturbation"].astype(str)
    first, second = sorted(set(names[cells.obs["nperts"] == 1]))[:2]
    cells.obs["perturbation"] = names.replace({first: "C19orf26"})
    cells.write_h5ad(path)
    out = raw / "n.h5ad"
    made = made_of("norman", raw, out).obs
    assert made.loc[made["symbol"] == "C19orf26", "gene_id"].tolist() == ["ENSG00000099625"]
    cells.obs["perturbation"] = names.replace({second: "NOBODY"})
    cells.write_h5ad(path)
    with pytest.warns(UserWarning, match="1 symbols have no Ensembl id .* such as NOBODY"):
        made = made_of("norman", raw, raw / "m.h5ad").obs
    assert made.loc[made["symbol"] == "NOBODY", "gene_id"].tolist() == ["NOBODY"]


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
    """Cells, symbols and kept genes of the small raw files, read here from scratch."""
    if dataset == "tahoe":
        cells = ad.concat([ad.read_h5ad(root / "tahoe" / "raw" / f"{c}.h5ad") for c in TAHOE_LINES])
        cells = cells[cells.obs["pass_filter"] == "full"].copy()
        obs = cells.obs
        obs["dose"] = [eval(t)[0][1] for t in obs["drugname_drugconc"].astype(str)]
        obs["drug"] = obs["drug"].astype(str).str.strip()
        return cells, CONTROL["tahoe"]
    folder = root / "sciplex"
    table = pd.read_csv(next(folder.glob("*matrix")), sep="\t", header=None).to_numpy()
    obs = pd.read_csv(folder / "sciPlex3_pData.txt", sep=" ").set_index("cell")
    genes = pd.read_csv(next(folder.glob("*gene.ann*")), sep="\t", header=None)
    X = np.zeros((len(obs), len(genes)))
    for gene, cell, count in table:
        X[cell - 1, gene - 1] = count
    kept = obs["cell_type"].notna().to_numpy()
    names = {"cell_type": "cell_line", "product_name": "drug", "plate_oligo": "plate"}
    obs = obs[kept].rename(columns=names)
    var = pd.DataFrame(index=genes[0].to_numpy())
    return ad.AnnData(X[kept], obs=obs, var=var), CONTROL["sciplex"]


@pytest.mark.parametrize("dataset", ["sciplex", "tahoe"])
def test_chemical_effects_are_matched_on_plates_and_filtered_last(root, tmp_path, dataset):
    layout = LAYOUTS[dataset]
    cells, control = chemical(root, dataset)
    stored = root / layout.files["lfc"]
    out = tmp_path / "out.h5ad"
    made = made_of(dataset, root, out, "--folds", stored)
    assert list(made.var_names) == list(cells.var_names[:N_KEPT])
    assert set(made.obs["dose"]) == {layout.dose}
    X = {"all": normalised(cells.X)[:, :N_KEPT], "kept": normalised(cells.X[:, :N_KEPT])}
    obs = cells.obs
    kept = made_of(dataset, root, tmp_path / "k.h5ad", "--totals", "kept")
    tables = {"all": made, "kept": kept}
    for n in (0, 11, made.n_obs - 1):
        line, drug = made.obs["cell_line"].iloc[n], made.obs["drug"].iloc[n]
        here = (obs["cell_line"] == line).to_numpy()
        treated = here & (obs["drug"] == drug).to_numpy() & (obs["dose"] == layout.dose).to_numpy()
        blank = here & (obs["dose"] == 0).to_numpy()
        assert (obs["drug"][blank] == control).all()
        for totals, table in tables.items():
            deltas = []
            for plate in sorted(set(obs["plate"][treated])):
                on = (obs["plate"] == plate).to_numpy()
                deltas.append(X[totals][treated & on].mean(0) - X[totals][blank & on].mean(0))
            np.testing.assert_allclose(table.X[n], np.mean(deltas, axis=0), atol=2e-6)
    assert not np.allclose(tables["all"].X, tables["kept"].X, atol=1e-3)
    one, two = read_authors_responses(dataset, path=out), read_authors_responses(dataset, root=root)
    pd.testing.assert_series_equal(one.obs["fold"], two.obs["fold"])
    if dataset == "tahoe":
        assert made.obs["pubchem_cid"].notna().all()


def test_folds_are_taken_from_a_table_by_drug(root, tmp_path):
    stored = ad.read_h5ad(root / LAYOUTS["tahoe"].files["lfc"]).obs
    columns = ["drug", *(f"fold_{k}" for k in range(5))]
    splits = stored[columns].drop_duplicates("drug").astype(str)
    splits["drug"] += " "
    splits.to_csv(tmp_path / "tahoe_splits_drug.csv", index=False)
    out = tmp_path / "t.h5ad"
    folds = tmp_path / "tahoe_splits_drug.csv"
    made = made_of("tahoe", root, out, "--folds", folds).obs[columns].astype(str)
    pd.testing.assert_frame_equal(made, stored[columns].astype(str), check_names=False)
    splits.iloc[1:].to_csv(folds, index=False)
    assert verb("responses", "tahoe", "--raw", root, "--out", out, "--folds", folds) == 2


# --- labels


@pytest.mark.filterwarnings("ignore:DataFrame is highly fragmented")
def test_essential_labels_are_those_of_scanpy(root, tmp_path):
    made = made_of("essential", root, tmp_path / "d.h5ad", "--task", "deg", "--min-cells", 8)
    assert made.X.dtype == np.int8
    cells = ad.read_h5ad(root / "essential" / "raw_data.h5ad")
    cells = cells[cells.obs["cell_line"] == "Jurkat"].copy()
    n = cells.obs["gene_id"].value_counts()
    cells = cells[cells.obs["gene_id"].isin(n.index[n > 8])].copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.obs["gene_id"] = cells.obs["gene_id"].astype(str).astype("category")
    rows = made[made.obs["cell_line"] == "Jurkat"]
    assert set(rows.obs["gene_id"]) == set(cells.obs["gene_id"]) - {"non-targeting"}
    some = list(rows.obs["gene_id"].iloc[::20])
    how = dict(groups=some, reference="non-targeting", method="t-test")
    sc.tl.rank_genes_groups(cells, "gene_id", **how)
    for gene in some:
        found = sc.get.rank_genes_groups_df(cells, gene).set_index("names").loc[rows.var_names]
        label = np.sign(found["scores"]) * (found["pvals_adj"] < 0.05)
        np.testing.assert_array_equal(rows.X[list(rows.obs["gene_id"]).index(gene)], label)


@pytest.mark.filterwarnings("ignore:DataFrame is highly fragmented")
def test_chemical_labels_are_votes_of_plates_with_enough_cells_of_the_drug(root, tmp_path):
    least = 3
    made = made_of("sciplex", root, tmp_path / "d.h5ad", "--task", "deg", "--min-cells", least)
    cells, control = chemical(root, "sciplex")
    obs = cells.obs
    # over all doses; genes first, then totals, unlike the effects
    n = obs.groupby(["cell_line", "plate", "drug"])["drug"].transform("size")
    used = cells[((n > least) & obs["dose"].isin([0, 10000])).to_numpy(), :N_KEPT].copy()
    used.X = used.X.astype(np.float32)
    facts = dict(perturbation="drug", batch="plate", control=control, scale="counts")
    screen = declare_screen(used, dataset="s", identifier="drug", unmatched="keep", **facts)
    want = deg_labels(screen, variant="per_batch", min_cells=1, progress=False)
    want.obs_names = want.obs["perturbation"] + "_" + want.obs["cell_line"]
    assert set(made.obs_names) == set(want.obs_names)
    np.testing.assert_array_equal(made[want.obs_names].X, want.layers["deg"])


@pytest.mark.parametrize("dataset", ["essential", "sciplex", "tahoe"])
def test_label_files_of_the_layout_are_read(root, dataset):
    read = read_authors_responses(dataset, "deg", root)
    assert read.uns["perturbcore"]["task"] == "deg"
    assert set(np.unique(read.layers["deg"])) <= {-1, 0, 1} and (read.layers["deg"] != 0).any()
    lfc = read_authors_responses(dataset, root=root)
    both = read.obs_names.intersection(lfc.obs_names)
    assert len(both) == read.n_obs
    assert (read.obs.loc[both, "fold"] == lfc.obs.loc[both, "fold"]).all()
    if dataset == "essential":
        assert list(read.var_names) == sorted(read.var_names)


def test_label_rows_without_a_gene_drop_out_with_a_note(raw):
    path = raw / "essential" / "essential_deg_with_split.h5ad"
    table = ad.read_h5ad(path)
    gene = table.obs["gene_id"].astype(object).to_numpy(copy=True)
    gene[:2] = np.nan
    table.obs["gene_id"] = pd.Series(gene, table.obs_names)
    table.write_h5ad(path)
    read = read_authors_responses("essential", "deg", path=path)
    assert read.n_obs == table.n_obs - 2
    assert "2 rows without gene" in read.uns["perturbcore"]["notes"][0]


# --- experimental error


def test_experimental_error_has_the_published_columns_and_is_readable(root, tmp_path):
    few = ["--outer", 3, "--inner", 2]
    out = tmp_path / "norman.csv"
    assert verb("error", "norman", "--raw", root, "--out", out, *few) == 0
    head = ["quantile", "L2", "MSE", "MAE", "Spearman", "Pearson", "pert_id", "n_batches_pert"]
    assert list(pd.read_csv(out)) == head
    table = read_ceiling(out, dataset="norman", cell_line="K-562")
    assert table["perturbation"].nunique() == 110 and set(table["quantile"]) >= {0.1, 0.9}
    top = table[table["quantile"] == 0.995].pivot(
        index="perturbation", columns="metric", values="value"
    )
    np.testing.assert_allclose(top["L2"] ** 2 / N_KEPT, top["MSE"], rtol=0.02)
    out = tmp_path / "sciplex.csv"
    assert verb("error", "sciplex", "--raw", root, "--out", out, *few) == 0
    assert list(pd.read_csv(out)) == ["quantile", "value", "pert_id", "n_batches_pert", "cell_line"]
    table = read_ceiling(out, dataset="sciplex")
    assert set(table["cell_line"]) == set(LAYOUTS["sciplex"].lines)
    out = tmp_path / "one.csv"
    one = ["--cell-line", "Jurkat", *few]
    assert verb("error", "essential", "--raw", root, "--out", out, *one) == 0
    assert "cell_line" not in pd.read_csv(out)
    assert verb("error", "essential", "--raw", root, "--out", out, "--cell-line", "HeLa") == 2


# --- wrong raw files


def test_wrong_raw_files_are_named(raw, capsys):
    out = raw / "x.h5ad"

    def says(dataset, *texts, options=()):
        assert verb("responses", dataset, "--raw", raw, "--out", out, *options) == 2
        error = capsys.readouterr().err
        assert all(t in error for t in texts), error

    path = raw / "essential" / "raw_data.h5ad"
    cells = ad.read_h5ad(path)
    cells.obs = cells.obs.rename(columns={"gem_group": "lane"})
    cells.write_h5ad(path)
    says("essential", "'gem_group'", "raw_data.h5ad")
    (raw / "norman" / "GEARS_perturb_processed.h5ad").unlink()
    says("norman", "GEARS_perturb_processed.h5ad")
    matrix = next((raw / "sciplex").glob("*matrix"))
    matrix.write_text("1\t99999999\t1\n")
    says("sciplex", "matrix", "'cell' has '99999999'")
    says("tahoe", "'dose' never equals 7", options=("--dose", 7))
    path = raw / "tahoe" / "raw" / f"{TAHOE_LINES[0]}.h5ad"
    cells = ad.read_h5ad(path)
    cells.obs["drugname_drugconc"] = "much"
    cells.write_h5ad(path)
    says("tahoe", "'drugname_drugconc' has 'much'")
    (raw / "tahoe" / "tahoe_coding_non_mt_genes.txt").unlink()
    says("tahoe", "tahoe_coding_non_mt_genes.txt")
    says("norman", "no labels for 'norman'", options=("--task", "deg"))
    says("essential", "--min-cells is for", options=("--min-cells", 3))


# --- as data sets, and by the command


def test_data_sets_bring_their_embeddings(root, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(root))
    for name in LAYOUTS:
        data = load("cole", dataset=name)
        assert data.name == name and data.task == "lfc" and data.simulated
        assert data.responses.uns["perturbcore"]["dataset"] == name
        assert len(data.card) == data.responses.obs["cell_line"].nunique()
    labels = load("cole", task="deg")
    assert labels.task == "deg" and "PCA" in {e.name for e in own_embeddings(labels)}
    pytest.raises(ParameterError, load, "cole", folds=3).match("no option 'folds'")
    monkeypatch.setenv(VARIABLE, str(root / "nowhere"))
    pytest.raises(InputError, load, "cole").match("make data PROFILE=paper")
