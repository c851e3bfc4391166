"""Train a torch model: batches, early stopping, best weights, resume; lightning underneath."""
