"""Weights to codes and scales, and checkpoints of them."""
