"""Cell_models."""
