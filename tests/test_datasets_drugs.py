"""Data sets of drugs: the simulated screen against its truth, ranked signatures, real files."""

import numpy as np
import pandas as pd
import pytest

from perturbcore.core.errors import ParameterError
from perturbcore.data.effects import ba_ate, well_effects
from perturbcore.data.sets import signatures as sig
from perturbcore.data.sets.base import load
from perturbcore.data.simulate.screen import simulate_drug_screen

SMALL = dict(n_drugs=24, n_cell_lines=2, n_genes=160, n_modules=8, seed=3)


@pytest.fixture(scope="module")
def screen():
    """A small chemical screen with its truth."""
    return simulate_drug_screen(**SMALL)


def at_response_dose(simulated):
    obs = simulated.screen.obs
    keep = obs["is_control"] | (obs["dose"] == simulated.parameters["response_dose"])
    return simulated.screen[keep.to_numpy()].copy()


def test_every_plate_of_a_drug_has_vehicle(screen):
    obs = screen.screen.obs
    plate = obs["cell_line"].astype(str) + obs["batch"].astype(str)
    vehicle = obs["is_control"]
    assert set(plate) == set(plate[vehicle]) and set(obs.loc[vehicle, "dose"]) == {0.0}
    drugs = obs[~vehicle].groupby(["cell_line", "perturbation"], observed=True)
    assert (drugs["batch"].nunique() == 3).all()


def test_effects_follow_the_truth_and_inert_drugs_do_nothing(screen):
    effects = ba_ate(at_response_dose(screen), control="matched", progress=False)
    truth = screen.true_effects[effects.obs_names, effects.var_names]
    size = np.linalg.norm(truth.X, axis=1)
    inert = truth.obs["inert"].to_numpy(bool)
    assert inert.any() and size[inert].max() < 1e-6
    strong = np.argsort(size)[-8:]
    r = [np.corrcoef(effects.X[i], truth.X[i])[0, 1] for i in strong]
    assert np.median(r) > 0.6
    # an inert drug's estimate is noise: far shorter than that of the strong ones
    length = np.linalg.norm(effects.X, axis=1)
    assert length[inert].mean() < length[strong].mean()


def test_drugs_of_one_target_act_alike(screen):
    truth, targets = screen.true_effects, screen.drugs["targets"]
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
    for wrong in (dict(n_drugs=0), dict(response_dose=3.0), dict(inert_fraction=1.5),
                  dict(plates_per_drug=9)):  # fmt: skip
        with pytest.raises(ParameterError):
            simulate_drug_screen(**(SMALL | wrong))
    pytest.raises(ParameterError, load, "simulated_drugs", n_drug=3).match("no option 'n_drug'")


def test_top_k_labels_by_hand():
    genes = pd.Index(list("abcdef"))
    label = sig.top_k_labels(np.array(["x", "c", "a", "f", "b", "e", "d"]), genes, 2)
    assert label.tolist() == [1, 0, 1, -1, -1, 0]


def test_k_must_label_something():
    for k in (0, -1, 2.0, True, "3"):
        pytest.raises(ParameterError, load, "signatures", k=k).match("whole number")
    pytest.raises(ParameterError, load, "signatures", min_labels=-1).match("min_labels=-1")


def test_genes_ranked_twice_or_not_by_all_are_left_out():
    one = {"d": (np.array(["a", "b", "c", "c"]), 1), "e": (np.array(["a", "b", "c"]), 1)}
    two = {"d": (np.array(["a", "c", "b", "z"]), 1)}
    assert sig.common_genes({"1": one, "2": two}, ["d", "e"]) == (["a", "b"], 1)


def test_drugs_are_matched_by_name_and_the_unmatched_stay_unmatched():
    table = pd.DataFrame(
        {"smiles": ["C"] * 4}, index=["Bortezomib", "UNC-0379", "Panobinostat (LBH589)", "AZD"]
    )
    found = sig.match_drugs(
        ["Bortezomib", "unc0379", "panobinostat", "azd1", "alias me"], table, {"alias me": "AZD"}
    )
    assert found["how"].to_dict() == {
        "Bortezomib": "name", "unc0379": "spelling", "panobinostat": "beginning", "azd1": "",
        "alias me": "alias",
    }  # fmt: skip
    assert found.loc["azd1", "in_table"] is None or pd.isna(found.loc["azd1", "in_table"])
    assert sig.parent("Imatinib mesylate") == sig.parent("imatinib")


def test_prnet_says_how_little_replicates_agree(mirror):
    data = load("prnet")
    assert data.responses.n_obs == 301 and not data.simulated
    effects = well_effects(data.replicates).droplevel("cell_line")
    first, second = (effects.loc[plate] for plate in data.replicates.obs["batch"].unique())
    r = np.corrcoef(first, second.loc[first.index])[:301, 301:]
    other = (r.sum() - np.trace(r)) / (r.size - 301)
    said = f"by {np.diag(r).mean():.2f} on average (301 drugs), those of two different drugs by {other:.2f}"
    assert said in data.notes[-1]
    assert data.extras["drugs"]["smiles"].str.len().gt(0).all()
    with pytest.raises(ParameterError):
        load("prnet", control="none")


@pytest.mark.parametrize(
    ("source", "lines"), [("sciplex", None), ("tahoe", ["SW48"]), ("op3", None)]
)
def test_signatures_have_k_genes_up_and_down_in_every_row(mirror, source, lines):
    data = load("signatures", source=source, k=25, lines=lines)
    assert data.name == f"{source}_signatures"
    deg = np.asarray(data.responses.layers["deg"])
    assert ((deg == 1).sum(axis=1) == 25).all() and ((deg == -1).sum(axis=1) == 25).all()
    obs = data.responses.obs
    assert obs.groupby("perturbation", observed=True)["fold"].nunique().eq(1).all()
    assert set(obs["perturbation"]) <= set(data.extras["drugs"].index)
    with pytest.raises(ParameterError, match="no cell line 'HeLa'.*there are"):
        load("signatures", source=source, lines="HeLa")
