"""How sure a score, a difference or a ranking is."""
