"""Networks over latent coordinates, conditioned on time and on the perturbation's embedding."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import nn
from torch.nn import functional as F

from perturbcore.core.training import Options, Share

GROUP = 16  # cells of one perturbation that choose their partners together
_PRESETS = Path(__file__).with_name("presets.yml")


class DecoderOptions(Options):
    r"""Options of a decoder; ``presets.yml`` has the published values and small ones of our own.

    `scaling`: one linear map of the training latents to [-1, 1] ("minmax", published), or one
    factor to mean variance 1 ("global"); `embedding_scaling`: the latter for embeddings;
    `residual`: what the latent space cannot show of a control cell is dropped, as published, or
    added less its mean ("centred"); `coupling`: control cells are paired at random, or by optimal
    transport within `GROUP` cells of a perturbation or the whole mini-batch (the published bridge);
    `partners`: batches of the screen that a control cell may come from.

    `heads`: of "dit" only; `time_scale`: what path time in [0, 1] is multiplied by for the network.
    Diffusion: `source`: whether the network sees the control cell; `timesteps`: of the forward
    process. Bridge: `sigma`: diffusion coefficient; `last_noise`: noise in the last step too, as
    published. `targets`: what the network gives: noise (diffusion) or velocity and scaled score
    (bridge), or "bounded": the velocity :math:`\sqrt{\bar\alpha}\,\varepsilon -
    \sqrt{1-\bar\alpha}\,x_0`, or two conditional means, which do not grow without limit at an end
    of the path. `steps`: of DDIM and of the flow, time points of the bridge. `epoch_cells`: pairs
    per epoch, by default the number of training cells; `validation_batches`: of the validation
    perturbations; `ema, ema_every`: decay of the moving average of weights (None: off), and steps
    between its updates.
    """

    method: Literal["diffusion", "flow", "bridge"]
    n_components: PositiveInt = 50
    scaling: Literal["minmax", "global"] = "minmax"
    embedding_scaling: Literal["none", "global"] = "none"
    residual: Literal["none", "centred"] = "none"
    coupling: Literal["independent", "perturbation", "batch"] = "independent"
    partners: Literal["any", "same_batch"] = "any"
    backbone: Literal["dit", "mlp"] = "dit"
    width: PositiveInt = 128
    depth: PositiveInt = 4
    heads: PositiveInt = 4
    frequencies: PositiveInt = 256
    dropout: Share = 0.1
    time_scale: PositiveFloat = 1.0
    source: bool = True
    timesteps: PositiveInt = 1000
    sigma: PositiveFloat = 1.0
    targets: Literal["published", "bounded"] = "published"
    last_noise: bool = True
    learning_rate: PositiveFloat = 1e-3
    batch_size: PositiveInt = 256
    max_epochs: PositiveInt = 100
    schedule: Literal["cosine", "constant"] = "constant"
    epoch_cells: PositiveInt | None = None
    patience: PositiveInt | None = 10
    validation_batches: PositiveInt = 30
    ema: Share | None = 0.995
    ema_every: PositiveInt = 10
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    steps: PositiveInt = 20

    @model_validator(mode="after")
    def _fit_together(self) -> "DecoderOptions":
        if self.backbone == "dit" and (self.width % (2 * self.heads) or self.frequencies % 2):
            raise ValueError(
                f"width={self.width}, heads={self.heads}, frequencies={self.frequencies}: width "
                "must be a multiple of twice the heads and frequencies even"
            )
        if self.partners == "same_batch" and self.coupling == "batch":
            raise ValueError("partners='same_batch': coupling='batch' undoes it")
        if self.coupling == "perturbation" and self.batch_size % GROUP:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of {GROUP}")
        if self.method == "bridge" and self.steps < 2:
            raise ValueError(f"steps={self.steps}: a bridge needs at least 2 time points")
        if self.method == "diffusion" and self.steps > self.timesteps:
            raise ValueError(f"steps={self.steps}: at most timesteps={self.timesteps}")
        return self


def preset(size: str, method: str, **changes: Any) -> DecoderOptions:
    """Return the options of a size ("published" or "laptop") and method, some of them changed."""
    return DecoderOptions.preset(_PRESETS, size, method, method=method, **changes)


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
        """(n, channels in, n_latent) to (n, channels out, n_latent), zero at the start."""
        h = self.enter(x.flatten(1))
        waves = frequencies(time, self.options.frequencies)
        c = F.silu(self.time(waves) + self.condition(condition))
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
        """(n, channels in, n_latent) to (n, channels out, n_latent), zero at the start."""
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
        parts = self.qkv(a).chunk(3, dim=2)
        q, k, v = (p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in parts)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + gate * self.out(a)
        return h + gate_f * self.feed(self.norms[1](h) * (1 + scale_f) + shift_f)
