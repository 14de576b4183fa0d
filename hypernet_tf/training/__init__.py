"""Training: data order, checkpoints, callbacks."""
