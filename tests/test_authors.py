import hashlib
import re
import shutil
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from huggingface_hub.utils import filter_repo_objects
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from perturbcore.book.cli import main
from perturbcore.core.errors import DownloadError, InputError, LeakError, ParameterError
from perturbcore.data.authors import layout as authors
from perturbcore.data.authors.layout import LAYOUTS, present
from perturbcore.data.authors.read import read_authors_responses
from perturbcore.data.folds import check_leakage
from perturbcore.embeddings.authors import list_embeddings, read_embeddings
from perturbcore.embeddings.base import align
from perturbcore.report.reproduction.benchmark import reproduce, score_dataset

FIRST = {"essential": "K-562", "norman": "K-562", "sciplex": "A549", "tahoe": "CVCL_0023"}
NAMED = dict.fromkeys(["essential", "norman"], "STRING WaveGC") | dict.fromkeys(
    ["sciplex", "tahoe"], "MACCS"
)
WAVEGC = "KG_WaveGC_G_StringDB_combined_0.0_(D=128)"


@pytest.fixture
def copy(root, tmp_path):
    """A copy of the layout that a test may damage, without the raw cells."""
    target = tmp_path / "layout"
    leave = shutil.ignore_patterns("raw*", "*matrix*", "Norman*", "GEARS*")
    shutil.copytree(root, target, ignore=leave)
    return target


def change(path, function):
    adata = ad.read_h5ad(path)
    changed = function(adata)
    (adata if changed is None else changed).write_h5ad(path)


# --- reading


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_responses_carry_values_folds_and_identifiers_of_the_file(root, dataset):
    layout = LAYOUTS[dataset]
    raw = ad.read_h5ad(root / layout.files["lfc"])
    read = read_authors_responses(dataset, root=root)
    np.testing.assert_array_equal(read.X, np.asarray(raw.X, dtype=np.float32))
    assert list(read.var_names) == list(raw.var_names)
    named = "drug" if layout.drug_embeddings else "ensembl"
    assert read.uns["perturbcore"]["identifier"] == named
    tests = raw.obs.filter(like="fold_") == "test"
    assert (tests.sum(axis=1) == 1).all() or layout.splits == "test_split"
    wanted = {
        "perturbation": raw.obs[layout.perturbation].astype(str).str.removesuffix(".0"),
        "cell_line": raw.obs.get("cell_line", "K-562"),
        "fold": raw.obs["test_split"] if tests.empty else tests.to_numpy().argmax(axis=1),
    }
    wanted = pd.DataFrame(wanted, raw.obs_names).astype({"fold": float})
    found = read.obs[list(wanted)].astype({"fold": float})
    np.testing.assert_array_equal(found.astype(str), wanted.astype(str))
    check_leakage(read, joint=True)


def test_rows_keep_the_order_of_the_file_and_genes_are_found_by_name(copy):
    before, rng = read_authors_responses("norman", root=copy), np.random.default_rng(0)
    rows, genes = rng.permutation(before.n_obs), rng.permutation(before.n_vars)

    def shuffle(adata):
        adata.obs["test_split"] = adata.obs["test_split"].astype(int).astype(str).astype("category")
        return adata[rows][:, genes].copy()

    change(copy / LAYOUTS["norman"].files["lfc"], shuffle)
    after, wanted = read_authors_responses("norman", root=copy), before[rows]
    for column in ("fold", "perturbation"):
        assert list(after.obs[column]) == list(wanted.obs[column])
    np.testing.assert_array_equal(after[:, before.var_names].X, wanted.X)


def test_of_several_doses_the_published_one_is_kept(copy):
    before = read_authors_responses("sciplex", root=copy)

    def more(adata):
        low = adata.copy()
        low.X = low.X * 0
        low.obs = low.obs.assign(dose=10.0).rename(index="low {}".format)
        out = ad.concat([low, adata])
        # the published code's trap: doses as text
        out.obs["dose"] = out.obs["dose"].astype(str)
        return out

    change(copy / LAYOUTS["sciplex"].files["lfc"], more)
    after = read_authors_responses("sciplex", root=copy)
    np.testing.assert_array_equal(after.X, before.X)
    assert "dose" in after.uns["perturbcore"]["notes"][0]


def test_drugs_that_share_a_cid_stay_two_perturbations_with_one_embedding(copy):
    cid = 900_000_000  # of drug 000

    def share(adata):
        second = adata.obs["drug"] == "Simulated drug 001"
        adata.obs.loc[second, "pubchem_cid"] = cid

    change(copy / LAYOUTS["tahoe"].files["lfc"], share)
    read = read_authors_responses("tahoe", root=copy)
    names = [n for n in read.obs["perturbation"].unique() if n.startswith(f"{cid} (")]
    assert names == [f"{cid} (Simulated drug 000)", f"{cid} (Simulated drug 001)"]
    assert any("share PubChem CID" in n for n in read.uns["perturbcore"]["notes"])
    maccs = next(e for e in read_embeddings("tahoe", read, copy)[0] if e.name == "MACCS")
    np.testing.assert_array_equal(*maccs.X[maccs.ids.get_indexer(names)])


def put(column, value, row=0):
    """A damage: one value of a column of obs."""

    def damage(adata):
        values = list(adata.obs[column])
        values[row] = value
        adata.obs[column] = values

    return damage


def drop(*columns):
    return lambda adata: adata.obs.drop(columns=list(columns), inplace=True)


DAMAGE = {
    "no gene": ("essential", drop("gene_id"), "'gene_id'"),
    "no fold": ("essential", drop("test_split"), "'test_split'"),
    "empty fold": ("essential", put("test_split", np.nan, 2), "'test_split' is empty in row 3"),
    "twice": ("norman", lambda a: ad.concat([a, a[:1]]), "two rows"),
    "not finite": ("norman", lambda a: a.X.__setitem__((2, 3), np.nan), "NaN or infinity"),
    "no fold columns": ("sciplex", drop(*(f"fold_{k}" for k in range(5))), "'fold_0'"),
    "several tests": ("sciplex", lambda a: a.obs.__setitem__("fold_1", "test"), "several columns"),
    "never tested": ("tahoe", lambda a: a.obs.__setitem__("fold_2", "train"), "'fold_2' never"),
    "half a cid": ("tahoe", put("pubchem_cid", 7.5), "'pubchem_cid' has '7.5' in row 1"),
    "empty cid": ("tahoe", put("pubchem_cid", np.nan), "'pubchem_cid' is empty in row 1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named_with_its_column(copy, name):
    dataset, damage, text = DAMAGE[name]
    path = copy / LAYOUTS[dataset].files["lfc"]
    change(path, damage)
    with pytest.raises(InputError, match=f"{path.name}.*{text}"):
        read_authors_responses(dataset, root=copy)


def test_an_absent_file_or_task_is_named(tmp_path):
    with pytest.raises(InputError, match="PERTURBCORE_PAPER_DATA"):
        read_authors_responses("essential", root=tmp_path)
    with pytest.raises(ParameterError, match="task of .*'deg' is not one of: lfc"):
        read_authors_responses("norman", "deg", tmp_path)


def test_a_leaking_fold_column_is_reported(root):
    read = read_authors_responses("essential", root=root)
    moved = read.obs["perturbation"].isin(sorted(set(read.obs["perturbation"]))[:3])
    read.obs["fold"] += moved & (read.obs["cell_line"] == "Hep-G2")
    with pytest.warns(UserWarning, match="3 perturbations are in different folds in different"):
        check_leakage(read)
    pytest.raises(LeakError, check_leakage, read, joint=True).match("3 perturbations")


# --- embeddings


def test_embeddings_bear_the_names_and_modalities_of_the_figures_in_their_order(root):
    listed, left_out = list_embeddings("essential", ["K-562", "Jurkat"], root)
    shown = [f"{e.display} | {e.modality} | {e.cell_line}" for e in listed]
    # as the figure: the control first, then proteins before prior knowledge
    places = [f"PCA | Negative control | {line}" for line in ("K-562", "Jurkat")]
    places += ["AIDO.StructureTokenizer | Protein | None", "STRING WaveGC | Prior knowledge | None"]
    assert [name for name in shown if name in places] == places
    assert "Norman" not in str([e.key for e in listed])
    for words in ("ESM2 left out", "scGPT of K-562 left out", "Hep-G2.* no responses"):
        assert re.search(words, str(left_out))
    keys = str([e.key for e in list_embeddings("norman", root=root)[0]])
    assert "AIDOcell_3M_Norman_Aligned_(D=128)" in keys and "_essential_" not in keys


def test_embeddings_hold_the_rows_of_the_file_as_float32(root):
    responses = read_authors_responses("essential", root=root)
    found, _ = read_embeddings("essential", responses, root, names=["STRING WaveGC", "PCA"])
    lines = [e.cell_line for e in found if e.name == "PCA"]
    assert sorted(lines) == sorted(LAYOUTS["essential"].lines) and len(found) == 5
    wavegc = next(e for e in found if e.name == "STRING WaveGC")
    raw = ad.read_h5ad(root / "gene_embeddings" / f"{WAVEGC}.h5ad")
    assert sp.issparse(raw.X) and wavegc.X.dtype == np.float32 and wavegc.cell_line is None
    wanted = set(responses.obs["perturbation"]) & set(raw.obs_names)
    assert set(wavegc.ids) == wanted and len(wanted) < responses.obs["perturbation"].nunique()
    np.testing.assert_array_equal(wavegc.X, raw[list(wavegc.ids)].X.toarray())
    drugs = read_authors_responses("tahoe", root=root)
    cids = read_embeddings("tahoe", drugs, root)[0][0]
    assert cids.identifier == "drug" and cids.ids.str.fullmatch(r"\d+").all()
    with pytest.raises(ParameterError, match="no embedding 'nothing'"):
        read_embeddings("essential", responses, root, names=["nothing"])


def test_an_embedding_lacking_a_drug_is_refused_as_published_or_by_choice(copy):
    path = copy / LAYOUTS["sciplex"].drug_embeddings
    change(path, lambda a: a[1:].copy())
    responses = read_authors_responses("sciplex", root=copy)
    with pytest.raises(InputError, match=f"{path.name}.*Simulated drug 000"):
        read_embeddings("sciplex", responses, copy)
    found, notes = read_embeddings("sciplex", responses, copy, missing_drugs="leave_out")
    assert not found and sum("it lacks 1 drugs" in n for n in notes) == 3
    assert len(read_embeddings("sciplex", responses, copy, missing_drugs="train_mean")[0]) == 3


def test_bad_embedding_files_are_named(copy):
    responses = read_authors_responses("norman", root=copy)
    change(copy / "gene_embeddings" / f"{WAVEGC}.h5ad", lambda a: a.X.data.fill(np.nan))
    with pytest.raises(InputError, match=r"combined_0\.0.*gaps or infinite"):
        read_embeddings("norman", responses, copy)


# --- the benchmark


def plain(responses, cell_line, embedding, estimator="knn"):
    """L2 and tuned value of fold 0 by scikit-learn alone; without an embedding: of the responses."""
    layout = LAYOUTS[responses.uns["perturbcore"]["dataset"]]
    rows = responses[responses.obs["cell_line"] == cell_line]
    Y, test = np.asarray(rows.X), (rows.obs["fold"] == 0).to_numpy()
    q = layout.n_components
    parts, known = [StandardScaler(), PCA(q, svd_solver="full")], np.ones(len(Y), bool)
    if embedding is None:
        X, parts = PCA(q, svd_solver="full").fit_transform(Y), []
    else:
        X, known = align(embedding, rows.obs["perturbation"].astype(str).to_numpy())
    model, grid = {
        "knn": (KNeighborsRegressor(), {"kneighborsregressor__n_neighbors": list(layout.k)}),
        "lasso": (Lasso(), {"lasso__alpha": list(layout.alpha)}),
    }[estimator]
    loss = make_scorer(lambda y, p: -np.linalg.norm(y - p, axis=1).mean())
    inner = KFold(5, shuffle=True, random_state=42)
    search = GridSearchCV(make_pipeline(*parts, model), grid, scoring=loss, cv=inner)
    search.fit(X[~test & known], Y[~test & known])
    prediction = np.tile(Y[~test].mean(axis=0), (test.sum(), 1))
    prediction[known[test]] = search.predict(X[test & known])
    l2 = np.linalg.norm(prediction - Y[test], axis=1).mean()
    return l2, next(iter(search.best_params_.values()))


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_scores_equal_plain_scikit_learn_in_the_order_of_the_file(copy, dataset):
    path, name = copy / LAYOUTS[dataset].files["lfc"], NAMED[dataset]
    order = np.random.default_rng(1).permutation(ad.read_h5ad(path).n_obs)
    change(path, lambda a: a[order].copy())
    responses = read_authors_responses(dataset, root=copy)
    (used, *_), _ = read_embeddings(dataset, responses, copy, names=[name])
    # lasso is slow, the same whatever the data, and stops at scikit-learn's tolerance of 1e-4
    estimators = {"knn": 1e-6} | ({"lasso": 5e-4} if dataset == "tahoe" else {})
    few = dict(cell_lines=[FIRST[dataset]], folds=[0], estimators=list(estimators))
    scores = score_dataset(dataset, copy, embeddings=[name], progress=False, **few).scores
    scores = scores[scores["metric"] == "L2"].set_index(["predictor", "embedding"])
    for estimator, tolerance in estimators.items():
        for own, embedding in (("idealized", None), (name, used)):
            row = scores.loc[(estimator, own)]
            l2, chosen = plain(responses, FIRST[dataset], embedding, estimator)
            assert row["value"] == pytest.approx(l2, abs=tolerance)
            assert float(row["chosen"]) == float(chosen)


def test_what_is_absent_is_left_out_and_named(copy):
    (copy / LAYOUTS["tahoe"].files["lfc"]).unlink()
    shutil.rmtree(copy / "sciplex")
    (copy / "gene_embeddings" / f"{WAVEGC}.h5ad").unlink()
    lines = {"essential": ["K-562"]}
    few = dict(folds=[0], estimators=["knn"], progress=False)
    done = reproduce(LAYOUTS, root=copy, cell_lines=lines, **few)
    assert set(done.scores["dataset"]) == {"essential", "norman"} == set(present(copy)[0])
    for words in ("tahoe: left out", "sciplex: left out", "STRING WaveGC left out"):
        assert any(words in note for note in done.notes)
    assert "STRING WaveGC" not in set(done.scores["embedding"])
    with pytest.raises(InputError, match="no data of the authors"):
        reproduce(LAYOUTS, root=copy / "nowhere")


# --- the download


NORMAN, ESM2 = LAYOUTS["norman"].files["lfc"], "gene_embeddings/ESM2_(D=1280).h5ad"
FILES = {NORMAN: b"norman", ESM2: b"esm2" * 9, "essential/raw_data.h5ad": b"not read"}


def host(files=FILES, wrong=""):
    """Stand for the data's host: files with size and checksum, one of which comes turned around."""

    def about(repo_id, *, files_metadata):
        siblings = [
            SimpleNamespace(rfilename=n, size=len(c), lfs={"sha256": hashlib.sha256(c).hexdigest()})
            for n, c in files.items()
        ]
        card = {"license": "cc-by-nc-4.0"}
        return SimpleNamespace(sha="abc123", siblings=siblings, card_data=card)

    def download(*where, revision, local_dir, allow_patterns, repo_type):
        assert (*where, repo_type, revision) == (authors.REPOSITORY, "dataset", "abc123")
        for filename in filter_repo_objects(files, allow_patterns=allow_patterns):
            path = local_dir / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[filename][:: -1 if filename == wrong else 1])

    return SimpleNamespace(dataset_info=about, snapshot_download=download)


def test_what_is_read_is_fetched_with_size_and_licence(tmp_path, capsys):
    assert authors.fetch_authors_data(tmp_path, client=host()) == tmp_path
    said = capsys.readouterr().err
    assert "cc-by-nc-4.0" in said and "2 files (" in said
    got = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert got == {name: FILES[name] for name in (NORMAN, ESM2)}


def test_what_cannot_be_fetched_is_refused_with_a_way_out(tmp_path):
    def away(*args, **kwargs):
        raise OSError("no connection")

    for client, message in (
        (host(wrong=ESM2), "not the file the host states"),
        (host({"other.txt": b"x"}), "were they renamed"),
        (SimpleNamespace(dataset_info=away), f"no connection.*{authors.VARIABLE}"),
    ):
        with pytest.raises(DownloadError, match=message):
            authors.fetch_authors_data(tmp_path, client=client)
    assert not (tmp_path / ESM2).exists() and (tmp_path / NORMAN).exists()


def test_a_copy_on_disk_is_used_without_a_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(authors.VARIABLE, str(tmp_path))
    assert main(["data", "fetch", authors.REPOSITORY]) == 0
    assert "nothing is downloaded" in capsys.readouterr().out
    monkeypatch.setenv(authors.VARIABLE, str(tmp_path / "no"))
    assert main(["data", "fetch", authors.REPOSITORY]) == 2
