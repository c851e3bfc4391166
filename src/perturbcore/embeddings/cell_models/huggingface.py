"""Encoders of cells from Hugging Face checkpoints, and what they make of a screen's cells."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor, nn
from tqdm import tqdm

from perturbcore.core.errors import DownloadError, InputError, ParameterError, check_choice
from perturbcore.core.files import replaced
from perturbcore.data.screens.declare import normalise
from perturbcore.embeddings.cell_models.cells import LARGEST, cells_with
from perturbcore.embeddings.cell_models.tokens import ControlCells

ENCODINGS = ("rank", "values", "bins")
BINS = 51  # of scGPT: 0, and quantiles of what a cell expresses
VOCABULARIES = ("genes.json", "genes.txt", "vocab.json", "vocab.txt")
SAVED_EVERY = 50  # batches
FILES = ["*.safetensors", "*.json", *VOCABULARIES]


class HuggingFaceCells(nn.Module):
    """A transformer of `transformers` as an encoder of cells; made by `load_huggingface`."""

    adaptable: tuple[str, ...] = ()

    def __init__(
        self, model, genes: Sequence[str], tokens: Sequence[int], encoding: str, size: int,
        typical: np.ndarray,
    ):  # fmt: skip
        super().__init__()
        self.model, self.genes, self.size = model, pd.Index(genes), size
        self.spec, self.dim = {"encoding": encoding}, int(model.config.hidden_size)
        typical = torch.tensor(np.asarray(typical, dtype=np.float32)).clamp_min(1e-3)
        self.register_buffer("tokens", torch.tensor(np.asarray(tokens, dtype=np.int64)))
        self.register_buffer("typical", typical)

    def forward(self, values: Tensor, line: int = 0, query: Tensor | None = None) -> Tensor:
        """Embed genes in cells: log1p(1e4) expression (n, n_genes) -> (n, q, dim); else 0."""
        encode = self._rank if self.spec["encoding"] == "rank" else self._values
        values = values.clamp_min(0.0)
        hidden = encode(binned(values) if self.spec["encoding"] == "bins" else values)
        return hidden if query is None else hidden[:, query]

    def _values(self, values):
        full = values.new_zeros(len(values), self.size).index_copy(1, self.tokens, values)
        measured = torch.zeros_like(full, dtype=torch.long).index_fill(1, self.tokens, 1)
        # positions that the model appends to those of the genes are of no use here
        full = full.to(self.model.dtype)
        hidden = self.model(input_ids=full, attention_mask=measured).last_hidden_state
        return hidden[:, self.tokens].to(values.dtype)

    def _rank(self, values):
        share = torch.expm1(values) / torch.expm1(self.typical)
        length = min(int((values > 0).sum(1).max()), self.model.config.max_position_embeddings)
        out = values.new_zeros(len(values), len(self.genes), self.dim)
        if not length:
            return out
        top, order = share.sort(dim=1, descending=True, stable=True)
        order, there = order[:, :length], top[:, :length] > 0
        ids = torch.where(there, self.tokens[order], 0)
        hidden = self.model(input_ids=ids, attention_mask=there.long()).last_hidden_state
        hidden = hidden.to(values.dtype) * there.unsqueeze(-1)
        return out.scatter_add(1, order.unsqueeze(-1).expand(-1, -1, self.dim), hidden)


def binned(values: Tensor, n_bins: int = BINS) -> Tensor:
    """Quantile bins of what a cell expresses, 1 to n_bins - 1; 0 stays 0 (Cui et al. 2024)."""
    out = torch.zeros_like(values)
    for cell, row in zip(out, values, strict=True):
        there = row > 0
        if there.any():
            edges = torch.linspace(0, 1, n_bins - 1, device=row.device, dtype=torch.float32)
            edges = torch.quantile(row[there].float(), edges)
            cell[there] = torch.bucketize(row[there].float(), edges, right=True).to(row)
    return out


def load_huggingface(
    source: str | Path, cells: ControlCells, *, encoding: str = "rank"
) -> HuggingFaceCells:
    """Load a checkpoint from a folder or the hub, to be used like the embedded transformer.

    Weights are read from safetensors; no code of a checkpoint is run: an architecture that
    `transformers` lacks is registered before, by the package that defines it. Its vocabulary is a
    list of genes or gene -> token, in a file of `VOCABULARIES`. `encoding`: "rank", tokens sorted
    by expression over the average in control cells (Geneformer); "values", the expression at the
    gene's position (AIDO.Cell); "bins", the same with `binned` expression (scGPT).
    """
    check_choice("encoding", encoding, ENCODINGS)
    folder = Path(source) if Path(source).is_dir() else _download(str(source))
    token_of = _vocabulary(folder)
    known = [g for g in cells.genes if g in token_of]
    if not known:
        raise InputError(
            f"{source}: none of the {len(cells.genes)} genes measured (such as {cells.genes[0]!r}) "
            f"is in its vocabulary (such as {next(iter(token_of))!r}): write genes.json in the ids "
            "of the screen"
        )
    model, missing = load_model(folder, local_files_only=True)
    # a missing weight would be drawn at random; the pooler is not used
    missing = [k for k in missing if "pooler" not in k]
    if missing:
        raise InputError(f"{folder}: {len(missing)} weights are missing, first {missing[0]!r}")
    tokens = [token_of[g] for g in known]
    if encoding == "rank" and max(tokens) >= model.get_input_embeddings().num_embeddings:
        raise InputError(
            f"{source}: the vocabulary has a token {max(tokens)}, the model only "
            f"{model.get_input_embeddings().num_embeddings} of them"
        )
    typical, size = cells.take(known).mean.mean(axis=0).clip(0, LARGEST), max(token_of.values()) + 1
    encoder = HuggingFaceCells(model, known, tokens, encoding, size, typical)
    return encoder.requires_grad_(False).eval()


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except HFValidationError as error:
        raise InputError(f"{name!r} is neither a folder nor a name on the hub ({error})") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DownloadError(
            f"{name}: cannot be had from the hub ({type(error).__name__}); download it elsewhere, "
            "and give the folder"
        ) from error


def _vocabulary(folder: Path) -> dict[str, int]:
    file = next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)
    if file is None:
        raise InputError(
            f"{folder} has no vocabulary ({', '.join(VOCABULARIES)}): write genes.json, the list "
            "of genes in the order of the model's tokens"
        )
    text = file.read_text(encoding="utf-8")
    try:
        genes = json.loads(text) if file.suffix == ".json" else text.split()
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not valid JSON ({error})") from error
    if not isinstance(genes, Mapping):
        genes = {str(g): i for i, g in enumerate(genes)}
    if not genes or not all(isinstance(t, int) and t >= 0 for t in genes.values()):
        raise InputError(f"{file}: a vocabulary lists genes, or maps them to tokens (0, 1, ...)")
    return genes


def load_model(source: str | Path, **options):
    """Load a model of transformers from safetensors, running no code of its own."""
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    options |= {"trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **options)
        model, loaded = AutoModel.from_pretrained(
            source, config=config, use_safetensors=True, dtype=torch.float32,
            output_loading_info=True, **options,
        )  # fmt: skip
    except RuntimeError as error:
        raise InputError(
            f"{source}: weights have other sizes than config.json says; take both from one "
            "checkpoint"
        ) from error
    except Exception as error:  # transformers raises many kinds
        why = str(error).splitlines()[0][:300]
        raise InputError(
            f"{source} cannot be loaded by transformers itself ({why}). Code of a checkpoint is "
            "never run, and only safetensors are opened: install and import the package that "
            "defines the architecture, save weights by save_pretrained(folder), and retry"
        ) from error
    return model, sorted(loaded["missing_keys"])


def token_mean(states: Tensor, there: Tensor) -> Tensor:
    """Mean of states (n, t, d) over the tokens that are there (n, t)."""
    weight = there.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


def placed(encoder: nn.Module, device: str, dtype: str) -> nn.Module:
    """Put an encoder on a device ("auto": a GPU if there is one), its model in `dtype`."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device='cuda': there is no CUDA device; use cpu or auto")
    encoder = encoder.to(device).requires_grad_(False).eval()
    # ranks and sums need the precision that products can do without
    encoder.model.to(getattr(torch, dtype))
    return encoder


@torch.inference_mode()
def streamed_means(
    encoder: nn.Module, screen: AnnData, rows: np.ndarray, batch_size: int,
    kept: Path | None = None,
) -> np.ndarray:  # fmt: skip
    """Mean of each gene's embeddings over cells that have it (Eq. 10, 11); `kept` goes on."""
    columns = screen.var_names.get_indexer(encoder.genes)
    device = next(encoder.parameters()).device
    start, total, count = _so_far(kept, len(encoder.genes), encoder.dim)
    parts = tqdm(range(start, len(rows), batch_size), unit="batch of cells", disable=None)
    for number, first in enumerate(parts, start=1):
        block = normalise(screen[rows[first : first + batch_size]]).X[:, columns]
        values = torch.from_numpy(block.toarray()).to(device, torch.float32)
        embedded = encoder(values)
        total += embedded.sum(0, dtype=torch.float64).cpu().numpy()
        count += cells_with(embedded).cpu().numpy()
        done = min(first + batch_size, len(rows))
        if kept is not None and (number % SAVED_EVERY == 0 or done == len(rows)):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replaced(kept) as path, open(path, "wb") as handle:
                np.savez(handle, done=done, total=total, count=count)
    return (total / np.maximum(count, 1)).astype(np.float32)


def _so_far(kept: Path | None, n: int, d: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Take up the sums of a killed run, or begin with zeros."""
    if kept is not None and kept.is_file():
        try:
            with np.load(kept, allow_pickle=False) as saved:
                return int(saved["done"]), saved["total"], saved["count"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # damaged: begin anew
    return 0, np.zeros((n, d)), np.zeros((n, 1))


@torch.inference_mode()
def knock_outs(encoder: nn.Module, average: np.ndarray, batch_size: int) -> np.ndarray:
    """Change of the mean embedding of all other genes as each is set to zero, (n_genes, d)."""
    device = next(encoder.parameters()).device
    cell = torch.as_tensor(average).to(device, torch.float32).clamp_min(0)
    before = encoder(cell[None])[0].double()
    total, out = before.sum(0), np.zeros((len(cell), encoder.dim), np.float32)
    for at in torch.nonzero(cell)[:, 0].split(batch_size):
        without = cell.repeat(len(at), 1)
        without[torch.arange(len(at)), at] = 0
        after = encoder(without).double()
        own = after[torch.arange(len(at)), at]
        change = (after.sum(1) - own) - (total - before[at])
        out[at.cpu().numpy()] = (change / max(len(cell) - 1, 1)).float().cpu().numpy()
    return out


def input_vectors(encoder: nn.Module) -> np.ndarray:
    """Vectors of the genes in the table that the model starts from, (n_genes, d)."""
    table = encoder.model.get_input_embeddings()
    if table is None:
        raise ParameterError("use='input': this model has no table of input vectors")
    return table.weight[encoder.tokens].float().cpu().numpy()
