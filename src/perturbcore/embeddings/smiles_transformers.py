"""Embeddings of drugs from language models of SMILES (ChemBERTa, MolT5), through transformers."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.fingerprints import left_out
from perturbcore.embeddings.registry import register
from perturbcore.embeddings.sources import file_sha256

# names of the published models; their weights have licences of their own
HUB = {
    "ChemBERTa-77M-MLM": "DeepChem/ChemBERTa-77M-MLM",
    "ChemBERTa-77M-MTR": "DeepChem/ChemBERTa-77M-MTR",
    "MolT5": "laituan245/molt5-large",
}
WEIGHTS = "*.safetensors"
READ = (".json", ".txt", ".model", ".safetensors")
SAFE = (
    "only safetensors weights are opened, because pickled ones can run code; load the model once where you "
    "trust it, and save_pretrained(folder, safe_serialization=True)"
)


def prepare(options: dict, folder: Path | None, where: str) -> tuple[dict, str]:
    """Resolve ``model`` to a folder where it is one, and digest what decides the vectors.

    Raises
    ------
    ParameterError, InputError
        No model is given, or its folder has no configuration or no safetensors weights.
    """
    model = str(options.get("model") or "")
    if not model:
        raise ParameterError(f"{where}: give model: a folder, or {', '.join(HUB)}, or a hub id")
    others = {k: v for k, v in options.items() if k != "model"}
    path = Path(os.path.expandvars(model)).expanduser()
    path = path if path.is_absolute() else (folder or Path.cwd()) / path
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.is_file())
        if not (path / "config.json").is_file():
            raise InputError(f"{where}: folder {path} has no config.json: is it a saved model?")
        if not list(path.glob(WEIGHTS)):
            raise InputError(f"{where}: folder {path} has no {WEIGHTS} file; {SAFE}")
        content = [[f.name, file_sha256(f)] for f in files if f.suffix in READ]
        return options | {"model": str(path)}, digest(others, content)
    if "$" in str(path) or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise InputError(f"{where}: the model folder {path} does not exist; check the path")
    name = HUB.get(model, model)
    return options | {"model": name}, digest(others, name)


@register("smiles_transformer", kind="drugs", entity="drug", prepare=prepare)
def smiles_transformer(
    drugs: pd.DataFrame,
    *,
    name: str,
    modality: str = "SMILES transformer",
    source: str = "drug table",
    model: str = "ChemBERTa-77M-MTR",
    revision: str = "main",
    batch_size: int = 32,
    max_length: int = 512,
    parent: bool = False,
) -> Embedding:
    """Embed drugs by the mean of a transformer's last hidden states over the tokens of their SMILES.

    Padding is masked in attention and in the mean, so that a vector does not depend on the molecules
    it shares a batch with. Of encoder-decoders (MolT5) the encoder is used.

    Parameters
    ----------
    drugs
        Indexed by drug, column `smiles`, taken in rdkit's canonical form; those that cannot be read are
        left out and counted in ``source``.
    model
        Folder of a saved model and tokenizer, a name among `HUB`, or a hub id. Weights must be
        safetensors; code of a repository is never run.
    revision
        Commit or branch of a hub id; pin a commit, since the cache of built embeddings goes by this
        text.
    batch_size, max_length
        Molecules at once; longest token sequence (longer ones are cut, and counted in ``source``).
    parent
        Whether to take the largest organic fragment, uncharged, instead of the whole salt.

    Raises
    ------
    InputError
        The model cannot be loaded safely.

    References
    ----------
    Ahmad et al. 2022 (ChemBERTa-2); Edwards et al. 2022 (MolT5); Cole et al. 2026.
    """
    from rdkit import Chem

    from perturbcore.data.molecules.structures import molecules

    if batch_size < 1 or max_length < 1:
        raise ParameterError(f"embedding {name!r}: batch_size and max_length must be at least 1")
    read = molecules(drugs, parent=parent)
    texts = [Chem.MolToSmiles(mol) for mol in read.values()]
    tokenizer, encoder = _load(HUB.get(model, model), revision, name)
    X, cut = embed_texts(texts, tokenizer, encoder, batch_size=batch_size, max_length=max_length)
    about = f"{source}; {Path(model).name}, mean over tokens{f', {cut} SMILES cut at {max_length} tokens' * bool(cut)}"
    return Embedding(
        name, modality, pd.Index(list(read)), X, "drug", None, about + left_out(drugs, read)
    )


def embed_texts(
    texts, tokenizer, encoder, *, batch_size: int, max_length: int
) -> tuple[np.ndarray, int]:
    """Mean of the last hidden states over the tokens that are no padding.

    Returns
    -------
    numpy.ndarray
        float32, texts x hidden size.
    int
        How many texts were longer than `max_length` tokens.
    """
    import torch

    limit = getattr(encoder.config, "max_position_embeddings", None)
    if limit:  # RoBERTa counts positions from the padding index on
        max_length = min(max_length, int(limit) - 2)
    lengths = np.array([len(ids) for ids in tokenizer(list(texts))["input_ids"]])
    out = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    # texts of a length together: little padding
    order = np.argsort(lengths, kind="stable")
    encoder.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            )
            mask = batch["attention_mask"]
            hidden = encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            out[rows] = ((hidden * weight).sum(1) / weight.sum(1)).float().numpy()
    return out, int((lengths > max_length).sum())


def _load(model: str, revision: str, name: str):
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    given = {} if Path(model).is_dir() else {"revision": revision}
    shown, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # an unused head is no news here
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False, **given)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False, **given)
        whole = AutoModel.from_pretrained(
            model, config=config, trust_remote_code=False, use_safetensors=True, **given
        )
    except Exception as error:  # transformers raises many kinds
        text = " ".join(str(error).split())[:300]
        raise InputError(
            f"embedding {name!r}: model '{model}' cannot be loaded ({text}); {SAFE}"
        ) from None
    finally:
        logging.set_verbosity(shown)
        if bar:
            logging.enable_progress_bar()
    return tokenizer, whole.get_encoder() if config.is_encoder_decoder else whole
