import sqlite3
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import pearsonr, spearmanr
from worlds import cells_of, logged

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.effects import ba_ate
from perturbcore.data.responses import make_responses
from perturbcore.data.simulate.screen import simulate_screen
from perturbcore.score.ceiling import ceiling, sampler
from perturbcore.score.ceiling.ceiling import Cells, noise_ceiling
from perturbcore.score.ceiling.curves import ceiling_by_cells, ceilings_against_truth
from perturbcore.score.ceiling.halves import Halves, noise_floor
from perturbcore.score.limits import ceiling_scores, experimental_error

ALL = ("L2", "MSE", "MAE", "Spearman", "Pearson")


def make_screen(n_perturbations=6, genes=25, batches=3, lines=("A",), seed=0):
    rng = np.random.default_rng(seed)
    obs = []
    for line in lines:
        for p in range(n_perturbations):
            n = rng.integers(6, 14)
            obs += [(f"P{p}", f"b{b}", line) for b in rng.integers(batches, size=n)]
        obs += [("ctrl", f"b{i % batches}", line) for i in range(7 * batches)]
    obs = pd.DataFrame(obs, columns=["perturbation", "batch", "cell_line"])
    counts = rng.poisson(rng.gamma(0.7, 2, size=genes), size=(len(obs), genes))
    return cells_of(counts, **obs)


def of(table, metric):
    return table.loc[table["metric"] == metric, "value"]


def gathered_samples(x, groups, stream, kind, drawn, n_inner):
    """The slow way: copy the drawn cells, average them, average the drawn batches."""
    samples = []
    for trial in range(len(drawn)):
        for inner in range(n_inner):
            means = []
            for position, batch in enumerate(drawn[trial]):
                rows = groups[batch]
                cells = sampler.drawn_cells(len(rows), stream, trial, position, kind, n_inner)[
                    inner
                ]
                means.append(x[rows[cells]].mean(axis=0))
            samples.append(np.mean(means, axis=0))
    return np.array(samples)


def groups_of(screen, perturbation, line):
    obs = screen.obs.reset_index(drop=True)
    mine = obs[(obs["perturbation"] == perturbation) & (obs["cell_line"] == line)]
    return {b: mine.index[mine["batch"] == b].to_numpy() for b in sorted(mine["batch"].unique())}


def reference_table(screen, control, n_outer, n_inner, quantiles, seed, batches="all"):
    x, rows = logged(screen.X), []
    for line in sorted(screen.obs["cell_line"].unique()):
        here = screen.obs[screen.obs["cell_line"] == line]
        controls = groups_of(screen, "ctrl", line)
        names = sorted(here.loc[~here["is_control"], "perturbation"].unique())
        for position, name in enumerate(names):
            groups = groups_of(screen, name, line)
            if batches == "with_controls":
                groups = {b: r for b, r in groups.items() if b in controls}
            stream = sampler.perturbation_stream(seed, position)
            drawn = sampler.drawn_batches(len(groups), stream, n_outer)
            cells = list(groups.values())
            sample = gathered_samples(x, cells, stream, sampler.PERTURBED, drawn, n_inner)
            point = np.mean([x[r].mean(axis=0) for r in cells], axis=0)
            if control == "global":
                c_stream = sampler.control_stream(seed)
                c_drawn = sampler.drawn_batches(len(controls), c_stream, n_outer)
                everyone = list(controls.values())
                sample -= gathered_samples(x, everyone, c_stream, sampler.CONTROL, c_drawn, n_inner)
                point = point - np.mean([x[r].mean(axis=0) for r in everyone], axis=0)
            else:
                matched = [controls[b] for b in groups]
                sample -= gathered_samples(x, matched, stream, sampler.CONTROL, drawn, n_inner)
                point = point - np.mean([x[r].mean(axis=0) for r in matched], axis=0)
            values = {
                "L2": [np.linalg.norm(s - point) for s in sample],
                "MSE": [np.mean((s - point) ** 2) for s in sample],
                "MAE": [np.mean(np.abs(s - point)) for s in sample],
                "Spearman": [spearmanr(s, point)[0] for s in sample],
                "Pearson": [pearsonr(s, point)[0] for s in sample],
            }
            for q in quantiles:
                for m in ALL:
                    rows.append((line, name, q, m, np.quantile(values[m], q), len(groups)))
    columns = ["cell_line", "perturbation", "quantile", "metric", "value", "n_batches"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize("control", ["global", "matched"])
def test_weights_give_what_gathering_the_same_drawn_cells_gives(control):
    screen = make_screen(lines=("B", "A"))
    table = noise_ceiling(
        screen, control=control, n_outer=4, n_inner=3, quantiles=(0.1, 0.9), progress=False
    )
    expected = reference_table(screen, control, 4, 3, (0.1, 0.9), 5050)
    for column in ("cell_line", "perturbation", "quantile", "metric", "n_batches"):
        assert (table[column].to_numpy() == expected[column].to_numpy()).all()
    np.testing.assert_allclose(table["value"], expected["value"], rtol=1e-9, atol=1e-12)
    assert (table["dataset"] == "toy").all()
    counted = screen.obs.groupby(["cell_line", "perturbation"]).size()
    assert all(counted[r.cell_line, r.perturbation] == r.n_cells for r in table.itertuples())


def test_batches_without_controls_count_or_not_as_asked():
    screen = make_screen()
    orphan = (screen.obs["batch"] == "b2") & screen.obs["is_control"]
    screen = screen[~orphan.to_numpy()].copy()
    options = dict(n_outer=3, n_inner=2, quantiles=(0.5,), progress=False)
    for batches in ("all", "with_controls"):
        table = noise_ceiling(screen, batches=batches, **options)
        expected = reference_table(screen, "global", 3, 2, (0.5,), 5050, batches)
        np.testing.assert_allclose(table["value"], expected["value"], rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="'b2'.*with_controls"):
        noise_ceiling(screen, control="matched", **options)
    matched = noise_ceiling(screen, control="matched", batches="with_controls", **options)
    expected = reference_table(screen, "matched", 3, 2, (0.5,), 5050, "with_controls")
    np.testing.assert_allclose(matched["value"], expected["value"], rtol=1e-9, atol=1e-12)


def test_values_do_not_depend_on_what_else_is_asked_for_or_on_threads():
    screen = make_screen(lines=("A", "B"))
    options = dict(n_outer=3, n_inner=3, progress=False)
    full = noise_ceiling(screen, **options)
    some = noise_ceiling(screen, perturbations=["P4", "P1"], n_jobs=2, **options)
    expected = full[full["perturbation"].isin(["P1", "P4"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, expected)
    one_line = noise_ceiling(screen[(screen.obs["cell_line"] == "B").to_numpy()], **options)
    expected = full[full["cell_line"] == "B"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one_line, expected)
    pd.testing.assert_frame_equal(noise_ceiling(screen, n_jobs=3, **options), full)
    other = noise_ceiling(screen, seed=1, **options)
    assert not np.allclose(other["value"], full["value"])


@pytest.mark.parametrize("kind, control", [("csc", "matched"), ("backed_dense", "global")])
def test_storage_of_the_cells_does_not_matter(tmp_path, kind, control):
    screen = make_screen(seed=3)
    options = dict(control=control, n_outer=3, n_inner=2, progress=False)
    expected = noise_ceiling(screen, **options)
    other = screen.copy()
    other.X = sp.csc_matrix(other.X) if kind == "csc" else other.X.toarray()
    if kind == "backed_dense":
        other.write_h5ad(tmp_path / "screen.h5ad")
        other = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    table = noise_ceiling(other, **options)
    np.testing.assert_allclose(table["value"], expected["value"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("control", ["global", "matched"])
def test_never_more_than_a_block_is_held_and_blocks_change_nothing(monkeypatch, control):
    screen, sizes = make_screen(genes=25), []
    options = dict(control=control, n_outer=2, n_inner=2, progress=False)
    expected = noise_ceiling(screen, **options)
    real = Cells.read
    monkeypatch.setattr(Cells, "read", lambda s, rows: sizes.append(len(rows)) or real(s, rows))
    monkeypatch.setattr(sampler, "BLOCK_BYTES", 20 * 25 * 8)
    monkeypatch.setattr(sampler, "KEPT_BYTES", 1)
    table = noise_ceiling(screen, **options)
    assert max(sizes) <= 20 < screen.n_obs
    np.testing.assert_allclose(table["value"], expected["value"], rtol=1e-9, atol=1e-12)


def test_levels_of_drawing_can_be_told_apart():
    screen, _ = known_noise_screen(n=100, batches=5)
    how = dict(control="global", batches="all", seed=5050, n_outer=20, n_inner=10)
    batches, both = (
        sampler.LineSampler(Cells.of(screen), screen.obs["cell_line"].iloc[0], **how, draw_cells=c)
        for c in (False, True)
    )

    def error(line):
        effects = map(line.effects, line.perturbed)
        return np.mean([np.median(((e[1:] - e[0]) ** 2).mean(axis=1)) for e in effects])

    assert error(batches) == pytest.approx(2 * 0.8 / 100, rel=0.15)
    assert error(both) == pytest.approx(2 * (0.8 + 0.95) / 100, rel=0.15)


def without(column=None, uns=None, controls=True):
    screen = make_screen()
    screen = screen if controls else screen[~screen.obs["is_control"].to_numpy()].copy()
    screen.uns = screen.uns if uns is None else uns
    if column:
        del screen.obs[column]
    return screen


def lonely():
    screen = make_screen()
    screen.obs["batch"] = screen.obs["batch"].where(screen.obs["perturbation"] != "P2", "b9")
    return screen


@pytest.mark.parametrize(
    "screen, options, error, message",
    [
        (make_screen(), dict(perturbations=["P1", "P99"]), ParameterError, "P99.*obs"),
        (make_screen(), dict(control="plates"), ParameterError, "'plates'.*global, matched"),
        (make_screen(), dict(metrics=("L3",)), ParameterError, "metrics 'L3'.*L2, MSE"),
        (make_screen(), dict(quantiles=(1.5,)), ParameterError, "between 0 and 1"),
        (make_screen(), dict(n_inner=0), ParameterError, "n_inner=0"),
        (without("batch"), {}, InputError, "batch.*declare the screen"),
        (without(uns={}), {}, InputError, "declare_screen"),
        (without(controls=False), {}, InputError, "no control cells"),
        (lonely(), dict(batches="with_controls"), InputError, "P2"),
    ],
)
def test_bad_requests_are_refused_with_what_to_do(screen, options, error, message):
    pytest.raises(error, noise_ceiling, screen, progress=False, **options).match(message)


def test_finished_perturbations_are_read_back_and_only_for_the_same_question(tmp_path, monkeypatch):
    screen = make_screen()
    options = dict(n_outer=2, n_inner=2, progress=False, checkpoint=tmp_path / "kept.sqlite")
    done, real = [], ceiling._quantiles
    spy = lambda name, *rest: done.append(name) or real(name, *rest)  # noqa: E731
    monkeypatch.setattr(ceiling, "_quantiles", spy)
    some = noise_ceiling(screen, perturbations=["P0", "P3"], **options)
    assert sorted(done) == ["P0", "P3"]
    full = noise_ceiling(screen, **options)
    assert sorted(done) == sorted(["P0", "P1", "P2", "P3", "P4", "P5"])
    again = noise_ceiling(screen, **options)
    assert len(done) == 6
    pd.testing.assert_frame_equal(again, full)
    pd.testing.assert_frame_equal(full, noise_ceiling(screen, n_outer=2, n_inner=2, progress=False))
    expected = full[full["perturbation"].isin(["P0", "P3"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, expected)
    noise_ceiling(screen, seed=6, **options)
    screen.X.data[0] += 1
    noise_ceiling(screen, **options)
    assert len(done) == 24  # six without a checkpoint among them


def test_a_run_that_breaks_off_goes_on_where_it_was(tmp_path, monkeypatch):
    screen = make_screen(n_perturbations=8)
    screen.write_h5ad(tmp_path / "screen.h5ad")
    backed = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    options = dict(n_outer=2, n_inner=2, progress=False)
    real = ceiling._quantiles

    def broken(name, *rest):
        if name == "P5":
            raise KeyboardInterrupt
        return real(name, *rest)

    kept = tmp_path / "kept.sqlite"
    monkeypatch.setattr(ceiling, "_quantiles", broken)
    with pytest.raises(KeyboardInterrupt):
        noise_ceiling(backed, checkpoint=kept, **options)
    names = [r[0] for r in sqlite3.connect(kept).execute("SELECT perturbation FROM ceilings")]
    assert set(names) >= {"P0", "P1", "P2", "P3"} and "P5" not in names
    monkeypatch.setattr(ceiling, "_quantiles", real)
    resumed = noise_ceiling(backed, checkpoint=kept, **options)
    fresh = noise_ceiling(screen, **options)
    np.testing.assert_allclose(resumed["value"], fresh["value"], rtol=1e-9, atol=1e-12)
    wrong = tmp_path / "notes.txt"
    wrong.write_text("not a database, but long enough to be read as one " * 10)
    with pytest.raises(InputError, match="notes.txt"):
        noise_ceiling(screen, checkpoint=wrong, **options)


def known_noise_screen(n=200, genes=400, n_perturbations=3, seed=0, batches=4):
    """Cells are a known effect plus unit noise, so that every error is known beforehand."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"P{i}" for i in range(n_perturbations)] + ["ctrl"], n)
    effects = np.vstack([2 * rng.normal(size=(n_perturbations, genes)), np.zeros((1, genes))])
    x = np.repeat(effects, n, axis=0) + rng.normal(size=(len(names), genes))
    batch = [f"b{i % batches}" for i in range(len(names))]
    obs = pd.DataFrame({"perturbation": names, "batch": batch, "cell_line": "A"})
    obs = obs.assign(is_control=names == "ctrl").set_axis([f"c{i}" for i in range(len(names))])
    screen = ad.AnnData(x, obs=obs)
    about = {"scale": "log1p", "dataset": "known", "identifier": "symbol", "simulated": True}
    screen.uns["perturbcore"] = about
    names = [f"P{i}" for i in range(n_perturbations)]
    truth = ad.AnnData(effects[:-1], obs=pd.DataFrame(index=[f"A|{n}" for n in names]))
    truth.var_names = screen.var_names
    return screen, truth


@pytest.mark.parametrize("batches", [1, 4])
def test_noise_falls_with_cells_as_its_square_root_and_the_bootstrap_as_its_formula(batches):
    screen, truth = known_noise_screen(batches=batches)
    table = ceiling_by_cells(screen, [20, 80], n_outer=10, n_inner=4, truth=truth, n_splits=10)
    assert (table.groupby(["estimate", "cells"]).size() == 3).all()
    means = table.groupby(["estimate", "cells"])["value"].mean()
    for cells in (20, 80):
        expected = np.sqrt(400 * (1 / cells + 1 / 200))
        assert means["true", cells] == pytest.approx(expected, rel=0.1)
        if batches > 1:
            assert means["noise_floor", cells] == pytest.approx(expected, rel=0.1)
        twice = [(batches - 1) / batches + 1 - batches / n for n in (cells, 200)]
        formula = np.sqrt(400 * (twice[0] / cells + twice[1] / 200))
        assert means["bootstrap", cells] == pytest.approx(formula, rel=0.08)
    again = ceiling_by_cells(
        screen, [20, 80], n_outer=10, n_inner=4, truth=truth, n_splits=10, n_jobs=2
    )
    pd.testing.assert_frame_equal(again, table)


def test_curves_keep_to_perturbations_with_enough_cells():
    screen = make_screen()
    sizes = screen.obs.loc[~screen.obs["is_control"], "perturbation"].value_counts()
    top = int(sizes.max())
    options = dict(n_outer=2, n_inner=2)
    strict = ceiling_by_cells(screen, [3, top], **options)
    assert set(strict["perturbation"]) == set(sizes.index[sizes == top])
    pytest.raises(InputError, ceiling_by_cells, screen, [1000], **options).match("smaller sizes")
    pytest.raises(ParameterError, ceiling_by_cells, screen, [0], **options).match("sizes")
    with pytest.raises(InputError, match="truth lacks"):
        truth = ad.AnnData(np.zeros((1, 25)), obs=pd.DataFrame(index=["A|nobody"]))
        ceiling_by_cells(screen, [3], truth=truth, **options)


def halves_of(screen, by, control="global", n_splits=10):
    line = sampler.LineSampler(Cells.of(screen), "A", control=control, batches="all", seed=0)
    halves = Halves(line, by, n_splits)
    return {name: halves.errors(name) for name in line.perturbed}


@pytest.mark.parametrize("control", ["global", "matched"])
@pytest.mark.parametrize("by", ["cells", "batches"])
def test_halves_tell_the_error_of_the_whole(by, control):
    expected = np.sqrt(400 * 2 / 200)
    for found in halves_of(known_noise_screen()[0], by, control).values():
        assert found["L2"] == pytest.approx(expected, rel=0.15)
        assert found["MSE"] == pytest.approx(expected**2 / 400, rel=0.3)
        assert found["MAE"] == pytest.approx(np.sqrt(2 / np.pi * 2 / 200), rel=0.15)


def test_halves_of_batches_see_batch_noise_that_halves_of_cells_cannot():
    screen, _ = known_noise_screen()
    shift = np.random.default_rng(9).normal(size=(4, 400))
    treated = ~screen.obs["is_control"].to_numpy()
    batch = screen.obs["batch"].str[1:].astype(int).to_numpy()
    screen.X = screen.X + np.where(treated[:, None], shift[batch], 0)
    cells, batches = (halves_of(screen, by)["P0"]["L2"] for by in ("cells", "batches"))
    assert batches > 2 * cells


def test_halves_of_one_batch_are_undefined_and_the_noise_floor_takes_those_of_cells():
    screen, _ = known_noise_screen(n=10, batches=1)
    assert all(np.isnan(found["L2"]) for found in halves_of(screen, "batches").values())
    cells = halves_of(screen, "cells")
    floor = noise_floor(screen, n_splits=10, seed=0).set_index(["perturbation", "metric"])
    assert floor.loc[("P1", "L2"), "value"] == cells["P1"]["L2"] > 0


@pytest.mark.parametrize(
    "control, batch_effect", [("global", 0.0), ("global", 0.5), ("matched", 0.5)]
)
def test_the_noise_floor_is_the_true_error_whatever_the_number_of_cells(control, batch_effect):
    sizes = dict(n_cell_lines=1, n_genes=200, n_modules=8, n_batches=6, n_control_cells=600)
    simulated = simulate_screen(
        **sizes, n_perturbations=60, cells_per_perturbation=(10, 200), batch_effect=batch_effect,
        seed=4,
    )  # fmt: skip
    variant = dict(control=control, batches="with_controls")
    effects = ba_ate(simulated.screen, progress=False, **variant)
    truth = simulated.true_effects[effects.obs_names, effects.var_names]
    error = np.linalg.norm(effects.X - truth.X, axis=1)
    table = noise_floor(simulated.screen, n_splits=5, **variant)
    r = table[table["metric"] == "Pearson"]
    table = table[table["metric"] == "L2"].set_index("perturbation")
    floor = table.loc[effects.obs["perturbation"], "value"].to_numpy()
    assert np.nanmean(floor) == pytest.approx(np.nanmean(error), rel=0.05)
    alike = [pearsonr(a, b)[0] for a, b in zip(effects.X, truth.X, strict=True)]
    assert r["value"].mean() == pytest.approx(np.mean(alike), rel=0.05)
    few = (effects.obs["n_cells"] < 60).to_numpy()
    for part in (few, ~few):
        assert np.nanmean(floor[part]) == pytest.approx(np.nanmean(error[part]), rel=0.08)


def test_an_effect_of_one_cell_has_no_ceiling_of_any_kind():
    """Redrawing one cell gives that cell: the bootstrap called it the best of all."""
    screen, _ = known_noise_screen(n=12, batches=2)
    rows = np.flatnonzero((screen.obs["perturbation"] == "P0").to_numpy())
    lonely = screen[np.setdiff1d(np.arange(screen.n_obs), rows[1:])].copy()
    responses = fold_responses(["P0", "P1", "P2"], [0, 0, 1])
    data = SimpleNamespace(
        name="d", task="lfc", screen=lonely, replicates=None, responses=responses
    )
    table = experimental_error(data, n_outer=3, n_inner=2, n_trials=1, options={})
    alone = table["perturbation"] == "P0"
    assert table.loc[alone, "value"].isna().all() and table.loc[~alone, "value"].notna().all()
    assert set(table.loc[alone, "estimate"]) == {"bootstrap", "repeated", "noise_floor"}
    scores = ceiling_scores(table, responses).set_index(["predictor", "metric", "fold"])["value"]
    assert scores["experimental_error", "L2", 0] > 0.5 * scores["experimental_error", "L2", 1]


@pytest.mark.parametrize("control, too_large", [("global", 1.8), ("matched", 1.1)])
def test_ceilings_are_held_against_the_truth(control, too_large):
    table = ceilings_against_truth([60], [0.6], [control], n_splits=3)
    by = table.set_index("estimate")
    assert by.loc["noise_floor", "ratio"] == pytest.approx(1, abs=0.05)
    assert by.loc["repeated", "of_its_own"] == pytest.approx(by.loc["noise_floor", "ratio"])
    assert by.loc["bootstrap", "ratio"] > too_large
    assert (by.loc["bootstrap", "ratio"] > np.sqrt(2)) == (control == "global")


WELLS = dict(wells=True, progress=False)


def wells_of(x, **obs):
    return ad.AnnData(x, obs=pd.DataFrame(obs, index=[f"w{i}" for i in range(len(x))]))


def test_replicates_on_plates():
    rng = np.random.default_rng(6)
    name, plate = np.tile(["P0", "P1", "DMSO"], 8), np.repeat(["x", "y"], 12)
    shift = np.where(plate == "x", 5.0, 0.0)[:, None] * rng.normal(size=20)
    about = dict(perturbation=name, cell_line="A549", batch=plate)
    wells = wells_of(rng.normal(size=(24, 20)) + shift, **about, is_control=name == "DMSO")
    options = dict(quantiles=(0.5,), **WELLS)
    matched, shared = (noise_ceiling(wells, control=c, **options) for c in ("matched", "global"))
    assert set(matched["cell_line"]) == {"A549"} and (matched["n_batches"] == 2).all()
    assert (of(matched, "L2").to_numpy() < of(shared, "L2").to_numpy()).all()
    with pytest.raises(InputError, match="lack obs column 'is_control'"):
        noise_ceiling(wells_of(wells.X, **about), **WELLS)
    with pytest.raises(InputError, match="finite"):
        noise_ceiling(wells_of(wells.X * np.nan, **about, is_control=False), **WELLS)


def fold_responses(names, folds):
    obs = pd.DataFrame({"perturbation": names, "cell_line": "A", "fold": folds})
    return make_responses(np.zeros((len(names), 2)), obs, ["g0", "g1"], dataset="toy")


def test_fold_scores_are_means_over_the_folds_perturbations():
    table = noise_ceiling(make_screen(), n_outer=2, n_inner=3, progress=False)
    names, folds = [f"P{i}" for i in range(6)], [0, 1, 0, 1, 2, 2]
    scores = ceiling_scores(table, fold_responses(names, folds))
    assert set(scores["predictor"]) == {"experimental_error"}
    assert set(scores["metric"]) == set(ALL) and (scores["n_test"] == 2).all()
    for metric, q in (("L2", 0.9), ("Spearman", 0.1)):
        part = table[(table["metric"] == metric) & np.isclose(table["quantile"], q)]
        by_name = part.set_index("perturbation")["value"]
        mine = scores[scores["metric"] == metric].set_index("fold")["value"]
        for fold in range(3):
            members = [n for n, f in zip(names, folds, strict=True) if f == fold]
            assert mine[fold] == pytest.approx(by_name[members].mean())
    with pytest.raises(InputError, match=r"A\|P77"):
        ceiling_scores(table, fold_responses(["P0", "P77"], [0, 1]))
    with pytest.raises(InputError, match="quantile 0.7"):
        ceiling_scores(table, fold_responses(["P0"], [0]), quantile=0.7)
