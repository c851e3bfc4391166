import hashlib
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


def small(root, dataset="essential", **options):
    name = "STRING WaveGC" if dataset in ("essential", "norman") else "maccs"
    few = dict(embeddings=[name], cell_lines=[FIRST[dataset]], folds=[0], estimators=["knn"])
    return score_dataset(dataset, root, **(few | {"progress": False} | options))


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
    lines = raw.obs["cell_line"] if "cell_line" in raw.obs else pd.Series("K-562", raw.obs_names)
    assert list(read.obs["cell_line"]) == list(lines.astype(str))
    for i in range(0, raw.n_obs, 7):
        row, fold = raw.obs.iloc[i], int(read.obs["fold"].iloc[i])
        if layout.splits == "test_split":
            assert fold == int(float(row["test_split"]))
        else:
            assert [row[f"fold_{k}"] == "test" for k in range(5)] == [k == fold for k in range(5)]
        name = read.obs["perturbation"].iloc[i]
        assert name == str(row[layout.perturbation]).removesuffix(".0")
    check_leakage(read, joint=True)


def test_rows_keep_the_order_of_the_file_and_genes_are_found_by_name(copy):
    path = copy / LAYOUTS["norman"].files["lfc"]
    before = read_authors_responses("norman", root=copy)
    rng = np.random.default_rng(0)
    rows, genes = rng.permutation(before.n_obs), rng.permutation(before.n_vars)

    def shuffle(adata):
        adata.obs["test_split"] = adata.obs["test_split"].astype(int).astype(str).astype("category")
        return adata[rows][:, genes].copy()

    change(path, shuffle)
    after = read_authors_responses("norman", root=copy)
    assert list(after.obs["fold"]) == list(before.obs["fold"].iloc[rows])
    assert list(after.obs["perturbation"]) == list(before.obs["perturbation"].iloc[rows])
    np.testing.assert_array_equal(after[:, before.var_names].X, before[rows].X)


def test_of_several_doses_the_published_one_is_kept(copy):
    path = copy / LAYOUTS["sciplex"].files["lfc"]
    before = read_authors_responses("sciplex", root=copy)

    def more(adata):
        low = adata.copy()
        low.X = low.X * 0
        low.obs["dose"] = 10.0
        low.obs_names = "low " + low.obs_names
        out = ad.concat([low, adata])
        # the published code's trap: doses as text
        out.obs["dose"] = out.obs["dose"].astype(str)
        return out

    change(path, more)
    after = read_authors_responses("sciplex", root=copy)
    np.testing.assert_array_equal(after.X, before.X)
    assert "dose" in after.uns["perturbcore"]["notes"][0]


def test_drugs_that_share_a_cid_stay_two_perturbations_with_one_embedding(copy):
    path = copy / LAYOUTS["tahoe"].files["lfc"]
    cid = str(read_authors_responses("tahoe", root=copy).obs["perturbation"].iloc[0])

    def share(adata):
        second = adata.obs["drug"] == "Simulated drug 001"
        adata.obs.loc[second, "pubchem_cid"] = int(cid)

    change(path, share)
    read = read_authors_responses("tahoe", root=copy)
    names = [n for n in read.obs["perturbation"].unique() if n.startswith(f"{cid} (")]
    assert names == [f"{cid} (Simulated drug 000)", f"{cid} (Simulated drug 001)"]
    assert any("share PubChem CID" in n for n in read.uns["perturbcore"]["notes"])
    maccs = next(e for e in read_embeddings("tahoe", read, copy)[0] if e.name == "MACCS")
    a, b = maccs.ids.get_indexer(names)
    np.testing.assert_array_equal(maccs.X[a], maccs.X[b])


def put(column, value, row=0):
    """A damage: one value of a column of obs."""

    def damage(adata):
        values = adata.obs[column].astype(object).to_numpy(copy=True)
        values[row] = adata.obs[column].iloc[1] if value is None else value
        adata.obs[column] = pd.Series(values, adata.obs_names).infer_objects()

    return damage


def drop(*columns):
    return lambda adata: adata.obs.drop(columns=list(columns), inplace=True)


DAMAGE = {
    "no gene": ("essential", drop("gene_id"), "'gene_id'"),
    "no line": ("essential", drop("cell_line"), "'cell_line'"),
    "no fold": ("essential", drop("test_split"), "'test_split'"),
    "half a fold": ("norman", put("test_split", 0.5), "'test_split' has '0.5' in row 1"),
    "empty fold": ("essential", put("test_split", np.nan, 2), "'test_split' is empty in row 3"),
    "twice": ("norman", put("gene_id", None), "two rows"),
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
    with pytest.raises(InputError, match=text) as error:
        read_authors_responses(dataset, root=copy)
    assert path.name in str(error.value)


def test_a_truncated_file_and_an_absent_one_are_named(copy):
    path = copy / LAYOUTS["essential"].files["lfc"]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="not a readable .h5ad"):
        read_authors_responses("essential", root=copy)
    path.unlink()
    with pytest.raises(InputError, match="PERTURBCORE_PAPER_DATA"):
        read_authors_responses("essential", root=copy)
    with pytest.raises(ParameterError, match="task of .*'deg' is not one of: lfc"):
        read_authors_responses("norman", "deg", copy)


def test_a_leaking_fold_column_is_reported(copy):
    def leak(adata):
        moved = adata.obs["gene_id"].isin(sorted(set(adata.obs["gene_id"]))[:3])
        moved &= adata.obs["cell_line"] == "Hep-G2"
        adata.obs["test_split"] = (adata.obs["test_split"].astype(float) + moved) % 5

    change(copy / LAYOUTS["essential"].files["lfc"], leak)
    read = read_authors_responses("essential", root=copy)
    with pytest.warns(UserWarning, match="3 perturbations are in different folds in different"):
        check_leakage(read)
    pytest.raises(LeakError, check_leakage, read, joint=True).match("3 perturbations")


# --- embeddings


def test_embeddings_bear_the_names_and_modalities_of_the_figures(root):
    listed, left_out = list_embeddings("essential", ["K-562", "Jurkat"], root)
    names = [(e.display, e.modality, e.cell_line) for e in listed]
    assert ("STRING WaveGC", "Prior knowledge", None) in names
    assert {("PCA", "Negative control", line) for line in ("K-562", "Jurkat")} <= set(names)
    assert ("AIDO.StructureTokenizer", "Protein", None) in names
    assert all("Norman" not in e.key for e in listed)
    # as the figure: the control first, then proteins before prior knowledge
    places = [[e.display for e in listed].index(n)
              for n in ("PCA", "AIDO.StructureTokenizer", "STRING WaveGC")]  # fmt: skip
    assert places == sorted(places)
    assert any("ESM2 left out" in line for line in left_out)
    assert any("scGPT of K-562 left out" in line for line in left_out)
    assert any("Hep-G2" in line and "no responses" in line for line in left_out)
    norman = list_embeddings("norman", root=root)[0]
    assert "AIDOcell_3M_Norman_Aligned_(D=128)" in [e.key for e in norman]
    assert all("essential" not in e.key for e in norman)


def test_embeddings_hold_the_rows_of_the_file_as_float32(root):
    responses = read_authors_responses("essential", root=root)
    found, _ = read_embeddings("essential", responses, root, names=["STRING WaveGC", "PCA"])
    assert {(e.name, e.cell_line) for e in found} == {
        ("STRING WaveGC", None),
        *(("PCA", line) for line in LAYOUTS["essential"].lines),
    }
    wavegc = next(e for e in found if e.name == "STRING WaveGC")
    raw = ad.read_h5ad(root / "gene_embeddings" / f"{WAVEGC}.h5ad")
    assert sp.issparse(raw.X) and wavegc.X.dtype == np.float32 and wavegc.dim == 128
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
    with pytest.raises(InputError, match="Simulated drug 000") as error:
        read_embeddings("sciplex", responses, copy)
    assert path.name in str(error.value)
    found, notes = read_embeddings("sciplex", responses, copy, missing_drugs="leave_out")
    assert not found and sum("it lacks 1 drugs" in n for n in notes) == 3
    found, _ = read_embeddings("sciplex", responses, copy, missing_drugs="train_mean")
    assert len(found) == 3


def test_bad_embedding_files_are_named(copy):
    responses = read_authors_responses("norman", root=copy)
    path = copy / "gene_embeddings" / f"{WAVEGC}.h5ad"

    def nan(adata):
        adata.X = adata.X.toarray()
        known = adata.obs_names.isin(responses.obs["perturbation"])
        adata.X[known.argmax(), 5] = np.nan

    change(path, nan)
    with pytest.raises(InputError, match=r"combined_0\.0.*gaps or infinite"):
        read_embeddings("norman", responses, copy, names=["STRING WaveGC"])
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"combined_0\.0.*not a readable .h5ad file"):
        read_embeddings("norman", responses, copy)


# --- the benchmark


def plain(responses, cell_line, embedding, estimator="knn"):
    """L2 and tuned value of fold 0 by scikit-learn alone; without an embedding: of the responses."""
    layout = LAYOUTS[responses.uns["perturbcore"]["dataset"]]
    rows = responses[responses.obs["cell_line"] == cell_line]
    Y, test = np.asarray(rows.X), (rows.obs["fold"] == 0).to_numpy()
    q, parts = layout.n_components, [StandardScaler()]
    if embedding is None:
        both = np.vstack([Y[~test], Y[test]])
        X, known, parts = np.empty((len(Y), q), Y.dtype), np.ones(len(Y), bool), []
        coordinates = PCA(q, svd_solver="full").fit_transform(both)
        X[~test], X[test] = np.split(coordinates, [(~test).sum()])
    else:
        parts.append(PCA(q, svd_solver="full"))
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


def holds_against_plain(scores, responses, used, estimator="knn", tolerance=1e-6):
    line = scores["cell_line"].iloc[0]
    for name, embedding in (("idealized", None), *((e.name, e) for e in used)):
        own = (scores["embedding"] == name) & (scores["predictor"] == estimator)
        row = scores[own & (scores["metric"] == "L2")].iloc[0]
        l2, chosen = plain(responses, line, embedding, estimator)
        assert row["value"] == pytest.approx(l2, abs=tolerance), (name, estimator)
        assert float(row["chosen"]) == float(chosen), (name, estimator)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_scores_equal_plain_scikit_learn(root, dataset):
    responses = read_authors_responses(dataset, root=root)
    name = "STRING WaveGC" if dataset in ("essential", "norman") else "MACCS"
    used, _ = read_embeddings(dataset, responses, root, names=[name])
    # lasso is slow there, and the same whatever the data
    estimators = ["knn", "lasso"] if dataset == "tahoe" else ["knn"]
    scores = small(root, dataset, embeddings=[name], estimators=estimators).scores
    holds_against_plain(scores, responses, used)
    if "lasso" in estimators:  # coordinate descent stops at scikit-learn's tolerance of 1e-4
        holds_against_plain(scores, responses, used, "lasso", 5e-4)


def test_inner_folds_follow_the_order_of_the_file(copy):
    path = copy / LAYOUTS["essential"].files["lfc"]
    order = np.random.default_rng(1).permutation(ad.read_h5ad(path).n_obs)
    change(path, lambda a: a[order].copy())
    responses = read_authors_responses("essential", root=copy)
    used, _ = read_embeddings("essential", responses, copy, names=["STRING WaveGC"])
    holds_against_plain(small(copy).scores, responses, used)


def test_what_is_absent_is_left_out_and_named(copy):
    (copy / LAYOUTS["tahoe"].files["lfc"]).unlink()
    shutil.rmtree(copy / "sciplex")
    (copy / "gene_embeddings" / f"{WAVEGC}.h5ad").unlink()
    assert present(copy)[0] == ["essential", "norman"]
    done = reproduce(LAYOUTS, root=copy, progress=False, folds=[0], estimators=["knn"],
                     cell_lines={"essential": ["K-562"]})  # fmt: skip
    assert set(done.scores["dataset"]) == {"essential", "norman"}
    for name in ("tahoe", "sciplex"):
        assert any(note.startswith(f"{name}: left out") for note in done.notes)
    assert any("STRING WaveGC left out" in note for note in done.notes)
    assert "STRING WaveGC" not in set(done.scores["embedding"])
    pytest.raises(InputError, reproduce, LAYOUTS, root=copy / "nowhere").match(
        "no data of the authors"
    )


# --- the download


NORMAN, ESM2 = LAYOUTS["norman"].files["lfc"], "gene_embeddings/ESM2_(D=1280).h5ad"
FILES = {NORMAN: b"norman", ESM2: b"esm2" * 9, "essential/raw_data.h5ad": b"not read"}


class Host:
    """Stand for the data's host: files with size and checksum."""

    def __init__(self, files, wrong=()):
        self.files, self.wrong = files, set(wrong)

    def dataset_info(self, repo_id, revision=None, files_metadata=False):
        assert repo_id == authors.REPOSITORY and files_metadata
        siblings = [
            SimpleNamespace(rfilename=n, size=len(c), lfs={"sha256": hashlib.sha256(c).hexdigest()})
            for n, c in self.files.items()
        ]
        card = {"license": "cc-by-nc-4.0"}
        return SimpleNamespace(sha="abc123", siblings=siblings, card_data=card)

    def snapshot_download(self, repo_id, *, repo_type, revision, local_dir, allow_patterns):
        assert (repo_id, repo_type, revision) == (authors.REPOSITORY, "dataset", "abc123")
        for filename in filter_repo_objects(self.files, allow_patterns=allow_patterns):
            path = local_dir / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"cut off" if filename in self.wrong else self.files[filename])


def test_what_is_read_is_fetched_with_size_and_licence(tmp_path, capsys):
    folder = tmp_path / "paper"
    assert authors.fetch_authors_data(folder, client=Host(FILES)) == folder
    said = capsys.readouterr().err
    assert "cc-by-nc-4.0" in said and "2 files (" in said
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {NORMAN, ESM2}
    assert (folder / ESM2).read_bytes() == FILES[ESM2]


def test_what_cannot_be_fetched_is_refused_with_a_way_out(tmp_path):
    def refused(message, client):
        with pytest.raises(DownloadError, match=message):
            authors.fetch_authors_data(tmp_path, client=client)

    def away(*args, **kwargs):
        raise OSError("no connection")

    refused("not the file the host states", Host(FILES, wrong=[ESM2]))
    assert not (tmp_path / ESM2).exists() and (tmp_path / NORMAN).exists()
    refused("were they renamed", Host({"other.txt": b"x"}))
    refused(f"no connection.*{authors.VARIABLE}", SimpleNamespace(dataset_info=away))


def test_a_copy_on_disk_is_used_without_a_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(authors.VARIABLE, str(tmp_path))
    assert authors.fetch_authors_data(client=Host({})) == tmp_path == authors.data_root()
    assert "nothing is downloaded" in capsys.readouterr().out
    assert main(["data", "fetch", authors.REPOSITORY]) == 0
    monkeypatch.setenv(authors.VARIABLE, str(tmp_path / "no"))
    assert main(["data", "fetch", authors.REPOSITORY]) == 2
