"""The fusion network: sources and cell line in, one vector per response out, then the head."""

import zlib
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import nn

from perturbcore.core.errors import InputError
from perturbcore.core.training import Options, Share

_PRESETS = Path(__file__).with_name("presets.yml")


class Settings(Options):
    """Everything that decides a fusion transformer, besides data and seed (Cole et al. 2026, 4.9).

    `batch`: in rows (perturbation x cell line); `input_norm`: see `normalise`; `token_dropout,
    token_norm`: after each source's projection; `gate`: multiply attention's output by a sigmoid of
    the token; `line`: the cell line is added to every token, a token of its own, or appended to
    what the head sees; `line_source`: a learned vector, or the latent of an autoencoder of control
    profiles with hidden widths `ae_widths`; `head`: to the genes, with hidden width `head_width`.
    For partial labels the head is an inner product with a vector per gene beside `Neighbours`,
    whose scalars have the learning rate `lr_neighbours`; `modality_drop`: probability that a token
    is zero in training; `hide_source`: that it is masked; `w_reconstruction, w_autoencoder`:
    weights of these losses; `warmup`: in epochs; `validation`: share of the perturbations held out
    for early stopping.
    """

    d_model: PositiveInt = 100
    heads: PositiveInt = 5
    layers: PositiveInt = 4
    lr: PositiveFloat = 1e-3
    batch: PositiveInt = 64
    dropout: Share = 0.0
    input_norm: Literal["none", "zscore", "unit"] = "none"
    token_dropout: Share = 0.1
    token_norm: bool = False
    gate: bool = False
    line: Literal["add", "token", "apart"] = "add"
    line_source: Literal["learned", "autoencoder"] = "learned"
    ae_widths: tuple[PositiveInt, ...] = (1024, 256)
    head: Literal["linear", "mlp"] = "linear"
    head_width: PositiveInt = 400
    modality_drop: Share = 0.0
    hide_source: Share = 0.0
    lr_neighbours: float = 0.02
    w_reconstruction: float = 0.0
    w_autoencoder: float = 0.0
    max_epochs: PositiveInt = 75
    patience: int = 25
    warmup: float = 5
    grad_clip: float = 1.0
    validation: Share = 0.2
    weight_decay: float = 0.0

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        if self.d_model % self.heads:
            raise ValueError(f"d_model={self.d_model} cannot be shared by {self.heads} heads")
        if self.line_source == "autoencoder" and self.line != "apart":
            raise ValueError("line_source='autoencoder' goes with line='apart'")
        return self


def preset(name: str, **changes: Any) -> Settings:
    """Return the settings of a preset, with some values changed."""
    return Settings.preset(_PRESETS, name, **changes)


def pack(masked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Order (B, T) tokens, live ones first, and mark these, so that a masked one changes no bit."""
    order = torch.argsort(masked.to(torch.int8), dim=1, stable=True)
    n = (~masked).sum(dim=1, keepdim=True)
    return order, torch.arange(int(n.max()), device=masked.device) < n


class EncoderLayer(nn.Module):
    """Post-norm attention and feed-forward block (Vaswani et al. 2017), with an optional gate."""

    def __init__(self, d: int, heads: int, dropout: float, gate: bool):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.gate = nn.Linear(d, d) if gate else None
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: torch.Tensor, alive: torch.Tensor, *, n=None, weights: bool = False):
        """Encode (the first n of) (B, T, d), seeing the first L where `alive` (B, L)."""
        x, keys = x[:, :n], x[:, : alive.shape[1]]
        q, k, v = (
            layer(part).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, part in ((self.query, x), (self.key, keys), (self.value, keys))
        )
        p = self.dropout if self.training else 0.0
        # a row of one length everywhere needs no mask, and is faster without
        mask = None if bool(alive.all()) else alive[:, None, None, :]
        seen, attention = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p), None
        if weights:
            logit = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
            attention = logit.masked_fill(~alive[:, None, None], float("-inf")).softmax(dim=3)
            attention = attention.mean(dim=1)
        seen = seen.transpose(1, 2).flatten(2)
        if self.gate is not None:
            seen = seen * torch.sigmoid(self.gate(x))
        x = self.norm1(x + F.dropout(self.out(seen), p))
        step = F.dropout(F.gelu(self.up(x)), p)
        return self.norm2(x + F.dropout(self.down(step), p)), attention


class Encoder(nn.Module):
    """Stack of `EncoderLayer`, Xavier-uniform weights and zero biases."""

    def __init__(self, d: int, heads: int, layers: int, dropout: float, gate: bool):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(d, heads, dropout, gate) for _ in range(layers))
        self.apply(_xavier)

    def forward(self, x, alive, *, n: int | None = None, weights: bool = False):
        """Return the (first n) encoded tokens, and where asked each layer's attention (B, T, L)."""
        attention = []
        for layer in self.layers:
            # of the last layer only what is used
            last = layer is self.layers[-1]
            x, one = layer(x, alive, n=n if last else None, weights=weights)
            attention.append(one)
        return x, attention


class FusionNetwork(nn.Module):
    """Attention over a perturbation's sources and its cell line (Cole et al. 2026, 4.9, Eq. 19-21).

    The start of a source's weights depends on its name and the seed alone. `profiles`: see
    `line_profiles`; with `genes` (G, f), the head is a `FactorHead`.
    """

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        dims: Sequence[int],
        n_lines: int,
        n_out: int,
        *,
        profiles=None,
        genes=None,
        seed: int = 0,
    ):
        super().__init__()
        s, d = settings, settings.d_model
        self.settings = s
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
            learned = s.line_source == "learned"
            self.line = (
                LearnedLine(n_lines, d) if learned else LineAutoencoder(profiles, s.ae_widths, d)
            )
        self.width = 2 * d if s.line == "apart" else d
        with _drawn(seed, "head"):
            self.head = _head(s, self.width, n_out, genes)

    def forward(self, tables, at: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        """Return the vectors of responses, (B, width), for `Tables` and numbers of cell lines."""
        return self.encode(tables, at, line)[0]

    def encode(self, tables, at, line, *, parts: bool = False, weights: bool = False):
        """Return the vector of each response, the reconstruction loss, the attention."""
        s = self.settings
        missing = at == torch.tensor([len(t) - 1 for t in tables], device=at.device)
        if self.training and s.hide_source:
            missing = missing | (torch.rand(missing.shape, device=at.device) < s.hide_source)
        inputs = [t[i] for t, i in zip(tables, at.T, strict=True)]
        each = [project(x) for project, x in zip(self.project, inputs, strict=True)]
        if s.token_norm:
            each = [norm(x) for norm, x in zip(self.norms, each, strict=True)]
        each = [F.dropout(x, s.token_dropout, self.training) for x in each]
        tokens = torch.stack(each, dim=1)
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
        order, alive = pack(F.pad(missing, (len(first), 0), value=False))
        # reconstruction asks for missing sources too; without it they need not be encoded
        rebuilding = parts and s.w_reconstruction > 0
        used = order if rebuilding else order[:, : alive.shape[1]]
        x = torch.gather(x, 1, used[:, :, None].expand(-1, -1, x.shape[2]))
        wanted = None if rebuilding or weights else 1
        x, attention = self.encoder(x, alive, n=wanted, weights=weights)
        vector = torch.cat([x[:, 0], line_vector], dim=1) if s.line == "apart" else x[:, 0]
        loss = None
        if rebuilding:
            place = torch.argsort(used, dim=1)[:, :, None].expand(-1, -1, x.shape[2])
            x = torch.gather(x, 1, place)[:, len(first) :]
            each = [F.mse_loss(r(x[:, j]), inputs[j]) for j, r in enumerate(self.rebuild)]
            loss = torch.stack(each).mean()
        return vector, loss, (attention, used, alive) if weights else None

    def attention_rollout(self, tables, at, line) -> torch.Tensor:
        """Attention of CLS to each source through all layers, (B, S) (Abnar & Zuidema 2020)."""
        _, _, (layers, order, alive) = self.encode(tables, at, line, weights=True)
        n = alive.shape[1]
        half = 0.5 * torch.eye(n, device=at.device)
        flow = half + 0.5 * layers[0][:, :n]
        for attention in layers[1:]:
            flow = (half + 0.5 * attention[:, :n]) @ flow
        first = 2 if self.settings.line == "token" else 1
        # back from packed places to sources; places cut off are of missing ones
        full = torch.zeros(len(at), first + at.shape[1], device=at.device)
        return full.scatter_(1, order[:, :n], flow[:, 0] * alive)[:, first:]


class FactorHead(nn.Module):
    """Score of (response, gene): inner product of their vectors, plus the response itself."""

    def __init__(self, d: int, width: int, genes: np.ndarray, dropout: float):
        super().__init__()
        self.register_buffer("genes", torch.as_tensor(genes, dtype=torch.float32), persistent=False)
        self.up = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(dropout))
        self.vector = nn.Linear(2 * d, width)
        self.main = nn.Linear(2 * d, 1)
        self.map = nn.Linear(genes.shape[1], width, bias=False)
        self.free = nn.Parameter(torch.zeros(len(genes), width))
        for layer in (self.vector, self.main):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """Return (B, G)."""
        h = self.up(vector)
        return self.vector(h) @ (self.map(self.genes) + self.free).T + self.main(h)


def _head(s: Settings, width: int, n_out: int, genes) -> nn.Module:
    if genes is not None:
        return FactorHead(width, s.head_width, genes, s.dropout)
    sizes = [width, s.head_width, s.head_width] if s.head == "mlp" else [width]
    layers = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.GELU(), nn.Dropout(s.dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_out)).apply(_xavier)


class LearnedLine(nn.Module):
    """A learned vector per cell line, normalised, with dropout (Cole et al. 2026, Eq. 20)."""

    def __init__(self, n_lines: int, d: int):
        super().__init__()
        self.vectors, self.norm = nn.Embedding(n_lines, d), nn.LayerNorm(d)

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        """Return (B, d) for line numbers (B,)."""
        return F.dropout(self.norm(self.vectors(line)), 0.1, self.training)


class LineAutoencoder(nn.Module):
    """Autoencoder of control profiles (n_lines, g); its latent, of length one, is the vector."""

    def __init__(self, profiles: np.ndarray, widths: Sequence[int], d: int):
        super().__init__()
        self.register_buffer("profiles", torch.as_tensor(profiles), persistent=False)
        sizes = [profiles.shape[1], *widths, d]
        self.encoder = _stack(sizes)
        self.decoder = _stack(sizes[::-1])

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        """Return (B, d) for line numbers (B,); each distinct line is encoded once."""
        lines, code = torch.unique(line, return_inverse=True)
        return F.normalize(self.encoder(self.profiles[lines]), dim=1)[code]

    def loss(self, line: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the reconstructed profiles of the rows' lines."""
        lines, n = torch.unique(line, return_counts=True)
        x = self.profiles[lines]
        each = (self.decoder(self.encoder(x)) - x).square().mean(dim=1)
        return (each * n).sum() / n.sum()


def _stack(sizes) -> nn.Sequential:
    layers = []
    for a, b in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.LayerNorm(b), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def line_profiles(controls: pd.DataFrame, lines: Sequence[str]) -> np.ndarray:
    """Normalise mean log1p control profiles as published: logged once more, then z-scored."""
    missing = [line for line in lines if line not in controls.index]
    if missing:
        raise InputError(
            f"cell line '{missing[0]}' has no control profile (there are: "
            f"{', '.join(map(str, controls.index))}): add its row, or use line_source='learned'"
        )
    table = controls.loc[list(lines)].to_numpy(dtype=np.float64)
    std = table.std(axis=0, ddof=1) if len(table) > 1 else np.ones(table.shape[1])
    return ((np.log1p(table) - table.mean(axis=0)) / np.maximum(std, 1e-8)).astype(np.float32)


def _xavier(module: nn.Module) -> None:
    """Draw a linear layer's weights Xavier-uniform and set its bias to zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


@contextmanager
def _drawn(seed: int, name: str):
    """Draw from a stream of its own, so that one part's start does not depend on another's size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1_000_003 * (seed + 1) + zlib.crc32(name.encode()))
        yield
