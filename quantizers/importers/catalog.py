"""Importers by name. Each is an `Importer`; adding one is one file and one line. The first that recognizes wins."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry

_HERE = "quantizers.importers."
_GPTQ = {"engine": "gptqmodel"}
#: Whose mix it is: a better one must load there too.
_LLAMA = {"engine": "llama.cpp"}

IMPORTERS = Catalog(
    "import source",
    (
        Entry("gguf", _HERE + "gguf:IMPORTER", "a GGUF file: llama.cpp's own mix", traits=_LLAMA),
        Entry(
            "tensor-types",
            _HERE + "tensor_types:IMPORTER",
            "llama-quantize --tensor-type-file (exact names)",
            traits=_LLAMA,
        ),
        Entry("compressed-tensors", _HERE + "compressed_tensors:IMPORTER", "config_groups of a checkpoint"),
        Entry("gptq", _HERE + "gptq:IMPORTER", "GPTQ checkpoint with GPTQModel's `dynamic`", traits=_GPTQ),
        Entry("auto-round", _HERE + "auto_round:IMPORTER", "AutoRound checkpoint with its `extra_config`"),
        Entry("modelopt", _HERE + "modelopt:IMPORTER", "ModelOpt checkpoint with `quantized_layers`"),
    ),
)
