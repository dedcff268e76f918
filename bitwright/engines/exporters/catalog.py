"""Export targets. Adding one is one file here and one line below.

Each is `export(plan: Plan, **options) -> str` and raises Unsupported listing the units that the target cannot hold.
"""

from bitwright.core.catalog import Catalog, Entry

_HERE = "bitwright.engines.exporters."

EXPORTERS = Catalog(
    "export target",
    (
        Entry(
            "llama.cpp",
            _HERE + "llama_cpp:export",
            "llama-quantize --tensor-type-file",
            traits={"file": "plan.txt", "nearest": True},
        ),
        Entry(
            "gptqmodel",
            _HERE + "gptqmodel:export",
            "quantize_config.json with `dynamic`",
            traits={"file": "quantize_config.json"},
        ),
        Entry(
            "compressed-tensors",
            _HERE + "compressed_tensors:export",
            "quantization_config with config_groups (transformers, vLLM, llm-compressor)",
            traits={"file": "quantization_config.json"},
        ),
        Entry("autoround", _HERE + "autoround:export", "AutoRound layer_config", traits={"file": "layer_config.json"}),
        Entry(
            "torchao", _HERE + "torchao:export", "Python source of an FqnToConfig", traits={"file": "torchao_config.py"}
        ),
        Entry("mlx", _HERE + "mlx:export", "`quantization` keys of config.json", traits={"file": "quantization.json"}),
        Entry(
            "exllamav3",
            _HERE + "exllamav3:export",
            "YAML overrides of exllamav3's recompile",
            traits={"file": "overrides.yaml", "nearest": True},
        ),
        Entry(
            "llm-compressor",
            _HERE + "llm_compressor:export",
            "recipe with a QuantizationModifier of config_groups",
            traits={"file": "recipe.yaml"},
        ),
        Entry(
            "modelopt",
            _HERE + "modelopt:export",
            "Python source of a ModelOpt quant_cfg",
            traits={"file": "modelopt_config.py"},
        ),
    ),
)
