from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cells_of, logged

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.deg import deg_labels
from perturbcore.data.effects import ba_ate, not_estimable_said, pseudobulk
from perturbcore.data.screens import values
from perturbcore.data.screens.declare import normalise, read_screen
from perturbcore.data.sets.base import Card

VARIANTS = [(c, b) for c in ("global", "matched") for b in ("with_controls", "all")]


def small_screen(seed=0, n_cells=400, n_genes=23, bare_batch=False, unmatched="keep"):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.4, 3.0, (n_cells, n_genes)))
    counts[:, 0] += 1
    counts[0, 1] = 5000  # beyond the table of small counts
    obs = pd.DataFrame()
    obs["perturbation"] = rng.choice([*"nABCD"], n_cells, p=[0.3, 0.3, 0.2, 0.1, 0.1])
    obs["perturbation"] = obs["perturbation"].replace("n", "ntc")
    obs["batch"] = rng.choice([*"1234"], n_cells, p=[0.4, 0.3, 0.2, 0.1])
    obs["cell_line"] = rng.choice(["x", "y"], n_cells)
    if bare_batch:
        obs.loc[(obs["perturbation"] == "ntc") & (obs["batch"] == "4"), "batch"] = "1"
    return cells_of(counts, **obs, control="ntc", unmatched=unmatched)


def loop_ba_ate(screen, control, batches):
    """The equations as they are printed: means of cells, then means of batches."""
    x, obs, effects = logged(screen.X), screen.obs, {}
    for line in sorted(set(obs["cell_line"])):
        inside = (obs["cell_line"] == line).to_numpy()
        ctrl = inside & obs["is_control"].to_numpy()
        y = {b: x[ctrl & (obs["batch"] == b).to_numpy()].mean(0) for b in set(obs["batch"][ctrl])}
        for p in sorted(set(obs["perturbation"][inside & ~ctrl])):
            mine = inside & (obs["perturbation"] == p).to_numpy()
            used = set(obs["batch"][mine])
            if batches == "with_controls":
                used &= set(y)
            treated = {b: x[mine & (obs["batch"] == b).to_numpy()].mean(0) for b in used}
            if control == "matched":
                effect = np.mean([treated[b] - y[b] for b in used], axis=0)
            else:
                effect = np.mean(list(treated.values()), axis=0) - np.mean(list(y.values()), axis=0)
            n = sum((mine & (obs["batch"] == b).to_numpy()).sum() for b in used)
            effects[f"{line}|{p}"] = (effect, n, len(used))
    return effects


@pytest.mark.parametrize(("control", "batches"), VARIANTS)
@pytest.mark.parametrize("bare", [False, True])
def test_ba_ate_is_the_printed_equation(control, batches, bare):
    screen = small_screen(bare_batch=bare)
    if bare and (control, batches) == ("matched", "all"):
        with pytest.raises(InputError, match=r"4 \(x\)"):
            ba_ate(screen, control=control, batches=batches)
        return
    got = ba_ate(screen, control=control, batches=batches)
    want = loop_ba_ate(screen, control, batches)
    assert list(got.obs_names) == list(want)
    assert got.X.dtype == np.float32
    for name, (effect, n, m) in want.items():
        np.testing.assert_allclose(got[name].X.ravel(), effect, atol=2e-6)
        assert got.obs.loc[name, "n_cells"] == n
        assert got.obs.loc[name, "n_batches"] == m
    assert got.uns["perturbcore"]["task"] == "lfc"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    order=st.permutations(range(60)),
    stored=st.integers(1, 300),
    control=st.sampled_from(["global", "matched"]),
)
def test_order_of_cells_and_size_of_blocks_do_not_matter(order, stored, control):
    screen = small_screen(3, 60, 7, unmatched="drop")
    want = ba_ate(screen, control=control, min_cells=1)
    order = [i for i in order if i < screen.n_obs]
    with patch.object(values, "BLOCK_VALUES", stored):
        got = ba_ate(screen[order].copy(), control=control, min_cells=1)
    np.testing.assert_allclose(got.X, want.X, atol=1e-6)
    pd.testing.assert_frame_equal(got.obs, want.obs)


def stored(screen, kind, folder):
    """The same screen, its matrix kept in another way."""
    x, kind = screen.X, kind.removeprefix("backed-")
    if kind == "lazy":
        other = pytest.importorskip("dask.array").from_array(x.toarray(), chunks=(90, -1))
    elif kind == "twofold":  # each value stored as two entries that add up to it
        parts = np.repeat(x.data / 2, 2), np.repeat(x.indices, 2), x.indptr * 2
        other = sp.csr_matrix(parts, shape=x.shape)
    else:
        other = {"dense": x.toarray(), "csc": x.tocsc(), "csr64": x.astype(np.int64)}.get(kind, x)
    out = AnnData(other, obs=screen.obs, var=screen.var, uns=dict(screen.uns))
    if folder is None:
        return out
    out.write_h5ad(folder / "s.h5ad")
    return read_screen(folder / "s.h5ad", backed=True)


KINDS = ["dense", "csc", "csr64", "lazy", "twofold"]


@pytest.mark.parametrize(
    "kind", [*KINDS, "backed-csr", "backed-csc", "backed-dense", "backed-csr64"]
)
def test_every_kind_of_storage_gives_the_same(kind, tmp_path, monkeypatch):
    screen = small_screen(1)
    backed = kind.startswith("backed")
    other = stored(screen, kind, tmp_path if backed else None)
    assert other.isbacked == backed
    by = ["cell_line", "perturbation", "batch"]
    genes = ["g5", "g2", "g11"]

    def same(f):
        np.testing.assert_allclose(f(other).X, f(screen).X, atol=1e-6)

    for options in ({}, {"genes": genes}):
        same(lambda s, options=options: ba_ate(s, **options))
    same(lambda s: pseudobulk(s, by))
    monkeypatch.setattr(values, "BLOCK_VALUES", 160)
    same(ba_ate)
    if kind != "lazy":
        same(lambda s: ba_ate(s[100:300], batches="all"))
    if kind == "twofold":
        assert other.X.nnz == 2 * screen.X.nnz


def test_genes_are_left_out_after_or_before_normalising_and_logged_values_stay():
    screen = small_screen(4)
    np.testing.assert_allclose(ba_ate(normalise(screen)).X, ba_ate(screen).X, atol=2e-6)
    genes = ["g9", "g0", "g3"]
    after = ba_ate(screen, genes=genes)
    assert list(after.var_names) == genes
    np.testing.assert_array_equal(after.X, ba_ate(screen)[:, genes].X)
    before = ba_ate(screen[:, genes].copy())
    assert np.abs(before.X - after.X).max() > 1e-3


def test_pseudobulk_agrees_with_scanpy():
    screen = small_screen(5)
    reference = AnnData(screen.X.astype(np.float64), screen.obs, screen.var)
    sc.pp.normalize_total(reference, target_sum=1e4)
    sc.pp.log1p(reference)
    want = sc.get.aggregate(reference, by=["cell_line", "perturbation"], func="mean")
    bulk = pseudobulk(screen, ["cell_line", "perturbation"])
    names = bulk.obs["cell_line"] + "_" + bulk.obs["perturbation"]
    np.testing.assert_allclose(bulk.X, want[names.to_numpy()].layers["mean"], atol=1e-6)
    assert list(bulk.obs_names) == list(names.str.replace("_", "|"))
    assert bulk.obs["n_cells"].sum() == screen.n_obs
    assert (bulk.obs["is_control"] == (bulk.obs["perturbation"] == "ntc")).all()


@pytest.mark.parametrize("n_bytes", [10, 23 * 8 * 6])
def test_many_groups_are_read_in_parts_with_the_same_result(monkeypatch, n_bytes):
    screen = small_screen(7)
    both = [lambda c=c: ba_ate(screen, control=c).X for c in ("matched", "global")]
    labels = [
        lambda v=v: deg_labels(screen, variant=v, min_cells=5).X for v in ("pooled", "per_batch")
    ]
    effects = [*both, *labels, lambda: pseudobulk(screen).X]
    want = [f() for f in effects]
    monkeypatch.setattr("perturbcore.data.effects.MAX_SUM_BYTES", n_bytes)
    for f, wanted in zip(effects, want, strict=True):
        np.testing.assert_array_equal(f(), wanted)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"control": "paired"}, ParameterError, "'paired'.*global, matched"),
        ({"batches": "some"}, ParameterError, "with_controls"),
        ({"genes": ["g1", "nope"]}, InputError, "nope"),
        ({"genes": ["g1", "g1"]}, InputError, "twice"),
    ],
)
def test_bad_requests_are_refused_with_a_way_out(options, error, message):
    pytest.raises(error, ba_ate, small_screen(), **options).match(message)
    pytest.raises(InputError, ba_ate, AnnData(small_screen().X)).match("declare_screen")


def test_an_effect_of_too_few_cells_is_not_estimable():
    """One cell gives the largest effect, and no way to know its error."""
    screen = small_screen()
    mine = (screen.obs["perturbation"] == "A") & (screen.obs["cell_line"] == "x")
    screen = screen[np.setdiff1d(np.arange(screen.n_obs), np.flatnonzero(mine)[9:])].copy()
    every, enough = ba_ate(screen, min_cells=1), ba_ate(screen)
    assert every.obs.loc["x|A", "n_cells"] == 9 and "x|A" not in enough.obs_names
    np.testing.assert_array_equal(enough.X, every[enough.obs_names].X)
    assert list(enough.uns["perturbcore"]["not_estimable"]) == ["x|A"]
    assert not_estimable_said(enough) == "1 with fewer than 10 cells not estimable and left out"
    card = Card()
    card.responses(enough, "7 rows")
    assert card.frame()["note"].item().endswith("rows; " + not_estimable_said(enough))
    pytest.raises(InputError, ba_ate, screen, min_cells=500).match("min_cells=500")


def test_perturbations_without_controls_at_hand_are_listed():
    screen = small_screen()
    screen = screen[(screen.obs["perturbation"] != "D") | (screen.obs["batch"] == "4")].copy()
    screen = screen[~(screen.obs["is_control"] & (screen.obs["batch"] == "4"))].copy()
    pytest.raises(InputError, ba_ate, screen).match(r"2 perturbations .*'D \(x\)'")
    assert "D" in set(ba_ate(screen, batches="all", min_cells=1).obs["perturbation"])
    bare = screen[~(screen.obs["is_control"] & (screen.obs["cell_line"] == "y"))].copy()
    pytest.raises(InputError, ba_ate, bare).match(r"cell_line \['y'\]")
