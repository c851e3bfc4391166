import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.effects.ba_ate import ba_ate
from perturbcore.data.effects.moments import pseudobulk
from perturbcore.data.screens import values as room
from perturbcore.data.screens.declare import declare_screen, validate_screen
from perturbcore.data.screens.read import normalise, read_screen

FACTS = {"dataset": "t", "scale": "counts", "control": "ntc"}


def raw(n=40, g=6, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2.0, (n, g)).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {
            "perturbation": np.resize(["ntc", "A", "B", "C"], n),
            "batch": np.repeat([1, 2], n // 2),
            "cell_line": "x",
        },
        index=[f"c{i}" for i in range(n)],
    )
    return AnnData(
        sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(g)])
    )


def with_value(cell, gene, value, kind=sp.csr_matrix):
    adata = raw()
    dense = adata.X.toarray()
    dense[cell, gene] = value
    adata.X = kind(dense)
    return adata


def test_declaring_gives_the_columns_every_room_expects():
    adata = raw()
    adata.obs = adata.obs.rename(columns={"perturbation": "guide", "batch": "gem"})
    adata.obs["depth"] = 3
    screen = declare_screen(adata, perturbation="guide", batch="gem", **FACTS)
    assert list(screen.obs.columns[:4]) == ["perturbation", "batch", "cell_line", "is_control"]
    assert set(screen.obs["batch"]) == {"1", "2"}
    assert screen.obs["is_control"].sum() == 10
    assert (screen.obs["depth"] == 3).all()
    assert screen.uns["perturbcore"]["scale"] == "counts"
    assert "is_control" not in adata.obs
    validate_screen(screen)


def test_controls_by_several_labels_or_by_a_column():
    adata = raw()
    adata.obs.loc["c0", "perturbation"] = "ntc2"
    several = declare_screen(adata, **(FACTS | {"control": ["ntc", "ntc2"]}))
    assert several.obs.loc["c0", "perturbation"] == "ntc"
    assert several.obs["is_control"].sum() == 10
    adata.obs["flag"] = np.where(adata.obs["perturbation"].isin(["ntc", "ntc2"]), "True", "False")
    flagged = declare_screen(adata, control_column="flag", **(FACTS | {"control": None}))
    assert set(flagged.obs["perturbation"][flagged.obs["is_control"]]) == {"control"}
    with pytest.raises(InputError, match="c0.*disagree"):
        declare_screen(adata, control_column="flag", **FACTS)
    adata.obs.loc["c1", "flag"] = "True"
    with pytest.raises(InputError, match=r"\['A'\].*calls controls"):
        declare_screen(adata, control_column="flag", **(FACTS | {"control": None}))
    adata.obs.loc["c1", "flag"] = "perhaps"
    with pytest.raises(InputError, match="perhaps"):
        declare_screen(adata, control_column="flag", **(FACTS | {"control": None}))


def test_whole_floats_and_categories_are_the_same_labels():
    adata = raw()
    adata.obs["batch"] = adata.obs["batch"].astype(float)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype("category")
    screen = declare_screen(adata, **FACTS)
    assert set(screen.obs["batch"]) == {"1", "2"}
    assert screen.obs["perturbation"].dtype == object


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "raw"}, "scale='raw'.*'counts'"),
        ({"identifier": "uniprot"}, "identifier='uniprot'"),
        ({"unmatched": "ignore"}, "unmatched='ignore'"),
        ({"control": None}, "name the controls"),
        ({"dataset": ""}, "give the data set a name"),
        ({"cell_line_value": " "}, "cell_line_value is empty"),
    ],
)
def test_unknown_options_are_refused(change, message):
    with pytest.raises(ParameterError, match=message):
        declare_screen(raw(), **(FACTS | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perturbation": "guide"}, "no column 'guide'.*'perturbation'"),
        ({"cell_line": "line"}, "no column 'line'.*cell_line_value"),
        ({"control_column": "flag"}, "no column 'flag'"),
        ({"control": "non-targeting"}, r"control label \['non-targeting'\] not in obs"),
        ({"control": ["ntc", "dmso"]}, r"control label \['dmso'\]"),
    ],
)
def test_wrong_names_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        declare_screen(raw(), **(FACTS | change))


@pytest.mark.parametrize("value", [np.nan, None, "", "  "])
@pytest.mark.parametrize("column", ["perturbation", "batch", "cell_line"])
def test_missing_and_empty_labels_are_refused(column, value):
    adata = raw()
    adata.obs[column] = adata.obs[column].astype(object)
    adata.obs.loc["c7", column] = value
    with pytest.raises(InputError, match=rf"obs\['{column}'\] is .* 1 cells, first 'c7'"):
        declare_screen(adata, **FACTS)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-2, r"X\['c5', 'g3'\] = -2 is negative"),
        (np.nan, r"X\['c5', 'g3'\] = nan is not finite"),
        (np.inf, r"X\['c5', 'g3'\] = inf is not finite"),
        (1.5, r"X\['c5', 'g3'\] = 1.5 is not a whole number"),
    ],
)
def test_impossible_counts_are_refused(value, message, kind):
    with pytest.raises(InputError, match=message):
        declare_screen(with_value(5, 3, value, kind), **FACTS)


def test_logged_and_raw_are_not_mistaken_for_each_other():
    logged = raw()
    sc.pp.normalize_total(logged, target_sum=1e4)
    scaled = logged.copy()
    sc.pp.log1p(logged)
    with pytest.raises(InputError, match="already logged.*scale='log1p'"):
        declare_screen(logged, **FACTS)
    with pytest.raises(InputError, match="normalised but not logged"):
        declare_screen(scaled, **FACTS)
    with pytest.raises(InputError, match="look like counts"):
        declare_screen(raw(), **(FACTS | {"scale": "log1p"}))
    with pytest.raises(InputError, match="look like counts"):
        declare_screen(with_value(5, 3, 400), **(FACTS | {"scale": "log1p"}))
    with pytest.raises(InputError, match="larger than log1p"):
        declare_screen(scaled, **(FACTS | {"scale": "log1p"}))
    million = raw(g=300)
    sc.pp.normalize_total(million, target_sum=1e6)
    sc.pp.log1p(million)
    million.X.data = np.minimum(million.X.data, 9.2)
    with pytest.raises(InputError, match="more than 1e4"):
        declare_screen(million, **(FACTS | {"scale": "log1p"}))
    assert declare_screen(logged, **(FACTS | {"scale": "log1p"})).n_obs == 40


def test_empty_cells_and_empty_screens_are_refused():
    adata = raw()
    dense = adata.X.toarray()
    dense[[3, 9]] = 0
    for kind in (sp.csr_matrix, sp.csc_matrix, np.asarray):
        adata.X = kind(dense)
        with pytest.raises(InputError, match="2 cells have a total of zero, first 'c3'"):
            declare_screen(adata, **FACTS)
    with pytest.raises(InputError, match="empty"):
        declare_screen(raw()[:0].copy(), **FACTS)
    with pytest.raises(InputError, match="empty"):
        declare_screen(raw()[:, :0].copy(), **FACTS)
    bare = AnnData(obs=raw().obs, var=raw().var)
    with pytest.raises(InputError, match="no X"):
        declare_screen(bare, **FACTS)


def test_names_must_be_unique():
    adata = raw()
    adata.var_names = ["g0", "g1", "g1", "g3", "g4", "g5"]
    with pytest.raises(InputError, match=r"duplicated genes.*\['g1'\]"):
        declare_screen(adata, **FACTS)
    adata = raw()
    adata.obs_names = ["c0", "c0", *adata.obs_names[2:]]
    with pytest.raises(InputError, match=r"duplicated cells.*\['c0'\]"):
        declare_screen(adata, **FACTS)


def test_every_line_needs_controls_and_perturbed_cells():
    adata = raw()
    adata.obs["cell_line"] = np.where(adata.obs["perturbation"] == "C", "y", "x")
    with pytest.raises(InputError, match=r"cell_line \['y'\]: no control cells"):
        declare_screen(adata, **FACTS)
    only = raw()
    only = only[only.obs["perturbation"] == "ntc"].copy()
    with pytest.raises(InputError, match="no perturbed cells"):
        declare_screen(only, **FACTS)
    screen = declare_screen(raw(), **FACTS)
    screen.obs["is_control"] = False
    with pytest.raises(InputError, match="no control cells"):
        validate_screen(screen)
    screen = declare_screen(raw(), **FACTS)
    screen.obs.loc["c1", "perturbation"] = "ntc"
    with pytest.raises(InputError, match=r"\['ntc'\] labels control and perturbed"):
        validate_screen(screen)


def test_perturbations_without_controls_in_their_batches():
    adata = raw()
    adata.obs["batch"] = np.where(adata.obs["perturbation"] == "C", "far", "near")
    with pytest.raises(InputError, match=r"1 perturbations.*'C \(x\)'.*unmatched='drop'"):
        declare_screen(adata, **FACTS)
    dropped = declare_screen(adata, unmatched="drop", **FACTS)
    assert set(dropped.obs["perturbation"]) == {"ntc", "A", "B"}
    kept = declare_screen(adata, unmatched="keep", **FACTS)
    assert "C" in set(kept.obs["perturbation"])
    validate_screen(kept)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("backed", [False, True])
def test_files_are_read_and_checked(tmp_path, backed, kind):
    adata = raw()
    if kind != "csr":
        adata.X = adata.X.toarray() if kind == "dense" else adata.X.tocsc()
    path = tmp_path / "raw.h5ad"
    adata.write_h5ad(path)
    screen = read_screen(path, backed=backed, **FACTS)
    assert screen.isbacked == backed
    assert screen.obs["batch"].tolist() == [str(b) for b in adata.obs["batch"]]
    with pytest.raises(ParameterError, match=r"raw.h5ad.*obs has \['perturbation'"):
        read_screen(path, backed=backed)
    bad = with_value(5, 3, 0.5)
    bad.write_h5ad(tmp_path / "bad.h5ad")
    path = tmp_path / "bad.h5ad"
    with pytest.raises(InputError, match=r"bad.h5ad.*X\['c5', 'g3'\]"):
        read_screen(path, backed=backed, **FACTS)


def test_a_declared_screen_comes_back_as_it_was(tmp_path):
    screen = declare_screen(raw(), simulated=True, **FACTS)
    screen.copy().write_h5ad(tmp_path / "s.h5ad")
    back = read_screen(tmp_path / "s.h5ad")
    pd.testing.assert_frame_equal(back.obs, screen.obs)
    assert back.uns["perturbcore"] == screen.uns["perturbcore"]


def test_broken_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none.h5ad: no such file"):
        read_screen(tmp_path / "none.h5ad", **FACTS)
    text = tmp_path / "text.h5ad"
    text.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"text.h5ad: not an .h5ad"):
        read_screen(text, **FACTS)
    whole = tmp_path / "whole.h5ad"
    raw(400).write_h5ad(whole)
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut.h5ad: cannot be read"):
        read_screen(cut, **FACTS)
    other = tmp_path / "other.h5ad"
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "t.csv")
    with h5py.File(other, "w") as f:
        f["x"] = [1]
    with pytest.raises(InputError, match=r"other.h5ad: HDF5, but not AnnData"):
        read_screen(other, **FACTS)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_normalisation_is_scanpys(kind, tmp_path):
    adata = raw(200, 30)
    adata.X = kind(adata.X.toarray())
    screen = declare_screen(adata, **FACTS)
    want = raw(200, 30)
    sc.pp.normalize_total(want, target_sum=1e4)
    sc.pp.log1p(want)
    got = normalise(screen)
    assert sp.issparse(got.X)
    assert got.X.format == "csr"
    np.testing.assert_allclose(got.X.toarray(), want.X.toarray(), atol=1e-5)
    assert got.uns["perturbcore"]["scale"] == "log1p"
    assert screen.uns["perturbcore"]["scale"] == "counts"
    assert screen.X.max() == adata.X.max()
    validate_screen(got)
    assert normalise(got) is got
    screen.write_h5ad(tmp_path / "n.h5ad")
    backed = normalise(read_screen(tmp_path / "n.h5ad", backed=True))
    np.testing.assert_array_equal(backed.X.toarray(), got.X.toarray())


def test_sparse_cells_are_never_densified(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("densified")

    adata = raw()
    screen = declare_screen(adata, **FACTS)
    for name in ("toarray", "todense"):
        for kind in (sp.csr_matrix, sp.csc_matrix):
            monkeypatch.setattr(kind, name, refuse, raising=False)
    validate_screen(screen)
    normalise(screen)
    ba_ate(screen, control="matched")
    pseudobulk(screen)


def test_blocks_hold_few_values(monkeypatch):
    screen = declare_screen(raw(), **FACTS)
    monkeypatch.setattr(room, "BLOCK_VALUES", 11)
    parts = list(room.blocks(screen))
    assert max(b.nnz for _, _, b in parts) <= 11
    assert [a for a, _, _ in parts] == [0, *[b for _, b, _ in parts[:-1]]]
    together = sp.vstack([b for _, _, b in parts])
    assert (together != screen.X).nnz == 0


def test_a_file_of_another_kind_of_container(tmp_path):
    anndata.AnnData(raw().X).write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(InputError, match=r"bare.h5ad.*no column 'perturbation'"):
        read_screen(tmp_path / "bare.h5ad", **FACTS)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_dropping_from_a_backed_file_leaves_the_rest_as_in_memory(kind, tmp_path):
    adata = raw()
    adata.obs["batch"] = np.where(adata.obs["perturbation"] == "C", "far", "near")
    adata.X = kind(adata.X.toarray())
    adata.write_h5ad(tmp_path / "d.h5ad")
    backed = read_screen(tmp_path / "d.h5ad", backed=True, unmatched="drop", **FACTS)
    memory = declare_screen(adata, unmatched="drop", **FACTS)
    assert backed.isbacked
    assert list(backed.obs_names) == list(memory.obs_names)
    np.testing.assert_array_equal(ba_ate(backed).X, ba_ate(memory).X)
