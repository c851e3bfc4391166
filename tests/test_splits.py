import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.data.folds import add_folds, assign_folds, check_disjoint, check_leakage
from perturbcore.data.responses import check_responses, make_responses


def small(n=12, lines=("A", "B")):
    obs = pd.DataFrame(
        [(f"P{i}", line) for line in lines for i in range(n)], columns=["perturbation", "cell_line"]
    )
    X = np.random.default_rng(0).normal(size=(len(obs), 4))
    return make_responses(X, obs, list("wxyz"), dataset="toy")


@given(st.permutations([f"P{i}" for i in range(11)]), st.integers(0, 5))
def test_folds_do_not_depend_on_the_order_or_repeats_of_rows(names, seed):
    a = assign_folds(sorted(names), 4, seed)
    b = assign_folds(names + names[:3], 4, seed)
    pd.testing.assert_series_equal(a, b)
    assert sorted(a.value_counts()) == [2, 3, 3, 3]


def test_a_perturbation_has_one_fold_in_every_line_and_folds_depend_on_the_seed():
    responses = add_folds(small())
    assert (responses.obs.groupby("perturbation")["fold"].nunique() == 1).all()
    check_leakage(responses, joint=True)
    names = [f"P{i}" for i in range(40)]
    assert (assign_folds(names, seed=0) != assign_folds(names, seed=1)).any()


def test_impossible_numbers_of_folds_and_missing_names_are_refused():
    for n_folds in (0, 1, 13):
        with pytest.raises(ParameterError, match="n_folds"):
            assign_folds([f"P{i}" for i in range(12)], n_folds)
    pytest.raises(InputError, assign_folds, ["a", None]).match("missing")


def test_a_planted_cross_line_leak_is_caught_for_joint_models_and_reported_for_others():
    responses = add_folds(small())
    row = responses.obs_names[0]
    responses.obs.loc[row, "fold"] = (responses.obs.loc[row, "fold"] + 1) % 5
    with pytest.raises(LeakError, match=responses.obs.loc[row, "perturbation"]):
        check_leakage(responses, joint=True)
    with pytest.warns(UserWarning, match="joint"):
        check_leakage(responses)


def test_a_planted_leak_within_a_line_and_a_shared_perturbation_are_caught():
    responses = add_folds(small(lines=("A",)))
    names = ["P0", "P0", *responses.obs["perturbation"].iloc[2:]]
    responses.obs = responses.obs.assign(perturbation=names, fold=[0, 1] + [2] * 10)
    pytest.raises(LeakError, check_leakage, responses).match("P0")
    check_disjoint(["a"], ["b"])
    pytest.raises(LeakError, check_disjoint, ["a", "b"], ["b"]).match("'b'")


def labelled(responses, task):
    responses.uns["perturbcore"]["task"] = task
    responses.layers["deg"] = np.zeros(responses.shape, np.int8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r.obs.drop(columns="cell_line", inplace=True), "cell_line"),
        (lambda r: r.uns.pop("perturbcore"), "uns"),
        (lambda r: r.uns["perturbcore"].update(task="x"), "'x'"),
        (lambda r: r.X.__setitem__((1, 2), np.nan), "gene 'y'"),
        (lambda r: r.obs.__setitem__("perturbation", "P0"), "two rows"),
        (lambda r: setattr(r, "var_names", list("wwyz")), "twice"),
        (lambda r: r.uns["perturbcore"].update(task="deg"), "layers"),
        (lambda r: (labelled(r, "deg"), r.layers["deg"].fill(2)), "value 2"),
        (lambda r: labelled(r, "deg_pairs"), "observed"),
        (lambda r: r.obs.__setitem__("cell_line", [None] + ["A"] * 23), "empty in row"),
    ],
)
def test_bad_responses_are_named(spoil, message):
    responses = small()
    spoil(responses)
    pytest.raises(InputError, check_responses, responses, folds=False).match(message)
