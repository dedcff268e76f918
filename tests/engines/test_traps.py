"""Traps that made other tools' mixed checkpoints crash or talk garbage, one named test each (research/04 section 5)."""

from __future__ import annotations

import json
import re

import pytest

from bitwright.core.errors import Unsupported
from bitwright.core.formats import parse_format
from bitwright.engines import EXPORTERS, load_profile
from bitwright.engines.exporters.ggml import NEAREST
from tests.engines.plans import inventory, plan_of, tied

LLAMA = inventory("llama-gqa")


def export(target: str, *formats: str, layout: str = "llama-gqa", ties: tuple[str, ...] = (), **options: object) -> str:
    text: str = EXPORTERS.load(target)(tied(inventory(layout), ties, formats), **options)
    return text


def test_llama_cpp_lower_cases_patterns_so_no_class_escape_is_written() -> None:
    text = export("llama.cpp", "int4-sym-g32", "int8-sym-g32")
    assert not re.search(r"\\[A-Za-z]", text)


def test_llama_cpp_searches_so_blk_1_must_not_match_blk_10() -> None:
    pattern = next(line for line in export("llama.cpp", "int4-sym-g32").splitlines() if "blk" in line).rsplit("=", 1)[0]
    assert re.search(pattern, "blk.0.attn_q.weight")
    assert not re.search(pattern, "blk.00.attn_q.weight")
    assert not re.search(pattern, "xblk.0.attn_q.weight")


def test_llama_cpp_looks_at_the_embedding_first_so_it_is_always_named() -> None:
    assert export("llama.cpp", "int4-sym-g32").startswith("^token_embd\\.weight$=")


def test_llama_cpp_fallback_types_are_chosen_by_us_not_by_it() -> None:
    """Rows of 64 and 96 are no multiple of 256: a K type would silently become another one."""
    lines: list[str] = []
    text = export("llama.cpp", "int2-g64", "int6-g64", nearest=True, report=lines.extend)
    chosen = {line.rsplit("=", 1)[1] for line in text.splitlines()}
    blocks = {kind.name: kind.block for kind in NEAREST}
    assert all(blocks.get(kind, 1) <= 32 for kind in chosen)


def test_gptqmodel_unanchored_v_proj_would_match_the_fused_qkv_proj() -> None:
    config = json.loads(export("gptqmodel", "int4-sym-g32", "int8-sym-g32", "int3-g32"))
    for key in config["dynamic"]:
        pattern = key[2:]
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        if "v_proj" in pattern and "qkv" not in pattern:
            assert not re.match(pattern, "model.layers.0.self_attn.qkv_proj")


def test_gptqmodel_fused_name_is_listed_only_where_the_parts_agree() -> None:
    config = json.loads(export("gptqmodel", "int4-sym-g32", "int8-sym-g32", ties=("qkv",)))
    fused = {key for key in config["dynamic"] if "qkv_proj" in key}
    split = json.loads(export("gptqmodel", "int4-sym-g32", "int8-sym-g32", "int3-g32"))
    assert fused
    assert not {key for key in split["dynamic"] if "qkv_proj" in key}


def test_vllm_gptq_never_gets_the_2_and_3_bits_that_marlin_raises_on() -> None:
    profile = load_profile("vllm-gptq")
    for width in (2, 3, 5, 6, 7):
        assert profile.refusals(LLAMA.units[0], parse_format(f"int{width}-sym-g32"))


@pytest.mark.parametrize("target", ["compressed-tensors", "llm-compressor"])
def test_no_class_name_is_a_target(target: str) -> None:
    """`Linear` in two groups was mis-loaded (auto-round 2187, 2128)."""
    text = export(target, "int4-sym-g32", "int8-sym-g32", "bf16")
    assert '"Linear"' not in text
    assert '"re:' not in text


def test_compressed_tensors_inner_groups_never_say_mixed_precision() -> None:
    config = json.loads(export("compressed-tensors", "int4-sym-g32", "int8-sym-g32"))
    assert {group["format"] for group in config["config_groups"].values()} == {"pack-quantized"}


def test_llm_compressor_recipe_is_yaml_with_the_same_groups() -> None:
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load(export("llm-compressor", "int4-sym-g32", "int3-sym-channel", "bf16"))
    modifier = recipe["quant_stage"]["quant_modifiers"]["QuantizationModifier"]
    config = json.loads(export("compressed-tensors", "int4-sym-g32", "int3-sym-channel", "bf16"))
    assert modifier["ignore"] == config["ignore"]
    assert [g["targets"] for g in modifier["config_groups"].values()] == [
        g["targets"] for g in config["config_groups"].values()
    ]


def test_autoround_matches_parts_of_names_so_no_name_is_part_of_another() -> None:
    names = list(json.loads(export("autoround", "int4-sym-g32", "int8-sym-g32", "bf16")))
    assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_torchao_writes_no_default_and_no_pattern() -> None:
    text = export("torchao", "int4-sym-g32", "bf16")
    assert "_default" not in text
    assert "re:" not in text
    assert ", None)" in text


def test_mlx_paths_are_looked_up_not_matched() -> None:
    config = json.loads(export("mlx", "int4-g32", "int6-g32", "bf16"))["quantization"]
    paths = [key for key in config if "." in key]
    assert all(re.fullmatch(r"[a-z0-9_.]+", path) for path in paths)
    assert False in config.values()


def test_modelopt_names_no_algorithm_that_vllm_would_silently_drop() -> None:
    assert "quant_algo" not in export("modelopt", "int4-sym-g32", "int8-sym-g32")


def test_modelopt_config_is_python_and_last_entries_win() -> None:
    scope: dict[str, dict[str, list[dict[str, object]]]] = {}
    exec(export("modelopt", "int4-sym-g32", "int8-sym-channel", "bf16"), scope)  # our own text, just made
    rows = scope["CONFIG"]["quant_cfg"]
    assert rows[0] == {"quantizer_name": "*", "enable": False}
    assert {str(row["quantizer_name"]).endswith(".weight_quantizer") for row in rows[1:]} == {True}
    assert rows[1]["cfg"] == {"num_bits": 4, "block_sizes": {-1: 32, "type": "static"}}


def test_exllamav3_keys_end_where_the_module_ends() -> None:
    text = export("exllamav3", "int4-g64", "int3-g64", nearest=True, report=lambda lines: None)
    assert '"model.layers.0.self_attn.q_proj.*"' in text
    assert '"model.layers.0.*"' not in text


@pytest.mark.parametrize("target", ["llama.cpp", "mlx", "exllamav3"])
def test_unequal_experts_of_a_role_are_refused_not_promoted(target: str) -> None:
    plan = tied(inventory("qwen3-moe-listed"), ("expert",), ("int4-sym-g32", "int8-sym-g32"))
    options = {"nearest": True, "report": lambda lines: None} if target == "exllamav3" else {}
    with pytest.raises(Unsupported):
        EXPORTERS.load(target)(plan, **options)


def test_every_silent_habit_of_an_engine_names_what_guards_against_it() -> None:
    from bitwright.engines import shipped_profiles

    assert all(row.guard for profile in shipped_profiles().values() for row in profile.silent)
    assert all(profile.silent for profile in shipped_profiles().values())


def test_plans_of_another_architecture_keep_their_names() -> None:
    """Vision modules are renamed in memory: stored names would match nothing there."""
    text = EXPORTERS.load("modelopt")(plan_of(inventory("vit"), ["int4-sym-g32"]))
    assert "vit.layers.0.attention.q_proj.weight_quantizer" in text
