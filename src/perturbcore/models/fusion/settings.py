"""Settings of a fusion transformer; published and our own values are in ``presets.yml``."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import read_yaml

CHOICES = {
    "input_norm": ("none", "zscore", "unit"),
    "line": ("add", "token", "apart"),
    "line_source": ("learned", "autoencoder"),
    "head": ("linear", "mlp"),
}
_PRESETS = Path(__file__).with_name("presets.yml")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a fusion transformer, besides data and seed.

    `batch`: rows (perturbation x cell line) per batch; `dropout`: in encoder and head;
    `input_norm`: of each source, see `perturbcore.models.fusion.sources.normalise`;
    `token_dropout, token_norm`: dropout and LayerNorm after each source's projection;
    `gate`: whether attention's output is multiplied by a sigmoid gate of the token; `line`: the
    cell line is added to every token; a token of its own; kept out of attention and appended to
    what the head sees; `line_source`: a learned vector per line, or the latent of an
    autoencoder of mean control profiles, with hidden widths `ae_widths` from the profile
    inwards; `head`: from the CLS token (and, with "apart", the line) to the genes, with hidden
    width `head_width`. For partial labels the head is always the inner product, of that width, with
    a vector per gene made from the gene's own embeddings, beside attention to known labels, whose
    few scalars have the learning rate `lr_neighbours` (not published, see
    `perturbcore.models.fusion.neighbours.Neighbours`); `modality_drop`: probability that a source's
    token is set to zero (not masked) in training; `hide_source`: that it is masked, as if it were
    missing (not published); `w_reconstruction, w_autoencoder`: weights of the two reconstruction
    losses; 0 leaves the part out; `patience, warmup`: epochs without improvement before training
    stops; epochs of linear warm-up; `validation`: share of the perturbations held out of training
    for early stopping; 0 trains `max_epochs` on all rows; `weight_decay`: decoupled.

    Cole et al. 2026, 4.9 and released code.
    """

    d_model: int = 100
    heads: int = 5
    layers: int = 4
    lr: float = 1e-3
    batch: int = 64
    dropout: float = 0.0
    input_norm: str = "none"
    token_dropout: float = 0.1
    token_norm: bool = False
    gate: bool = False
    line: str = "add"
    line_source: str = "learned"
    ae_widths: tuple[int, ...] = (1024, 256)
    head: str = "linear"
    head_width: int = 400
    modality_drop: float = 0.0
    hide_source: float = 0.0
    lr_neighbours: float = 0.02
    w_reconstruction: float = 0.0
    w_autoencoder: float = 0.0
    max_epochs: int = 75
    patience: int = 25
    warmup: float = 5
    grad_clip: float = 1.0
    validation: float = 0.2
    weight_decay: float = 0.0

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ParameterError(
                    f"{name}={getattr(self, name)!r} is not one of: {', '.join(choices)}"
                )
        if self.d_model % self.heads:
            raise ParameterError(f"d_model={self.d_model} cannot be shared by {self.heads} heads")
        for name in ("layers", "batch", "max_epochs", "head_width"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("validation", "dropout", "token_dropout", "modality_drop", "hide_source"):
            if not 0 <= getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.line_source == "autoencoder" and self.line != "apart":
            raise ParameterError("line_source='autoencoder' goes with line='apart'")

    def changed(self, **changes) -> "Settings":
        """Return a copy with some values changed; an unknown name raises `ParameterError`."""
        unknown = sorted(set(changes) - set(asdict(self)))
        if unknown:
            raise ParameterError(
                f"no setting '{unknown[0]}' of fusion; there are: {', '.join(asdict(self))}"
            )
        return replace(self, **changes)


def preset(name: str, **changes) -> Settings:
    """Return the settings of a preset, with some values changed."""
    presets = read_yaml(_PRESETS)
    if name not in presets:
        raise ParameterError(f"no fusion preset '{name}'; there are: {', '.join(presets)}")
    return Settings().changed(**{**presets[name], **changes})
