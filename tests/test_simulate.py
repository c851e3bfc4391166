import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from perturbcore.core.digest import digest
from perturbcore.core.errors import ParameterError
from perturbcore.data.effects import ba_ate
from perturbcore.data.screens.declare import validate_screen
from perturbcore.data.sets.base import load
from perturbcore.data.simulate.screen import simulate_drug_screen, simulate_screen

SIZES = dict(
    n_cell_lines=2, n_perturbations=40, n_genes=150, n_batches=5, n_modules=8, n_control_cells=300,
    cells_per_perturbation=(10, 60),
)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return simulate_screen(**SIZES, seed=3)


def everything(s):
    return digest(
        s.screen.X, s.screen.obs, s.true_effects.X, s.true_effects.obs, *vars(s.knowledge).values()
    )


def test_equal_seeds_give_identical_experiments(small):
    assert everything(simulate_screen(**SIZES, seed=3)) == everything(small)
    other = simulate_screen(**SIZES, seed=4)
    assert digest(other.screen.X) != digest(small.screen.X)
    assert digest(other.knowledge.network) != digest(small.knowledge.network)


def test_sizes_are_parameters(small):
    screen = small.screen
    validate_screen(screen)
    assert sp.issparse(screen.X) and screen.X.format == "csr" and screen.X.dtype == np.int32
    assert screen.n_vars == 150 and screen.obs["cell_line"].nunique() == 2
    assert screen.obs["batch"].nunique() == 5
    assert (screen.obs.groupby("cell_line")["is_control"].sum() == 300).all()
    cells = screen.obs[~screen.obs["is_control"]].groupby(["cell_line", "perturbation"]).size()
    assert len(cells) == 80 and cells.between(10, 60).all() and cells.nunique() > 20
    truth = small.true_effects
    assert truth.shape == (80, 150)
    assert set(truth.obs["perturbation"]) <= set(screen.var_names)
    null = truth.obs.groupby("cell_line")["near_null"].mean()
    np.testing.assert_allclose(null, 1 / 3, atol=0.02)
    assert len(set(small.knowledge.modules)) == 8


@pytest.mark.parametrize(
    "extreme",
    [
        dict(n_cell_lines=1, n_batches=1, n_modules=1),
        dict(n_perturbations=1, cells_per_perturbation=(1, 1), n_control_cells=2, n_batches=2),
        dict(n_modules=40, null_fraction=0.0, line_specificity=0.0),
        dict(n_perturbations=60, null_fraction=1.0, line_specificity=1.0, dropout=0.9),
        dict(library_size=3.0),
    ],
)
def test_unusual_sizes_work(extreme):
    few = dict(n_perturbations=6, n_genes=60, n_batches=3, n_modules=4, n_control_cells=20)
    s = simulate_screen(**SIZES | few | {"cells_per_perturbation": (2, 5)} | extreme)
    assert s.screen.n_vars == 60 and np.isfinite(s.true_effects.X).all()
    assert (np.asarray(s.screen.X.sum(1)) > 0).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_genes", 1), ("n_cell_lines", 0), ("n_perturbations", 151), ("n_perturbations", 2.5),
        ("n_batches", True), ("n_modules", 151), ("n_control_cells", 4), ("seed", -1),
        ("cells_per_perturbation", (0, 5)), ("cells_per_perturbation", (9, 5)),
        ("cells_per_perturbation", 30), ("cells_per_perturbation", (2.5, 5)),
        ("null_fraction", 1.1), ("line_specificity", -0.1), ("dropout", 1.0), ("effect_size", -1.0),
        ("batch_effect", np.nan), ("dispersion", 0.0), ("library_size", np.inf),
        ("stress_size", "big"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused_by_name(name, value):
    pytest.raises(ParameterError, simulate_screen, **SIZES | {name: value}).match(name)


def test_the_stated_truth_is_what_very_many_cells_show():
    many = dict(n_perturbations=2, cells_per_perturbation=(20_000, 20_000), n_control_cells=20_000)
    deep = simulate_screen(**SIZES | many | dict(n_cell_lines=1, null_fraction=0.0), seed=3)
    truth = deep.true_effects.to_df()
    for control in ("matched", "global"):
        error = ba_ate(deep.screen, control=control).to_df() - truth
        # 150 genes, where the truth's stated approximation is at its worst
        assert (np.linalg.norm(error, axis=1) / np.linalg.norm(truth, axis=1)).max() < 0.08


def test_knowledge_is_informative_but_imperfect(small):
    k = small.knowledge
    genes = np.array(k.genes)
    true = {frozenset(genes[list(e)]) for e in zip(*k.interactions.nonzero(), strict=True)}
    said = {frozenset(e) for e in k.network[["source", "target"]].to_numpy()}
    assert 0.6 < len(true & said) / len(true) < 0.95
    assert 0.02 < 1 - len(true & said) / len(said) < 0.4
    assert k.network["weight"].between(0, 1.001, inclusive="right").all()
    module = pd.Series(k.modules, index=genes)
    best = [
        module[members].value_counts(normalize=True).iloc[0]
        for term, members in k.annotation.items()
        if "regulation of" in term
    ]
    assert 0.5 < np.mean(best) < 0.98
    assert set(k.descriptions) == set(k.sequences) == set(small.screen.var_names) == set(genes)
    assert set("".join(k.sequences.values())) <= set("ACDEFGHIKLMNPQRSTVWY")
    assert all(set(members) <= set(genes) for members in k.annotation.values())


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


# drugs


DRUGS = dict(n_drugs=24, n_cell_lines=2, n_genes=160, n_modules=8, seed=3)


@pytest.fixture(scope="module")
def drugs():
    """A small chemical screen with its truth."""
    return simulate_drug_screen(**DRUGS)


def test_every_plate_of_a_drug_has_vehicle(drugs):
    obs = drugs.screen.obs
    plate = obs["cell_line"].astype(str) + obs["batch"].astype(str)
    vehicle = obs["is_control"]
    assert set(plate) == set(plate[vehicle]) and set(obs.loc[vehicle, "dose"]) == {0.0}
    each = obs[~vehicle].groupby(["cell_line", "perturbation"], observed=True)
    assert (each["batch"].nunique() == 3).all()


def test_effects_follow_the_truth_and_inert_drugs_do_nothing(drugs):
    obs = drugs.screen.obs
    keep = obs["is_control"] | (obs["dose"] == drugs.screen.uns["perturbcore"]["dose"])
    effects = ba_ate(drugs.screen[keep.to_numpy()].copy(), control="matched", progress=False)
    truth = drugs.true_effects[effects.obs_names, effects.var_names]
    size = np.linalg.norm(truth.X, axis=1)
    inert = truth.obs["inert"].to_numpy(bool)
    assert inert.any() and size[inert].max() < 1e-6
    strong = np.argsort(size)[-8:]
    r = [np.corrcoef(effects.X[i], truth.X[i])[0, 1] for i in strong]
    assert np.median(r) > 0.6
    # an inert drug's estimate is noise: far shorter than that of the strong ones
    length = np.linalg.norm(effects.X, axis=1)
    assert length[inert].mean() < length[strong].mean()


def test_drugs_of_one_target_act_alike(drugs):
    truth, targets = drugs.true_effects, drugs.drugs["targets"]
    first = truth[(truth.obs["cell_line"] == truth.obs["cell_line"].iloc[0]) & ~truth.obs["inert"]]
    names = first.obs["perturbation"].astype(str).tolist()
    r = np.corrcoef(first.X)
    shared, other = [], []
    for i, a in enumerate(names):
        for j in range(i):
            same = set(targets[a].split(";")) & set(targets[names[j]].split(";"))
            (shared if same else other).append(r[i, j])
    assert np.mean(shared) > np.mean(other) + 0.2


def test_parameters_are_checked_before_anything_is_drawn():
    for wrong in (dict(n_drugs=0), dict(inert_fraction=1.5),
                  dict(plates_per_drug=9)):  # fmt: skip
        with pytest.raises(ParameterError):
            simulate_drug_screen(**(DRUGS | wrong))
    pytest.raises(ParameterError, load, "simulated_drugs", n_drug=3).match("no option 'n_drug'")
