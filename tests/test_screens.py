import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.effects import ba_ate, pseudobulk
from perturbcore.data.screens import values as room
from perturbcore.data.screens.declare import (
    declare_screen,
    kinds_of_cells,
    normalise,
    read_screen,
    validate_screen,
)

FACTS = {"dataset": "t", "scale": "counts", "control": "ntc"}


def raw(n=40, g=6, seed=0):
    counts = np.random.default_rng(seed).poisson(2.0, (n, g)).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame({"perturbation": np.resize(["ntc", "A", "B", "C"], n), "cell_line": "x"})
    obs["batch"] = np.repeat([1, 2], n // 2)
    var = pd.DataFrame(index=[f"g{i}" for i in range(g)])
    return AnnData(sp.csr_matrix(counts), obs=obs.set_index("c" + obs.index.astype(str)), var=var)


def with_value(cell, gene, value, kind=sp.csr_matrix):
    adata = raw()
    dense = adata.X.toarray()
    dense[cell, gene] = value
    adata.X = kind(dense)
    return adata


def test_declaring_gives_the_columns_that_every_screen_has():
    adata = raw()
    adata.obs = adata.obs.rename(columns={"perturbation": "guide", "batch": "gem"})
    adata.obs["depth"] = 3
    adata.obs["gem"] = adata.obs["gem"].astype(float)  # whole floats and categories are labels too
    adata.obs["guide"] = adata.obs["guide"].astype("category")
    screen = declare_screen(adata, perturbation="guide", batch="gem", **FACTS)
    assert list(screen.obs.columns[:4]) == ["perturbation", "batch", "cell_line", "is_control"]
    assert set(screen.obs["batch"]) == {"1", "2"} and screen.obs["perturbation"].dtype == object
    assert screen.obs["is_control"].sum() == 10 and (screen.obs["depth"] == 3).all()
    assert screen.uns["perturbcore"]["scale"] == "counts" and "is_control" not in adata.obs
    validate_screen(screen)


def test_controls_by_several_labels_or_by_a_column():
    adata = raw()
    adata.obs.loc["c0", "perturbation"] = "ntc2"
    several = declare_screen(adata, **(FACTS | {"control": ["ntc", "ntc2"]}))
    assert several.obs.loc["c0", "perturbation"] == "ntc"
    assert several.obs["is_control"].sum() == 10
    flag = adata.obs["flag"] = adata.obs["perturbation"].isin(["ntc", "ntc2"]).astype(str)
    by_flag = FACTS | {"control": None, "control_column": "flag"}
    flagged = declare_screen(adata, **by_flag)
    assert set(flagged.obs["perturbation"][flagged.obs["is_control"]]) == {"control"}
    with pytest.raises(ParameterError, match="in one way"):
        declare_screen(adata, control_column="flag", **FACTS)
    for value, message in (("True", r"\['A'\].*calls controls"), ("perhaps", "perhaps")):
        adata.obs["flag"] = flag.where(flag.index != "c1", value)
        pytest.raises(InputError, declare_screen, adata, **by_flag).match(message)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scale": "raw"}, ParameterError, "scale 'raw'.*counts, log1p"),
        ({"identifier": "uniprot"}, ParameterError, "identifier 'uniprot'"),
        ({"unmatched": "ignore"}, ParameterError, "unmatched 'ignore'"),
        ({"control": None}, ParameterError, "name the controls"),
        ({"dataset": ""}, ParameterError, "give the data set a name"),
        ({"cell_line_value": " "}, ParameterError, "cell_line_value is empty"),
        ({"perturbation": "guide"}, InputError, "no column 'guide'.*'perturbation'"),
        ({"cell_line": "line"}, InputError, "no column 'line'.*cell_line_value"),
        ({"control": None, "control_column": "flag"}, InputError, "no column 'flag'"),
        ({"control": "non-targeting"}, InputError, r"label \['non-targeting'\] not in obs"),
        ({"control": ["ntc", "dmso"]}, InputError, r"control label \['dmso'\]"),
    ],
)
def test_unknown_options_and_names_are_refused(change, error, message):
    pytest.raises(error, declare_screen, raw(), **(FACTS | change)).match(message)


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
    pytest.raises(InputError, declare_screen, with_value(5, 3, value, kind), **FACTS).match(message)


def logged(adata, total=1e4):
    sc.pp.normalize_total(adata, target_sum=total)
    sc.pp.log1p(adata)
    return adata


def test_logged_and_raw_are_not_mistaken_for_each_other():
    scaled = raw()
    sc.pp.normalize_total(scaled, target_sum=1e4)
    million = logged(raw(g=300), 1e6)
    million.X.data = np.minimum(million.X.data, 9.2)
    for adata, scale, message in (
        (logged(raw()), "counts", "look logged .*scale='log1p'"),
        (scaled, "counts", "or normalised"),
        (raw(), "log1p", "look like counts"),
        (with_value(5, 3, 400), "log1p", "scale='counts' if these are counts"),
        (scaled, "log1p", "larger than log1p"),
        (million, "log1p", "more than 1e4"),
    ):
        with pytest.raises(InputError, match=message):
            declare_screen(adata, **(FACTS | {"scale": scale}))
    assert declare_screen(logged(raw()), **(FACTS | {"scale": "log1p"})).n_obs == 40


def test_empty_cells_and_empty_screens_are_refused():
    adata = raw()
    dense = adata.X.toarray()
    dense[[3, 9]] = 0
    for kind in (sp.csr_matrix, sp.csc_matrix, np.asarray):
        adata.X = kind(dense)
        with pytest.raises(InputError, match="2 cells have a total of zero, first 'c3'"):
            declare_screen(adata, **FACTS)
    bare = AnnData(obs=raw().obs, var=raw().var)
    for adata, message in ((raw()[:0], "empty"), (raw()[:, :0], "empty"), (bare, "no X")):
        pytest.raises(InputError, declare_screen, adata.copy(), **FACTS).match(message)


def test_names_must_be_unique():
    for axis, names in (("genes", ["g0", "g1", "g1", *"abc"]), ("cells", ["c0"] * 40)):
        adata = raw()
        setattr(adata, "var_names" if axis == "genes" else "obs_names", names)
        with pytest.raises(InputError, match=rf"duplicated {axis}.*\['{names[1]}'\]"):
            declare_screen(adata, **FACTS)


def test_every_line_needs_controls_and_perturbed_cells():
    adata = raw()
    adata.obs["cell_line"] = np.where(adata.obs["perturbation"] == "C", "y", "x")
    with pytest.raises(InputError, match=r"cell_line \['y'\]: no control cells"):
        declare_screen(adata, **FACTS)
    only = raw()
    only = only[only.obs["perturbation"] == "ntc"].copy()
    pytest.raises(InputError, declare_screen, only, **FACTS).match("no perturbed cells")
    screen = declare_screen(raw(), **FACTS)
    screen.obs["is_control"] = False
    pytest.raises(InputError, validate_screen, screen).match("no control cells")
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


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("backed", [False, True])
def test_files_are_read_and_checked(tmp_path, backed, kind):
    adata, path = raw(), tmp_path / "raw.h5ad"
    adata.X = kind(adata.X.toarray())
    adata.write_h5ad(path)
    screen = read_screen(path, backed=backed, **FACTS)
    assert screen.isbacked == backed
    assert screen.obs["batch"].tolist() == [str(b) for b in adata.obs["batch"]]
    with pytest.raises(ParameterError, match=r"raw.h5ad.*obs has \['perturbation'"):
        read_screen(path, backed=backed)
    path = tmp_path / "bad.h5ad"
    with_value(5, 3, 0.5, kind).write_h5ad(path)
    with pytest.raises(InputError, match=r"bad.h5ad.*X\['c5', 'g3'\]"):
        read_screen(path, backed=backed, **FACTS)


@pytest.mark.parametrize("declared", [True, False])
def test_without_names_of_cells_all_else_is_the_same(tmp_path, declared):
    path, facts = tmp_path / "s.h5ad", {} if declared else {**FACTS, "unmatched": "drop"}
    adata = declare_screen(raw(), **FACTS) if declared else raw()
    adata.write_h5ad(path)
    named, plain = (read_screen(path, backed=True, names=n, **facts) for n in (True, False))
    assert plain.isbacked and list(plain.obs_names) == list(range(named.n_obs))
    assert set(plain.obs) == set(named.obs)
    for column in named.obs:
        assert plain.obs[column].tolist() == named.obs[column].tolist()
    np.testing.assert_array_equal(ba_ate(plain).X, ba_ate(named).X)
    # what needs names has them: messages, tables on cells, layers, and files of other kinds
    in_memory = read_screen(path, names=False, **facts)
    assert in_memory.obs_names.tolist() == named.obs_names.tolist()
    twice = raw()
    twice.obs_names = ["c0", "c0", *twice.obs_names[2:]]
    for wrong, message in (
        (with_value(5, 3, 0.5, sp.csr_matrix), r"X\['c5', 'g3'\]"),
        (twice, r"duplicated cells \(obs_names\): \['c0'\]"),
    ):
        wrong.write_h5ad(tmp_path / "wrong.h5ad")
        with pytest.raises(InputError, match=message):
            read_screen(tmp_path / "wrong.h5ad", backed=True, names=False, **FACTS)
        (tmp_path / "wrong.h5ad").unlink()


def test_broken_files_are_named(tmp_path):
    (tmp_path / "text.h5ad").write_text("a,b\n1,2\n")
    raw(400).write_h5ad(tmp_path / "whole.h5ad")
    whole = (tmp_path / "whole.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    with h5py.File(tmp_path / "other.h5ad", "w") as f:
        f["x"] = [1]
    AnnData(raw().X).write_h5ad(tmp_path / "bare.h5ad")
    for name, message in {
        "none": "no such file",
        **dict.fromkeys(("text", "cut", "other"), "not a readable .h5ad"),
        "bare": "obs has no column 'perturbation'",
    }.items():
        with pytest.raises(InputError, match=rf"{name}.h5ad: {message}"):
            read_screen(tmp_path / f"{name}.h5ad", **FACTS)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_normalisation_is_scanpys(kind, tmp_path):
    adata = raw(200, 30)
    adata.X = kind(adata.X.toarray())
    screen = declare_screen(adata, **FACTS)
    want = logged(raw(200, 30))
    got = normalise(screen)
    assert sp.issparse(got.X) and got.X.format == "csr"
    np.testing.assert_allclose(got.X.toarray(), want.X.toarray(), atol=1e-5)
    assert got.uns["perturbcore"]["scale"] == "log1p"
    assert screen.uns["perturbcore"]["scale"] == "counts"
    assert screen.X.max() == adata.X.max()
    validate_screen(got)
    np.testing.assert_array_equal(normalise(got).X.toarray(), got.X.toarray())
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


def test_kinds_of_cells_are_the_sorted_combinations_of_their_labels_as_text():
    obs = pd.DataFrame({
        "cell_line": pd.Categorical(["B", "A", "B", "A"], ["unseen", "B", "A"]),
        "perturbation": ["TP53", np.nan, "MYC", "TP53"],
        "batch": [10, 9, 10, 2.5],
        "is_control": [False, True, True, False],
    }, index=list("wxyz")).iloc[[0, 1, 2, 0, 3]]  # fmt: skip
    kinds, kind = kinds_of_cells(obs)
    names = ["cell_line", "batch", "perturbation"]
    want = obs.astype(dict.fromkeys(names, str)).groupby([*names, "is_control"]).size()
    pd.testing.assert_frame_equal(kinds, want.rename("n").reset_index(), check_dtype=False)
    labels = obs[names].astype(str).reset_index(drop=True)
    pd.testing.assert_frame_equal(kinds.loc[kind, names].reset_index(drop=True), labels)
