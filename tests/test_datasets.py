import gzip
import inspect

import numpy as np
import pandas as pd
import pytest
import rdata
import scipy.sparse as sp
from anndata import AnnData
from worlds import logged

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.data import catalogue
from perturbcore.data.folds import assign_folds, check_leakage
from perturbcore.data.read import read_csv, read_h5ad, read_r
from perturbcore.data.responses import check_responses, make_responses
from perturbcore.data.sets import base as datasets
from perturbcore.data.sets import essential, l1000_kd, papalexi, perturbench
from perturbcore.data.sets.base import _cards

PAIRS = (
    "pert,gene,label,split\nA,G1,1,train\nA,G2,0,train\nB,G1,1,test\nB,G3,1,test\nC,G2,0,train\n"
)
DIRECTIONS = "pert,gene,label,split\nA,G1,1,train\nB,G1,0,test\n"


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def load_file(monkeypatch):
    """Load a data set from this file instead of the catalogue's."""

    def load(module, path, **options):
        monkeypatch.setattr(module, "fetch", lambda name: path)
        return module.load(**options)

    return load


# ---- finding data sets


def test_every_module_is_a_data_set():
    assert {"cole", "essential", "from_files", "simulated"} <= set(datasets.available())
    assert not {"base", "_make"} & set(datasets.available())
    for name in datasets.available():
        loader = datasets.module_of(name).load
        assert inspect.signature(loader).return_annotation is datasets.Dataset
    for source in {s for card in _cards().values() for s in card.get("sources", ())}:
        catalogue.entry(source)


def test_unknown_name_and_option_list_what_exists():
    with pytest.raises(ParameterError, match="did you mean 'papalexi'.*essential, from_files"):
        datasets.load("papalexy")
    with pytest.raises(ParameterError, match="no option 'line'; it has: lines, n_folds, seed"):
        datasets.load("essential", line="K562")
    pytest.raises(ParameterError, datasets.load, "simulated", n_celllines=2).match("n_cell_lines")


# ---- reading


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pert,gen,label\nA,B,1\n", r"x\.csv: no column 'gene' \(it has: pert, gen, label\)"),
        ("pert,gene,label\nA,B,1\nA,C\n", "column 'label' is empty in row 2"),
        ("pert,gene,label\n1,2,3\n1,2,3,4\n", "not a readable table"),
    ],
)
def test_read_csv_names_what_is_wrong(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_csv(write(tmp_path / "x.csv", text), ["pert", "gene", "label"])
    path = write(tmp_path / "y.csv", "a\nNA\nnan\nNULL\n")
    assert read_csv(path, ["a"])["a"].tolist() == ["NA", "nan", "NULL"]


DRUGS = {"α-drug": (["B"], ["B", "A", None]), "other": ([], ["A", "B"])}


@pytest.mark.parametrize("pack", ["bzip2", "gzip", "xz", None])
def test_read_r_reads_nested_lists_whatever_the_compression(tmp_path, pack):
    path, kept = tmp_path / "sig.rda", {}
    for drug, (up, full) in DRUGS.items():
        kept[drug] = {"up": np.array(up, object), "up_full": np.array(full, object)}
    rdata.write_rda(path, {"sig": kept}, compression=pack or "gzip")
    if pack is None:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    found = read_r(path, "sig")
    plain = {d: tuple(v.tolist() for v in parts.values()) for d, parts in found.items()}
    assert plain == DRUGS


def test_read_r_reads_what_rdata_reads(tmp_path):
    table = pd.DataFrame({"gene": ["A", "é", None], "value": [1.5, np.nan, -2.0]})
    table["whole"] = pd.array([1, None, 3], "Int32")
    factor = table.assign(kind=pd.Categorical(["x", "y", "x"]))
    matrix = np.arange(6.0).reshape(2, 3)
    kept = {"table": table, "factor": factor, "matrix": matrix}
    for name, value in kept.items():
        path = tmp_path / f"{name}.rda"
        rdata.write_rda(path, {name: value})
        ours, theirs = read_r(path, name), rdata.read_rda(path)[name]
        if name == "matrix":
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
        else:
            same = dict(check_dtype=False, check_index_type=False)
            theirs = theirs.astype({"gene": object}).where(theirs.notna(), None)
            ours = ours.astype({"gene": object}).where(ours.notna(), None)
            pd.testing.assert_frame_equal(
                ours.reset_index(drop=True), theirs.reset_index(drop=True), **same
            )


def test_read_r_refuses_cut_files_and_other_objects(tmp_path):
    path = tmp_path / "x.rda"
    rdata.write_rda(path, {"table": pd.DataFrame({"a": np.arange(2000.0)})})
    assert len(read_r(path, "table")) == 2000
    pytest.raises(InputError, read_r, path, "other").match("no object 'other' .*table")
    path.write_bytes(path.read_bytes()[:-40])
    pytest.raises(InputError, read_r, path, "table").match(r"x\.rda: not a whole R data file")
    with pytest.raises(InputError, match="not a whole R data file"):
        read_r(write(path, "<html>404</html>"), "table")


def test_read_h5ad_refuses_cut_files_and_missing_columns(tmp_path):
    path = tmp_path / "x.h5ad"
    AnnData(np.eye(50, dtype=np.float32)).write_h5ad(path)
    pytest.raises(InputError, read_h5ad, path, ["condition"]).match("no column 'condition'")
    path.write_bytes(path.read_bytes()[:-3000])
    pytest.raises(InputError, read_h5ad, path).match(r"x\.h5ad: not a readable")


# ---- Essential


@pytest.fixture
def two_lines(tmp_path, monkeypatch):
    texts = {
        "perturbqa/k562-de": PAIRS,
        "perturbqa/k562-dir": DIRECTIONS,
        "perturbqa/rpe1-de": "pert,gene,label,split\nD,G4,1,train\nA,G1,0,test\n",
        "perturbqa/rpe1-dir": "pert,gene,label,split\nD,G4,0,train\n",
    }
    paths = {n: write(tmp_path / f"{n.split('/')[1]}.csv", t) for n, t in texts.items()}
    monkeypatch.setattr(essential, "fetch", lambda name, **_: paths[name])
    return paths


def test_essential_labels_by_hand(two_lines):
    loaded = essential.load(lines=("K562", "RPE1"), n_folds=2)
    r = loaded.responses
    check_responses(r)
    check_leakage(r, joint=True)
    assert list(r.var_names) == ["G1", "G2", "G3", "G4"]
    assert list(r.obs_names) == ["K562|A", "K562|B", "K562|C", "RPE1|A", "RPE1|D"]
    expected = [[1, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -1]]
    assert r.layers["deg"].tolist() == expected and r.layers["deg"].dtype == np.int8
    # B-G3 is differentially expressed without a direction: its sign is not known
    known = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert r.layers["observed"].astype(int).tolist() == known
    assert r.obs["split_de"].tolist() == ["train", "test", "train", "test", "train"]
    assert r.obs["split_dir"].tolist() == ["train", "test", "", "", "train"]
    assert r.obs["n_labels"].tolist() == [2, 1, 1, 1, 1]
    assert r.obs["n_de"].tolist() == [1, 1, 0, 0, 1]
    assert r.obs.loc["K562|A", "fold"] == r.obs.loc["RPE1|A", "fold"]
    assert r.uns["perturbcore"]["task"] == loaded.task == "deg_pairs"
    assert "2 up" not in loaded.card["note"][0] and "1 without direction" in loaded.card["note"][0]
    assert essential.pairs("K562", "de").query("pert == 'B' and gene == 'G3'")["label"].item() == 1


def test_essential_choices_are_checked():
    with pytest.raises(ParameterError, match="cell line 'k562' is not one of: K562, RPE1"):
        essential.pairs("k562")
    pytest.raises(ParameterError, essential.pairs, "K562", "direction").match("de, dir")
    pytest.raises(ParameterError, essential.load, lines=[]).match("lines is empty")


def test_essential_counts_are_those_of_the_files(mirror):
    loaded = datasets.load("essential")
    r, card = loaded.responses, loaded.card
    assert card["perturbations"].tolist() == [1831, 2002, 1364, 1540, 2654]
    assert card["genes"].tolist() == [4136, 4760, 7435, 6842, 10440]
    n_pairs = {"K562": 157_679, "RPE1": 187_089, "HepG2": 126_889, "Jurkat": 142_822}
    lines = r.obs["cell_line"].to_numpy()
    for line, n in n_pairs.items():
        assert r.layers["observed"][lines == line].sum() == n
    assert "827 perturbations are in every line" in card["note"].iloc[-1]
    per = r.obs.groupby("perturbation")["cell_line"].nunique()
    assert (per == 4).sum() == 827
    folds = assign_folds(r.obs["perturbation"])
    assert (folds.loc[r.obs["perturbation"]].to_numpy() == r.obs["fold"].to_numpy()).all()
    both = r.obs[r.obs["split_dir"] != ""]
    assert (both["split_de"] == both["split_dir"]).all()


# ---- Papalexi


def eccite(counts, guides, replicates):
    """Write the parts of the R object: matrices of genes and of gRNAs by cells."""

    def matrix(m, names):
        coo = sp.coo_matrix(m.T)
        i, j, shape = (np.asarray(v, dtype=np.int32) for v in (coo.row, coo.col, coo.shape))
        x, names = coo.data.astype(float), [np.array(names), None]
        return {"i": i, "j": j, "x": x, "Dim": shape, "Dimnames": names}

    names = [f"{t}g{i}" for t in ("NT", "AAA", "BBB") for i in (1, 2)]
    targets = [t for t in ("non-targeting", "AAA", "BBB") for _ in (1, 2)]
    return {
        "response_matrix": matrix(counts, [f"G{i}" for i in range(counts.shape[1])]),
        "grna_matrix": matrix(guides, names),
        "extra_covariates": pd.DataFrame({"bio_rep": replicates}),
        "grna_target_data_frame": pd.DataFrame({"grna_id": names, "grna_target": targets}),
    }


@pytest.fixture
def small_eccite(tmp_path):
    rng = np.random.default_rng(1)
    n = 90
    counts = rng.poisson(3, (n, 12)) + 1
    guides = rng.poisson(0.3, (n, 6))
    guides[np.arange(n), np.arange(n) % 6] += 20
    guides[0] = [20, 20, 0, 0, 0, 0]
    guides[1] = [0, 10, 8, 0, 0, 0]
    guides[2] = 0
    replicates = [f"rep_{1 + (i // 6) % 3}" for i in range(n)]
    path = tmp_path / "eccite.rda"

    rdata.write_rda(path, {"lowmoi_example_data": eccite(counts, guides, replicates)})
    return path, counts, guides, replicates


def test_papalexi_from_guides_to_effects(load_file, small_eccite):
    path, counts, guides, replicates = small_eccite
    loaded = load_file(papalexi, path, n_folds=2)
    screen = loaded.screen
    dropped = {"cell1", "cell2", "cell3"}  # a tie, a share of 10/18, no gRNA at all
    top = np.sort(guides, axis=1)[:, -1]
    weak = {f"cell{i + 1}" for i in range(90) if top[i] < 0.8 * guides[i].sum()}
    assert set(screen.obs_names) == {f"cell{i + 1}" for i in range(90)} - dropped - weak
    rows = [int(n.removeprefix("cell")) - 1 for n in screen.obs_names]
    assert (screen.X.toarray() == counts[rows]).all()
    target = np.array(["non-targeting"] * 2 + ["AAA"] * 2 + ["BBB"] * 2)
    assert (screen.obs["perturbation"] == target[np.argmax(guides[rows], axis=1)]).all()
    assert screen.obs["batch"].tolist() == [replicates[i] for i in rows]
    assert (screen.obs["is_control"] == (screen.obs["perturbation"] == "non-targeting")).all()
    assert screen.uns["perturbcore"]["scale"] == "counts"
    assert loaded.card["cells"].tolist() == [90, len(rows)]
    check_responses(loaded.responses)

    frame = pd.DataFrame(logged(counts[rows]), index=screen.obs_names)
    by = frame.groupby([screen.obs["perturbation"], screen.obs["batch"]]).mean()
    effect = by.loc["AAA"].mean() - by.loc["non-targeting"].mean()
    got = loaded.responses["THP-1|AAA"].X.ravel()
    np.testing.assert_allclose(got, effect, atol=1e-5)


# ---- L1000 knock-downs


def plate():
    names = ["AAA"] * 4 + ["BBBold"] * 3 + ["trcn0000000001"] * 2 + ["GFP"] * 3 + ["UnTrt"] * 2
    symbols = ["AAA"] * 4 + ["BBB"] * 3 + ["CCC"] * 2 + ["GFP"] * 3 + ["UnTrt"] * 2
    kinds = ["trt_sh"] * 9 + ["ctl_vector"] * 3 + ["ctl_untrt"] * 2
    ids = np.array([f"A{i:02d}" for i in range(14)])
    about = dict(id=ids, pert_type=kinds, pert_iname=names, pert_mfc_desc=symbols)
    about = pd.DataFrame(about).assign(pert_plate="P1")
    genes = pd.DataFrame({"pr_gene_symbol": [f"G{i}" for i in range(5)]})
    z = np.random.default_rng(2).normal(size=(5, 14))
    return {"mat": z, "cid": ids, "cdesc": about, "rdesc": genes}


def test_l1000_effects_against_plain_means(load_file, tmp_path):
    gct, path = plate(), tmp_path / "kd.RData"
    rdata.write_rda(path, {"kd_gct": gct})
    loaded = load_file(l1000_kd, path, n_folds=2)
    z = gct["mat"].T
    base = z[9:12].mean(0)  # the vector wells; untreated wells and nameless hairpins are left out
    r = loaded.responses
    assert list(r.obs_names) == ["A549|AAA", "A549|BBB"]
    np.testing.assert_allclose(r.X, [z[:4].mean(0) - base, z[4:7].mean(0) - base], atol=1e-6)
    assert r.obs["n_cells"].tolist() == [4, 3]
    assert r.uns["perturbcore"]["scale"] == "zscore"
    assert loaded.card["cells"].tolist()[:3] == [14, 12, 10]
    assert loaded.replicates.obs["is_control"].sum() == 3


# ---- PerturBench


def development_file(path):
    rng = np.random.default_rng(3)
    conditions = ["control", "AAA", "BBB", "AAA+BBB"]
    rows = [(c, "norman19", "k562") for c in conditions for _ in range(12)]
    lines = [line for line in ("A172", "T98G") for _ in range(10)]
    rows += [(c, "mcfaline23", x) for c in conditions[:3] for x in lines]
    obs = pd.DataFrame(rows, columns=["condition", "dataset", "cell_type"])
    obs.index = [f"ACGT{i}-{1 + i % 2}" for i in range(len(obs))]
    X = sp.csr_matrix(np.log1p(rng.poisson(1.0, (len(obs), 6))).astype(np.float64))
    adata = AnnData(X, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(6)]))
    adata.write_h5ad(path)
    return adata


def test_perturbench_parts(load_file, tmp_path):
    path = tmp_path / "devel.h5ad"
    adata = development_file(path)
    loaded = load_file(perturbench, path, n_folds=2)
    assert loaded.name == "norman"
    assert loaded.card["cells"].tolist() == [108, 48, 36]
    assert loaded.card["perturbations"].tolist() == [3, 3, 2]
    assert set(loaded.screen.obs["batch"]) == {"1", "2"}
    assert set(loaded.screen.obs["perturbation"]) == {"control", "AAA", "BBB"}
    np.testing.assert_allclose(loaded.screen.X.toarray(), adata.X.toarray()[:36], rtol=1e-6)
    means = pd.DataFrame(adata.X.toarray()).groupby(
        [adata.obs["condition"].to_numpy(), np.arange(108) % 2, adata.obs["dataset"].to_numpy()]
    )
    means = means.mean().xs("norman19", level=2)
    effect = means.loc["AAA"].mean() - means.loc["control"].mean()
    np.testing.assert_allclose(loaded.responses["K562|AAA"].X.ravel(), effect, atol=1e-6)
    glioma = load_file(perturbench, path, part="mcfaline", n_folds=2)
    assert set(glioma.screen.obs["cell_line"]) == {"A172", "T98G"}
    assert glioma.card["batches"].iloc[-1] == 2
    pytest.raises(ParameterError, perturbench.load, "replogle").match("norman, mcfaline")


COUNTS = {
    "papalexi": dict(cells=[20_729, 16_192], perturbations=[26, 25], genes=[299, 299]),
    "l1000_kd": dict(cells=[374, 360, 352, pd.NA], perturbations=[85, 81, 81, 81], genes=[976] * 4),
    "perturbench": dict(cells=[5961, 3375, 1895], genes=[500] * 3),
    "glioblastoma": dict(cells=[5000, pd.NA], perturbations=[1, 1], genes=[300, 300]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_file(mirror, name):
    loaded = datasets.load(name)
    check_responses(loaded.responses)
    for column, counts in COUNTS[name].items():
        pd.testing.assert_series_equal(
            loaded.card[column], pd.Series(counts, dtype="Int64"), check_names=False
        )
    if name == "perturbench":
        last = loaded.card.iloc[-1]
        assert (last["perturbations"], last["batches"]) == (18, 8)
        glioma = datasets.load(name, part="mcfaline").responses
        assert glioma.n_obs == 27 and glioma.obs["cell_line"].nunique() == 3
        assert (glioma.obs.groupby("perturbation")["fold"].nunique() == 1).all()
    elif name == "l1000_kd":
        # the mean length of the effects, as another program had it
        length = np.linalg.norm(loaded.responses.X, axis=1).mean()
        assert length == pytest.approx(34.7, abs=0.05)
    else:
        _, guide_counts, guides, targets = papalexi._read(catalogue.fetch("papalexi"))
        guide, _, _, tied = papalexi.leading_guide(guide_counts)
        assert not tied.any()
        assert (targets[guide] == "non-targeting").sum() == 2386  # as Papalexi et al. have them
        assert set(targets) - set(targets[guide]) == {"CD274"}


# ---- simulated, and your own


@pytest.fixture
def own_screen(tmp_path):
    rng = np.random.default_rng(5)
    obs = pd.DataFrame({"gene": ["ctrl", "AAA", "BBB"] * 20, "lane": ["1", "2"] * 30})
    obs.index = obs.index.astype(str)
    counts = sp.csr_matrix(rng.poisson(2.0, (60, 8)).astype(np.float32) + np.eye(60, 8))
    path = tmp_path / "own.h5ad"
    AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(8)])).write_h5ad(path)
    return path


OWN = dict(
    perturbation="gene", batch="lane", control="ctrl", scale="counts", cell_line_value="iPSC"
)


def test_own_screen(own_screen, tmp_path):
    loaded = datasets.load("from_files", screen=own_screen, name="ours", n_folds=2, **OWN)
    assert list(loaded.responses.obs_names) == ["iPSC|AAA", "iPSC|BBB"]
    assert loaded.responses.uns["perturbcore"]["dataset"] == loaded.name == "ours"
    assert loaded.card["cells"].tolist() == [60, 40]
    on_disk = datasets.load("from_files", screen=own_screen, n_folds=2, backed=True, **OWN)
    np.testing.assert_allclose(on_disk.responses.X, loaded.responses.X, atol=1e-6)
    loaded.screen.write_h5ad(tmp_path / "declared.h5ad")
    again = datasets.load("from_files", screen=tmp_path / "declared.h5ad", name="b", n_folds=2)
    pd.testing.assert_frame_equal(again.screen.obs.astype(str), loaded.screen.obs.astype(str))
    np.testing.assert_allclose(again.responses.X, loaded.responses.X, atol=1e-6)
    assert again.responses.uns["perturbcore"]["dataset"] == "b"


def test_own_screen_must_be_what_is_declared(own_screen):
    for options in ({}, OWN | {"batch": "well"}):
        with pytest.raises(InputError, match=r"own\.h5ad"):
            datasets.load("from_files", screen=own_screen, **options)
    with pytest.raises(InputError, match="a screen has no option 'lane'.*cell_line_value"):
        datasets.load("from_files", screen=own_screen, lane="1")
    pytest.raises(ParameterError, datasets.load, "from_files").match("either screen")


def test_own_responses(tmp_path):
    names = [f"P{i}" for i in range(6)]
    obs = pd.DataFrame({"perturbation": names * 2, "cell_line": ["X"] * 6 + ["Y"] * 6})
    table = make_responses(np.ones((12, 4)), obs, list("abcd"), dataset="theirs")
    path = tmp_path / "responses.h5ad"
    table.write_h5ad(path)
    loaded = datasets.load("from_files", responses=path, n_folds=3)
    check_leakage(loaded.responses, joint=True)
    assert set(loaded.responses.obs["fold"]) == {0, 1, 2} and loaded.task == "lfc"
    assert "made here" in loaded.card["note"][0]
    table.obs["fold"] = list(range(6)) * 2
    table.write_h5ad(path)
    kept = datasets.load("from_files", responses=path).responses
    assert kept.obs["fold"].tolist() == list(range(6)) * 2
    with pytest.raises(ParameterError, match="'scale' is for a screen"):
        datasets.load("from_files", responses=path, scale="log1p")
    table.obs["fold"] = [0] * 11 + [1]
    table.obs["cell_line"] = "X"
    table.write_h5ad(path)
    pytest.raises((InputError, LeakError), datasets.load, "from_files", responses=path).match("P0")
