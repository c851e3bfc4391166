"""Tried sets of options: the published sizes, and ones for a laptop."""

from perturbcore.decoders.options import DecoderOptions

PUBLISHED = {
    "diffusion": DecoderOptions("diffusion", schedule="cosine", source=False, sampler="ddpm", steps=50),
    "flow": DecoderOptions("flow", sampler="midpoint", steps=20),
    "bridge": DecoderOptions("bridge", coupling="optimal", scope="batch", sigma=1.0, steps=250),
}
