"""From cells to effects: group moments, pseudobulk profiles and the batch-aware effect."""
