"""Embeddings of drugs from language models of SMILES (ChemBERTa, MolT5), through transformers."""

from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.molecules.structures import molecules
from perturbcore.embeddings.drugs import unread
from perturbcore.embeddings.registry import Dim, register
from perturbcore.embeddings.sources import file_sha256, resolved

# names of the published models; their weights have licences of their own
HUB = {
    "ChemBERTa-77M-MLM": "DeepChem/ChemBERTa-77M-MLM",
    "ChemBERTa-77M-MTR": "DeepChem/ChemBERTa-77M-MTR",
    "MolT5": "laituan245/molt5-large",
}
WEIGHTS = "*.safetensors"
READ = (".json", ".txt", ".model", ".safetensors")
SAFE = (
    "only safetensors weights are opened, because pickled ones can run code; load the model once "
    "where you trust it, and save_pretrained(folder, safe_serialization=True)"
)


def prepare(options: dict, folder: Path | None, where: str) -> tuple[dict, str]:
    """Resolve ``model`` to a folder where it is one, and digest what decides the vectors.

    A missing model, or a folder without configuration or safetensors weights, is refused.
    """
    model = options.get("model", "")
    if not model:
        raise ParameterError(f"{where}: give model: a folder, or {', '.join(HUB)}, or a hub id")
    others = {k: v for k, v in options.items() if k != "model"}
    path = resolved(model, folder)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{where}: folder {path} has no config.json: is it a saved model?")
        if not list(path.glob(WEIGHTS)):
            raise InputError(f"{where}: folder {path} has no {WEIGHTS} file; {SAFE}")
        files = sorted(f for f in path.iterdir() if f.is_file() and f.suffix in READ)
        content = [[f.name, file_sha256(f)] for f in files]
        return options | {"model": str(path)}, digest(others, content)
    if "$" in str(path) or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise InputError(f"{where}: the model folder {path} does not exist; check the path")
    name = HUB.get(model, model)
    return options | {"model": name}, digest(others, name)


@register(
    "smiles_transformer", kind="drugs", modality="SMILES transformer", entity="drug",
    prepare=prepare,
)  # fmt: skip
def smiles_transformer(
    drugs: pd.DataFrame,
    *,
    model: str = "ChemBERTa-77M-MTR",
    revision: str = "main",
    batch_size: Dim = 32,
    max_length: Dim = 512,
):
    """Embed drugs by the mean of a transformer's last hidden states over their SMILES' tokens.

    Padding is masked, so that a vector does not depend on the molecules it shares a batch with. Of
    encoder-decoders (MolT5) the encoder is used. SMILES are taken in rdkit's canonical form; those
    that cannot be read are left out, those longer than `max_length` tokens cut, and both counted in
    ``source``.

    Parameters
    ----------
    model
        Folder of a saved model and tokenizer, a name among `HUB`, or a hub id. Weights must be
        safetensors; code of a repository is never run.
    revision
        Commit or branch of a hub id; pin a commit, since the cache of embeddings goes by this text.

    References
    ----------
    Ahmad et al. 2022 (ChemBERTa-2); Edwards et al. 2022 (MolT5); Cole et al. 2026.
    """
    from rdkit import Chem

    read = molecules(drugs)
    texts = [Chem.MolToSmiles(mol) for mol in read.values()]
    tokenizer, encoder = _load(HUB.get(model, model), revision)
    X, n_cut = _embed(texts, tokenizer, encoder, batch_size, max_length)
    cut = f", {n_cut} SMILES cut at {max_length} tokens" if n_cut else ""
    return list(read), X, f"{Path(model).name}, mean over tokens{cut}{unread(drugs, read)}"


def _embed(texts, tokenizer, encoder, batch_size: int, max_length: int) -> tuple[np.ndarray, int]:
    """Mean of the last hidden states (texts x hidden size), and how many texts were too long."""
    import torch

    limit = getattr(encoder.config, "max_position_embeddings", None)
    if limit:  # RoBERTa counts positions from the padding index on
        max_length = min(max_length, int(limit) - 2)
    lengths = np.array([len(ids) for ids in tokenizer(list(texts))["input_ids"]])
    out = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    order = np.argsort(lengths, kind="stable")  # texts of a length together: little padding
    encoder.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=max_length,
                return_tensors="pt",
            )  # fmt: skip
            mask = batch["attention_mask"]
            hidden = encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            out[rows] = ((hidden * weight).sum(1) / weight.sum(1)).float().numpy()
    return out, int((lengths > max_length).sum())


def _load(model: str, revision: str):
    from transformers import AutoTokenizer

    from perturbcore.embeddings.cell_models.huggingface import load_model

    given = {} if Path(model).is_dir() else {"revision": revision}
    whole, _ = load_model(model, **given)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False, **given)
    except Exception as error:  # transformers raises many kinds
        what = f"model '{model}' has no tokenizer that can be loaded ({error})"
        raise InputError(what) from error
    return tokenizer, whole.get_encoder() if whole.config.is_encoder_decoder else whole
