"""perturbcore: from cells to responses, from responses and embeddings to scores, from scores to a book."""

__version__ = "0.1.0"
