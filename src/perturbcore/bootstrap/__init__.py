"""Noise ceilings: the error of a repeated experiment, estimated by resampling batches and cells."""

from perturbcore.bootstrap.ceiling import QUANTILES, noise_ceiling

__all__ = ["QUANTILES", "noise_ceiling"]
