"""Packers and fused quantize-and-pack kernels. `reference` (numpy) is the truth; native code must equal it."""
