"""Embeddings: one vector per gene or drug, loaded or built, aligned by id."""
