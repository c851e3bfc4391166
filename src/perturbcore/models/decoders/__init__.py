"""Generative decoders: control cells and a perturbation's embedding in, perturbed cells out."""
