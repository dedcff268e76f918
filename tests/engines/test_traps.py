"""Traps that made other tools' mixed checkpoints crash or talk garbage, one named test each (research/04 section 5)."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from bitwright.core.errors import Unsupported
from bitwright.core.formats import parse_format
from bitwright.engines import EXPORTERS, load_profile, preflight
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


EVERY_LAYOUT = ("llama-gqa", "mistral", "qwen2-biases", "mixtral-listed", "qwen3-moe-listed", "qwen3-moe-stacked")


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
def test_llama_cpp_first_match_wins_so_no_tensor_is_matched_by_two_lines(layout: str) -> None:
    lines = export("llama.cpp", "int4-sym-g32", "int8-sym-g32", layout=layout, ties=("expert_role",)).splitlines()
    rules = [line.rsplit("=", 1) for line in lines]
    names = [pattern[1:-1].replace("\\", "") for pattern, _ in rules]
    for name, (_, kind) in zip(names, rules, strict=True):
        hits = [found for pattern, found in rules if re.search(pattern.lower(), name)]
        assert hits == [kind], name


def test_llama_cpp_knows_no_comment_and_wants_an_equals_sign_in_every_token() -> None:
    text = export("llama.cpp", "int4-sym-g32", "int8-sym-g32", "bf16")
    tokens = text.split()
    assert all(token.count("=") == 1 and not token.startswith("#") for token in tokens)
    assert len(tokens) == len(text.splitlines())


def test_llama_cpp_looks_at_the_output_before_the_patterns_so_a_planned_head_is_named_exactly() -> None:
    text = export("llama.cpp", "int4-sym-g32", "int8-sym-g32")
    assert re.search(r"^\^output\\\.weight\$=q", text, re.MULTILINE)


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
def test_llama_cpp_refuses_norms_routers_and_vectors_so_none_is_named(layout: str) -> None:
    text = export("llama.cpp", "int4-sym-g32", "int8-sym-g32", layout=layout, ties=("expert_role",))
    assert "norm" not in text
    assert "ffn_gate_inp" not in text
    assert "bias" not in text


def test_llama_cpp_override_equal_to_the_base_type_was_ignored_so_every_planned_tensor_is_named() -> None:
    """ggml issue 22544: whatever the base type is, no planned tensor is left to it."""
    plan = tied(LLAMA, (), ["int4-sym-g32"])
    assert len(EXPORTERS.load("llama.cpp")(plan).splitlines()) == len(plan.units) + 1


@pytest.mark.parametrize("layout", EVERY_LAYOUT)
@pytest.mark.parametrize("target", ["gptqmodel", "compressed-tensors", "llama.cpp"])
def test_no_pattern_of_one_module_matches_another_or_a_fused_neighbour(target: str, layout: str) -> None:
    """`.*v_proj` matched qkv_proj, `.*up_proj` gate_up_proj, and layers.1 layers.10."""
    text = export(target, "int4-sym-g32", "int8-sym-g32", layout=layout, ties=("experts",))
    if target == "gptqmodel":
        patterns = [key[2:] for key in json.loads(text)["dynamic"]]
    elif target == "compressed-tensors":
        groups = json.loads(text)["config_groups"].values()
        patterns = [t.removeprefix("re:") for group in groups for t in group["targets"] if t.startswith("re:^")]
    else:
        patterns = [line.rsplit("=", 1)[0] for line in text.splitlines()]
    strangers = [
        "model.layers.0.self_attn.xqkv_proj", "model.layers.10.self_attn.v_proj", "model.layers.0.mlp.fused_up_proj",
        "model.layers.00.mlp.up_proj", "blk.10.attn_v.weight", "xblk.0.attn_v.weight",
        "model.layers.10.mlp.experts.0.w1",
        "model.layers.0.mlp.shared_experts.up_proj", "model.layers.0.mlp.shared_expert.up_proj",
    ]  # fmt: skip
    for pattern in patterns:
        assert pattern.startswith("^"), pattern
        assert pattern.endswith("$"), pattern
        assert not [name for name in strangers if re.search(pattern, name)], pattern


def test_gptqmodel_looks_for_mixtrals_experts_under_its_own_names() -> None:
    """block_sparse_moe.experts.0.w1 matches no module there: the expert would get the default bits without a word."""
    text = export("gptqmodel", "int4-sym-g32", "int8-sym-g32", "int3-sym-g32", layout="mixtral-listed")
    assert "block_sparse_moe" not in text
    assert ".w1" not in text
    patterns = [key[2:] for key in json.loads(text)["dynamic"]]
    assert any(re.match(pattern, "model.layers.0.mlp.experts.0.gate_proj") for pattern in patterns)


def test_gptqmodel_serves_one_setting_a_block_in_vllm_so_its_profile_ties_them() -> None:
    for name in ("vllm", "vllm-gptq", "sglang", "tensorrt-llm"):
        profile = load_profile(name)
        assert {"qkv", "gate_up", "experts"} <= set(profile.tie_kinds), name
        assert profile.experts.rule == "block", name


def test_vllm_reads_the_scheme_of_expert_0_alone_so_uneven_experts_are_refused_before() -> None:
    model, profile = inventory("qwen3-moe-listed"), load_profile("vllm")
    choice = {unit.name: "bf16" if unit.layer is None else "int4-sym-g32" for unit in model.units}
    assert preflight(choice, model, profile) == []
    last = next(unit.name for unit in model.units if unit.expert == 3 and unit.layer == 1)
    reasons = [str(reason) for reason in preflight({**choice, last: "int8-sym-g32"}, model, profile)]
    assert any("must share one format" in reason for reason in reasons)


def test_compressed_tensors_config_names_no_layout_version_so_each_layout_is_a_container_of_its_own() -> None:
    """32 // b codes a word up to 0.17, a dense stream since: the same config, other weights at 3, 5, 6 and 7 bits."""
    import numpy as np

    from quantizers.containers.catalog import CONTAINERS

    new, old = (CONTAINERS.load(name) for name in ("compressed-tensors", "compressed-tensors-0.17"))
    codes = (np.arange(2 * 96, dtype=np.uint8) * 7).reshape(2, 96)
    for width in range(1, 9):
        low = (codes & ((1 << width) - 1)).astype(np.uint8)
        same = np.array_equal(new.pack_codes(low, width), old.pack_codes(low, width))
        assert same == (width in (1, 2, 4, 8)), width
        assert np.array_equal(old.unpack_codes(old.pack_codes(low, width), width, 96), low)
    assert "0.18" in load_profile("transformers").version


def test_autoround_names_the_head_that_it_would_else_push_to_6_bits() -> None:
    plan = plan_of(LLAMA, {unit.name: "bf16" if unit.layer is None else "int4-sym-g32" for unit in LLAMA.units})
    assert json.loads(EXPORTERS.load("autoround")(plan))["lm_head"] == {"bits": 16}


def test_mlx_config_is_mirrored_and_says_rope_where_mlx_looks(tmp_path: Path) -> None:
    from quantizers.containers.mlx import CONTAINER

    config = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}}
    formats = [parse_format("bf16" if unit.layer is None else "int4-g32") for unit in LLAMA.units]
    made = json.loads(CONTAINER.companions(LLAMA, formats, config)["config.json"])
    assert made["quantization"] == made["quantization_config"]
    assert (made["rope_theta"], made["rope_scaling"]["factor"]) == (5e5, 2.0)


def test_modelopt_different_algorithms_in_a_fused_layer_are_refused_by_the_profile() -> None:
    profile = load_profile("tensorrt-llm")
    choice = dict.fromkeys((unit.name for unit in LLAMA.units), "bf16")
    assert preflight(choice, LLAMA, profile) == []
    choice["model.layers.0.self_attn.q_proj.weight"] = "fp8-e4m3"
    choice["model.layers.0.self_attn.k_proj.weight"] = "nvfp4"
    assert any("must share one format" in str(reason) for reason in preflight(choice, LLAMA, profile))


def test_exllamav3_lets_q_k_and_v_differ_but_not_the_experts_of_a_role() -> None:
    profile = load_profile("exllamav3")
    assert "qkv" not in profile.tie_kinds
    assert "expert_role" in profile.tie_kinds


def test_every_trap_on_the_list_has_its_test() -> None:
    """tests/engines/traps.toml: each trap of the study of other tools, and the test that holds it."""
    rows = tomllib.loads((Path(__file__).parent / "traps.toml").read_text())["trap"]
    for row in rows:
        file, _, name = row["test"].partition("::")
        assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text(), row["test"]
    assert len({row["what"] for row in rows}) == len(rows) >= 40
