"""Embeddings of drugs: structure, targets, text, SMILES models, and whom they serve."""

import json
import shutil
from functools import partial
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem, Crippen, Descriptors, MACCSkeys
from toys import states, tokenizer_of

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.molecules.tables import builtin_compounds
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.build import build_all, serving
from perturbcore.embeddings.drugs import KINDS, PHYSICAL, fingerprint, target_encoding, target_genes
from perturbcore.embeddings.sources import BuildContext
from perturbcore.embeddings.words import drug_texts

DRUGS = {
    "aspirin": ("CC(=O)Oc1ccccc1C(=O)O", "PTGS1;PTGS2", "cyclooxygenase inhibitor"),
    "triethylamine": ("CCN(CC)CC.Cl", "CHRM1", ""),
    "oops": ("oops", "", "cyclooxygenase inhibitor"),
    "caffeine": (
        "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
        "ADORA1;ADORA2A;PDE4A;PDE5A",
        "adenosine antagonist",
    ),
}
DRUGS = pd.DataFrame(DRUGS, ["smiles", "targets", "mechanism"]).T
TEN = builtin_compounds().iloc[::13].head(10)


def dataset(drugs=DRUGS):
    return SimpleNamespace(
        name="mine", extras=MappingProxyType({"drugs": drugs}), screen=None, responses=None
    )


def built(builder, drugs=DRUGS, **options):
    spec = {"name": "m", "builder": builder, **options}
    return build_all([spec], BuildContext(dataset=dataset(drugs)))[0]


# fingerprints and descriptors


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_of_ten_molecules_are_rdkits(kind):
    """Through rdkit's older calls, where there are some."""
    made = fingerprint(TEN, name=kind, kind=kind)
    assert list(made.ids) == list(TEN.index) and made.identifier == "drug"
    assert made.dim == {"maccs": 167, "erg": 315}.get(kind, 2000), "the published widths"
    assert made.X.any(axis=1).all() and len(np.unique(made.X, axis=0)) == 10
    older = {
        "topological": partial(Chem.RDKFingerprint, fpSize=2000),
        "maccs": MACCSkeys.GenMACCSKeys,
    }
    name, _, diameter = kind.partition(":")
    if diameter:
        options = dict(radius=int(diameter) // 2, nBits=2000, useFeatures=name == "fcfp")
        older[kind] = partial(AllChem.GetMorganFingerprintAsBitVect, **options)
    if kind in older:
        with rdBase.BlockLogs():
            expected = [older[kind](Chem.MolFromSmiles(s)) for s in TEN["smiles"]]
        np.testing.assert_array_equal(made.X, np.array([list(bits) for bits in expected], "f"))


def test_unreadable_drugs_have_no_vector_and_are_counted_and_wrong_kinds_say_what_there_is():
    default, ecfp4 = (fingerprint(TEN, name="x", kind=k).X for k in ("ecfp", "ecfp:4"))
    np.testing.assert_array_equal(default, ecfp4)
    made = fingerprint(DRUGS, name="x", kind="maccs")
    assert list(made.ids) == ["aspirin", "triethylamine", "caffeine"]
    assert "1 of 4 drugs have no readable SMILES" in made.source
    for drugs, options, message in (
        (TEN, {"kind": "magic"}, "there are maccs"),
        (TEN, {"kind": "ecfp:3"}, "diameter"),
        (TEN, {"bits": 0}, "bits=0.* greater than or equal to 1"),
        (DRUGS.loc[["oops"]], {}, "no valid SMILES among 1"),
    ):
        pytest.raises(InputError, fingerprint, drugs, name="x", **options).match(message)


def test_descriptors_are_rdkits_on_a_log_scale():
    made = built("descriptors")
    mol = Chem.MolFromSmiles(DRUGS.at["caffeine", "smiles"])
    row = dict(zip(PHYSICAL, made.X[list(made.ids).index("caffeine")], strict=True))
    assert row["MolWt"] == pytest.approx(np.log1p(Descriptors.MolWt(mol)), rel=1e-6)
    logp = Crippen.MolLogP(mol)
    assert logp < 0 and row["MolLogP"] == pytest.approx(-np.log1p(-logp), rel=1e-6)


# targets


def test_target_encodings_by_hand():
    binary = target_encoding(DRUGS, name="t")
    genes = sorted(["PTGS1", "PTGS2", "CHRM1", "ADORA1", "ADORA2A", "PDE4A", "PDE5A"])
    assert list(binary.ids) == ["aspirin", "triethylamine", "caffeine"]
    expected = [[g in DRUGS.at[d, "targets"].split(";") for g in genes] for d in binary.ids]
    np.testing.assert_array_equal(binary.X, np.array(expected, np.float32))
    ranked = target_encoding(DRUGS, name="t", weights="rank").X[2]
    assert dict(zip(genes, ranked, strict=True)) == {
        **dict.fromkeys(genes, 0.0), "ADORA1": 1.0, "ADORA2A": 0.5, "PDE4A": 0.25, "PDE5A": 0.125,
    }  # fmt: skip
    assert "1 of 4 drugs have no vector" in binary.source
    with pytest.raises(InputError, match="none of 1 drugs has a target"):
        target_encoding(DRUGS.loc[["oops"]], name="t")


GENES = Embedding(
    "G", "DNA", pd.Index(["PTGS1", "PTGS2", "ADORA2A", "PDE4A", "PDE5A"]),
    np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], np.float32),
)  # fmt: skip


def test_gene_embeddings_of_targets_by_hand():
    side = target_genes(GENES, DRUGS, name="t")
    assert list(side.ids) == ["aspirin", "caffeine"], (
        "triethylamine's target has no vector, oops no target"
    )
    # caffeine's first target has no vector: the next three count
    np.testing.assert_array_equal(side.X, [[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 9, 10]])
    summed = target_genes(GENES, DRUGS, name="t", how="sum")
    np.testing.assert_array_equal(summed.X, [[4, 6], [21, 24]])
    weighted = target_genes(GENES, DRUGS, name="t", how="weight", n_targets=2)
    # weights are those of the places in the table: PTGS1 1, PTGS2 1/2; ADORA2A 1/2, PDE4A 1/4
    np.testing.assert_allclose(weighted.X, [[2.5, 4], [4.25, 5]])
    with pytest.raises(InputError, match="no vector for any target"):
        target_genes(GENES, DRUGS.loc[["triethylamine"]], name="t")
    ensembl = Embedding("E", "DNA", pd.Index(["ENSG00000095303"]), np.ones((1, 2)), "ensembl")
    pytest.raises(InputError, target_genes, ensembl, DRUGS, name="t").match("convert_to: symbol")


# text


def test_drug_texts_and_their_neighbours():
    texts = drug_texts(DRUGS)
    assert texts["aspirin"] == "aspirin. cyclooxygenase inhibitor. PTGS1 PTGS2"
    assert texts["oops"] == "oops. cyclooxygenase inhibitor"
    made = built("drug_text", dim=20, source="compounds")
    X = made.X / np.linalg.norm(made.X, axis=1, keepdims=True)
    near = X @ X[made.ids.get_loc("Trametinib")]
    mechanism = builtin_compounds().loc[made.ids, "mechanism"]
    inside = near[(mechanism == "MEK inhibitor").to_numpy()].mean()
    assert inside > 0.7 > near.mean() + 0.3


# SMILES transformers


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny encoder and of a tiny encoder-decoder."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import RobertaConfig, RobertaForMaskedLM, T5Config
    from transformers import T5ForConditionalGeneration as T5

    torch.manual_seed(0)
    letters = pre_tokenizers.Split("", "isolated")
    tokenizer = tokenizer_of("CNOSFclnos()[]=#+-123456789@H", letters)
    sizes = dict(vocab_size=len(tokenizer), pad_token_id=0)
    roberta = RobertaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=130, bos_token_id=2, eos_token_id=3, **sizes,
    )  # fmt: skip
    t5 = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                  decoder_start_token_id=0, **sizes)  # fmt: skip
    folder = tmp_path_factory.mktemp("models")
    for name, model in (("roberta", RobertaForMaskedLM(roberta)), ("t5", T5(t5))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def transform(folder, drugs=DRUGS, **options):
    return built("smiles_transformer", drugs, model=str(folder), **options)


@pytest.mark.parametrize("model", ["roberta", "t5"])
def test_a_vector_is_the_mean_over_tokens_whatever_is_beside_it(model, models):
    together = transform(models / model)
    assert together.modality == "SMILES transformer" and together.dim == 16 and len(together) == 3
    vector = together.X[together.ids.get_loc("triethylamine")]
    expected = states(models / model, DRUGS.at["triethylamine", "smiles"]).mean(axis=0)
    np.testing.assert_allclose(vector, expected, atol=2e-6)
    drugs = pd.DataFrame({"smiles": ["C" * 300, "CCO"]}, index=["long", "short"])
    assert "1 SMILES cut at 20 tokens" in transform(models / model, drugs, max_length=20).source
    assert len(transform(models / model, drugs)) == 2, "longer than the model's positions"


def test_pickled_weights_are_never_opened_and_code_of_a_folder_is_never_run(models, tmp_path):
    folder = tmp_path / "foreign"
    shutil.copytree(models / "roberta", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("open(__file__ + '.ran', 'w').close()\n")
    pytest.raises(InputError, transform, folder).match("cannot be loaded")
    assert not list(folder.glob("*.ran"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    pytest.raises(InputError, transform, folder).match("safetensors")
    (folder / "config.json").unlink()
    pytest.raises(InputError, transform, folder).match("no config.json")
    pytest.raises(InputError, transform, tmp_path / "nowhere").match("does not exist")
    pytest.raises(ParameterError, built, "smiles_transformer").match("give model")


# whom a specification serves

SPECS = [
    {"name": "net", "builder": "network", "source": "stringdb"},
    {"name": "maccs", "builder": "fingerprint", "kind": "maccs"},
    {"name": "of", "builder": "target_genes", "of": "net"},
    {"name": "mixed", "builder": "shuffled", "of": "maccs"},
    {"name": "mixed net", "builder": "shuffled", "of": "net"},
    {"name": "vectors", "file": "v.npz", "identifier": "drug", "datasets": ["one"]},
    {"name": "gene vectors", "file": "g.npz"},
]


def test_drugs_are_served_by_drug_builders_and_genes_by_gene_builders():
    specs, names = serving(SPECS, "one", "drug")
    assert names == ["maccs", "of", "mixed", "vectors"]
    # what an embedding is made from is built as well
    assert [s["name"] for s in specs] == ["net", *names]
    assert all("datasets" not in s for s in specs)
    assert SPECS[5]["datasets"] == ["one"], "the profile stays as it is"
    assert serving(SPECS, "two", "drug")[1] == ["maccs", "of", "mixed"]
    assert serving(SPECS, "one", "symbol")[1] == ["net", "mixed net", "gene vectors"]
    with pytest.raises(ParameterError, match="'a' is made from itself"):
        serving([{"name": "a", "builder": "shuffled", "of": "a"}], "mine", "drug")


def test_drug_tables_of_a_data_set_or_a_file(tmp_path):
    spec = [{"name": "m", "builder": "fingerprint", "kind": "maccs"}]
    for table, n in ((DRUGS, 3), (DRUGS.assign(smiles="CCO"), 4)):  # a changed one is built anew
        context = BuildContext(dataset=dataset(table))
        assert len(build_all(spec, context, cache=tmp_path / "cache")[0]) == n
    path = tmp_path / "mine.csv"
    path.write_text("name,smiles\nA,CCO\nB,CCN\n")
    assert list(built("fingerprint", kind="maccs", file=str(path)).ids) == ["A", "B"]
    with pytest.raises(InputError, match="brings none.*tahoe_drug_metadata"):
        build_all(spec, BuildContext(dataset=SimpleNamespace(extras={})))
    pytest.raises(ParameterError, built, "target_genes").match("needs of:")


def test_catalogue_tables_make_drug_embeddings(mirror):
    made = built("target_encoding", source="tahoe_drug_metadata")
    assert len(made) == 264 and made.dim > 200
    assert len(built("fingerprint", kind="maccs", source="sciplex_samples")) == 188
