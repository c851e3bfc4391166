"""The fusion network: sources in, a vector a response out of CLS, then the head."""

import zlib
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.cell_line import LearnedLine, LineAutoencoder
from perturbcore.models.fusion.presets import Settings
from perturbcore.models.fusion.transformer import Encoder, pack, xavier


class FusionNetwork(nn.Module):
    """Attention over a perturbation's sources and its cell line.

    Parameters
    ----------
    settings : Settings
    names, dims : sequences
        Sources and their widths. The start of a source's weights depends on its name and the seed
        alone.
    n_lines : int
        Cell lines.
    n_out : int
        Outputs: G log fold-changes or scores, or 3 G logits.
    profiles : (n_lines, g) array, optional
        Control profiles, for ``line_source="autoencoder"``; see `line_profiles`.
    genes : (G, f) array, optional
        Vectors of the genes, for ``head="factor"``.
    seed : int

    References
    ----------
    Cole et al. 2026, 4.9, Eq. 19-21.
    """

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        dims: Sequence[int],
        n_lines: int,
        n_out: int,
        *,
        profiles: np.ndarray | None = None,
        genes: np.ndarray | None = None,
        seed: int = 0,
    ):
        super().__init__()
        s, d = settings, settings.d_model
        self.settings, self.names = s, list(names)
        self.project, self.norms, self.rebuild = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for name, dim in zip(names, dims, strict=True):
            with _drawn(seed, name):
                self.project.append(nn.Linear(dim, d))
                if s.token_norm:
                    self.norms.append(nn.LayerNorm(d))
                if s.w_reconstruction:
                    self.rebuild.append(nn.Linear(d, dim))
        with _drawn(seed, "encoder"):
            self.cls = nn.Parameter(torch.randn(d))
            self.encoder = Encoder(d, s.heads, s.layers, s.dropout, s.gate)
        with _drawn(seed, "line"):
            if s.line_source == "autoencoder":
                if profiles is None:
                    raise ParameterError(
                        "line_source='autoencoder' needs control profiles: give controls="
                    )
                self.line = LineAutoencoder(profiles, s.ae_widths, d)
            else:
                self.line = LearnedLine(n_lines, d)
        width = 2 * d if s.line == "apart" else d
        with _drawn(seed, "head"):
            self.head = _head(s, width, n_out, genes)

    def forward(self, tables, at: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        """Return the vector of each response, which the head turns into predictions, (B, width).

        Parameters
        ----------
        tables : list of (m_e + 1, d_e) tensors
            See `perturbcore.models.fusion.sources.Sources`.
        at : (B, S) int tensor
        line : (B,) int tensor
        """
        return self.encode(tables, at, line)[0]

    def encode(self, tables, at, line, *, parts: bool = False, weights: bool = False):
        """Return the vector of each response, the reconstruction loss, the attention."""
        s = self.settings
        missing = at == torch.tensor([len(t) - 1 for t in tables], device=at.device)
        if self.training and s.hide_source:
            missing = missing | (torch.rand(missing.shape, device=at.device) < s.hide_source)
        inputs = [t[i] for t, i in zip(tables, at.T, strict=True)]
        tokens = torch.stack([self._token(j, x) for j, x in enumerate(inputs)], dim=1)
        if self.training and s.modality_drop:
            keep = torch.rand(missing.shape, device=at.device) >= s.modality_drop
            tokens = tokens * keep[:, :, None]
        line_vector = self.line(line)
        first = [self.cls.expand(len(at), 1, -1)]
        if s.line == "token":
            first.append(line_vector[:, None])
        x = torch.cat([*first, tokens], dim=1)
        if s.line == "add":
            x = x + line_vector[:, None]
        masked = F.pad(missing, (len(first), 0), value=False)
        order, alive = pack(x, masked)
        # reconstruction asks for missing sources too; without it they need not be encoded
        rebuilding = parts and s.w_reconstruction > 0
        used = order if rebuilding else order[:, : alive.shape[1]]
        x = torch.gather(x, 1, used[:, :, None].expand(-1, -1, x.shape[2]))
        x, found = self.encoder(x, alive, weights=weights)
        vector = torch.cat([x[:, 0], line_vector], dim=1) if s.line == "apart" else x[:, 0]
        loss = self._rebuilt(x, used, inputs, len(first)) if rebuilding else None
        return vector, loss, (found, used, alive) if weights else None

    def _token(self, j: int, x: torch.Tensor) -> torch.Tensor:
        token = self.project[j](x)
        if self.settings.token_norm:
            token = self.norms[j](token)
        return F.dropout(token, self.settings.token_dropout, self.training)

    def _rebuilt(self, x, order, inputs, first):
        place = torch.argsort(order, dim=1)
        x = torch.gather(x, 1, place[:, :, None].expand(-1, -1, x.shape[2]))[:, first:]
        each = [F.mse_loss(r(x[:, j]), inputs[j]) for j, r in enumerate(self.rebuild)]
        return torch.stack(each).mean()


class LinearHead(nn.Sequential):
    """Linear layer, or perceptron with two hidden layers, to all outputs."""

    def all(self, vector: torch.Tensor) -> torch.Tensor:
        """Return (B, n_out)."""
        return self(vector)


class FactorHead(nn.Module):
    """Score of (response, gene): inner product of the two's vectors, plus the response's own part.

    A gene's vector is a linear map of its own embeddings plus a free part, zero at the start. The
    response's vector starts at zero too.
    """

    def __init__(self, d: int, width: int, genes: np.ndarray, dropout: float):
        super().__init__()
        self.register_buffer("genes", torch.as_tensor(genes, dtype=torch.float32), persistent=False)
        self.up = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(dropout))
        self.vector = nn.Linear(2 * d, width)
        self.main = nn.Linear(2 * d, 1)
        self.map = nn.Linear(genes.shape[1], width, bias=False)
        self.free = nn.Parameter(torch.zeros(len(genes), width))
        zero(self.vector)
        zero(self.main)

    def all(self, vector: torch.Tensor) -> torch.Tensor:
        """Return (B, G)."""
        h = self.up(vector)
        return self.vector(h) @ (self.map(self.genes) + self.free).T + self.main(h)


def _head(s: Settings, width: int, n_out: int, genes) -> nn.Module:
    if s.head == "factor":
        if genes is None:
            raise ParameterError("head='factor' is for partial labels: use 'linear' or 'mlp'")
        return FactorHead(width, s.head_width, genes, s.dropout)
    sizes = [width, s.head_width, s.head_width] if s.head == "mlp" else [width]
    layers = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.GELU(), nn.Dropout(s.dropout)]
    return LinearHead(*layers, nn.Linear(sizes[-1], n_out)).apply(xavier)


def zero(layer: nn.Linear) -> None:
    """Set weights and bias to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


@contextmanager
def _drawn(seed: int, name: str):
    """Draw from a stream of its own, so that one part's start does not depend on another's size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1_000_003 * (seed + 1) + zlib.crc32(name.encode()))
        yield
