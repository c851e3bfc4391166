"""Embeddings: one vector a gene or drug, loaded or built, aligned by id."""
