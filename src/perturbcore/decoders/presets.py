"""Tried sets of options: the published sizes, and ones for a laptop."""

from perturbcore.decoders.options import DecoderOptions

PUBLISHED = {
    "diffusion": DecoderOptions("diffusion", schedule="cosine", source=False, sampler="ddpm", steps=50),
    "flow": DecoderOptions("flow", sampler="midpoint", steps=20),
    "bridge": DecoderOptions("bridge", coupling="optimal", scope="batch", sigma=1.0, steps=250),
}
_SMALL = {
    "n_components": 50, "scaling": "global", "embedding_scaling": "global", "residual": True,
    "partners": "same_batch", "backbone": "mlp", "width": 128, "depth": 2, "frequencies": 64, "dropout": 0.3,
    "time_scale": 1000.0, "batch_size": 256, "epoch_cells": 256 * 40, "max_epochs": 16, "patience": 6,
    "learning_rate": 2e-3, "schedule": "cosine", "ema": 0.95, "ema_every": 5, "validation_batches": 16,
}  # fmt: skip
LAPTOP = {
    "diffusion": DecoderOptions("diffusion", targets="bounded", sampler="ddim", steps=50, **_SMALL),
    "flow": DecoderOptions("flow", coupling="optimal", steps=10, **_SMALL),
    "bridge": DecoderOptions(
        "bridge", coupling="optimal", sigma=0.5, targets="bounded", last_noise=False, steps=50, **_SMALL
    ),
}
