"""Differentially expressed genes: tests from group moments, false discovery rate, votes."""
