"""Embeddings of proteins and of DNA by language models: UniRep, or any model of transformers.

UniRep (Alley et al. 2019) is a multiplicative LSTM (Krause et al. 2016) trained to predict the next
residue. With x the input, h the hidden and c the cell state, in each layer::

    m = (x Wmx) * (h Wmh)
    i, f, o, u = x Wx + m Wh + b
    c = sigmoid(f) * c + sigmoid(i) * tanh(u)
    h = sigmoid(o) * tanh(c)

Weights are normalised: each column of a matrix is divided by its length and multiplied by a gain.
"""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from perturbcore.core.errors import InputError
from perturbcore.embeddings.language_model import find_model, hidden_means, load_encoder
from perturbcore.embeddings.registry import Dim, register
from perturbcore.embeddings.words import isoforms_of

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
