"""Published hyperparameters of the fusion transformers, and ours for partial labels."""

from dataclasses import asdict, dataclass, replace

from perturbcore.core.errors import ParameterError

CHOICES = {
    "input_norm": ("none", "zscore", "unit"),
    "line": ("add", "token", "apart"),
    "line_source": ("learned", "autoencoder"),
    "head": ("linear", "mlp", "factor"),
    "refit": ("none", "all"),
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides a fusion transformer, besides data and seed.

    Parameters
    ----------
    d_model, heads, layers : int
        Width, attention heads and depth of the encoder.
    lr, batch : float, int
        Adam's learning rate; rows (perturbation x cell line) a batch.
    dropout : float
        In encoder and head.
    input_norm : {"none", "zscore", "unit"}
        Of each source: as it is; by mean and standard deviation over the training rows, the zero
        rows of missing genes included, as published; standardised and divided by its length.
    token_dropout, token_norm
        Dropout and LayerNorm after each source's projection.
    gate : bool
        Whether attention's output is multiplied by a sigmoid gate of the token.
    line : {"add", "token", "apart"}
        The cell line is added to every token; a token of its own; kept out of attention and
        appended to what the head sees.
    line_source : {"learned", "autoencoder"}
        A learned vector a line, or the latent of an autoencoder of mean control profiles.
    ae_widths : tuple of int
        Hidden widths of that autoencoder, from the profile inwards.
    head : {"linear", "mlp", "factor"}
        From the CLS token (and, with "apart", the line) to the genes. "factor", for partial labels
        only: inner product of the head's vector with a vector a gene, made from the gene's own
        embeddings.
    head_width : int
        Hidden width of "mlp"; width of the product of "factor".
    modality_drop : float
        Probability that a source's token is set to zero (not masked) in training.
    hide_source : float
        Probability that a source is masked in training, as if it were missing; not published.
    neighbours : bool
        For partial labels: add attention to the labels of training perturbations, see
        `perturbcore.models.fusion.neighbours.Neighbours`; not published.
    lr_neighbours : float
        Learning rate of its few scalars.
    w_reconstruction, w_autoencoder : float
        Weights of the two reconstruction losses; 0 leaves the part out.
    max_epochs, patience, warmup, grad_clip
        Upper limit, epochs without improvement, epochs of linear warm-up, largest gradient norm.
    validation : float
        Share of the perturbations held out of training for early stopping; 0 trains `max_epochs` on
        all rows.
    refit : {"none", "all"}
        Keep the validated weights, or train anew on all rows for as many epochs.
    weight_decay : float
        Decoupled; 0 as published.
    members : int
        Models averaged, with other seeds.

    References
    ----------
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
    neighbours: bool = False
    lr_neighbours: float = 0.02
    w_reconstruction: float = 0.0
    w_autoencoder: float = 0.0
    max_epochs: int = 75
    patience: int = 25
    warmup: float = 5
    grad_clip: float = 1.0
    validation: float = 0.2
    refit: str = "none"
    weight_decay: float = 0.0
    members: int = 1

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ParameterError(
                    f"{name}={getattr(self, name)!r} is not one of: {', '.join(choices)}"
                )
        if self.d_model % self.heads:
            raise ParameterError(f"d_model={self.d_model} cannot be shared by {self.heads} heads")
        if min(self.layers, self.batch, self.max_epochs, self.members, self.head_width) < 1:
            raise ParameterError(
                "layers, batch, max_epochs, members and head_width must be at least 1"
            )
        if not 0 <= self.validation < 1:
            raise ParameterError(f"validation={self.validation} must be at least 0 and below 1")
        for name in ("dropout", "token_dropout", "modality_drop", "hide_source"):
            if not 0 <= getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.line_source == "autoencoder" and self.line != "apart":
            raise ParameterError("line_source='autoencoder' goes with line='apart'")

    def but(self, **changes) -> "Settings":
        """Return a copy with some values changed; an unknown name raises `ParameterError`."""
        unknown = sorted(set(changes) - set(asdict(self)))
        if unknown:
            raise ParameterError(
                f"no setting '{unknown[0]}' of fusion; there are: {', '.join(asdict(self))}"
            )
        return replace(self, **changes)

    @property
    def spec(self) -> dict:
        """Plain values, for content keys."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


LFC_SIMPLE = Settings(layers=4, heads=5, lr=9.931092550184934e-4)
LFC_FULL = Settings(
    layers=8,
    heads=10,
    lr=5.279141172671998e-4,
    batch=32,
    dropout=0.08363894748770867,
    input_norm="zscore",
    token_dropout=0.0,
    gate=True,
    line="apart",
    line_source="autoencoder",
    head="mlp",
    modality_drop=0.00434180445161718,
    w_reconstruction=9.411605826543548,
    w_autoencoder=9.560603499734986,
)
_DEG = Settings(layers=7, token_norm=True, max_epochs=200)
DEG_ESSENTIAL = _DEG.but(lr=4.586815929703627e-5)
DEG_SCIPLEX = _DEG.but(layers=8, lr=9.975320861067571e-4, token_dropout=0.0, line="token")
DEG_TAHOE = _DEG.but(lr=7.432925177418825e-5, token_dropout=0.0)
# partial labels are far too few a gene for a head of its own: genes share what is learned
LABELS = Settings(
    d_model=64,
    heads=4,
    layers=2,
    lr=1e-3,
    batch=128,
    dropout=0.1,
    input_norm="unit",
    token_norm=True,
    head="factor",
    head_width=64,
    hide_source=0.3,
    neighbours=True,
    max_epochs=6,
    warmup=0,
    validation=0.0,
    weight_decay=0.1,
)

PRESETS = {
    "lfc_simple": LFC_SIMPLE,
    "lfc_full": LFC_FULL,
    "deg_essential": DEG_ESSENTIAL,
    "deg_sciplex": DEG_SCIPLEX,
    "deg_tahoe": DEG_TAHOE,
    "labels": LABELS,
}


def preset(name: str, **changes) -> Settings:
    """Return the settings of a preset, with some values changed.

    Raises
    ------
    ParameterError
        No such preset or setting.
    """
    if name not in PRESETS:
        raise ParameterError(f"no fusion preset '{name}'; there are: {', '.join(PRESETS)}")
    return PRESETS[name].but(**changes)
