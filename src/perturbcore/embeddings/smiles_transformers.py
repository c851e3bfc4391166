"""Embeddings of drugs from language models of SMILES (ChemBERTa, MolT5), through transformers."""

from functools import partial
from pathlib import Path

import pandas as pd

from perturbcore.data.molecules.structures import molecules
from perturbcore.embeddings.drugs import unread
from perturbcore.embeddings.language_model import find_model, hidden_means, load_encoder
from perturbcore.embeddings.registry import Dim, register

# names of the published models; their weights have licences of their own
HUB = {
    "ChemBERTa-77M-MLM": "DeepChem/ChemBERTa-77M-MLM",
    "ChemBERTa-77M-MTR": "DeepChem/ChemBERTa-77M-MTR",
    "MolT5": "laituan245/molt5-large",
}


@register(
    "smiles_transformer", kind="drugs", modality="SMILES transformer", entity="drug",
    prepare=partial(find_model, hub=HUB),
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
    given = {} if Path(model).is_dir() else {"revision": revision}
    tokenizer, encoder = load_encoder(HUB.get(model, model), **given)
    X, n_cut = hidden_means(texts, tokenizer, encoder, batch_size, max_length)
    cut = f", {n_cut} SMILES cut at {max_length} tokens" if n_cut else ""
    return list(read), X, f"{Path(model).name}, mean over tokens{cut}{unread(drugs, read)}"
