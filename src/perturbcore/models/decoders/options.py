"""Everything that decides what a decoder is, how it is trained and how it samples."""

from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from perturbcore.core.options import Options, Share

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
