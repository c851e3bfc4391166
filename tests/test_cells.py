"""Cells scored as people submit them: against slow formulas, and against both packages."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData, read_h5ad
from scipy.stats import false_discovery_control, mannwhitneyu

from perturbcore.book.cli import main
from perturbcore.core.errors import InputError
from perturbcore.score import cells as scoring
from perturbcore.score.metrics import cells as metrics
from perturbcore.score.metrics.registry import metric

K, G = 6, 90
NAMES = [f"g{3 * i}" for i in range(K)]


def make(seed: int, drift: float = 0.0, n: int = 30, m: int = 70) -> AnnData:
    """Counts of six knock-downs and controls; `drift`: how far effects are from the true ones."""
    base = np.random.default_rng(7).lognormal(0, 1.2, G)
    effect = np.random.default_rng(8).normal(0, 1.1, (K, G))
    effect *= np.random.default_rng(9).random((K, G)) < 0.4
    rng = np.random.default_rng(seed)
    effect = effect + drift * rng.normal(0, 1, (K, G)) * (rng.random((K, G)) < 0.3)
    effect[np.arange(K), 3 * np.arange(K)] = -2.0
    parts, labels = [], []
    for name, e in [("non-targeting", np.zeros(G)), *zip(NAMES, effect, strict=True)]:
        size = m if name == "non-targeting" else n
        share = base * np.exp(e)
        library = rng.lognormal(np.log(300), 0.4, size)
        parts.append(rng.poisson(library[:, None] * share / share.sum()))
        labels += [name] * size
    obs = pd.DataFrame({"target": labels}, index=[f"c{i}" for i in range(len(labels))])
    X = np.concatenate(parts).astype(np.float32)
    X[:, 0] += X.sum(axis=1) == 0
    order = rng.permutation(len(X))
    var = pd.DataFrame(index=[f"g{i}" for i in range(G)])
    return AnnData(sp.csr_matrix(X[order]), obs=obs.iloc[order], var=var)


@pytest.fixture(scope="module")
def both() -> tuple[AnnData, AnnData]:
    return make(1, drift=0.4), make(2)


def pair_of(said: AnnData, real: AnnData) -> metrics.Pair:
    groups = metrics.rows_by_group(real.obs["target"])
    control = groups.pop("non-targeting")
    measured = metrics.summarise(real, groups, control)
    rows = {n: r for n, r in metrics.rows_by_group(said.obs["target"]).items() if n in groups}
    return metrics.Pair(metrics.summarise(said, rows, measured.control), measured)


def slow(said: AnnData, real: AnnData) -> dict[str, float]:
    """The six metrics as their text has them, loop by loop."""
    X = {side: a.X.toarray().astype(float) for side, a in (("said", said), ("real", real))}
    of = {side: a.obs["target"].to_numpy() for side, a in (("said", said), ("real", real))}
    genes = list(real.var_names)

    def bulk(side, name, drop=None):
        rows = X[side][of[side] == name]
        rows = rows if drop is None else np.delete(rows, drop, axis=0)
        return np.log1p(5e4 * rows.sum(axis=0) / rows.sum())

    def jackknife(side, name):
        n = int((of[side] == name).sum())
        v = np.array([bulk(side, name, i) for i in range(n)])
        return (n - 1) / n * ((v - v.mean(axis=0)) ** 2).sum()

    ctrl = bulk("real", "non-targeting")
    panel = [g not in NAMES for g in genes]
    b = {(s, p): bulk(s, p) for s in X for p in NAMES}
    C = {(s, p): jackknife(s, p) for s in X for p in NAMES}
    pds = []
    for p in NAMES:
        u = (b["said", p] - ctrl)[panel]
        d = []
        for q in NAMES:
            v = (b["real", q] - ctrl)[panel]
            d.append(1 - u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        d = np.array(d)
        k = (d < d[NAMES.index(p)]).sum() + 0.5 * ((d == d[NAMES.index(p)]).sum() - 1)
        pds.append(1 - k / (K - 1))
    own = {p: np.array([g != p for g in genes]) for p in NAMES}
    credit = {p: min(C["said", p], C["real", p]) for p in NAMES}
    B = 0.0
    for g in range(G):
        rows = [p for p in NAMES if own[p][g]]
        w = np.array([1 / own[p].sum() for p in rows])
        values = np.array([b["said", p][g] for p in rows])
        B += (w * (values - (w * values).sum() / w.sum()) ** 2).sum()
    rho = min(1.0, B / sum(credit[p] / own[p].sum() for p in NAMES))
    top = bottom = 0.0
    for p in NAMES:
        at, size = own[p], own[p].sum()
        distance = ((b["said", p] - b["real", p])[at] ** 2).sum()
        top += (distance - rho * credit[p] - C["real", p]) / size
        away = ((b["real", p] - ctrl)[at] ** 2).sum()
        bottom += (away - C["real", p] - jackknife("real", "non-targeting")) / size
    cpm = {s: 1e6 * x / x.sum(axis=1, keepdims=True) for s, x in X.items()}
    base = cpm["real"][of["real"] == "non-targeting"]
    tested = np.flatnonzero(base.mean(axis=0) > 5)
    fidelity, reach, jaccard, error = [], [], [], []
    for p in NAMES:
        table = {}
        for s in X:
            rows = cpm[s][of[s] == p]
            pv = np.array([
                mannwhitneyu(rows[:, g], base[:, g], method="asymptotic").pvalue for g in tested
            ])  # fmt: skip
            lfc = np.log2((rows.mean(axis=0) + 1e-9) / (base.mean(axis=0) + 1e-9))[tested]
            table[s] = pd.DataFrame({"p": pv, "q": false_discovery_control(pv), "lfc": lfc})
            table[s]["gene"] = np.array(genes)[tested]
        said_, real_ = (t[t["gene"] != p] for t in (table["said"], table["real"]))
        R, S = real_["q"] < 0.05, said_["q"] < 0.05
        right = np.sign(said_["lfc"]) == np.sign(real_["lfc"])
        most = max(S.sum(), R.sum())
        fidelity.append((S & right).sum() / most if most else np.nan)
        pool = said_[R].assign(call=~S[R], size=-said_["lfc"].abs()[R], right=right[R])
        pool = pool.sort_values(["call", "q", "p", "size", "gene"])
        purity = pool["right"].cumsum() / np.arange(1, len(pool) + 1)
        clear = np.flatnonzero(purity >= 0.9)
        reach.append((clear[-1] + 1 if len(clear) else 0) / len(pool) if len(pool) else np.nan)
        jaccard.append((R & S).sum() / (R | S).sum() if (R | S).any() else 1.0)
        if R.sum() >= 10:
            gap = (said_["lfc"] - real_["lfc"])[R].abs().sum()
            error.append(gap / real_["lfc"][R].abs().sum())
    found = [pds, [top / bottom], fidelity, reach, jaccard, error]
    return {n: float(np.nanmean(v)) for n, v in zip(scoring.SIX, found, strict=True)}


def test_the_six_metrics_are_those_of_the_text(both):
    found, wanted = scoring.measure(pair_of(*both)), slow(*both)
    for name in scoring.SIX:
        assert found[name] == pytest.approx(wanted[name], rel=1e-6), name
    perfect = scoring.measure(pair_of(both[1], both[1]))
    assert [perfect[n] for n in ("pds_cosine", "direction_fidelity", "sig_jaccard")] == [1, 1, 1]
    assert perfect["fold_change_error"] == perfect["mean_error"] == 0


def test_the_jackknife_of_many_cells_uses_a_series_that_is_exact():
    rng = np.random.default_rng(0)
    X = rng.poisson(0.5, size=(400, 60)).astype(float) + np.eye(400, 60)
    X[:, 0] += X.sum(axis=1) == 0
    P, S, n = X.sum(axis=0), X.sum(), len(X)
    v = np.log1p(5e4 * (P - X) / (S - X.sum(axis=1))[:, None])
    wanted = (n - 1) / n * ((v - v.mean(axis=0)) ** 2).sum()
    assert metrics._moments(X).jackknife == pytest.approx(wanted, rel=1e-7)


def test_conventions_at_the_edges(both):
    pair = pair_of(*both)
    silent = metrics.Groups(**{**vars(pair.said), "p": np.ones_like(pair.said.p),
                               "counts": np.tile(pair.real.control.counts, (K, 1))})  # fmt: skip
    quiet = metrics.Pair(silent, pair.real)
    assert (metrics.pds_cosine(quiet) == 0.5).all()  # no effect at all: every rank ties
    assert not metrics.direction_fidelity(quiet).any()
    none = metrics.Groups(**{**vars(pair.real), "p": np.ones_like(pair.real.p)})
    nothing = metrics.Pair(silent, none)
    assert np.isnan(metrics.direction_fidelity(nothing)).all()
    assert (metrics.sig_jaccard(nothing) == 1).all()
    assert np.isnan(metrics.fold_change_error(nothing)).all()
    with pytest.raises(InputError, match="differ in their genes, such as 'g89'"):
        scoring.measure(pair_of(both[0][:, :-1].copy(), both[1]))


def test_the_scale_has_the_mean_response_at_0_and_the_repeat_at_1(both):
    said, real = both
    table = scoring.score_cells(said, real, n_splits=2).set_index("metric")
    (one,) = scoring.references(real, perturbation="target", control="non-targeting",
                                cell_line=None, n_splits=2).values()  # fmt: skip
    for ends, place in ((one.baseline, 0.0), (one.repeat, 1.0)):
        scaled = one.scaled(ends)
        assert np.nanmax(np.abs(np.array(list(scaled.values())) - place)) < 1e-12
    for name in scoring.SIX:
        low, high, value = table.loc[name, ["baseline", "repeat", "value"]]
        place = np.clip((value - low) / (high - low), *scoring.LIMITS.get(name, (-9e9, 9e9)))
        assert table.loc[name, "scaled"] == pytest.approx(place, nan_ok=True)
    six = table.loc[list(scoring.SIX), "scaled"]
    assert table.loc["vcc2026", "scaled"] == pytest.approx(six.mean())
    worse = one.scaled(
        {n: one.baseline[n] - metric(n).higher_is_better * 9 + 9 for n in one.repeat}
    )
    assert worse["fold_change_error"] == -6 and worse["expression_error"] in (0.0, 1.0)


def test_effects_become_cells_that_show_them(both):
    control = both[1][(both[1].obs["target"] == "non-targeting").to_numpy()].X
    logged = np.log1p(1e4 * control.toarray() / control.sum(axis=1))
    level = np.asarray(logged).mean(axis=0)
    effect = np.where(level > 1, np.linspace(-0.5, 0.5, G), 0.0)[None]
    ratio = scoring.count_changes(effect, control)[0]
    share = control.toarray() / np.asarray(control.sum(axis=1)).ravel()[:, None]
    shown = np.log1p(1e4 * share * ratio).mean(axis=0) - level
    np.testing.assert_allclose(shown, effect[0], atol=0.01)
    cells = scoring.moved_cells(control, ratio, 3000, np.random.default_rng(0))
    np.testing.assert_allclose(
        np.asarray(cells.mean(axis=0)).ravel(), np.asarray(control.mean(axis=0)).ravel() * ratio,
        rtol=0.25, atol=0.1,
    )  # fmt: skip
    assert (np.asarray(cells.sum(axis=1)) > 0).all() and (cells.data % 1 == 0).all()


def test_one_command_scores_saved_cells_and_cells_on_disk_score_as_those_in_memory(
    both, tmp_path, capsys
):
    for name, cells in zip(("said", "real"), both, strict=True):
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    files = [str(tmp_path / f"{n}.h5ad") for n in ("said", "real")]
    backed = read_h5ad(files[0], backed="r")
    assert scoring.measure(pair_of(backed, both[1])) == scoring.measure(pair_of(*both))
    out = tmp_path / "scores.csv"
    assert main(["score", *files, "--out", str(out), "--splits", "1"]) == 0
    table = pd.read_csv(out).set_index("metric")
    wanted = scoring.measure(pair_of(*both))
    for name in (*scoring.SIX, *scoring.THREE):
        assert table.loc[name, "value"] == pytest.approx(wanted[name], rel=1e-6)
    assert main(["score", *files, "--out", str(out), "--force", "--perturbation", "gene"]) == 2
    assert "no column 'gene'" in capsys.readouterr().err
    logged = both[0].copy()
    logged.X = logged.X.multiply(0.5).tocsr()
    with pytest.raises(
        InputError, match="predicted cells, from row 1: X has the value .*raw counts"
    ):
        scoring.score_cells(logged, both[1])


def test_equal_to_both_packages(both, tmp_path):
    """Only where they are installed; they are no dependency."""
    package = pytest.importorskip("cell_eval2")
    said, real = both
    found = scoring.measure(pair_of(said, real))
    config = package.EvalConfig.from_preset("vcc2026")
    config.__dict__["cache_strict"] = False
    table = package.compute_metrics(said.copy(), real.copy(), config=config).to_pandas()
    theirs = table.groupby("metric")["value"].mean()
    named = {
        "pds_cosine": "pds_cosine",
        "de_wilcoxon_direction_fidelity_yield_raw": "direction_fidelity",
        "de_wilcoxon_direction_reach_raw": "direction_reach",
        "de_wilcoxon_sig_jaccard": "sig_jaccard",
        "de_wilcoxon_lfc_nmae": "fold_change_error",
    }
    for name, ours in named.items():
        assert found[ours] == pytest.approx(theirs[name], abs=1e-6), name
    ratio = theirs["expr_mse_unbiased_capped"] / theirs["expr_distance_unbiased"]
    assert found["expression_error"] == pytest.approx(ratio, abs=1e-6)
    evaluator = pytest.importorskip("cell_eval")
    sides = []
    for cells in (said[(said.obs["target"] != "non-targeting").to_numpy()], real):
        if cells is not real:
            control = real[(real.obs["target"] == "non-targeting").to_numpy()]
            cells = AnnData(sp.vstack([cells.X, control.X], format="csr"), var=real.var,
                            obs=pd.concat([cells.obs, control.obs]))  # fmt: skip
            cells.obs_names_make_unique()
        total = np.asarray(cells.X.sum(axis=1)).ravel()
        logged = sp.diags(1e4 / total) @ cells.X.astype(float)
        sides.append(AnnData(logged.log1p().tocsr(), obs=cells.obs.copy(), var=cells.var))
    run = evaluator.MetricsEvaluator(*sides, outdir=str(tmp_path / "out"), num_threads=1)
    results = run.compute(profile="full", write_csv=False)[0].to_pandas()
    for name, ours in (("mae", "mean_error"), ("discrimination_score_l1",) * 2,
                       ("overlap_at_N",) * 2):  # fmt: skip
        assert found[ours] == pytest.approx(results[name].mean(), abs=1e-6), name
