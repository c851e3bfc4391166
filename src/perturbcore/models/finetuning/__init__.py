"""Fine-tuning: encoders of cells and of interaction graphs adapted to predict responses."""
