"""Everything that decides what a decoder is, how it is trained and how it samples."""

from dataclasses import asdict, dataclass, replace

from perturbcore.core.errors import ParameterError

METHODS = ("diffusion", "flow", "bridge")
SAMPLERS = {
    "diffusion": ("ddpm", "ddim"),
    "flow": ("midpoint", "euler", "rk4", "dopri5"),
    "bridge": ("euler_maruyama",),
}
CHOICES = {
    "method": METHODS,
    "backbone": ("dit", "mlp"),
    "scaling": ("minmax", "unit", "global"),
    "coupling": ("independent", "optimal", "entropic"),
    "scope": ("perturbation", "batch"),
    "partners": ("any", "same_batch"),
    "schedule": ("cosine", "constant"),
    "residual": ("none", "cell", "centred"),
    "targets": ("published", "bounded"),
    "embedding_scaling": ("none", "unit", "global"),
}
POSITIVE = (
    "n_components", "group", "width", "depth", "heads", "frequencies", "time_scale", "sigma", "timesteps",
    "learning_rate", "batch_size", "max_epochs", "patience", "ema_every", "gradient_clip", "steps", "epoch_cells",
    "validation_batches", "mlp_ratio",
)  # fmt: skip
OPTIONAL = ("patience", "gradient_clip", "epoch_cells", "ema")


@dataclass(frozen=True)
class DecoderOptions:
    r"""Options of a decoder; see `perturbcore.models.decoders.presets` for tried sets of them.

    Attributes
    ----------
    method : {"diffusion", "flow", "bridge"}
    n_components : int
        Principal components of the latent space.
    scaling : {"minmax", "unit", "global"}
        ``"minmax"``: one linear map takes the training latents to [-1, 1], as published;
        ``"unit"``: each component to variance 1; ``"global"``: one factor, mean variance 1.
    embedding_scaling : {"none", "unit", "global"}
        Perturbation embeddings as they are (published), each coordinate to mean 0 and variance 1
        over the training perturbations, or all by one factor to mean variance 1.
    residual : {"none", "cell", "centred"}
        What of the part of the control cell that the latent space cannot show reaches the decoded
        cell: nothing, as published, so that variance is lost and the unseen part is that of the
        average training cell; the cell's own part; or the cell's own part less its mean over the
        controls, which keeps the published mean and the variance of cells.
    coupling : {"independent", "optimal", "entropic"}
        How control and perturbed cells of a mini-batch are paired. ``"entropic"`` is the static
        Schrödinger bridge, regularised by ``2 * sigma ** 2``.
    scope : {"perturbation", "batch"}
        What is coupled: cells of one perturbation, `group` at a time, or the whole mini-batch
        across perturbations as the published bridge does.
    group : int
        Cells of one perturbation in a mini-batch where couplings are within perturbations.
    partners : {"any", "same_batch"}
        Whether the control cell comes from any batch of the screen (published) or from the
        batch of the perturbed cell.
    backbone : {"dit", "mlp"}
    width, depth, heads, frequencies, mlp_ratio, dropout
        Sizes of the backbone; `heads` is for ``"dit"`` only.
    time_scale : float
        Time in [0, 1] is multiplied by this before it is embedded (flow and bridge).
    source : bool
        Diffusion: show the control cell to the network. The released code zeroes it.
    timesteps : int
        Diffusion: steps of the noise schedule.
    sigma : float
        Bridge: diffusion coefficient, in units of the scaled latent space.
    targets : {"published", "bounded"}
        What the network itself gives. Diffusion: the noise, or the velocity
        :math:`\sqrt{\bar\alpha}\,\varepsilon - \sqrt{1-\bar\alpha}\,x_0` that noise and clean cell follow
        from. Bridge: velocity and scaled score, or the two conditional means they are made of. The
        bounded ones have no factor that grows without limit at an end of the path.
    last_noise : bool
        Bridge: add noise in the last step too, as published.
    learning_rate, weight_decay, batch_size, max_epochs, warmup, schedule, gradient_clip
        AdamW and its schedule; `warmup` is a share of all steps.
    epoch_cells : int, optional
        Pairs an epoch; default as many as there are training cells, controls included.
    patience : int, optional
        Epochs without a better validation loss before training stops.
    validation_batches : int
        Fixed batches of the validation perturbations.
    ema, ema_every
        Decay of the moving average of weights (None: off) and steps between its updates.
    sampler : str
        "ddpm", "ddim" (diffusion); "midpoint", "euler", "rk4", "dopri5" (flow);
        "euler_maruyama" (bridge).
    steps : int
        DDIM steps, fixed ODE steps, or time points of the bridge. Not used by "ddpm", "dopri5".
    """

    method: str
    n_components: int = 50
    scaling: str = "minmax"
    embedding_scaling: str = "none"
    residual: str = "none"
    coupling: str = "independent"
    scope: str = "perturbation"
    group: int = 16
    partners: str = "any"
    backbone: str = "dit"
    width: int = 128
    depth: int = 4
    heads: int = 4
    frequencies: int = 256
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    time_scale: float = 1.0
    source: bool = True
    timesteps: int = 1000
    sigma: float = 1.0
    targets: str = "published"
    last_noise: bool = True
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 256
    max_epochs: int = 100
    warmup: float = 0.001
    schedule: str = "constant"
    gradient_clip: float | None = 1.0
    epoch_cells: int | None = None
    patience: int | None = 10
    validation_batches: int = 30
    ema: float | None = 0.995
    ema_every: int = 10
    sampler: str = ""
    steps: int = 20

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ParameterError(
                    f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}"
                )
        for name in POSITIVE:
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            if value is None or not value > 0:
                raise ParameterError(f"{name}={value!r}: give a number above 0")
        for name, low, high in (("dropout", 0, 1), ("ema", 0, 1), ("warmup", 0, 1)):
            value = getattr(self, name)
            if value is not None and not low <= value < high:
                raise ParameterError(f"{name}={value!r}: give a number from {low} to below {high}")
        if not self.sampler:
            object.__setattr__(self, "sampler", SAMPLERS[self.method][0])
        self.check_sampler(self.sampler)
        if self.backbone == "dit" and (self.width % (2 * self.heads) or self.frequencies % 2):
            raise ParameterError(
                f"width={self.width}, heads={self.heads}, frequencies={self.frequencies}: width must be a "
                "multiple of twice the heads and frequencies even"
            )
        if (
            self.partners == "same_batch"
            and self.coupling != "independent"
            and self.scope == "batch"
        ):
            raise ParameterError(
                "partners='same_batch' needs scope='perturbation': coupling all cells undoes it"
            )
        if (
            self.scope == "perturbation"
            and self.coupling != "independent"
            and self.batch_size % self.group
        ):
            raise ParameterError(
                f"batch_size={self.batch_size} is not a multiple of group={self.group}"
            )
        if self.method == "bridge" and self.steps < 2:
            raise ParameterError(f"steps={self.steps}: a bridge needs at least 2 time points")
        if self.method == "diffusion" and self.steps > self.timesteps:
            raise ParameterError(f"steps={self.steps}: at most timesteps={self.timesteps}")

    def check_sampler(self, sampler: str) -> None:
        """Refuse a sampler that belongs to another method."""
        if sampler not in SAMPLERS[self.method]:
            raise ParameterError(
                f"sampler={sampler!r}: {self.method} samples with {' or '.join(SAMPLERS[self.method])}"
            )

    def changed(self, **changes) -> "DecoderOptions":
        """Copy with some options changed; unknown names are refused."""
        unknown = sorted(set(changes) - set(asdict(self)))
        if unknown:
            raise ParameterError(f"no option {unknown[0]!r}; there are: {', '.join(asdict(self))}")
        return replace(self, **changes)

    def as_dict(self) -> dict:
        """All options as plain values, for keys and records."""
        return asdict(self)
