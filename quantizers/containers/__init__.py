"""Checkpoints on disk: how quantized units and the unquantized rest become files, and back."""
