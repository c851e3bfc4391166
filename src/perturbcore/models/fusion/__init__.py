"""Fusion: many embeddings in one prediction, by simple models and by a transformer."""
