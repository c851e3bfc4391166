"""Noise ceilings: the error of a repeated experiment, estimated by resampling batches and cells."""

from perturbcore.bootstrap.ceiling import QUANTILES, noise_ceiling
from perturbcore.bootstrap.curves import ceiling_by_cells
from perturbcore.bootstrap.deg import deg_ceiling, deg_ceiling_scores
from perturbcore.bootstrap.fold_scores import ceiling_scores
from perturbcore.bootstrap.halves import split_half
from perturbcore.bootstrap.replicates import replicate_ceiling

__all__ = [
    "QUANTILES",
    "ceiling_by_cells",
    "ceiling_scores",
    "deg_ceiling",
    "deg_ceiling_scores",
    "noise_ceiling",
    "replicate_ceiling",
    "split_half",
]
