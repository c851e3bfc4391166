"""Embeddings of genes by a DNA language model, from the bases around their start."""

from collections.abc import Mapping

import numpy as np

from perturbcore.embeddings.language_model import find_model, hidden_means, load_encoder
from perturbcore.embeddings.registry import Dim, register


@register("dna_model", kind="windows", modality="DNA model", prepare=find_model)
def dna_model(
    windows: Mapping[str, str], *, model: str = "", piece: Dim = 512, batch_size: Dim = 16
):
    """Embed genes by the mean of a DNA model's vectors over the bases around their start.

    `windows`: 4,096 bases around the start of transcription
    (`perturbcore.data.genome.tss_windows`); `piece`: bases that the model reads at once. Cole et
    al. 2026, section 4.5.3.
    """
    ids = sorted(windows)
    cuts = [range(0, len(windows[i]), piece) for i in ids]
    pieces = [windows[i][k : k + piece] for i, own in zip(ids, cuts, strict=True) for k in own]
    tokenizer, encoder = load_encoder(model)
    # some take bases for words
    words = tokenizer.unk_token_id in tokenizer("ACGTA")["input_ids"]
    texts = [" ".join(p) for p in pieces] if words else pieces
    longest = piece + tokenizer.num_special_tokens_to_add()
    X, n_cut = hidden_means(texts, tokenizer, encoder, batch_size, longest, special=False)
    rows = np.repeat(np.arange(len(ids)), [len(c) for c in cuts])
    length = np.array([len(p) for p in pieces])
    mean = np.zeros((len(ids), X.shape[1]))
    np.add.at(mean, rows, X * length[:, None])
    mean /= np.bincount(rows, weights=length)[:, None]
    cut = f", {n_cut} of them cut: choose a smaller piece" if n_cut else ""
    return ids, mean, f"{len(ids)} windows in {len(pieces)} pieces of {piece} bases{cut}"
