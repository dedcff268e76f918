"""Exports: golden texts, every unit named once by an anchored pattern, and refusals that list what does not fit."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bitwright.core.errors import InvalidInput, UnknownName, Unsupported
from bitwright.core.plan import Plan
from bitwright.engines import EXPORTERS, export_plan
from bitwright.engines.exporters.common import anchored, module_names
from bitwright.engines.exporters.ggml import EXACT, NEAREST, gguf_names
from tests.engines.plans import inventory, plan_of, tied
from tests.goldens import check_golden
from tests.models_inspect.checkpoints import LAYOUTS

#: (target, layout, tie kinds, formats, options): one golden file each.
CASES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...], dict[str, Any]]] = {
    "llama.cpp-llama.txt": ("llama.cpp", "llama-gqa", (), ("int4-sym-g32", "int5-sym-g32", "int8-sym-g32", "bf16"), {}),
    "llama.cpp-mixtral.txt": (
        "llama.cpp",
        "mixtral-listed",
        ("expert_role",),
        ("int4-sym-g32", "int8-sym-g32", "fp16"),
        {},
    ),
    "llama.cpp-qwen3-moe-stacked.txt": (
        "llama.cpp",
        "qwen3-moe-stacked",
        ("expert_role",),
        ("int4-sym-g32", "int8-sym-g32"),
        {},
    ),
    "llama.cpp-qwen2.txt": ("llama.cpp", "qwen2-biases", (), ("int4-sym-g32", "int8-sym-g32"), {}),
    "llama.cpp-qwen3.txt": ("llama.cpp", "qwen3-norms", (), ("int4-sym-g32", "int5-sym-g32"), {}),
    "llama.cpp-qwen3-moe.txt": (
        "llama.cpp",
        "qwen3-moe-listed",
        ("expert_role",),
        ("int4-sym-g32", "int8-sym-g32"),
        {},
    ),
    "llama.cpp-bert.txt": ("llama.cpp", "bert", (), ("int4-sym-g32", "int8-sym-g32"), {}),
    "llama.cpp-nearest.txt": (
        "llama.cpp",
        "llama-gqa",
        (),
        ("int2-g64", "int3-g64", "int4-g64", "int6-g64", "bf16"),
        {"nearest": True},
    ),
    "gptqmodel-llama.json": (
        "gptqmodel",
        "llama-gqa",
        ("qkv",),
        ("int4-sym-g32", "int8-sym-g32", "bf16", "int3-g32"),
        {},
    ),
    "gptqmodel-planar.json": ("gptqmodel", "mistral", ("qkv", "gate_up"), ("int4-sym-channel", "int6-sym-g32"), {}),
    "gptqmodel-mixtral.json": ("gptqmodel", "mixtral-listed", (), ("int4-sym-g32", "int8-sym-g32", "int3-g32"), {}),
    "compressed-tensors-llama.json": (
        "compressed-tensors",
        "llama-gqa",
        (),
        ("int4-sym-g32", "int3-sym-channel", "bf16"),
        {},
    ),
    "compressed-tensors-mixtral.json": (
        "compressed-tensors",
        "mixtral-listed",
        ("all_experts",),
        ("int8-sym-g32", "int4-sym-g32"),
        {},
    ),
    "compressed-tensors-experts.json": (
        "compressed-tensors",
        "qwen3-moe-listed",
        ("experts",),
        ("int4-sym-g32", "int8-sym-g32"),
        {},
    ),
    "compressed-tensors-vit.json": ("compressed-tensors", "vit", (), ("int4-sym-g32", "fp16"), {}),
    "autoround-llama.json": (
        "autoround",
        "llama-gqa",
        (),
        ("int4-sym-g32", "int2-g32", "int8-sym-channel", "bf16"),
        {},
    ),
    "torchao-llama.py.txt": ("torchao", "llama-gqa", (), ("int4-sym-g32", "int7-channel", "bf16"), {}),
    "torchao-stacked.py.txt": (
        "torchao",
        "mixtral-stacked",
        ("expert_role", "gate_up"),
        ("int4-sym-g32", "int8-g32"),
        {},
    ),
    "mlx-llama.json": ("mlx", "llama-gqa", (), ("int4-g32", "int6-g32", "bf16"), {}),
    "mlx-mixtral.json": ("mlx", "mixtral-listed", ("expert_role",), ("int4-g32", "int3-g32"), {}),
    "llm-compressor-llama.yaml": ("llm-compressor", "llama-gqa", (), ("int4-sym-g32", "int3-sym-channel", "bf16"), {}),
    "modelopt-llama.py.txt": ("modelopt", "llama-gqa", (), ("int4-sym-g32", "int8-sym-channel", "bf16"), {}),
    "exllamav3-llama.yaml": ("exllamav3", "llama-gqa", (), ("int4-g64", "int3-g64"), {"nearest": True}),
}


def make(case: str) -> tuple[Plan, str, list[str]]:
    """(plan, exported text, reported substitutions)."""
    target, layout, kinds, formats, options = CASES[case]
    plan = tied(inventory(layout), kinds, formats)
    lines: list[str] = []
    if options.get("nearest"):
        options = {**options, "report": lines.extend}
    return plan, EXPORTERS.load(target)(plan, **options), lines


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, golden: Path) -> None:
    check_golden(golden / "exports" / case, make(case)[1])


@pytest.mark.parametrize("case", CASES)
def test_same_plan_same_text(case: str) -> None:
    assert make(case)[1] == make(case)[1]


def test_every_target_has_a_golden() -> None:
    assert {target for target, *_ in CASES.values()} == set(EXPORTERS.names())


def patterns(text: str) -> dict[str, str]:
    return dict(line.rsplit("=", 1) for line in text.splitlines())


@pytest.mark.parametrize("case", [c for c in CASES if c.startswith("llama.cpp")])
def test_llama_cpp_file_obeys_its_parser(case: str) -> None:
    """No comments, one `=` a token, lower case (patterns are lower-cased first), anchored: one name matches each."""
    plan, text, _ = make(case)
    assert "#" not in text
    assert text == text.lower()
    found = patterns(text)
    assert len(found) == len(text.splitlines())
    wanted = {name for unit in plan.units for name in gguf_names(unit.name)} | {"token_embd.weight"}
    for pattern in found:
        assert " " not in pattern
        assert [name for name in wanted if re.search(pattern, name)] == [re.sub(r"[\\^$]", "", pattern)]
    assert len(found) == len(wanted)


def test_llama_cpp_exact_formats_cost_the_same_bytes() -> None:
    """q4_0, q5_0 and q8_0 are 4.5, 5.5 and 8.5 bits a weight, as our formats are."""
    from bitwright.core.formats import parse_format

    bits = {kind.name: kind.bits for kind in NEAREST} | {"q4_0": parse_format("int4-sym-g32").bits_per_weight((64, 64))}
    assert bits["q4_0"] == 4.5
    for name in ("int5-sym-g32", "int8-sym-g32"):
        assert parse_format(name).bits_per_weight((64, 64)) == bits[EXACT[name]]


def test_llama_cpp_refuses_formats_without_a_counterpart_and_lists_them() -> None:
    plan = plan_of(inventory("llama-gqa"), ["int4-g64", "int4-sym-g32"])
    with pytest.raises(Unsupported, match="formats that ggml holds exactly") as caught:
        EXPORTERS.load("llama.cpp")(plan)
    assert "blk.0.attn_q.weight: int4-g64" in caught.value.extra["units"]
    assert "nearest=True" in str(caught.value.hint)


def test_llama_cpp_nearest_reports_each_substitution(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, lines = make("llama.cpp-nearest.txt")
    assert lines == ["int2-g64 -> iq4_nl", "int3-g64 -> iq4_nl", "int4-g64 -> iq4_nl", "int6-g64 -> q5_0"]
    assert text.count("=") == 16
    EXPORTERS.load("llama.cpp")(plan_of(inventory("llama-gqa"), ["int4-g64"]), nearest=True)
    assert capsys.readouterr().err == "int4-g64 -> iq4_nl\n"


def test_llama_cpp_nearest_prefers_true_bits_where_blocks_divide() -> None:
    from bitwright.core.formats import parse_format
    from bitwright.engines.exporters.ggml import nearest

    found = {
        name: nearest(parse_format(name), (512, 512))
        for name in ("int2-g64", "int3-g64", "int4-g64", "int6-g64", "int8-g64")
    }
    assert {name: kind.name if kind else None for name, kind in found.items()} == {
        "int2-g64": "q2_k", "int3-g64": "q3_k", "int4-g64": "q4_k", "int6-g64": "q6_k",
        "int8-g64": "q8_0",
    }  # fmt: skip
    assert nearest(parse_format("int4-g64"), (512, 40)) is None


def test_llama_cpp_has_no_names_for_vision() -> None:
    with pytest.raises(Unsupported, match="no GGUF name map"):
        EXPORTERS.load("llama.cpp")(plan_of(inventory("vit"), ["fp16"]))


def test_llama_cpp_embedding_type_is_checked() -> None:
    plan = plan_of(inventory("llama-gqa"), ["bf16"])
    assert EXPORTERS.load("llama.cpp")(plan, embedding="q8_0").startswith("^token_embd\\.weight$=q8_0\n")
    with pytest.raises(UnknownName):
        EXPORTERS.load("llama.cpp")(plan, embedding="q9")


@pytest.mark.parametrize(
    ("target", "formats"), [("llama.cpp", ("int4-sym-g32", "int8-sym-g32")), ("mlx", ("int4-g32", "int8-g32"))]
)
@pytest.mark.parametrize("layout", ["mixtral-listed", "qwen3-moe-stacked"])
def test_experts_that_differ_are_refused_where_they_are_one_tensor(
    target: str, formats: tuple[str, ...], layout: str
) -> None:
    plan = tied(inventory(layout), ("expert",), formats)
    with pytest.raises(Unsupported, match="one format for all experts of a role"):
        EXPORTERS.load(target)(plan)


def test_gptqmodel_patterns_match_their_module_and_no_fused_neighbour() -> None:
    plan, text, _ = make("gptqmodel-llama.json")
    config = json.loads(text)
    names = [name for unit in plan.units for name in module_names(unit)]
    kept = [unit.name.removesuffix(".weight") for unit in plan.units if unit.format == "bf16"]
    for key, fields in config["dynamic"].items():
        assert key[:2] in {"+:", "-:"}
        hits = [
            name
            for name in (*names, "model.layers.0.self_attn.qkv_proj", "model.layers.0.mlp.gate_up_proj")
            if re.match(key[2:], name)
        ]
        assert len(hits) == 1 or "qkv_proj" in key or "gate_up_proj" in key
        assert (key[:2] == "-:") == (fields == {})
    assert [key for key in config["dynamic"] if key.startswith("-:")] == ["-:" + anchored(name) for name in kept]
    keys = list(config["dynamic"])
    assert all(key.startswith("-:") for key in keys[: len(kept)]), "negatives first"


def test_gptqmodel_every_unit_gets_its_format() -> None:
    """Read the config back as GPTQModel does: negatives, then the first match, then the default."""
    plan, text, _ = make("gptqmodel-llama.json")
    config = json.loads(text)
    for unit in plan.units:
        name = unit.name.removesuffix(".weight")
        fields = next((f for k, f in config["dynamic"].items() if re.match(k[2:], name)), config)
        found = None if fields == {} else (fields["bits"], fields["sym"], fields["group_size"])
        expected = {
            "int4-sym-g32": (4, True, 32),
            "int8-sym-g32": (8, True, 32),
            "bf16": None,
            "int3-g32": (3, False, 32),
        }
        assert found == expected[unit.format]


def test_gptqmodel_writes_the_planar_layout_for_odd_widths() -> None:
    assert json.loads(make("gptqmodel-planar.json")[1])["checkpoint_format"] == "gptq_p"
    assert json.loads(make("gptqmodel-llama.json")[1])["checkpoint_format"] == "gptq"


@pytest.mark.parametrize("layout", ["llama-gqa", "qwen3-moe-listed", "mixtral-stacked", "vit"])
def test_compressed_tensors_names_every_unit_once(layout: str) -> None:
    plan = plan_of(inventory(layout), ["int4-sym-g32", "int8-sym-channel", "bf16"])
    config = json.loads(EXPORTERS.load("compressed-tensors")(plan))
    targets = [target for group in config["config_groups"].values() for target in group["targets"]]
    assert len(targets) == len(set(targets))
    assert not set(targets) & set(config["ignore"])
    assert all(not target.startswith("re:") for target in targets)
    assert all(set(group) == {"format", "targets", "weights"} for group in config["config_groups"].values())


def test_compressed_tensors_experts_of_one_scheme_get_the_pattern_transformers_wants() -> None:
    config = json.loads(make("compressed-tensors-mixtral.json")[1])
    patterns = [t for group in config["config_groups"].values() for t in group["targets"] if t.startswith("re:")]
    assert patterns == [r"re:.*\.experts\.[0-9]+\..*"]
    assert "model.layers.0.block_sparse_moe.gate" in config["ignore"]


def test_compressed_tensors_is_accepted_by_the_library() -> None:
    library = pytest.importorskip("compressed_tensors.quantization")
    for case in (c for c in CASES if c.startswith("compressed-tensors")):
        config = json.loads(make(case)[1])
        parsed = library.QuantizationConfig.model_validate(config)
        assert set(parsed.config_groups) == set(config["config_groups"])


def test_torchao_text_is_python_and_stacked_experts_are_parameters() -> None:
    for case in ("torchao-llama.py.txt", "torchao-stacked.py.txt"):
        ast.parse(make(case)[1])
    assert "'model.layers.0.mlp.experts.gate_up_proj'" in make("torchao-stacked.py.txt")[1]


def test_torchao_names_are_those_in_memory() -> None:
    """transformers 5 fuses listed experts and renames vision modules: the stored names would match nothing."""
    listed = EXPORTERS.load("torchao")(
        tied(inventory("mixtral-listed"), ("expert_role", "gate_up"), ("int4-sym-g32", "int8-g32"))
    )
    assert listed.count("'model.layers.1.mlp.experts.") == 2
    assert "block_sparse_moe" not in listed
    assert "'vit.layers.0.attention.q_proj'" in EXPORTERS.load("torchao")(plan_of(inventory("vit"), ["int4-sym-g32"]))


def test_mlx_mixtral_names_are_those_of_switch_mlp() -> None:
    config = json.loads(make("mlx-mixtral.json")[1])["quantization"]
    assert any(key == "model.layers.0.block_sparse_moe.switch_mlp.up_proj" for key in config)


def test_exllamav3_needs_nearest_and_a_place_for_the_bits() -> None:
    plan = plan_of(inventory("llama-gqa"), ["int4-g64"])
    with pytest.raises(Unsupported, match="nearest=True"):
        EXPORTERS.load("exllamav3")(plan)
    with pytest.raises(InvalidInput, match="place for the bits"):
        EXPORTERS.load("exllamav3")(plan, nearest=True, model_dir="quants")
    text = EXPORTERS.load("exllamav3")(plan, nearest=True, report=lambda lines: None)
    yaml = pytest.importorskip("yaml")
    loaded = yaml.safe_load(text)
    assert loaded["sources"] == [{"id": "b4", "model_dir": "quants/4.0bpw"}]
    assert len(loaded["overrides"]) == len(plan.units)


@pytest.mark.parametrize(
    ("target", "format", "reason"),
    [
        ("gptqmodel", "int1-sym-g32", "GPTQ has no 1 bit"),
        ("gptqmodel", "int4-g64", "does not divide 96 inputs"),
        ("compressed-tensors", "int4-sym-g64", "does not divide 96 inputs"),
        ("autoround", "int5-g32", "writes 2, 3, 4 and 8"),
        ("torchao", "int4-g64", "does not divide 96 inputs"),
        ("mlx", "int7-g32", "MLX has no 7 bits"),
        ("mlx", "int4-channel", "groups of 32, 64 and 128"),
        ("exllamav3", "bf16", "nearest=True"),
        ("llm-compressor", "int4-sym-g64", "does not divide 96 inputs"),
        ("modelopt", "int4-g32", "symmetric"),
        ("modelopt", "int1-sym-g32", "1 bit"),
    ],
)
def test_what_a_target_cannot_hold_is_listed(target: str, format: str, reason: str) -> None:
    with pytest.raises(Unsupported) as caught:
        EXPORTERS.load(target)(plan_of(inventory("llama-gqa"), [format]))
    assert reason in str(caught.value)
    assert caught.value.extra["units"]


@pytest.mark.parametrize("target", [t for t in EXPORTERS.names() if t in {"gptqmodel", "mlx"}])
def test_a_plan_that_quantizes_nothing_is_refused(target: str) -> None:
    with pytest.raises(Unsupported, match="every unit stays in 16 bits"):
        EXPORTERS.load(target)(plan_of(inventory("llama-gqa"), ["bf16"]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", EXPORTERS.names())
def test_every_layout_exports_or_is_refused_with_a_typed_error(target: str, layout: str) -> None:
    plan = plan_of(inventory(layout), ["int4-sym-g32"])
    try:
        text = EXPORTERS.load(target)(plan)
    except Unsupported as error:
        text = f"{error}\n"
    assert text.endswith("\n")


def test_unknown_target() -> None:
    with pytest.raises(UnknownName, match="did you mean mlx"):
        EXPORTERS.load("mlxx")


@pytest.mark.parametrize("target", EXPORTERS.names())
def test_no_target_takes_several_formats_a_tensor(target: str) -> None:
    model = inventory("llama-gqa")
    choice = {u.name: "row(int4-sym-g32,int8-sym-g32)@" + "01" * (u.shape[0] // 2) for u in model.units}
    with pytest.raises(Unsupported, match="cannot hold") as caught:
        export_plan(plan_of(model, choice), target)
    assert "@" not in str(caught.value.got)
