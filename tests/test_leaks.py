"""Folds, and what lets a model see a test perturbation in training: caught there, or declared."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.data.folds import (
    add_folds,
    assign_folds,
    check_disjoint,
    check_leakage,
    is_control,
    merged,
    same_perturbation,
)
from perturbcore.data.responses import check_responses, make_responses
from perturbcore.embeddings.base import Embedding
from perturbcore.score.leaks import leak_report, leaks_said

GENES = [f"ABC{chr(65 + i)}{j}" for i in range(6) for j in range(1, 11)]
TWELVE = [f"P{i}" for i in range(12)]
DRUGS = [f"drugin{chr(97 + i)}{chr(97 + j)}" for i in range(6) for j in range(10)]
ENSEMBL = {"ENSG00000141510": "TP53", "P53OLD": "TP53", "ALIASED": "TP53"}


def responses_of(names, identifier="symbol", X=None, lines=("A",), **obs):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"perturbation": list(names) * len(lines)})
    table = table.assign(cell_line=np.repeat(lines, len(names)), **obs)
    X = rng.normal(size=(len(table), 60)) if X is None else X
    genes = [f"g{i}" for i in range(X.shape[1])]
    return make_responses(X, table, genes, dataset="mine", identifier=identifier)


def found(report, check):
    return int(report.set_index("check")["found"].filter(like=check).sum())


@given(st.permutations(TWELVE[:11]), st.integers(0, 5))
def test_folds_do_not_depend_on_the_order_or_repeats_of_rows(names, seed):
    folds = assign_folds(sorted(names), 4, seed)
    pd.testing.assert_series_equal(folds, assign_folds(names + names[:3], 4, seed))
    assert sorted(folds.value_counts()) == [2, 3, 3, 3]


def test_a_perturbation_has_one_fold_in_every_line_and_folds_depend_on_the_seed():
    responses = add_folds(responses_of(TWELVE, lines=("A", "B")))
    assert (responses.obs.groupby("perturbation")["fold"].nunique() == 1).all()
    check_leakage(responses, joint=True)
    assert (assign_folds(GENES, seed=0) != assign_folds(GENES, seed=1)).any()


def test_impossible_numbers_of_folds_and_missing_names_are_refused():
    for n_folds in (0, 1, 13):
        pytest.raises(ParameterError, assign_folds, TWELVE, n_folds).match("n_folds")
    pytest.raises(InputError, assign_folds, ["a", None]).match("missing")


def test_a_planted_leak_within_a_line_and_a_shared_perturbation_are_caught():
    responses = add_folds(responses_of(TWELVE))
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
        (lambda r: r.X.__setitem__((1, 2), np.nan), "gene 'g2'"),
        (lambda r: r.obs.__setitem__("perturbation", "P0"), "two rows"),
        (lambda r: setattr(r, "var_names", ["g0", *r.var_names[:-1]]), "twice"),
        (lambda r: r.uns["perturbcore"].update(task="deg"), "layers"),
        (lambda r: (labelled(r, "deg"), r.layers["deg"].fill(2)), "value 2"),
        (lambda r: labelled(r, "deg_pairs"), "observed"),
        (lambda r: r.obs.__setitem__("cell_line", [None] + ["A"] * 23), "empty in row"),
    ],
)
def test_bad_responses_are_named(spoil, message):
    responses = responses_of(TWELVE, lines=("A", "B"))
    spoil(responses)
    pytest.raises(InputError, check_responses, responses, folds=False).match(message)


# the leak, its names, what they are, options of the folds
CAUGHT = {
    "case": (["tp53", "TP53"], "symbol", {}),
    "trailing space": (["TP53 ", "TP53"], "symbol", {}),
    "zero width": (["TP\u200b53", "TP53"], "symbol", {}),
    "alias": (["ALIASED", "TP53"], "symbol", {"aliases": ENSEMBL}),
    "previous symbol": (["P53OLD", "TP53"], "symbol", {"aliases": ENSEMBL}),
    "symbol and Ensembl": (["ENSG00000141510", "TP53"], "symbol", {"aliases": ENSEMBL}),
    "Ensembl version": (["ENSG00000141510.18", "ENSG00000141510"], "ensembl", {}),
    "guides": (["TP53_1", "TP53_2", "TP53-sg3", "TP53"], "symbol", {}),
    "with control": (["TP53+ctrl", "ctrl+TP53", "TP53"], "symbol", {}),
    "order of two": (["TP53+MYC", "MYC+TP53"], "symbol", {}),
    "two doubles of a gene": (["TP53+MYC", "TP53+KRAS"], "symbol", {"doubles": "together"}),
    "a double and its gene": (["TP53+MYC", "MYC"], "symbol", {"doubles": "together"}),
    "salt": (["Imatinib", "Imatinib mesylate", "imatinib-hydrochloride"], "drug", {}),
    "case of a drug": (["IMATINIB", "imatinib"], "drug", {}),
    "one structure": (["Aspirin", "ASA"], "drug", {"smiles": dict.fromkeys(
        ["Aspirin", "ASA"], "CC(=O)Oc1ccccc1C(=O)O")}),
    "dose": (["Imatinib 10 uM", "Imatinib_0.1", "Imatinib (500 nM)", "Imatinib"], "drug", {}),
}  # fmt: skip


@pytest.mark.parametrize("leak", CAUGHT)
def test_names_of_one_perturbation_share_a_fold_and_are_listed(leak):
    names, identifier, how = CAUGHT[leak]
    others = DRUGS if identifier == "drug" else GENES
    smiles = how.get("smiles")
    for seed in range(6):
        folds = assign_folds([*others, *names], 5, seed, identifier=identifier, **how)
        assert folds[names].nunique() == 1, leak
        # the others are as they would be with one name for all
        alone = assign_folds([*others, sorted(names)[0]], 5, seed, identifier=identifier)
        pd.testing.assert_series_equal(folds[others], alone[others])
    made = add_folds(responses_of([*others, *names], identifier), 5, **how)
    assert len(made.uns["perturbcore"]["merged"]) == 1
    assert set(made.uns["perturbcore"]["merged"][0].split(" = ")) == {repr(n) for n in names}
    # folds of another's making are refused, or the report names the leak
    made.obs["fold"] = [0] * len(others) + list(range(len(names)))
    check = {"doubles": "combinations", "aliases": "older", "smiles": "structures"}
    what = next((check[k] for k in how), "names of one perturbation in different")
    aliases = how.get("aliases")
    report = leak_report(made, smiles=smiles, aliases=aliases)
    assert found(report, what) >= 1 and repr(names[0])[1:-1] in " ".join(report["example"])
    if not how:
        pytest.raises(LeakError, check_leakage, made).match("one perturbation by its names")
        made.uns["perturbcore"]["published_split"] = True
        check_leakage(made)


def spoiled(leak):
    """Responses and an embedding with one leak that no fold can mend."""
    rng = np.random.default_rng(1)
    responses = add_folds(responses_of(GENES))
    if leak == "control labels":
        return add_folds(responses_of([*GENES, "non-targeting_0012", "NTC", "safe-targeting"])), []
    if leak == "equal responses":
        number = responses.obs["fold"].to_numpy()
        i, j = 0, int(np.flatnonzero(number != number[0])[0])
        X = np.array(responses.X)
        X[j] = X[i]
        return add_folds(responses_of(GENES, X=X)), []
    copy = responses.X
    if leak == "linear copy":  # its main components, all of one length
        copy = np.linalg.svd(copy - copy.mean(axis=0))[0][:, :20]
    return responses, [
        Embedding("honest", "Expression", pd.Index(GENES), rng.normal(size=(60, 40))),
        Embedding("copied", "Expression", pd.Index(GENES), np.array(copy)),
    ]


DECLARED = {
    "control labels": "labels of controls",
    "equal responses": "equal responses",
    "embedding is the responses": "copy of the responses",
    "linear copy": "copy of the responses",
}


@pytest.mark.parametrize("leak", DECLARED)
def test_a_leak_in_the_data_is_declared_and_clean_data_are_called_clean(leak):
    responses, embeddings = spoiled(leak)
    report = leak_report(responses, embeddings)
    assert found(report, DECLARED[leak]) == (3 if leak == "control labels" else 1)
    said = leaks_said(report)
    assert "Leaks found" in said and DECLARED[leak] in said and "honest" not in said
    clean = leak_report(add_folds(responses_of(GENES)), embeddings[:1])
    assert leaks_said(clean).startswith("No leak was found by")


def test_two_rows_in_one_line_shared_wells_and_other_lines_stay_caught():
    with pytest.raises(InputError, match="two rows"):
        check_responses(responses_of(["TP53", "TP53", "MYC"]), folds=False)
    for joint in (False, True):
        made = add_folds(responses_of(GENES, lines=("A", "B")))
        made.obs.loc[made.obs_names[0], "fold"] = (made.obs["fold"].iloc[0] + 1) % 5
        made.uns["perturbcore"]["shared_wells"] = not joint
        with pytest.raises(LeakError, match="wells" if not joint else "joint"):
            check_leakage(made, joint=joint)


def test_names_that_only_look_alike_stay_apart():
    genes = ["NKX2-1", "NKX2-5", "HLA-A", "HLA-B", "H2AC4", "H2AC6", "MT-ND1", "NT5E", "CTRL1"]
    drugs = ["AZD-7648", "AZD-8055", "PF-750", "(+)-JQ1", "(-)-JQ1", "5-Azacytidine", "PP 110"]
    assert not merged(same_perturbation(genes)) and not any(map(is_control, genes[:8]))
    assert not merged(same_perturbation(drugs, "drug"))
    # a numbering is not a gene with three hundred guides
    assert not merged(same_perturbation([f"P_{i}" for i in range(300)]))
    assert same_perturbation(["1017", "7157"], "entrez").nunique() == 2
    assert same_perturbation(["ENSG00000141510", "ENSG00000136997"], "ensembl").nunique() == 2
