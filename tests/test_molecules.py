"""Molecules: reading tables of drugs, what is reported of SMILES, what a screen can carry."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from rdkit import Chem
from toys import scores

from perturbcore.core.errors import InputError
from perturbcore.data.molecules import tables
from perturbcore.data.molecules.structures import canonical, parse
from perturbcore.report import drugs as page
from perturbcore.report.comparison import Comparison

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
MIXED = {
    "aspirin": ASPIRIN,
    "acetylsalicylic acid": "O=C(C)Oc1ccccc1C(=O)O",  # the same, written otherwise
    "aspirin sodium": "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]",
    "L-alanine": "C[C@H](N)C(=O)O",
    "D-alanine": "C[C@@H](N)C(=O)O",
    "alanine": "CC(N)C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "not there": "",
    "five bonds": "C(C)(C)(C)(C)C",
    "nonsense": "hello",
    "titled": "CCO ethanol",
}
REASONS = ["no SMILES", "valence", "not a SMILES", "ethanol"]  # of the last four


def test_each_drug_keeps_its_row_and_duplicates_salts_and_stereo_isomers_are_told_apart():
    report = page.molecule_report(pd.DataFrame({"smiles": pd.Series(MIXED)}))
    assert report["smiles"].to_dict() == MIXED and list(report.index) == list(MIXED)
    for drug in ("aspirin", "caffeine", "L-alanine", "aspirin sodium"):
        assert report.at[drug, "canonical"] == Chem.MolToSmiles(Chem.MolFromSmiles(MIXED[drug]))
    assert report.at["aspirin", "same_molecule"] == "acetylsalicylic acid"
    assert report.at["aspirin", "same_parent"] == "aspirin sodium"
    twins = set(report.at["aspirin sodium", "same_parent"].split("; "))
    assert twins == {"aspirin", "acetylsalicylic acid"}
    assert report.at["aspirin sodium", "removed"] == "[Na+]"
    assert report.at["aspirin sodium", "parent"] == report.at["aspirin", "canonical"]
    assert set(report.at["L-alanine", "stereo_isomer"].split("; ")) == {"D-alanine", "alanine"}
    assert report.at["L-alanine", "same_parent"] == report.at["L-alanine", "same_molecule"] == ""
    assert list(report.loc[["L-alanine", "alanine"], "stereo_open"]) == [0, 1]
    problems = report.loc[report["problem"] != "", "problem"]
    for problem, reason in zip(problems, REASONS, strict=True):
        assert reason in problem
    # two unreadable drugs are not the same molecule
    single = report.loc[["caffeine", *problems.index]]
    assert not single[["same_molecule", "same_parent", "stereo_isomer"]].any(axis=None)
    counts = page.molecule_counts(report).set_index("kind")["drugs"].to_dict()
    assert counts == {"unreadable": 4, "salt": 1, "same molecule": 2, "same parent": 3,
                      "stereo isomer": 3, "stereo open": 1}  # fmt: skip
    assert set(page.to_look_at(report)["drug"]) == set(MIXED) - {"caffeine"}
    assert canonical(MIXED["L-alanine"], stereo=False) == canonical(MIXED["alanine"])
    pytest.raises(InputError, canonical, "hello").match("hello")
    assert parse("CCO |$;;R$|")[1] == "", "an extension of CXSMILES is no second word"


# --- tables


def write(path, text):
    path.write_text(text)
    return path


def test_read_drugs_keeps_what_is_there(tmp_path):
    text = 'name,smiles,targets\nA,CCO,"EGFR, ERBB2;EGFR"\nB,CCN,\nC,CC(,\n'
    drugs = tables.read_drugs(write(tmp_path / "d.csv", text))
    assert tables.targets_of(drugs) == {"A": ["EGFR", "ERBB2"], "B": [], "C": []}
    slips = page.molecule_report(drugs)["problem"] != ""
    assert slips.tolist() == [False, False, True], "one slip is not refused"
    tabs = write(tmp_path / "d.tsv", "name\tsmiles\nA\tCCO\nB\tCCN\n")
    pd.read_csv(tabs, sep="\t").to_parquet(tmp_path / "d.parquet")
    for path in (tabs, tmp_path / "d.parquet"):
        assert tables.read_drugs(path)["smiles"].to_dict() == {"A": "CCO", "B": "CCN"}
    pytest.raises(InputError, tables.read_drugs, tmp_path / "none.csv").match("no such file")
    with pytest.raises(InputError, match="no column 'smiles'"):
        tables.check_drugs(pd.DataFrame({"x": ["CCO"]}, index=["A"]), "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("name,smiles\n", "no rows"),
        ("name,smiles,targets\nA,CCO,EGFR\nB,CC", r"row 2 \('B'\) has 2 cells.*cut off"),
        ("name,smiles\nA,CCO\nB,Cc1cccc", r"ends within row 2 \('B'"),
        (
            "name,smiles\nA,one sample\nB,other\nC,CCO\n",
            r"2 of 3 cannot be read, first row 1 \('A'",
        ),
        ("name,smiles\nA,CCO\nA,CCN\n", "'A' is in rows 1, 2"),
        ("name,smiles\nA,CCO\n ,CCN\n", "row 2 has no name"),
        ("name,structure\nA,CCO\n", "no column 'smiles'"),
        ("name,smiles\nA,\nB,\n", "empty in every row"),
    ],
)
def test_a_table_that_is_cut_off_or_no_chemistry_names_the_row(tmp_path, text, message):
    pytest.raises(InputError, tables.read_drugs, write(tmp_path / "bad.csv", text)).match(message)


def test_built_in_compounds_are_canonical_and_sourced():
    drugs = tables.builtin_compounds()
    assert 110 <= len(drugs) <= 150 and drugs.index.is_unique
    assert drugs["smiles"].map(Chem.CanonSmiles).equals(drugs["smiles"])
    assert (drugs[["targets", "mechanism", "source"]] != "").all().all()
    assert drugs["source"].str.contains("CID").all()
    drugs.loc[:, "targets"] = ""
    assert (tables.builtin_compounds()["targets"] != "").all(), "a caller's change stays its own"


def test_built_in_facts_are_those_of_the_tahoe_table(mirror):
    ours, tahoe = tables.builtin_compounds(), tables.tahoe_drugs()
    tahoe.index = [n[0].upper() + n[1:] for n in tahoe.index]
    theirs = tahoe.loc[ours.index].assign(smiles=lambda t: t["smiles"].map(canonical))
    assert (theirs[["smiles", "targets"]] == ours[["smiles", "targets"]]).all(axis=None)


# --- what a screen can carry


def wells(strength, n_drugs=40, n_genes=60, seed=0) -> SimpleNamespace:
    """Wells on two plates, each with vehicle; drug i has an own effect of size strength[i]."""
    rng = np.random.default_rng(seed)
    effects = rng.standard_normal((n_drugs, n_genes)) * np.asarray(strength)[:, None]
    # what all drugs share must find nobody again: it is large here
    effects = effects + 2.0 * rng.standard_normal(n_genes)
    effects = np.vstack([np.zeros((3, n_genes)), effects])
    names = ["control"] * 3 + [f"d{i}" for i in range(n_drugs)]
    obs = pd.MultiIndex.from_product([["p1", "p2"], names], names=["batch", "perturbation"])
    obs = obs.to_frame(index=False).assign(cell_line="A")
    obs["is_control"] = obs["perturbation"] == "control"
    obs.index = [f"w{i}" for i in range(len(obs))]
    X = np.vstack([5 + rng.standard_normal(n_genes) + effects for _ in range(2)])
    X = AnnData((X + rng.standard_normal(X.shape) * 0.3).astype(np.float32), obs=obs)
    return SimpleNamespace(replicates=X, screen=None, extras={})


def test_plate_effects_by_hand_and_who_is_found_again_by_them():
    data = wells(np.ones(40))
    effects, cells = page.plate_effects(data), data.replicates
    means = cells.to_df().astype(float)
    means = means.groupby([cells.obs["batch"], cells.obs["perturbation"]]).mean().loc["p2"]
    np.testing.assert_allclose(
        effects.loc[("A", "p2", "d7")], means.loc["d7"] - means.loc["control"], rtol=1e-4
    )
    assert len(effects) == 80
    assert page.plate_effects(SimpleNamespace(replicates=None, screen=None)) is None
    strong = page.reproducibility(effects).iloc[0]
    assert strong["reproducible"] > 0.95 and strong["same"] > 0.8 and abs(strong["other"]) < 0.1
    none = page.reproducibility(page.plate_effects(wells(np.zeros(40)))).iloc[0]
    assert none["reproducible"] < 0.2 and abs(none["same"]) < 0.15
    half = page.reproducibility(page.plate_effects(wells(np.repeat([1.0, 0.0], 20)))).iloc[0]
    assert 0.45 < half["reproducible"] < 0.65


def scored(ceiling):
    kind = "Molecule structure"
    means = {("MACCS", "knn", kind): 3.0, ("ECFP:2", "knn", kind): 3.02}
    means["", "train_mean", "Negative control"] = 3.1
    means["", "experimental_error", "Positive control"] = ceiling
    return Comparison(scores(means, noise=0.3, lines=["A"]), "L2")


def test_answer_names_no_gap_where_there_is_none():
    responses = SimpleNamespace(obs=pd.DataFrame({"perturbation": ["p"]}))
    data = SimpleNamespace(title="T", responses=responses)
    below, above = scored(1.5), scored(4.5)
    assert "gap_closed" in below.columns() and "gap_closed" not in above.columns()
    nothing = pd.DataFrame(columns=["drugs", "reproducible", "beyond"])
    line = page.one_line(below, nothing, data)
    assert line.startswith("On 1 drugs (T): No embedding can be shown to beat the Train Mean")
    again = nothing.assign(drugs=[4.0], reproducible=[0.25])
    assert "25 % of the drugs are found again" in page.one_line(below, again, data)
