"""Embeddings by language models of texts or SMILES: means of hidden states or token vectors."""

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data import catalogue
from perturbcore.data.molecules.structures import molecules
from perturbcore.embeddings.drugs import lost
from perturbcore.embeddings.linalg import unit
from perturbcore.embeddings.registry import Dim, register
from perturbcore.embeddings.sources import resolved
from perturbcore.embeddings.words import isoforms_of

WEIGHTS = "*.safetensors"
TOKENS = "*token*.json"
READ = (".json", ".txt", ".model", ".safetensors", ".npz")
MODALITY = "Language model"
# published models of SMILES; their weights have licences of their own
HUB = {
    "ChemBERTa-77M-MLM": "DeepChem/ChemBERTa-77M-MLM",
    "ChemBERTa-77M-MTR": "DeepChem/ChemBERTa-77M-MTR",
    "MolT5": "laituan245/molt5-large",
}
SAFE = (
    "only safetensors weights are opened, because pickled ones can run code; load the model once "
    "where you trust it, and save_pretrained(folder, safe_serialization=True)"
)


def find_model(
    options: dict, folder: Path | None, where: str, *,
    needs: Sequence[str] = ("config.json", WEIGHTS), hub: Mapping[str, str] | None = None,
) -> tuple[dict, str]:  # fmt: skip
    """Resolve ``model`` to a folder, and digest what decides the vectors."""
    model, others = options.get("model", ""), {k: v for k, v in options.items() if k != "model"}
    table = catalogue.entries()
    packaged = table.index[table["owner"] == "package"]
    known = sorted({n.partition("/")[0] for n in packaged})
    if not model:
        ways = ", ".join(["a folder", *known, *(hub or {}), *(["a hub id"] if hub else [])])
        raise ParameterError(f"{where}: give model: {ways}")
    path = resolved(model, folder)
    if model in known:
        files = {n: catalogue.fetch(n) for n in packaged if n.startswith(f"{model}/")}
        path = Path(os.path.commonpath([f.parent for f in files.values()]))
        content = [[name, table.loc[name, "sha256"]] for name in files]
    elif path.is_dir():
        for pattern in needs:
            if not list(path.rglob(pattern)):
                why = f"no {pattern} file; {SAFE}" if pattern == WEIGHTS else f"no {pattern}"
                raise InputError(f"{where}: folder {path} has {why}: is it a saved model?")
        read = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix in READ)
        content = [[str(f.relative_to(path)), catalogue.hash_of(f)] for f in read]
    elif (
        hub is None or "$" in str(path) or model.startswith((".", "/", "~")) or model.count("/") > 1
    ):
        raise InputError(f"{where}: the model folder {path} does not exist; check the path")
    else:
        return options | {"model": hub.get(model, model)}, digest(others, hub.get(model, model))
    return options | {"model": str(path)}, digest(others, content)


@register("language_model", kind="texts", modality=MODALITY, prepare=find_model)
def language_model(
    texts: Mapping[str, str], *, model: str = "", batch_size: Dim = 32, max_length: Dim = 256
):
    """Embed genes by what a language model makes of their descriptions.

    The recipe of GenePT with any text encoder in safetensors: mean of the hidden states over a
    text's tokens, of length 1. `model`: one of the catalogue (all-MiniLM-L6-v2) or a folder; texts
    longer than `max_length` tokens are cut, and counted in ``source``. Chen & Zou 2024 (GenePT);
    Reimers & Gurevych 2019 (mean over tokens).
    """
    ids = sorted(texts)
    X, n_cut = hidden_means([texts[i] for i in ids], *load_encoder(model), batch_size, max_length)
    cut = f", {n_cut} texts cut at {max_length} tokens" if n_cut else ""
    return ids, unit(X), f"{len(ids)} texts, mean of tokens{cut}"


@register(
    "token_vectors", kind="texts", modality=MODALITY,
    prepare=partial(find_model, needs=(TOKENS, WEIGHTS)),
)  # fmt: skip
def token_vectors(texts: Mapping[str, str], *, model: str = ""):
    """Embed genes by the mean of the static vectors of the tokens of their descriptions.

    No attention: a word has one vector, whatever stands beside it. `model`: wordllama, or a folder
    with ``*token*.json`` and one safetensors file with one matrix, tokens x dimensions. Miller 2024
    (wordllama).
    """
    from safetensors.numpy import load_file
    from transformers import PreTrainedTokenizerFast

    (weights,), (tokens,) = ([*Path(model).rglob(p)][:1] for p in (WEIGHTS, TOKENS))
    table = max(load_file(weights).values(), key=lambda v: v.size if v.ndim == 2 else 0)
    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokens))
    except Exception as error:  # tokenizers raises the bare class
        raise InputError(f"{tokens} is no file of the tokenizers library ({error})") from None
    ids = sorted(texts)
    split = tokenizer([texts[i] for i in ids], add_special_tokens=False)["input_ids"]
    keep = [k for k, own in enumerate(split) if own]
    if not keep or max(max(split[k]) for k in keep) >= len(table):
        raise InputError(f"{weights} has {len(table)} vectors: not those of the tokens of {tokens}")
    X = np.stack([table[split[k]].astype(np.float32).mean(axis=0) for k in keep])
    note = f"; {len(ids) - len(keep)} texts without a token" if len(keep) < len(ids) else ""
    about = f"{len(keep)} texts, mean of {len(table):,} static token vectors{note}"
    return [ids[k] for k in keep], unit(X), about


@register(
    "smiles_transformer", kind="drugs", modality="SMILES transformer", entity="drug",
    prepare=partial(find_model, hub=HUB),
)  # fmt: skip
def smiles_transformer(
    drugs: pd.DataFrame, *, model: str = "ChemBERTa-77M-MTR", revision: str = "main",
    batch_size: Dim = 32, max_length: Dim = 512,
):  # fmt: skip
    """Embed drugs by the mean of a transformer's last hidden states over their SMILES' tokens.

    `model`: folder of a saved model and tokenizer, a name among `HUB`, or a hub id; weights must be
    safetensors; code of a repository is never run. `revision`: commit of a hub id; pin it, since
    the cache of embeddings goes by this text. SMILES are taken in rdkit's canonical form. Ahmad et
    al. 2022 (ChemBERTa-2); Edwards et al. 2022 (MolT5); Cole et al. 2026.
    """
    from rdkit import Chem

    read = molecules(drugs)
    texts = [Chem.MolToSmiles(mol) for mol in read.values()]
    given = {} if Path(model).is_dir() else {"revision": revision}
    encoder = load_encoder(HUB.get(model, model), **given)
    X, n_cut = hidden_means(texts, *encoder, batch_size, max_length)
    cut = f", {n_cut} SMILES cut at {max_length} tokens" if n_cut else ""
    return list(read), X, f"{Path(model).name}, mean over tokens{cut}{lost(drugs, read)}"


def load_encoder(model: str, **given):
    """Tokenizer and encoder of a folder or hub id; of encoder-decoders the encoder."""
    from transformers import AutoTokenizer

    from perturbcore.embeddings.cell_models.huggingface import load_model

    whole, _ = load_model(model, **given)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False, **given)
    except Exception as error:  # transformers raises many kinds
        raise InputError(
            f"model '{model}' has no tokenizer that can be loaded ({error})"
        ) from error
    return tokenizer, whole.get_encoder() if whole.config.is_encoder_decoder else whole


def hidden_means(
    texts: Sequence[str], tokenizer, encoder, batch_size: int, max_length: int, *,
    special: bool = True,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """Mean hidden states (texts x hidden size), and how many texts were too long."""
    import torch

    from perturbcore.embeddings.cell_models.huggingface import token_mean

    limit = getattr(encoder.config, "max_position_embeddings", None)
    if limit:  # RoBERTa counts positions from the padding index on
        max_length = min(max_length, int(limit) - 2)
    lengths = np.array([len(ids) for ids in tokenizer(list(texts))["input_ids"]])
    out = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    # texts of a length together: little padding; the longest first, so that memory fails at once
    order = np.argsort(-lengths, kind="stable")
    encoder.eval()
    with torch.inference_mode(), tqdm(total=len(order), unit="text", disable=None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=max_length,
                return_tensors="pt", return_special_tokens_mask=True,
            )  # fmt: skip
            mask = batch["attention_mask"]
            hidden = encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            kept = mask if special else mask * (1 - batch["special_tokens_mask"])
            out[rows] = token_mean(hidden, kept).float().numpy()
            bar.update(len(rows))
    return out, int((lengths > max_length).sum())


UNIREP = "model_weights.npz"
# the published numbering of residues: B, J and Z are read as unknown (X); 24 starts a sequence
NUMBER = {a: i for i, a in enumerate("-MRHKDESTNQCUGPAVIFYWLOX")} | dict.fromkeys("BJZ*", 23)
START = 24
PARTS = {"wx": "gx", "wh": "gh", "wmx": "gmx", "wmh": "gmh"}  # weight: its gain


def prepare(options: dict, folder: Path | None, where: str) -> tuple[dict, str]:
    """Find the folder of the model: with UniRep's archive, or as transformers saves one."""
    try:
        return find_model(options, folder, where, needs=(UNIREP,))
    except InputError:
        return find_model(options, folder, where)


@register("protein_model", kind="sequences", modality="Protein model", prepare=prepare)
def protein_model(
    sequences: Mapping[str, str | Iterable[str]],
    *,
    model: str = "",
    batch_size: Dim = 64,
    max_length: Dim = 1000,
):
    """Embed genes by the mean of a protein model's residue vectors; isoforms are averaged.

    `model`: UniRep-64, UniRep-256 or UniRep-1900 of the catalogue, a folder with such an archive,
    or one with a protein model that transformers can load (ESM-2, ProtT5); longer sequences than
    `max_length` residues are cut, and counted in ``source``. Alley et al. 2019 (UniRep); Cole et
    al. 2026, section 4.5.4.
    """
    ids, rows, isoforms = isoforms_of(sequences)
    n_cut = sum(len(s) > max_length for s in isoforms)
    isoforms = [s.upper()[:max_length] for s in isoforms]
    if (Path(model) / UNIREP).is_file():
        X = unirep(isoforms, read_unirep(Path(model) / UNIREP), batch_size)
    else:
        X, _ = _letter_means(isoforms, model, "MKTAY", max_length, batch_size)
    mean = _averaged(X, rows, np.ones(len(rows)))
    cut = f", {n_cut} cut at {max_length} residues" if n_cut else ""
    return ids, mean, f"{len(isoforms)} sequences, mean over residues{cut}"


@register("dna_model", kind="windows", modality="DNA model", prepare=find_model)
def dna_model(
    windows: Mapping[str, str], *, model: str = "", piece: Dim = 512, batch_size: Dim = 16
):
    """Embed genes by the mean of a DNA model's vectors over the bases around their start.

    `windows`: 4,096 bases around the start of transcription
    (`perturbcore.data.identifiers.tss_windows`); `piece`: bases that the model reads at once. Cole
    et al. 2026, section 4.5.3.
    """
    ids = sorted(windows)
    cuts = [range(0, len(windows[i]), piece) for i in ids]
    pieces = [windows[i][k : k + piece] for i, own in zip(ids, cuts, strict=True) for k in own]
    X, n_cut = _letter_means(pieces, model, "ACGTA", piece, batch_size)
    rows = np.repeat(np.arange(len(ids)), [len(c) for c in cuts])
    mean = _averaged(X, rows, np.array([len(p) for p in pieces]))
    cut = f", {n_cut} of them cut: choose a smaller piece" if n_cut else ""
    return ids, mean, f"{len(ids)} windows in {len(pieces)} pieces of {piece} bases{cut}"


def _letter_means(texts: list[str], model: str, probe: str, longest: int, batch_size: int):
    """Mean vectors of residues or bases, and how many texts were cut; other tokens do not count."""
    tokenizer, encoder = load_encoder(model)
    if tokenizer.unk_token_id in tokenizer(probe)["input_ids"]:
        texts = [" ".join(s) for s in texts]  # this one takes letters for words
    longest += tokenizer.num_special_tokens_to_add()
    return hidden_means(texts, tokenizer, encoder, batch_size, longest, special=False)


def _averaged(X: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted mean of the vectors of each row number, of which none is left out."""
    mean = np.zeros((rows.max() + 1, X.shape[1]))
    np.add.at(mean, rows, X * weight[:, None])
    return mean / np.bincount(rows, weights=weight)[:, None]


def read_unirep(path: Path) -> dict:
    """Embedding of residues (26 x 10) and normalised weights of each layer, as tensors."""
    import torch

    try:
        with np.load(path, allow_pickle=False) as archive:
            raw = {k: torch.from_numpy(archive[k].astype(np.float32)) for k in archive.files}
        layers = []
        while (head := f"mlstm.{len(layers)}.") + "b" in raw:
            layer = {w: raw[head + w] / raw[head + w].norm(dim=0).clamp_min(1e-12) for w in PARTS}
            layers.append({w: v * raw[head + PARTS[w]] for w, v in layer.items()})
            layers[-1]["b"] = raw[head + "b"]
        if not layers:
            raise KeyError("mlstm.0.b")
        return {"embedding": raw["embedding"], "layers": layers}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no archive of UniRep's weights ({error})") from None


def unirep(sequences: list[str], weights: dict, batch_size: int = 64) -> np.ndarray:
    """Mean hidden state of the last layer over the start and all residues, (n, width) float32."""
    import torch

    layers = weights["layers"]
    out = np.empty((len(sequences), len(layers[-1]["wmh"])), dtype=np.float32)
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    with torch.inference_mode(), tqdm(total=len(order), unit="protein", disable=None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            lengths = torch.tensor([len(sequences[i]) + 1 for i in rows])
            tokens = torch.zeros(int(lengths.max()), len(rows), dtype=torch.long)
            for j, i in enumerate(rows):
                tokens[: lengths[j], j] = torch.tensor([START, *map(NUMBER.get, sequences[i])])
            x = weights["embedding"][tokens]
            for layer in layers:  # what comes before is not seen by it: padding changes nothing
                x = _recurrent(x, layer)
            there = torch.arange(len(x))[:, None] < lengths
            out[rows] = ((x * there.unsqueeze(-1)).sum(0) / lengths[:, None]).numpy()
            bar.update(len(rows))
    return out


def _recurrent(x, w):
    """Hidden states (steps, batch, width) of one layer; see the head of this file."""
    import torch

    left, given = x @ w["wmx"], x @ w["wx"] + w["b"]
    h = c = torch.zeros_like(left[0])
    out = torch.empty_like(left)
    for t in range(len(x)):
        i, f, o, u = (given[t] + (left[t] * (h @ w["wmh"])) @ w["wh"]).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(u)
        h = out[t] = torch.sigmoid(o) * torch.tanh(c)
    return out
