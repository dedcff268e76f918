"""GGUF files: predicted = written = read back, and the `gguf` package decodes every tensor to our values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import GGML_FORMATS, Format, parse_format
from bitwright.core.gguf_names import ARCHITECTURES, gguf_places, hugging_face_names
from bitwright.models import inspect, open_model
from bitwright.models.gguf_header import read_gguf
from bitwright.models.rope import rope_factors
from gpu_kernels.kernels import widen
from quantizers.bias import bias_shift, shifted
from quantizers.catalog import QUANTIZERS
from quantizers.containers.catalog import CONTAINERS
from quantizers.rtn import QUANTIZER
from tests.models_inspect.checkpoints import LAYOUTS, SIZES, decoder, write

gguf = pytest.importorskip("gguf")
CONTAINER = CONTAINERS.load("gguf")
MODELS = Path(__file__).parents[1] / "models"
MENU = ("int4-sym-g32", "int8-sym-g32", "fp16", "int5-sym-g32", "bf16")
HELD = (
    "llama-gqa", "llama-tied", "llama-biases", "mistral", "qwen2-biases", "qwen3-norms", "mixtral-listed",
    "mixtral-stacked", "qwen3-moe-listed", "qwen3-moe-stacked", "bert",
)  # fmt: skip

_CONFIG, _SHAPES = decoder("llama", "LlamaForCausalLM", biases=True)
#: Its q and k are reordered in a GGUF file, and so are their biases.
_WITH_BIASES = {**_CONFIG, "attention_bias": True}, _SHAPES


def model(folder: Path, layout: str, **change: Any) -> Path:
    config, shapes = {**LAYOUTS, "llama-biases": _WITH_BIASES}[layout]
    return write(folder, ({**SIZES, **config, **change}, shapes))


def mix(inventory: Any, menu: Sequence[str] = MENU) -> list[Format]:
    """Formats in turn, one for the experts of a role."""
    order = {tie: i for i, tie in enumerate(dict.fromkeys(inventory.tie_ids(("expert_role",))))}
    return [parse_format(menu[order[tie] % len(menu)]) for tie in inventory.tie_ids(("expert_role",))]


def made(folder: Path, out: Path, **options: Any) -> tuple[Any, Any, Any, list[Format], Any]:
    source = open_model(str(folder))
    inventory = inspect(source)
    formats = mix(inventory)
    report = CONTAINER.write(source, inventory, formats, out, **options)
    return CONTAINER.read(out), source, inventory, formats, report


def unrotated(values: np.ndarray, name: str, heads: tuple[int, int] | None) -> np.ndarray:
    """Rows of q and k as Hugging Face has them, by an own formula: pair (i, i + half) from neighbours."""
    role = name.split(".")[2].removeprefix("attn_") if name.startswith("blk.") else ""
    if heads is None or role not in ("q", "k"):
        return values
    count = heads[role == "k"]
    size = values.shape[0] // count
    rows = [h * size + 2 * i + half for h in range(count) for half in (0, 1) for i in range(size // 2)]
    return values[rows]


def test_every_ggml_type_is_decoded_by_the_gguf_package_to_our_values(tmp_path: Path) -> None:
    """Rows of 256: whole superblocks. All twelve block types in one file, q and k among them."""
    config, shapes = LAYOUTS["llama-gqa"]
    # 96 inner features become 256 too.
    large = {name: (dtype, tuple(4 * min(size, 64) for size in shape)) for name, (dtype, shape) in shapes.items()}
    scaled = {**SIZES, "hidden_size": 256, "intermediate_size": 256, "vocab_size": 256}
    folder = write(tmp_path / "m", ({**config, **scaled, "num_attention_heads": 4}, large))
    source = open_model(str(folder))
    inventory = inspect(source)
    formats = mix(inventory, tuple(GGML_FORMATS))
    assert {format.name for format in formats} == set(GGML_FORMATS)
    report = CONTAINER.write(source, inventory, formats, tmp_path / "out")
    assert report.file_bytes == CONTAINER.predict(inventory, formats, source=source).file_bytes
    reader = gguf.GGUFReader(str(tmp_path / "out" / "model.gguf"))
    theirs = {t.name: t for t in reader.tensors}
    checkpoint = CONTAINER.read(tmp_path / "out")
    for unit, format in zip(inventory.units, formats, strict=True):
        tensor = theirs[gguf_places(unit.name)[0].name]
        assert tensor.tensor_type.name.lower() == format.name
        found = unrotated(gguf.dequantize(tensor.data, tensor.tensor_type), tensor.name, (4, 2))
        assert np.array_equal(found, checkpoint.dequantized(unit.name)), (unit.name, format.name)
        assert np.array_equal(found, QUANTIZER.quantize(source.read_float32(unit.name), format).dequantize())


@pytest.mark.parametrize("layout", HELD)
def test_the_gguf_package_decodes_every_tensor_to_our_values(layout: str, tmp_path: Path) -> None:
    checkpoint, source, inventory, formats, report = made(model(tmp_path / "m", layout), tmp_path / "out")
    assert report.file_bytes == sum((report.path / name).stat().st_size for name in report.files)
    assert CONTAINER.predict(inventory, formats, source=source).file_bytes == report.file_bytes
    menu = [parse_format(name) for name in MENU]
    assert report.overhead_bytes <= CONTAINER.max_overhead(inventory, menu, source=source)
    reader = gguf.GGUFReader(str(tmp_path / "out" / "model.gguf"))
    arch = ARCHITECTURES[source.config["model_type"]][0]
    heads = (4, 2) if arch == "llama" else None
    theirs = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    names = set()
    for unit, format in zip(inventory.units, formats, strict=True):
        weight = source.read_float32(unit.tensor, unit.index)
        expected = QUANTIZER.quantize(weight, format).dequantize()
        assert np.array_equal(checkpoint.dequantized(unit.name), expected)
        places = gguf_places(unit.tensor, unit.index)
        names |= {place.name for place in places}
        parts = [theirs[p.name] if p.expert is None else theirs[p.name][p.expert] for p in places]
        found = np.concatenate([unrotated(part, places[0].name, heads) for part in parts])
        assert np.array_equal(found, expected), unit.name
    for tensor in inventory.rest:
        place = gguf_places(tensor.name)
        if not CONTAINER.rest_tensors(tensor):
            continue
        names.add(place[0].name)
        stored = unrotated(theirs[place[0].name], place[0].name, heads)
        assert np.array_equal(stored.reshape(-1), source.read_float32(tensor.name).reshape(-1)), tensor.name
    assert names == set(theirs)
    assert bytes(reader.fields["general.architecture"].parts[-1]).decode() == arch


def test_a_corrected_bias_moves_with_its_rows(tmp_path: Path) -> None:
    """Bias correction, then llama's order of rows: every output keeps its own shift, in the file and read back."""
    folder, rng = model(tmp_path / "m", "llama-biases"), np.random.default_rng(3)
    given = {
        unit.name: {"mean": mean, "held_out_mean": mean}
        for unit in inspect(open_model(str(folder))).units
        for mean in [rng.standard_normal(unit.shape[1]) * 4]
    }
    checkpoint, source, inventory, formats, report = made(
        folder, tmp_path / "out", quantizer="rtn-bias", context=lambda unit: given[unit.name]
    )
    theirs = {t.name: t.data for t in gguf.GGUFReader(str(report.path / "model.gguf")).tensors}
    quantizer, seen = QUANTIZERS.load("rtn-bias"), 0
    for unit, format in zip(inventory.units, formats, strict=True):
        bias = inventory.bias_of(unit)
        if bias is None:
            continue
        weight, before = source.read_float32(unit.name), source.read_float32(bias.name)
        value = quantizer.quantize(weight, format)
        shift = bias_shift(quantizer, weight, value, name=unit.name, **given[unit.name])
        assert shift is not None
        wanted = widen(shifted(source.read(bias.name), shift, unit.name))
        seen += int(np.count_nonzero(wanted != before))
        name = gguf_places(bias.name)[0].name
        assert np.array_equal(unrotated(theirs[name], name, (4, 2)), wanted), bias.name
        assert np.array_equal(checkpoint.read_float32(bias.name), wanted), bias.name
        if unit.name.endswith(("q_proj.weight", "k_proj.weight")):
            assert not np.array_equal(theirs[name], wanted), "the order of rows is not seen by this test"
    assert seen > 50


def test_trained_model_with_its_tokenizer(tmp_path: Path) -> None:
    checkpoint, source, _, _, _ = made(MODELS / "llama-stdlib", tmp_path / "out")
    metadata = read_gguf(tmp_path / "out" / "model.gguf").metadata
    vocabulary = json.loads((MODELS / "llama-stdlib" / "tokenizer.json").read_text())["model"]
    assert metadata["tokenizer.ggml.model"] == "gpt2"
    assert metadata["tokenizer.ggml.pre"] == "gpt-2"
    assert metadata["tokenizer.ggml.tokens"] == sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    assert len(metadata["tokenizer.ggml.merges"]) == len(vocabulary["merges"])
    assert metadata["tokenizer.ggml.bos_token_id"] == 0
    assert metadata["llama.attention.head_count_kv"] == 2
    embedding = checkpoint.read_float32("model.embed_tokens.weight")
    assert np.array_equal(embedding, source.read_float32("model.embed_tokens.weight"))


def test_a_model_without_a_tokenizer_takes_token_ids_only(tmp_path: Path) -> None:
    made(model(tmp_path / "m", "llama-gqa"), tmp_path / "out")
    metadata = read_gguf(tmp_path / "out" / "model.gguf").metadata
    assert metadata["tokenizer.ggml.model"] == "none"
    (tmp_path / "m" / "vocab.json").write_bytes(b"{}")
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json"):
        made(tmp_path / "m", tmp_path / "other")


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", "mixtral-listed")
    seen: list[str] = []

    def stop(stage: str, fraction: float, message: str) -> None:
        seen.append(message)
        if len(seen) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(folder, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()
    again: list[str] = []
    made(folder, tmp_path / "out", progress=lambda stage, fraction, message: again.append(f"{stage} {message}"))
    assert f"write {seen[0]}" not in again
    made(folder, tmp_path / "whole")
    assert (tmp_path / "out" / "model.gguf").read_bytes() == (tmp_path / "whole" / "model.gguf").read_bytes()


@pytest.mark.parametrize(
    ("layout", "format", "message"),
    [
        ("vit", "fp16", "does not know this architecture"),
        ("unknown", "fp16", "does not know this architecture"),
        ("bert-classifier", "fp16", "no name in its map"),
        ("llama-gqa", "int4-g32", "another format"),
        ("llama-gqa", "int4-sym-g64", "another format"),
        ("llama-gqa", "q4_k", "whole blocks of 256"),
    ],
)
def test_what_a_gguf_file_cannot_hold(layout: str, format: str, message: str, tmp_path: Path) -> None:
    source = open_model(str(model(tmp_path, layout)))
    inventory = inspect(source)
    with pytest.raises(Unsupported) as caught:
        CONTAINER.predict(inventory, [parse_format(format)] * len(inventory.units), source=source)
    assert message in str(caught.value)


def test_experts_of_a_role_must_share_a_type(tmp_path: Path) -> None:
    source = open_model(str(model(tmp_path, "mixtral-listed")))
    inventory = inspect(source)
    formats = [parse_format(MENU[i % 2]) for i in range(len(inventory.units))]
    with pytest.raises(Unsupported, match="one type for all experts"):
        CONTAINER.predict(inventory, formats, source=source)


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("qwen3-moe-listed", {"norm_topk_prob": False}),
        ("qwen3-moe-listed", {"mlp_only_layers": [0]}),
        ("llama-gqa", {"hidden_act": "gelu"}),
        ("llama-gqa", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(layout: str, change: dict[str, Any], tmp_path: Path) -> None:
    source = open_model(str(model(tmp_path, layout, **change)))
    inventory = inspect(source)
    with pytest.raises(Unsupported):
        CONTAINER.predict(inventory, mix(inventory), source=source)


def test_llama_3_rope_factors() -> None:
    """Llama 3.1's own parameters: short wavelengths stay, long ones are divided by 8, the rest lies between."""
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
    factors = rope_factors({"head_dim": 128, "rope_parameters": rope})
    assert factors is not None
    assert factors.shape == (64,)
    assert factors[0] == 1.0
    assert factors[-1] == 8.0
    assert (np.diff(factors) >= 0).all()


def test_a_file_that_lies_about_a_type_is_refused(tmp_path: Path) -> None:
    made(model(tmp_path / "m", "llama-gqa"), tmp_path / "out")
    manifest = tmp_path / "out" / "bitwright.json"
    data = json.loads(manifest.read_text())
    data["units"][0]["format"] = "int8-sym-g32"
    manifest.write_text(json.dumps(data))
    with pytest.raises(InvalidModel, match="otherwise than the manifest"):
        CONTAINER.read(tmp_path / "out")


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_names_are_those_of_the_gguf_package(model_type: str) -> None:
    """Its own map of the architecture, block 7 of 9, as an oracle: the same name for every part that it knows."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[model_type][0])
    theirs = gguf.get_tensor_name_map(arch, 9)
    absent = []
    for there, back in hugging_face_names(model_type).items():
        name = back.format(n=7, e=3)
        stem, _, end = name.rpartition(".")
        found = theirs.get_name(stem) or theirs.get_name(stem.replace(".experts.3.", ".experts."))
        if found is None:
            absent.append(name)
        else:
            assert f"{found}.{end}" == there.format(n=7), name
    # Families of names are shared: some parts exist in their sisters only.
    sisters = r".*(?:q_norm|k_norm|7\.mlp\.(?:gate|up|down)_proj|shared_expert(?:_gate|\.[a-z]+_proj))\.(?:weight|bias)"
    assert not [name for name in absent if not re.fullmatch(sisters, name)]
    assert model_type != "qwen3" or not absent


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_names_lead_there_and_back(model_type: str) -> None:
    for there, back in hugging_face_names(model_type).items():
        hf = back.format(n=7, e=3)
        (place,) = gguf_places(hf)
        assert place.name == there.format(n=7)
        assert place.expert == (3 if "{e}" in back else None)
