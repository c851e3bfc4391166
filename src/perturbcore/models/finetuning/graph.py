"""A pretrained graph network or text encoder, read as it is and fine-tuned through a head."""

import copy
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.embeddings.cell_models.huggingface import token_mean
from perturbcore.embeddings.gcn import GraphNetwork, Pretrained, Product, sparse_tensor
from perturbcore.models.finetuning.cells import adapt
from perturbcore.models.finetuning.model import FineTuned, LinearHead, TrainingLabels

PUBLISHED = {"lrs": (1e-3, 1e-4, 1e-5), "batch_sizes": (16, 32, 64), "epochs": 50, "patience": 5}


class FineTunedGraph(FineTuned):
    """A graph network with a linear head (Cole et al. 2026, section 4.8.2, Eq. 17-18).

    `nodes`: node number, indexed by perturbation name; `frozen`: ablation: the head alone is
    trained; `options`: see `FineTuned`, by default the published grid.
    """

    validation, least, stream = 0.1, 10, 7

    def __init__(
        self, pretrained: Pretrained, nodes: pd.Series, *, frozen: bool = False, **options
    ):
        super().__init__(**PUBLISHED | {"name": "GNN", "modality": "Prior knowledge"} | options)
        self.pretrained, self.numbers, self.frozen = pretrained, nodes, frozen
        self.predictor = "frozen + linear" if frozen else "fine-tuned"
        self.own = {"frozen": frozen}
        self._matrix = pretrained.network.matrix(pretrained.A)

    @cached_property
    def digest(self) -> str:
        """Content of the pretrained network, the graph and the names of the nodes."""
        return digest(self.pretrained.network, self.pretrained.A, self.numbers)

    @cached_property
    def _vectors(self) -> np.ndarray:
        return self.pretrained.vectors()

    def objective(
        self, line: str, data: TrainingLabels, at: np.ndarray, outputs: list[str], lr: float
    ) -> "GraphObjective":
        """Copy the network, with a head that starts at the floor of the training responses."""
        network, z = copy.deepcopy(self.pretrained.network), self._vectors[at]
        return GraphObjective(network, z, data.bias(), data.task, lr, frozen=self.frozen)

    def read(self, at: np.ndarray) -> dict:
        """Give neighbourhoods of nodes; of a frozen network the vectors, known beforehand."""
        if self.frozen:
            return {"vectors": torch.as_tensor(self._vectors[at])}
        return neighbourhood(self._matrix, len(self.pretrained.network.convolutions), at)


def neighbourhood(A: sp.csr_matrix, layers: int, nodes: np.ndarray) -> dict:
    """Cut what a network of some layers reads of a graph `A` (with loops) to embed a few nodes.

    Returns nodes `start` (first layer) and `steps`: (A, its transpose, kept) per layer.
    """
    steps, rows = [], np.asarray(nodes)
    for _ in range(layers):
        part = A[rows]
        columns, local = np.unique(part.indices, return_inverse=True)
        shape = (len(rows), len(columns))
        part = sp.csr_matrix((part.data, local.ravel(), part.indptr), shape=shape)
        # A has loops: every row is among the columns
        kept = torch.as_tensor(np.searchsorted(columns, rows))
        steps.insert(0, (sparse_tensor(part), sparse_tensor(part.T.tocsr()), kept))
        rows = columns
    return {"start": torch.as_tensor(rows.astype(np.int64)), "steps": steps}


def read_nodes(network: GraphNetwork, start: Tensor, steps) -> Tensor:
    """Embed the nodes of `neighbourhood`: ``network(A)[nodes]``, computed from less."""
    x = network.node[start]
    layers = zip(steps, network.norms, network.convolutions, strict=True)
    for (A, transposed, kept), norm, convolution in layers:
        # (A x) W = A (x W), and A has fewer rows than columns
        new = convolution.after(Product.apply(A, transposed, norm(x)))
        x = x[kept] + F.dropout(F.gelu(new), network.dropout, network.training)
    return network.out(x)


class GraphObjective(LinearHead):
    """Node embeddings under a linear head; of a frozen network the vectors themselves."""

    def __init__(self, network, *args, frozen: bool = False):
        super().__init__(network, *args)
        self.network.requires_grad_(not frozen)

    def embed(
        self, start: Tensor | None = None, steps=None, vectors: Tensor | None = None
    ) -> Tensor:
        """Embed nodes."""
        return read_nodes(self.network, start, steps) if vectors is None else vectors


class FineTunedText(FineTuned):
    """A text encoder of the BERT family with a linear head on the mean of its tokens.

    `texts`: by gene; `names`: number of the text, by name of a perturbation; `layers`: so many of
    the last ones get adapters of `rank` (Hu et al. 2022), what lies below is read once; 0: none,
    the head alone learns; texts are cut at `max_length` tokens. The same training as for a graph
    network (Cole et al. 2026, sections 4.8.2 and 4.10).
    """

    validation, least, together, stream = 0.1, 10, 64, 11

    def __init__(
        self, tokenizer, encoder, texts: Mapping[str, str], names: pd.Series, *, layers: int = 1,
        rank: int = 8, max_length: int = 64, **options,
    ):  # fmt: skip
        super().__init__(**options)
        stack = getattr(getattr(encoder, "encoder", None), "layer", None)
        if stack is None or not 0 <= layers <= len(stack):
            raise InputError(
                f"model {self.name!r}: layers={layers} of {len(stack or ())}: only encoders that "
                "keep their layers as BERT does can be adapted, at most all of them"
            )
        self.tokenizer, self.encoder, self.texts, self.numbers = tokenizer, encoder, texts, names
        self.top = nn.ModuleList(stack[len(stack) - layers :])
        self.predictor = "LoRA + linear" if layers else "frozen + linear"
        self.own = {"layers": layers, "rank": rank, "max_length": max_length}
        self._kept: dict = {}  # one for the copies of all folds

    @cached_property
    def digest(self) -> str:
        """Content of weights, tokenizer and texts."""
        vocabulary = self.tokenizer.get_vocab()
        return digest(self.encoder, vocabulary, dict(self.texts), self.numbers)

    def states(self) -> tuple[Tensor, Tensor, np.ndarray]:
        """Read, once, what is below the adapted layers, which tokens there are, frozen means."""
        if not self._kept:
            self._kept["states"] = self._states()
        return self._kept["states"]

    @torch.no_grad()
    def _states(self):
        texts, size = list(self.texts.values()), self.together
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.own["max_length"],
            return_tensors="pt",
        )  # fmt: skip
        there, below, last = tokens["attention_mask"], [], []
        self.encoder.eval()
        for i in range(0, len(texts), size):
            part = {k: tokens[k][i : i + size] for k in ("input_ids", "attention_mask")}
            states = self.encoder(**part, output_hidden_states=True).hidden_states
            below.append(states[-1 - len(self.top)])
            last.append(token_mean(states[-1], part["attention_mask"]))
        return torch.cat(below), there, torch.cat(last).numpy()

    def objective(
        self, line: str, data: TrainingLabels, at: np.ndarray, outputs: list[str], lr: float
    ) -> "TextObjective":
        """Copy the last layers, with a head that starts at the floor of the training responses."""
        top = copy.deepcopy(self.top)
        top = adapt(top, self.own["rank"], seed=self.seed) if len(top) else top
        return TextObjective(top, self.states()[2][at], data.bias(), data.task, lr)

    def read(self, at: np.ndarray) -> dict:
        """Give what lies below the adapted layers."""
        below, there, _ = self.states()
        length = max(1, int(there[at].sum(1).max())) if len(at) else 1
        return {"states": below[at, :length], "there": there[at, :length]}


class TextObjective(LinearHead):
    """Mean over tokens after the last layers, under a linear head."""

    def embed(self, states: Tensor, there: Tensor) -> Tensor:
        """Pass states through the layers, and average them over the tokens that are there."""
        barred = torch.zeros(there.shape, dtype=states.dtype, device=states.device)
        barred = barred.masked_fill(there == 0, torch.finfo(states.dtype).min)[:, None, None]
        for layer in self.network:
            states = layer(states, barred)
            states = states[0] if isinstance(states, tuple) else states
        return token_mean(states, there)
