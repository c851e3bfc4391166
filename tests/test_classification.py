"""Labels of several data sets: R's string lists, averages, families, truth, experimental error."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import toys
from anndata import AnnData

from perturbcore.book.study import Study
from perturbcore.core.errors import LeakError, ParameterError
from perturbcore.core.profile import load_profile
from perturbcore.data.effects import well_effects
from perturbcore.data.folds import add_folds, check_leakage
from perturbcore.data.responses import make_responses
from perturbcore.data.sets import signatures as sig
from perturbcore.data.sets.base import Card, Dataset, load
from perturbcore.data.sets.signatures import signature_dataset
from perturbcore.report import labels
from perturbcore.report.labels import Labelled, averaged, beats_floors, families, models_of, panels
from perturbcore.score import limits
from perturbcore.score.ceiling.ceiling import noise_ceiling
from perturbcore.score.ceiling.deg import deg_ceiling

# ---- signatures as a data set


def signatures(lines=("L1", "L2"), shared=True, **options):
    genes = [f"g{i}" for i in range(12)]
    rng = np.random.default_rng(0)
    drugs = ["alpha", "alpha hydrochloride", "beta", "gamma", "delta", "nobody"]
    found = {line: {d: (rng.permutation(genes).astype(object), 9) for d in drugs} for line in lines}
    table = pd.DataFrame(
        {"smiles": "C", "targets": "", "mechanism": ""}, index=[*drugs[:-1], "more"]
    )
    how = dict(k=2, min_labels=0, n_folds=3, seed=0, shared_wells=shared, aliases={})
    return signature_dataset("sciplex_signatures", found, table, **(how | options))


def test_unmatched_drugs_are_reported_and_salts_lie_in_one_fold():
    data = signatures()
    assert "nobody" in data.card.set_index("step").loc["drug table", "note"]
    obs = data.responses.obs
    assert "nobody" not in set(obs["perturbation"]) and len(obs) == 10
    fold = obs.groupby("perturbation", observed=True)["fold"].first()
    assert fold["alpha"] == fold["alpha hydrochloride"]
    often = signatures(min_labels=5)
    moved = (often.responses.layers["deg"] != 0).sum(axis=0)
    assert (moved >= 5).all() and often.responses.n_vars < 12
    pytest.raises(ParameterError, signatures, min_labels=99).match("min_labels=99")
    pytest.raises(ParameterError, signatures, k=6).match("share 12 genes")


@pytest.mark.filterwarnings("ignore:.*different folds:UserWarning")
def test_lines_that_share_wells_are_never_scored_across():
    responses = signatures(shared=True).responses
    check_leakage(responses)
    at = responses.obs.index[responses.obs["perturbation"] == "beta"][0]
    responses.obs.loc[at, "fold"] = (responses.obs.loc[at, "fold"] + 1) % 3
    pytest.raises(LeakError, check_leakage, responses).match("share wells")
    responses.uns["perturbcore"]["shared_wells"] = False
    check_leakage(responses)
    pytest.raises(LeakError, check_leakage, responses, joint=True).match("joint")


def test_top_k_labels_by_hand():
    genes = pd.Index(list("abcdef"))
    label = sig.top_k_labels(np.array(["x", "c", "a", "f", "b", "e", "d"]), genes, 2)
    assert label.tolist() == [1, 0, 1, -1, -1, 0]
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
    if source == "sciplex":  # reading another whole file says the same
        with pytest.raises(ParameterError, match="cell line 'HeLa' is not one of"):
            load("signatures", source=source, lines="HeLa")


# ---- averages, families, truth


METHODS = {
    ("good", "logistic", "Gene target"): 0.60,
    ("fair", "logistic", "Gene target"): 0.54,
    ("dull", "logistic", "Molecule structure"): 0.50,
    ("random", "logistic", "Negative control"): 0.50,
    ("idealized", "logistic", "Positive control"): 0.80,
    ("", "train_mean", "Negative control"): 0.48,
    ("", "no_change", "Negative control"): 0.48,
}


scored = partial(toys.scores, metric="f1_score", task="deg", noise=0.002, shift=0)


def part_of(scores, data=None):
    return Labelled(data or signatures(), scores, [])


def compared(methods):
    return part_of(scored(methods)).comparison("f1_score")


def test_mean_over_lines_is_taken_within_a_fold():
    scores = scored(METHODS)
    wide = averaged(scores, "mean")
    assert set(wide["cell_line"]) == {"mean"}
    one = wide[(wide["embedding"] == "good") & (wide["fold"] == 3)]["value"].item()
    by_hand = scores[(scores["embedding"] == "good") & (scores["fold"] == 3)]["value"].mean()
    assert one == pytest.approx(by_hand)
    # a method that one line lacks is not averaged over the others
    gone = scores[~((scores["embedding"] == "fair") & (scores["cell_line"] == "B"))]
    assert "fair" not in set(averaged(gone, "mean")["embedding"])
    shown = panels({"d": part_of(scores)}, ["d"])
    assert set(shown["cell_line"]) == {"A", "B", "mean of 2 lines"}
    two = panels({"d": part_of(scores), "e": part_of(scores)})
    assert set(two["cell_line"]) == {"Sci-Plex 3 signatures: mean of 2 lines"}


def test_families_are_held_against_random():
    table = families(compared(METHODS)).set_index("modality")
    assert list(table.index) == ["Gene target", "Molecule structure"]
    assert table.loc["Gene target", ["n", "method"]].tolist() == [2, "good"]
    assert table.loc["Gene target", "over_random"] == pytest.approx(0.10, abs=0.01)
    assert table.loc["Gene target", "over_floor"] == pytest.approx(0.12, abs=0.01)
    p = table["p_random"]
    assert p["Gene target"] < 0.001 and p["Molecule structure"] > 0.05
    good, rest = beats_floors(compared(METHODS))
    assert sorted(good) == ["fair", "good"] and rest == ["dull"]
    # better than random vectors is not enough where those are worse than the Train Mean
    low = METHODS | {
        ("random", "logistic", "Negative control"): 0.30,
        ("", "train_mean", "Negative control"): 0.57,
    }
    assert beats_floors(compared(low))[0] == ["good"]
    assert families(compared(low))["p_floor"].iloc[0] < 0.01


def labelled(label, line="L", genes=None, **obs):
    label = np.asarray(label)
    table = pd.DataFrame(
        {"perturbation": [f"p{i}" for i in range(len(label))], "cell_line": line, **obs}
    )
    genes = genes or [f"g{i}" for i in range(label.shape[1])]
    return make_responses(label, table, genes, dataset="d", task="deg", identifier="drug")


def test_labels_against_truth_by_hand():
    responses = labelled([[1, 0, -1, 0], [0, 1, 0, 0]])
    effect = np.array([[0.5, 0.5, 0.5, 0.1], [0.0, 0.0, 0.0, 0.0]])
    truth = AnnData(effect, obs=responses.obs.assign(inert=[False, True]), var=responses.var)
    simulation = SimpleNamespace(true_effects=truth[::-1])
    data = Dataset("d", "D", "deg", Card().frame(), responses, extras={"simulation": simulation})
    row = labels.truth_table(part_of(None, data)).iloc[0]
    # of the labels 1, -1 (wrong sign) and 1 (no effect there), one is right
    assert row["right"] == pytest.approx(1 / 3)
    assert row["found"] == pytest.approx(1 / 3) and row["inert"] == pytest.approx(1 / 4)


def test_label_counts_by_hand():
    data = Dataset("d", "D", "deg", Card().frame(), responses=labelled([[1, 0, -1], [0, 0, 0]]))
    row = labels.label_counts(part_of(pd.DataFrame(), data)).iloc[0]
    found = row[["perturbations", "genes", "share", "median", "none", "constant"]].tolist()
    assert found == pytest.approx([2, 3, 1 / 3, 1, 0.5, 1 / 3])


@pytest.mark.parametrize("task", ["deg", "deg_pairs"])
def test_classifier_comes_first_and_effects_are_refused(task):
    study, options = SimpleNamespace(profile=load_profile("demo")), dict(k=[3], C=[1.0], max_iter=5)
    study.models = partial(Study.models, study)
    assert [m.name for m in models_of(study, task, **options)] == ["logistic", "knn"]
    pytest.raises(ParameterError, models_of, study, "lfc", **options).match("has no labels")


# ---- the simulated genetic screen with labels, and the experimental error of a data set


def test_labels_of_a_genetic_screen_have_an_experimental_error():
    small = dict(n_cell_lines=1, n_perturbations=12, n_genes=60, n_modules=4, n_batches=2)
    small |= dict(n_control_cells=150, cells_per_perturbation=(35, 60), n_folds=2, seed=1)
    data = load("simulated", task="deg", **small)
    assert data.task == "deg" and data.responses.uns["perturbcore"]["variant"] == "pooled"
    how = dict(n_outer=2, n_inner=2, n_trials=6)
    table = limits.experimental_error(data, options={}, **how)
    expected = deg_ceiling(data.screen, data.responses, n_trials=6, progress=False)
    boot = table[table["estimate"] == "bootstrap"][list(expected)]
    pd.testing.assert_frame_equal(boot, expected)
    units = limits.limit_units(table, data.responses, 4, "simulated")
    names = ["experimental_error", "noise_floor", "repeated_experiment"]
    assert [(u.about["predictor"], u.about["fold"]) for u in units] == [
        (name, fold) for name in names for fold in (0, 1)
    ]
    floor, again = (units[i].metrics["f1_score"] for i in (2, 4))
    assert 0.5 < again < 1 and 0.5 < floor < 1
    at = table[
        (table["fold"] == 0) & (table["metric"] == "f1_score") & np.isclose(table["quantile"], 0.1)
    ]
    assert units[0].metrics["f1_score"] == at["value"].item()
    assert units[0].about["predictor"] == "experimental_error" and units[0].about["n_test"] == 6
    assert {u.about["n_train"] for u in units} == {6}
    known = data.responses.copy()  # one fold asked, the other only learned from
    known.obs["fold"] = known.obs["fold"].where(known.obs["fold"] == 0, -1)
    alone = limits.limit_units(table[table["fold"] == 0], known, 0, "simulated")
    assert {(u.about["n_test"], u.about["n_train"]) for u in alone} == {(6, 6)}
    pytest.raises(ParameterError, load, "simulated", task="labels").match("task 'labels'")


@pytest.mark.parametrize("control", ["matched", "global"])
def test_replicates_are_resampled_by_the_variant_of_the_responses(control):
    rng = np.random.default_rng(0)
    who, plates = np.tile(["a", "b", "control", "control"], 3), np.repeat(["p1", "p2", "p3"], 4)
    obs = pd.DataFrame({"perturbation": who, "batch": plates, "cell_line": "L"})
    obs = obs.assign(is_control=who == "control").rename("w{}".format)
    plate = np.repeat([0.0, 5.0, -5.0], 4)[:, None]
    wells = AnnData((rng.normal(size=(12, 6)) + plate).astype(np.float32), obs=obs)
    responses = add_folds(labelled(np.zeros((2, 6))), 2, 0)
    responses.obs["perturbation"] = ["a", "b"]
    responses.uns["perturbcore"].update(task="lfc", control=control)
    data = Dataset("d", "D", "lfc", Card().frame(), responses=responses, replicates=wells)
    found = limits.experimental_error(
        data, n_outer=4, n_inner=3, n_trials=1, options={"control": "global"}
    )
    expected = noise_ceiling(wells, wells=True, control=control, n_outer=4, n_inner=3)
    wanted = ("bootstrap", "repeated", "noise_floor")
    found, again, floor = (found[found["estimate"] == e] for e in wanted)
    np.testing.assert_allclose(found["value"], expected["value"])
    low = floor.loc[floor["metric"] == "L2", "value"]
    # a half of the plates holds a drug and its vehicle: their common shift cancels
    assert len(low) == 2 and (low < 5).all()
    twice = again.loc[again["metric"] == "L2", "value"]
    np.testing.assert_allclose(twice, np.sqrt(2) * low)
    units = limits.limit_units(pd.concat([found, again, floor]), responses, 0, "d")
    names = {"experimental_error", "repeated_experiment", "noise_floor"}
    assert {u.about["predictor"] for u in units} == names
    big = found.loc[(found["metric"] == "L2") & (found["quantile"] == 0.9), "value"].max()
    # plates differ by 5 a gene: only matching takes that away
    assert (big < 5) == (control == "matched")
