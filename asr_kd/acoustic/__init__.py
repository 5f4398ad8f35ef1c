"""The acoustic model, the one training loop, checkpoints."""
