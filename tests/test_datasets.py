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


@pytest.mark.parametrize("pack", ["bzip2", "xz", None])
def test_read_r_reads_nested_lists_whatever_the_compression(tmp_path, pack):
    path = tmp_path / "sig.rda"
    parts = {d: [np.array(genes, object) for genes in both] for d, both in DRUGS.items()}
    kept = {drug: dict(zip(("up", "up_full"), both, strict=True)) for drug, both in parts.items()}
    rdata.write_rda(path, {"sig": kept}, compression=pack or "gzip")
    if pack is None:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    found = read_r(path, "sig")
    assert {d: tuple(v.tolist() for v in both.values()) for d, both in found.items()} == DRUGS


def test_read_r_reads_what_rdata_reads_and_refuses_cut_files(tmp_path):
    table = pd.DataFrame({"gene": ["A", "é", None], "value": [1.5, np.nan, -2.0]})
    table["whole"] = pd.array([1, None, 3], "Int32")
    factor = table.assign(kind=pd.Categorical(["x", "y", "x"]))
    path, same = tmp_path / "x.rda", dict(check_dtype=False, check_index_type=False)
    for value in (factor, table):
        rdata.write_rda(path, {"kept": value})
        ours, theirs = read_r(path, "kept"), rdata.read_rda(path)["kept"]
        ours, theirs = (
            t.astype({"gene": object}).where(t.notna(), None).reset_index(drop=True)
            for t in (ours, theirs)
        )
        pd.testing.assert_frame_equal(ours, theirs, **same)
    pytest.raises(InputError, read_r, path, "other").match("no object 'other' .*kept")
    whole = path.read_bytes()
    for wrong in (whole[:-40], b"<html>404</html>"):
        path.write_bytes(wrong)
        pytest.raises(InputError, read_r, path, "kept").match(r"x\.rda: not a whole R data file")
    matrix = np.arange(6.0).reshape(2, 3)
    rdata.write_rda(path, {"kept": matrix})
    np.testing.assert_array_equal(np.asarray(read_r(path, "kept")), matrix)


def test_read_h5ad_refuses_cut_files_and_missing_columns(tmp_path):
    path = tmp_path / "x.h5ad"
    AnnData(np.eye(50, dtype=np.float32)).write_h5ad(path)
    pytest.raises(InputError, read_h5ad, path, ["condition"]).match("no column 'condition'")
    path.write_bytes(path.read_bytes()[:-3000])
    pytest.raises(InputError, read_h5ad, path).match(r"x\.h5ad: not a readable")


# ---- Essential


FILES = {
    "k562-de": "A,G1,1,train\nA,G2,0,train\nB,G1,1,test\nB,G3,1,test\nC,G2,0,train\n",
    "k562-dir": "A,G1,1,train\nB,G1,0,test\n",
    "rpe1-de": "D,G4,1,train\nA,G1,0,test\n",
    "rpe1-dir": "D,G4,0,train\n",
}


def test_essential_labels_by_hand(tmp_path, monkeypatch):
    for name, rows in FILES.items():
        write(tmp_path / name, "pert,gene,label,split\n" + rows)
    monkeypatch.setattr(essential, "fetch", lambda name, **_: tmp_path / name.split("/")[1])
    loaded = essential.load(lines=("K562", "RPE1"), n_folds=2)
    r = loaded.responses
    check_responses(r)
    check_leakage(r, joint=True)
    assert list(r.var_names) == ["G1", "G2", "G3", "G4"]
    expected = [[1, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -1]]
    assert r.layers["deg"].tolist() == expected and r.layers["deg"].dtype == np.int8
    # B-G3 is differentially expressed without a direction: its sign is not known
    known = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert r.layers["observed"].astype(int).tolist() == known
    about = {
        "split_de": ["train", "test", "train", "test", "train"],
        "split_dir": ["train", "test", "", "", "train"],
        "n_labels": [2, 1, 1, 1, 1],
        "n_de": [1, 1, 0, 0, 1],
    }
    rows = ["K562|A", "K562|B", "K562|C", "RPE1|A", "RPE1|D"]
    wanted = pd.DataFrame(about, index=rows)
    pd.testing.assert_frame_equal(r.obs[list(about)], wanted, check_dtype=False, check_names=False)
    assert r.uns["perturbcore"]["task"] == loaded.task == "deg_pairs"
    assert "2 up" not in loaded.card["note"][0] and "1 without direction" in loaded.card["note"][0]
    assert essential.pairs("K562", "de").query("pert == 'B' and gene == 'G3'")["label"].item() == 1
    with pytest.raises(ParameterError, match="cell line 'k562' is not one of: K562, RPE1"):
        essential.pairs("k562")
    pytest.raises(ParameterError, essential.pairs, "K562", "direction").match("de, dir")
    pytest.raises(ParameterError, essential.load, lines=[]).match("lines is empty")


def test_essential_counts_are_those_of_the_files(mirror):
    loaded = datasets.load("essential")
    r, card = loaded.responses, loaded.card
    assert card["perturbations"].tolist() == [1831, 2002, 1364, 1540, 2654]
    assert card["genes"].tolist() == [4136, 4760, 7435, 6842, 10440]
    lines = r.obs["cell_line"].to_numpy()
    n_pairs = {"K562": 157_679, "RPE1": 187_089, "HepG2": 126_889, "Jurkat": 142_822}
    assert {x: r.layers["observed"][lines == x].sum() for x in n_pairs} == n_pairs
    assert (r.obs.groupby("perturbation")["cell_line"].nunique() == 4).sum() == 827
    assert "827 perturbations are in every line" in card["note"].iloc[-1]
    folds = assign_folds(r.obs["perturbation"])
    assert (folds.loc[r.obs["perturbation"]].to_numpy() == r.obs["fold"].to_numpy()).all()
    both = r.obs[r.obs["split_dir"] != ""]
    assert (both["split_de"] == both["split_dir"]).all()


# ---- Papalexi


def as_r(m, names):
    """A sparse matrix of these rows by cells as R keeps it."""
    coo = sp.coo_matrix(m.T)
    i, j, shape = (np.asarray(v, dtype=np.int32) for v in (coo.row, coo.col, coo.shape))
    x, names = coo.data.astype(float), [np.array(names), None]
    return {"i": i, "j": j, "x": x, "Dim": shape, "Dimnames": names}


def test_papalexi_from_guides_to_effects(load_file, tmp_path):
    rng, n = np.random.default_rng(1), 90
    counts = rng.poisson(3, (n, 12)) + 1
    guides = rng.poisson(0.3, (n, 6))
    guides[np.arange(n), np.arange(n) % 6] += 20
    guides[0] = [20, 20, 0, 0, 0, 0]
    guides[1] = [0, 10, 8, 0, 0, 0]
    guides[2] = 0
    replicates = np.array([f"rep_{1 + (i // 6) % 3}" for i in range(n)])
    target = np.repeat(["non-targeting", "AAA", "BBB"], 2)
    names = [f"{t}g{i}" for t in ("NT", "AAA", "BBB") for i in (1, 2)]
    kept = {
        "response_matrix": as_r(counts, [f"G{i}" for i in range(12)]),
        "grna_matrix": as_r(guides, names),
        "extra_covariates": pd.DataFrame({"bio_rep": replicates}),
        "grna_target_data_frame": pd.DataFrame({"grna_id": names, "grna_target": target}),
    }
    rdata.write_rda(tmp_path / "eccite.rda", {"lowmoi_example_data": kept})
    loaded = load_file(papalexi, tmp_path / "eccite.rda", n_folds=2)
    screen = loaded.screen
    rows = np.flatnonzero(guides.max(axis=1) >= 0.8 * guides.sum(axis=1))
    rows = rows[rows > 2]  # a tie, a share of 10/18, no gRNA at all
    assert set(screen.obs_names) == {f"cell{i + 1}" for i in rows}
    rows = [int(n.removeprefix("cell")) - 1 for n in screen.obs_names]
    assert (screen.X.toarray() == counts[rows]).all()
    assert (screen.obs["perturbation"] == target[np.argmax(guides[rows], axis=1)]).all()
    assert (screen.obs["batch"] == replicates[rows]).all()
    assert (screen.obs["is_control"] == (screen.obs["perturbation"] == "non-targeting")).all()
    assert screen.uns["perturbcore"]["scale"] == "counts"
    assert loaded.card["cells"].tolist() == [90, len(rows)]
    frame = pd.DataFrame(logged(counts[rows]), index=screen.obs_names)
    by = frame.groupby([screen.obs["perturbation"], screen.obs["batch"]]).mean()
    effect = by.loc["AAA"].mean() - by.loc["non-targeting"].mean()
    np.testing.assert_allclose(loaded.responses["THP-1|AAA"].X.ravel(), effect, atol=1e-5)


# ---- L1000 knock-downs


def test_l1000_effects_against_plain_means(load_file, tmp_path):
    wells = [("AAA", "AAA", "trt_sh")] * 4 + [("BBBold", "BBB", "trt_sh")] * 3
    wells += [("trcn0000000001", "CCC", "trt_sh")] * 2  # a hairpin without a name
    wells += [("GFP", "GFP", "ctl_vector")] * 3 + [("UnTrt", "UnTrt", "ctl_untrt")] * 2
    about = pd.DataFrame(wells, columns=["pert_iname", "pert_mfc_desc", "pert_type"])
    ids = np.array([f"A{i:02d}" for i in range(14)])
    about = about.assign(id=ids, pert_plate="P1")
    genes = pd.DataFrame({"pr_gene_symbol": [f"G{i}" for i in range(5)]})
    z = np.random.default_rng(2).normal(size=(14, 5))
    gct = {"mat": z.T, "cid": ids, "cdesc": about, "rdesc": genes}
    rdata.write_rda(tmp_path / "kd.RData", {"kd_gct": gct})
    loaded = load_file(l1000_kd, tmp_path / "kd.RData", n_folds=2)
    base = z[9:12].mean(0)  # the vector wells; untreated wells and nameless hairpins are left out
    r = loaded.responses
    assert list(r.obs_names) == ["A549|AAA", "A549|BBB"]
    np.testing.assert_allclose(r.X, [z[:4].mean(0) - base, z[4:7].mean(0) - base], atol=1e-6)
    assert r.obs["n_cells"].tolist() == [4, 3] and r.uns["perturbcore"]["scale"] == "zscore"
    assert loaded.card["cells"].tolist()[:3] == [14, 12, 10]
    assert loaded.replicates.obs["is_control"].sum() == 3


# ---- PerturBench


def test_perturbench_parts(load_file, tmp_path):
    rng, path = np.random.default_rng(3), tmp_path / "devel.h5ad"
    conditions = ["control", "AAA", "BBB", "AAA+BBB"]
    rows = [(c, "norman19", "k562") for c in conditions for _ in range(12)]
    rows += [(c, "mcfaline23", x) for c in conditions[:3] for x in ["A172"] * 10 + ["T98G"] * 10]
    obs = pd.DataFrame(rows, columns=["condition", "dataset", "cell_type"])
    obs.index = [f"ACGT{i}-{1 + i % 2}" for i in range(len(obs))]
    X = np.log1p(rng.poisson(1.0, (len(obs), 6)))
    genes = pd.DataFrame(index=[f"G{i}" for i in range(6)])
    AnnData(sp.csr_matrix(X), obs=obs, var=genes).write_h5ad(path)
    loaded = load_file(perturbench, path, n_folds=2)
    assert loaded.name == "norman"
    assert loaded.card["cells"].tolist() == [108, 48, 36]
    assert loaded.card["perturbations"].tolist() == [3, 3, 2]
    assert set(loaded.screen.obs["batch"]) == {"1", "2"}
    assert set(loaded.screen.obs["perturbation"]) == {"control", "AAA", "BBB"}
    np.testing.assert_allclose(loaded.screen.X.toarray(), X[:36], rtol=1e-6)
    means = pd.DataFrame(X[:36]).groupby([obs["condition"].to_numpy()[:36], np.arange(36) % 2])
    effect = means.mean().loc["AAA"].mean() - means.mean().loc["control"].mean()
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


def test_own_screen_is_read_as_declared(tmp_path):
    rng, path = np.random.default_rng(5), tmp_path / "own.h5ad"
    obs = pd.DataFrame({"gene": ["ctrl", "AAA", "BBB"] * 20, "lane": ["1", "2"] * 30})
    obs.index = obs.index.astype(str)
    counts = sp.csr_matrix(rng.poisson(2.0, (60, 8)).astype(np.float32) + np.eye(60, 8))
    AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(8)])).write_h5ad(path)
    own = dict(screen=path, perturbation="gene", batch="lane", control="ctrl", scale="counts")
    own |= dict(cell_line_value="iPSC", n_folds=2)
    loaded = datasets.load("from_files", name="ours", **own)
    assert list(loaded.responses.obs_names) == ["iPSC|AAA", "iPSC|BBB"]
    assert loaded.responses.uns["perturbcore"]["dataset"] == loaded.name == "ours"
    assert loaded.card["cells"].tolist() == [60, 40]
    on_disk = datasets.load("from_files", backed=True, **own)
    np.testing.assert_allclose(on_disk.responses.X, loaded.responses.X, atol=1e-6)
    loaded.screen.write_h5ad(tmp_path / "declared.h5ad")
    again = datasets.load("from_files", screen=tmp_path / "declared.h5ad", name="b", n_folds=2)
    pd.testing.assert_frame_equal(again.screen.obs.astype(str), loaded.screen.obs.astype(str))
    np.testing.assert_allclose(again.responses.X, loaded.responses.X, atol=1e-6)
    assert again.responses.uns["perturbcore"]["dataset"] == "b"
    for options, message in (
        ({"screen": path}, r"own\.h5ad"),
        (own | {"batch": "well"}, r"own\.h5ad"),
        ({"screen": path, "lane": "1"}, "no option 'lane'.*cell_line_value"),
        ({}, "either screen"),
    ):
        with pytest.raises((InputError, ParameterError), match=message):
            datasets.load("from_files", **options)


def test_own_responses_keep_their_folds_and_leaking_ones_are_refused(tmp_path):
    path, ends = tmp_path / "responses.h5ad", [*range(6)] * 2
    obs = pd.DataFrame(
        {"perturbation": [f"P{i}" for i in ends], "cell_line": ["X"] * 6 + ["Y"] * 6}
    )
    table = make_responses(np.ones((12, 4)), obs, list("abcd"), dataset="theirs")
    table.write_h5ad(path)
    loaded = datasets.load("from_files", responses=path, n_folds=3)
    check_leakage(loaded.responses, joint=True)
    assert set(loaded.responses.obs["fold"]) == {0, 1, 2} and loaded.task == "lfc"
    assert "made here" in loaded.card["note"][0]
    with pytest.raises(ParameterError, match="'scale' is for a screen"):
        datasets.load("from_files", responses=path, scale="log1p")
    table.obs["fold"] = ends
    table.write_h5ad(path)
    assert datasets.load("from_files", responses=path).responses.obs["fold"].tolist() == ends
    table.obs = table.obs.assign(fold=[0] * 11 + [1], cell_line="X")
    table.write_h5ad(path)
    pytest.raises((InputError, LeakError), datasets.load, "from_files", responses=path).match("P0")
