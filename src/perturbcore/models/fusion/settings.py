"""Settings of a fusion transformer; published and our own values are in ``presets.yml``."""

from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from perturbcore.core.options import Options, Share

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
