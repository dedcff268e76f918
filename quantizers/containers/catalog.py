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
            "pack-quantized checkpoint for transformers and vLLM with compressed-tensors >= 0.18",
            traits={"engine": "transformers"},
        ),
        Entry(
            "compressed-tensors-0.17",
            "quantizers.containers.compressed_tensors_padded:CONTAINER",
            "the same in the layout that compressed-tensors read before 0.18",
            traits={"engine": "transformers"},
        ),
        Entry(
            "gptq",
            "quantizers.containers.gptq:CONTAINER",
            "GPTQ checkpoint with GPTQModel's `dynamic`: v1, v2 or planar, as the plan needs",
            traits={"engine": "gptqmodel"},
        ),
        Entry(
            "mlx",
            "quantizers.containers.mlx:CONTAINER",
            "affine checkpoint for mlx-lm",
            traits={"engine": "mlx"},
        ),
        Entry(
            "gguf",
            "quantizers.containers.gguf.container:CONTAINER",
            "one file for llama.cpp: a ggml type a tensor, tokenizer and metadata inside",
            traits={"engine": "llama.cpp"},
        ),
    ),
)
