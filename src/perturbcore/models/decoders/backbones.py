"""Networks over latent coordinates, conditioned on time and on the perturbation's embedding."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from perturbcore.models.decoders.options import DecoderOptions


def make_backbone(
    options: DecoderOptions, n_latent: int, n_condition: int, channels: tuple[int, int]
) -> nn.Module:
    """Build the network of `options`, which starts at zero.

    ``network(x, time, condition)`` with x (n, channels in, n_latent) gives (n, channels out,
    n_latent).
    """
    make = DiT if options.backbone == "dit" else MLP
    return make(options, n_latent, n_condition, *channels)


def frequencies(values: torch.Tensor, size: int, max_period: float = 1e4) -> torch.Tensor:
    """Cosines and sines of `values` (n,) at `size` / 2 geometric frequencies, shape (n, size)."""
    half = size // 2
    rates = torch.exp(-math.log(max_period) * torch.arange(half, device=values.device) / half)
    angles = values[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class MLP(nn.Module):
    """Residual layers over all coordinates, each scaled and shifted (FiLM, Perez et al. 2018)."""

    def __init__(self, options, n_latent, n_condition, channels_in, channels_out):
        super().__init__()
        width, self.options, self.shape = options.width, options, (channels_out, n_latent)
        self.enter = nn.Linear(channels_in * n_latent, width)
        self.time = nn.Sequential(
            nn.Linear(options.frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.condition = nn.Sequential(
            nn.Linear(n_condition, width), nn.SiLU(),
            nn.Dropout(options.dropout), nn.Linear(width, width),
        )  # fmt: skip
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, elementwise_affine=False) for _ in range(options.depth)
        )
        self.films = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(options.depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(options.depth))
        self.leave = nn.Linear(width, channels_out * n_latent)
        for layer in [*self.films, self.leave]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x, time, condition):
        """See `make_backbone`."""
        h = self.enter(x.flatten(1))
        c = F.silu(
            self.time(frequencies(time, self.options.frequencies)) + self.condition(condition)
        )
        for norm, film, layer in zip(self.norms, self.films, self.layers, strict=True):
            scale, shift = film(c).chunk(2, dim=1)
            h = h + layer(F.silu(norm(h) * (1 + scale) + shift))
        return self.leave(h).unflatten(1, self.shape)


class DiT(nn.Module):
    """Transformer with one token per latent coordinate and adaptive layer norms (adaLN-zero).

    Time and embedding each have a branch that modulates every block (Peebles & Xie 2023; sizes and
    the second branch: Cole et al. 2026, Methods 4.7.4).
    """

    def __init__(self, options, n_latent, n_condition, channels_in, channels_out):
        super().__init__()
        width, self.options = options.width, options
        self.enter = nn.Sequential(
            nn.Linear(channels_in, width), nn.LayerNorm(width), nn.ReLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
        )  # fmt: skip
        position = frequencies(torch.arange(n_latent, dtype=torch.float32), width)
        self.register_buffer("position", position, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(options.frequencies, width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, width), nn.LayerNorm(width),
        )  # fmt: skip
        self.blocks = nn.ModuleList(Block(options, n_condition) for _ in range(options.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulate = Modulation(width, n_condition, 2, options.dropout)
        self.leave = nn.Linear(width, channels_out)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x, time, condition):
        """See `make_backbone`."""
        h = self.enter(x.transpose(1, 2)) + self.position
        t = self.time(frequencies(time, self.options.frequencies))
        for block in self.blocks:
            h = block(h, t, condition)
        shift, scale = self.modulate(t, condition)
        return self.leave(self.norm(h) * (1 + scale) + shift).transpose(1, 2)


class Modulation(nn.Module):
    """Shifts, scales and gates from time and from the embedding, summed; zero at the start."""

    def __init__(self, width, n_condition, parts, dropout):
        super().__init__()
        self.parts = parts
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))
        self.condition = nn.Sequential(
            nn.SiLU(), nn.Linear(n_condition, parts * width), nn.Dropout(dropout)
        )
        for branch in (self.time, self.condition):
            nn.init.zeros_(branch[1].weight)
            nn.init.zeros_(branch[1].bias)

    def forward(self, t, condition):
        """Parts of shape (n, 1, width)."""
        return (self.time(t) + self.condition(condition))[:, None].chunk(self.parts, dim=2)


class Block(nn.Module):
    """Self-attention over coordinates and a feed-forward layer, both modulated and gated."""

    def __init__(self, options, n_condition):
        super().__init__()
        width = options.width
        self.heads = options.heads
        self.modulate = Modulation(width, n_condition, 6, options.dropout)
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2)
        )
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, h, t, condition):
        """Tokens (n, n_latent, width) to tokens."""
        shift, scale, gate, shift_f, scale_f, gate_f = self.modulate(t, condition)
        a = self.norms[0](h) * (1 + scale) + shift
        q, k, v = (
            p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in self.qkv(a).chunk(3, dim=2)
        )
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + gate * self.out(a)
        return h + gate_f * self.feed(self.norms[1](h) * (1 + scale_f) + shift_f)
