import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from perturbcore.core.digest import digest
from perturbcore.core.errors import ParameterError
from perturbcore.data.effects.ba_ate import ba_ate
from perturbcore.data.screens.declare import validate_screen
from perturbcore.data.simulate.screen import replicate_screen, simulate_screen

SIZES = {
    "n_cell_lines": 2,
    "n_perturbations": 40,
    "n_genes": 150,
    "n_batches": 5,
    "cells_per_perturbation": (10, 60),
    "n_control_cells": 300,
    "n_modules": 8,
}


@pytest.fixture(scope="module")
def small():
    return simulate_screen(**SIZES, seed=3)


def everything(s):
    return digest(
        s.screen.X, s.screen.obs, s.true_effects.X, s.true_effects.obs, s.network, s.modules,
        s.families, s.true_network, s.annotation, s.descriptions, s.sequences,
    )  # fmt: skip


def test_equal_seeds_give_identical_experiments(small):
    assert everything(simulate_screen(**SIZES, seed=3)) == everything(small)
    other = simulate_screen(**SIZES, seed=4)
    assert digest(other.screen.X) != digest(small.screen.X)
    assert digest(other.network) != digest(small.network)


def test_sizes_are_parameters(small):
    screen = small.screen
    validate_screen(screen)
    assert sp.issparse(screen.X)
    assert screen.X.format == "csr"
    assert screen.X.dtype == np.int32
    assert screen.n_vars == 150
    assert screen.obs["cell_line"].nunique() == 2
    assert screen.obs["batch"].nunique() == 5
    per_line = screen.obs.groupby("cell_line")["is_control"].sum()
    assert (per_line == 300).all()
    cells = screen.obs[~screen.obs["is_control"]].groupby(["cell_line", "perturbation"]).size()
    assert len(cells) == 80
    assert cells.min() >= 10
    assert cells.max() <= 60
    assert cells.nunique() > 20
    truth = small.true_effects
    assert truth.shape == (80, 150)
    assert truth.obs["n_cells"].sum() == (~screen.obs["is_control"]).sum()
    assert set(truth.obs["perturbation"]) <= set(screen.var_names)
    null = truth.obs.groupby("cell_line")["near_null"].mean()
    np.testing.assert_allclose(null, 1 / 3, atol=0.02)
    assert small.modules.nunique() == 8


@pytest.mark.parametrize(
    "extreme",
    [
        {"n_cell_lines": 1, "n_batches": 1, "n_modules": 1},
        {
            "n_perturbations": 1,
            "cells_per_perturbation": (1, 1),
            "n_control_cells": 2,
            "n_batches": 2,
        },
        {"n_modules": 40, "null_fraction": 0.0, "line_specificity": 0.0},
        {"n_perturbations": 60, "null_fraction": 1.0, "line_specificity": 1.0, "dropout": 0.9},
        {"library_size": 3.0},
    ],
)
def test_unusual_sizes_work(extreme):
    base = {"n_cell_lines": 2, "n_perturbations": 6, "n_genes": 60, "n_batches": 3, "n_modules": 4}
    s = simulate_screen(
        **{**base, "cells_per_perturbation": (2, 5), "n_control_cells": 20, **extreme}
    )
    assert s.screen.n_vars == 60
    assert np.isfinite(s.true_effects.X).all()
    assert (np.asarray(s.screen.X.sum(1)) > 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_genes": 1},
        {"n_cell_lines": 0},
        {"n_perturbations": 151},
        {"n_perturbations": 2.5},
        {"n_batches": True},
        {"n_modules": 151},
        {"n_control_cells": 4},
        {"cells_per_perturbation": (0, 5)},
        {"cells_per_perturbation": (9, 5)},
        {"cells_per_perturbation": 30},
        {"cells_per_perturbation": (2.5, 5)},
        {"null_fraction": 1.1},
        {"line_specificity": -0.1},
        {"dropout": 1.0},
        {"effect_size": -1.0},
        {"batch_effect": np.nan},
        {"dispersion": 0.0},
        {"library_size": np.inf},
        {"seed": -1},
        {"stress_size": "big"},
    ],
)
def test_impossible_sizes_are_refused_by_name(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        simulate_screen(**(SIZES | wrong))


def pooled_difference(screen):
    rows = {}
    depth = np.asarray(screen.X.sum(1)).ravel()
    x = sp.diags(1e4 / depth) @ screen.X
    x = x.log1p()
    obs = screen.obs
    for line in obs["cell_line"].unique():
        inside = (obs["cell_line"] == line).to_numpy()
        ctrl = x[np.flatnonzero(inside & obs["is_control"].to_numpy())].mean(0)
        for p in obs["perturbation"][inside & ~obs["is_control"].to_numpy()].unique():
            mine = np.flatnonzero(inside & (obs["perturbation"] == p).to_numpy())
            rows[f"{line}|{p}"] = np.asarray(x[mine].mean(0) - ctrl).ravel()
    return pd.DataFrame(rows).T


def test_ba_ate_recovers_the_truth_where_pooling_does_not():
    s = simulate_screen(**(SIZES | {"cells_per_perturbation": (400, 500), "n_control_cells": 4000}))
    truth = s.true_effects.to_df()
    size = np.linalg.norm(truth, axis=1).mean()
    bias = {}
    for control in ("matched", "global"):
        error = ba_ate(s.screen, control=control).to_df().loc[truth.index] - truth
        bias[control] = np.linalg.norm(error.mean(0))
        assert bias[control] < 0.06 * size
        assert np.linalg.norm(error, axis=1).mean() < 0.25 * size
    pooled = pooled_difference(s.screen).loc[truth.index] - truth.to_numpy()
    bias["pooled"] = np.linalg.norm(pooled.mean(0))
    assert bias["pooled"] > 4 * bias["matched"]
    assert np.linalg.norm(pooled, axis=1).mean() > np.linalg.norm(error, axis=1).mean()


def test_the_stated_truth_is_what_very_many_cells_show(small):
    names = list(small.true_effects.obs.query("~near_null")["perturbation"].unique()[:2])
    deep = replicate_screen(
        small,
        seed=1,
        perturbations=names,
        cell_lines=["lineA"],
        cells_per_perturbation=20_000,
        n_control_cells=20_000,
        new_batches=False,
    )
    got = ba_ate(deep, control="matched").to_df()
    truth = small.true_effects.to_df().loc[got.index]
    error = np.linalg.norm(got - truth, axis=1) / np.linalg.norm(truth, axis=1)
    # 150 genes, where the truth's stated approximation is at its worst
    assert error.max() < 0.08


def test_the_network_knows_more_than_chance(small):
    truth = small.true_effects[small.true_effects.obs["cell_line"] == "lineA"]
    truth = truth[~truth.obs["near_null"].to_numpy()]
    names = truth.obs["perturbation"].to_numpy()
    centred = truth.X - truth.X.mean(0)
    alike = pd.DataFrame(np.corrcoef(centred), names, names)
    pairs = small.network.query("source in @names and target in @names")
    neighbours = np.mean([alike.loc[a, b] for a, b in pairs[["source", "target"]].to_numpy()])
    others = alike.to_numpy()[np.triu_indices(len(names), 1)].mean()
    assert len(pairs) >= 5
    assert neighbours > others + 0.15


def test_knowledge_is_informative_but_imperfect(small):
    true = {frozenset(e) for e in small.true_network.to_numpy()}
    said = {frozenset(e) for e in small.network[["source", "target"]].to_numpy()}
    assert 0.6 < len(true & said) / len(true) < 0.95
    assert 0.02 < 1 - len(true & said) / len(said) < 0.4
    assert small.network["weight"].between(0, 1.001, inclusive="right").all()
    best = [
        small.modules[genes].value_counts(normalize=True).iloc[0]
        for term, genes in small.annotation.items()
        if "regulation of" in term
    ]
    assert 0.5 < np.mean(best) < 0.98
    genes = set(small.screen.var_names)
    assert set(small.descriptions) == set(small.sequences) == genes
    assert set("".join(small.sequences.values())) <= set("ACDEFGHIKLMNPQRSTVWY")
    assert all(set(members) <= genes for members in small.annotation.values())


def test_near_null_perturbations_only_lower_their_own_gene(small):
    truth = small.true_effects
    frame = truth.to_df()
    own = [frame.loc[name, p] for name, p in truth.obs["perturbation"].items()]
    assert np.mean(own) < -0.3
    for name, p in truth.obs["perturbation"].items():
        frame.loc[name, p] = 0
    size = np.linalg.norm(frame, axis=1)
    null = truth.obs["near_null"].to_numpy()
    assert size[null].max() < np.median(size[~null]) / 3


def test_a_replicate_is_other_cells_of_the_same_truth(small):
    names = sorted(small.true_effects.obs["perturbation"].unique())[:5]
    options = {"perturbations": names, "cell_lines": ["lineB"], "cells_per_perturbation": 30}
    one, again = (replicate_screen(small, seed=1, **options) for _ in range(2))
    two = replicate_screen(small, seed=2, **options)
    validate_screen(one)
    assert digest(one.X, one.obs) == digest(again.X, again.obs)
    assert digest(one.X) != digest(two.X)
    assert set(one.obs["cell_line"]) == {"lineB"}
    cells = one.obs[~one.obs["is_control"]].groupby("perturbation").size()
    assert (cells == 30).all()
    assert sorted(cells.index) == names
    full = replicate_screen(small, seed=1)
    assert full.obs["cell_line"].nunique() == 2
    assert full.obs["is_control"].sum() == 600
    with pytest.raises(ParameterError, match="G9999"):
        replicate_screen(small, seed=1, perturbations=["G9999"])
    with pytest.raises(ParameterError, match="cell_lines"):
        replicate_screen(small, seed=1, cell_lines=[])
    with pytest.raises(ParameterError, match="cells_per_perturbation"):
        replicate_screen(small, seed=1, cells_per_perturbation=0)
