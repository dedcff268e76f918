"""Containers by name."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry

CONTAINERS = Catalog(
    "container",
    (
        Entry("packed", "quantizers.containers.packed:CONTAINER", "our own safetensors layout (docs/packed.md)"),
        Entry(
            "compressed-tensors",
            "quantizers.containers.compressed_tensors:CONTAINER",
            "pack-quantized checkpoint for transformers and vLLM with compressed-tensors >= 0.18; symmetric formats",
            traits={"engine": "transformers"},
        ),
        Entry(
            "gguf",
            "quantizers.containers.gguf.container:CONTAINER",
            "one file for llama.cpp: a ggml type a tensor, tokenizer and metadata inside",
            traits={"engine": "llama.cpp"},
        ),
    ),
)
