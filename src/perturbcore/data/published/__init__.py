"""The numbers that the papers publish: kept facts, and readers of their score tables."""
