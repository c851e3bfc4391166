"""Noise ceilings: the error of a repeated experiment, estimated by resampling batches and cells."""
