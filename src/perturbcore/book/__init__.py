"""Chapters: find them, check their parameters, run them, and serve them while they run."""
