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


def table(smiles, **columns) -> pd.DataFrame:
    return pd.DataFrame({"smiles": pd.Series(smiles), **columns})


@pytest.fixture(scope="module")
def report():
    return page.molecule_report(table(MIXED))


def test_each_drug_keeps_its_row_and_duplicates_salts_and_stereo_isomers_are_told_apart(report):
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
    assert not report.loc["caffeine", ["same_molecule", "same_parent", "stereo_isomer"]].any()


def test_unreadable_smiles_are_reported_with_their_reason(report):
    assert report.at["not there", "problem"] == "no SMILES"
    assert "valence" in report.at["five bonds", "problem"]
    assert report.at["nonsense", "problem"] == "not a SMILES"
    assert "ethanol" in report.at["titled", "problem"]
    # two unreadable drugs are not the same molecule
    unread = report[report["problem"] != ""]
    assert not unread[["same_molecule", "same_parent", "stereo_isomer"]].any(axis=None)


def test_counts_agree_with_the_report(report):
    counts = page.molecule_counts(report).set_index("kind")["drugs"].to_dict()
    assert counts == {"unreadable": 4, "salt": 1, "same molecule": 2, "same parent": 3,
                      "stereo isomer": 3, "stereo open": 1}  # fmt: skip
    assert set(page.to_look_at(report)["drug"]) == set(MIXED) - {"caffeine"}


def test_canonical_can_leave_salt_and_stereo_out():
    assert canonical(MIXED["aspirin sodium"], parent=True) == canonical(ASPIRIN)
    assert canonical(MIXED["L-alanine"], stereo=False) == canonical(MIXED["alanine"])
    pytest.raises(InputError, canonical, "hello").match("hello")
    assert parse("CCO |$;;R$|")[1] == "", "an extension of CXSMILES is no second word"


# --- tables


def write(path, text):
    path.write_text(text)
    return path


def test_read_drugs_keeps_what_is_there(tmp_path):
    path = write(
        tmp_path / "d.csv", 'name,smiles,targets,mechanism\nA,CCO,"EGFR, ERBB2;EGFR",x\nB,CCN,,\n'
    )
    drugs = tables.read_drugs(path)
    assert list(drugs.index) == ["A", "B"]
    assert tables.targets_of(drugs) == {"A": ["EGFR", "ERBB2"], "B": []}
    tabs = write(tmp_path / "d.tsv", "name\tsmiles\nA\tCCO\nB\tCCN\n")
    assert list(tables.read_drugs(tabs)["smiles"]) == ["CCO", "CCN"]


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


def test_one_slip_is_not_refused_parquet_is_read_and_missing_files_are_named(tmp_path):
    drugs = tables.read_drugs(write(tmp_path / "d.csv", "name,smiles\nA,CCO\nB,CC(\nC,CCN\n"))
    assert list(page.molecule_report(drugs)["problem"] != "") == [False, True, False]
    pd.DataFrame({"name": ["A"], "smiles": ["CCO"]}).to_parquet(tmp_path / "d.parquet")
    assert list(tables.read_drugs(tmp_path / "d.parquet").index) == ["A"]
    pytest.raises(InputError, tables.read_drugs, tmp_path / "none.csv").match("no such file")
    with pytest.raises(InputError, match="no column 'smiles'"):
        tables.check_drugs(pd.DataFrame({"x": ["CCO"]}, index=["A"]), "mine")


def test_built_in_compounds_are_canonical_and_sourced():
    drugs = tables.builtin_compounds()
    assert 110 <= len(drugs) <= 150 and drugs.index.is_unique
    for smiles in drugs["smiles"]:
        assert Chem.MolToSmiles(Chem.MolFromSmiles(smiles)) == smiles
    assert (drugs[["targets", "mechanism", "source"]] != "").all().all()
    assert drugs["source"].str.contains("CID").all()
    drugs.loc[:, "targets"] = ""
    assert (tables.builtin_compounds()["targets"] != "").all(), (
        "a caller's change must not reach the next"
    )


def test_built_in_facts_are_those_of_the_tahoe_table(mirror):
    tahoe = tables.tahoe_drugs()
    tahoe.index = [n[0].upper() + n[1:] for n in tahoe.index]
    ours = tables.builtin_compounds()
    for drug, row in ours.iterrows():
        assert canonical(tahoe.at[drug, "smiles"]) == row["smiles"]
        assert tahoe.at[drug, "targets"] == row["targets"]


# --- what a screen can carry


def wells(strength, n_drugs=40, n_genes=60, seed=0) -> SimpleNamespace:
    """Wells on two plates, each with vehicle; drug i has an own effect of size strength[i]."""
    rng = np.random.default_rng(seed)
    effects = rng.standard_normal((n_drugs, n_genes)) * np.asarray(strength)[:, None]
    X, rows = [], []
    for plate in ("p1", "p2"):
        shift = rng.standard_normal(n_genes)
        for drug in range(-3, n_drugs):
            own = effects[drug] + 2.0 if drug >= 0 else 0.0
            X.append(5 + shift + own + rng.standard_normal(n_genes) * 0.3)
            rows.append(("control" if drug < 0 else f"d{drug}", plate, "A", drug < 0))
    obs = pd.DataFrame(rows, columns=["perturbation", "batch", "cell_line", "is_control"])
    obs.index = [f"w{i}" for i in range(len(obs))]
    X = AnnData(np.array(X, np.float32), obs=obs)
    return SimpleNamespace(replicates=X, screen=None, extras={})


def test_plate_effects_by_hand():
    data = wells(np.ones(40))
    profiles = page.plate_effects(data)
    a = data.replicates
    plate = (a.obs["batch"] == "p2").to_numpy()
    control = a.obs["is_control"].to_numpy()
    mine = (a.obs["perturbation"] == "d7").to_numpy()
    expected = a.X[plate & mine].astype(float).mean(0) - a.X[plate & control].astype(float).mean(0)
    np.testing.assert_allclose(profiles.loc[("A", "p2", "d7")], expected, rtol=1e-5)
    assert len(profiles) == 80
    assert page.plate_effects(SimpleNamespace(replicates=None, screen=None)) is None


def test_reproducibility_finds_effects_and_not_noise():
    # what all drugs share must find nobody again: it is large here
    strong = page.reproducibility(page.plate_effects(wells(np.full(40, 1.0)))).iloc[0]
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
