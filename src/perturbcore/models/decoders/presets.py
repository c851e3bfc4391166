"""Tried sets of options: the published sizes, and ones for a laptop.

``LAPTOP`` trains in about 4 s on one processor core on a screen of 10,000 cells and 400 genes and
decodes 10,000 cells in 1 to 3 s. Its dropout, epochs and couplings were chosen by the L2 of three folds of
that simulated screen (seed 1), so that its scores there are flattered; on a screen of another seed they
are not. It departs from the published set where that costs accuracy at any size:
control cells of the perturbed cell's own batch (`partners`), decoded cells that vary also where the latent
space cannot show it (`residual`), network targets that stay bounded (`targets`). Its strong `dropout` acts on the
embedding's branch: tens of perturbations are few to learn from. Change one option at a time with
``LAPTOP["flow"].changed(partners="any")``; ``.changed(**SMALL_TRANSFORMER)`` gives the published
architecture at a small size; ``PUBLISHED["flow"].changed(n_components=128)`` the published larger latent
space.
"""

from perturbcore.models.decoders.options import DecoderOptions

PUBLISHED = {
    "diffusion": DecoderOptions(
        "diffusion", schedule="cosine", source=False, sampler="ddpm", steps=50
    ),
    "flow": DecoderOptions("flow", sampler="midpoint", steps=20),
    "bridge": DecoderOptions("bridge", coupling="optimal", scope="batch", sigma=1.0, steps=250),
}
_SMALL = {
    "n_components": 50, "scaling": "global", "embedding_scaling": "global", "residual": "centred",
    "partners": "same_batch", "backbone": "mlp", "width": 128, "depth": 2, "frequencies": 64, "dropout": 0.7,
    "time_scale": 1000.0, "batch_size": 256, "epoch_cells": 256 * 40, "max_epochs": 10, "patience": 5,
    "learning_rate": 2e-3, "schedule": "cosine", "ema": 0.95, "ema_every": 5, "validation_batches": 16,
}  # fmt: skip
LAPTOP = {
    "diffusion": DecoderOptions("diffusion", targets="bounded", sampler="ddim", steps=50, **_SMALL),
    "flow": DecoderOptions("flow", coupling="optimal", steps=10, **_SMALL),
    "bridge": DecoderOptions(
        "bridge", sigma=0.5, targets="bounded", last_noise=False, steps=50, **_SMALL
    ),
}
# the published architecture at a size that a processor core trains in seconds
SMALL_TRANSFORMER = {"backbone": "dit", "width": 32, "depth": 2, "heads": 2, "dropout": 0.3, "batch_size": 64,
                     "epoch_cells": 64 * 40}  # fmt: skip
