"""Profiles: each shipped file holds together; what one allows is what its rules say; preflight finds every breach."""

from __future__ import annotations

from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import InvalidInput, UnknownName
from bitwright.core.formats import IntFormat, listed_formats, parse_format
from bitwright.core.inventory import Unit
from bitwright.engines import EXPORTERS, engine_names, load_profile, preflight, shipped_profiles
from bitwright.engines.catalog import parse_profile
from bitwright.engines.profile import unit_class
from tests.engines.plans import inventory, plan_of, tied
from tests.models_inspect.checkpoints import LAYOUTS
from tests.strategies import format_names

FORMATS = (*(f.name for f in listed_formats()), "int4-sym-g32", "int5-sym-g32", "int8-sym-g32")


@pytest.mark.parametrize("name", engine_names())
class TestEveryProfile:
    """The contract of a profile file."""

    def test_file_name_is_the_name(self, name: str) -> None:
        assert (resources.files("bitwright.engines") / "profiles" / f"{name}.toml").is_file()

    def test_export_target_exists_and_every_line_has_evidence(self, name: str) -> None:
        profile = load_profile(name)
        assert profile.export is None or profile.export in EXPORTERS.names()
        used = set(profile.used_evidence())
        assert used == {line.id for line in profile.evidence}

    def test_describe_is_for_catalogs(self, name: str) -> None:
        assert load_profile(name).describe()["name"] == name

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_menu_allowed_and_refusals_agree(self, name: str, layout: str) -> None:
        profile, model = load_profile(name), inventory(layout)
        table, menu = profile.allowed(model, FORMATS), profile.menus(model, FORMATS)
        for unit, row in zip(model.units, table, strict=True):
            assert menu[unit.name] == tuple(f for f, fine in zip(FORMATS, row, strict=True) if fine)
            assert row == [not profile.refusals(unit, parse_format(f)) for f in FORMATS]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_plans_from_the_cut_menu_pass_the_preflight(self, name: str, layout: str) -> None:
        profile, model = load_profile(name), inventory(layout)
        menu = profile.menus(model, FORMATS)
        ties = model.tie_ids(profile.tie_kinds)
        common: dict[int, list[str]] = {}
        for unit, tie in zip(model.units, ties, strict=True):
            common[tie] = [f for f in menu[unit.name] if f in common.get(tie, FORMATS)]
        if not all(common.values()):
            return
        choice = {u.name: common[t][(7 * t) % len(common[t])] for u, t in zip(model.units, ties, strict=True)}
        assert preflight(plan_of(model, choice), model, profile) == []


def test_names_aliases_and_revisions() -> None:
    assert {"transformers", "vllm"} <= set(engine_names())
    vllm = load_profile("vllm")
    assert load_profile("vllm-compressed-tensors") is vllm
    assert load_profile(f"vllm@{vllm.revision}") is vllm
    assert load_profile("vllm@0.33") is vllm
    assert load_profile("vllm@0.40.1") is vllm
    for unknown in ("vllm@2020-01-01", "vllm@0.32", "vllm@new", "vllm@"):
        with pytest.raises(UnknownName, match="knows nothing of that version"):
            load_profile(unknown)
    with pytest.raises(UnknownName, match="did you mean vllm"):
        load_profile("vlm")


def test_transformers_is_symmetric_one_to_eight() -> None:
    profile, unit = load_profile("transformers"), inventory("llama-gqa").units[0]
    assert profile.symmetric_only
    assert profile.default_group == 64
    loaded = {name for name in FORMATS if not profile.refusals(unit, parse_format(name))}
    assert loaded == {n for n in FORMATS if "-sym-" in n} | {"bf16", "fp16"}


def test_group_must_divide_unless_it_holds_the_row() -> None:
    profile = load_profile("transformers")
    unit = Unit("w.weight", "w.weight", (64, 96), "F16", "w", layer=0)
    assert profile.refusals(unit, parse_format("int4-sym-g64")) == ["the group 64 does not divide the 96 inputs"]
    assert not profile.refusals(unit, parse_format("int4-sym-g32"))
    assert not profile.refusals(unit, parse_format("int4-sym-g128")), "longer than a row: stored as per channel"
    expert = Unit("e.weight", "e.weight", (64, 96), "F16", "e", layer=0, expert=0)
    assert profile.refusals(expert, parse_format("int4-sym-g128")), "experts are fused: one scheme for all their shapes"


def test_vllm_has_no_one_bit_zero_points_at_4_bits_alone_and_no_quantized_head() -> None:
    profile, model = load_profile("vllm"), inventory("llama-gqa")
    dense, head = model.units[0], model.units[-1]
    assert not profile.refusals(dense, parse_format("int3-sym-g64"))
    assert profile.refusals(dense, parse_format("int1-sym-g64"))
    assert not profile.refusals(dense, parse_format("int4-g64"))
    assert profile.refusals(dense, parse_format("int3-g64"))
    assert profile.refusals(dense, parse_format("int8-g64"))
    assert profile.symmetric_menu
    assert profile.refusals(dense, parse_format("int4-sym-g16"))
    assert profile.refusals(head, parse_format("int4-sym-g64")) == ["units of class 'head' stay unquantized"]
    assert not profile.refusals(head, parse_format("bf16"))


def test_vllm_ties_q_k_v_gate_up_and_experts() -> None:
    profile, model = load_profile("vllm"), inventory("mixtral-listed")
    ties = model.tie_ids(profile.tie_kinds)
    blocks = {unit.layer: ties[i] for i, unit in enumerate(model.units) if unit.expert is not None}
    assert len(set(blocks.values())) == 2
    assert all(ties[i] == blocks[unit.layer] for i, unit in enumerate(model.units) if unit.expert is not None)


def test_transformers_ties_all_experts_of_the_model() -> None:
    profile, model = load_profile("transformers"), inventory("qwen3-moe-listed")
    ties = model.tie_ids(profile.tie_kinds)
    assert len({ties[i] for i, unit in enumerate(model.units) if unit.expert is not None}) == 1


def test_llama_cpp_lists_only_what_ggml_holds_exactly() -> None:
    profile, unit = load_profile("llama.cpp"), inventory("llama-gqa").units[0]
    loaded = {name for name in FORMATS if not profile.refusals(unit, parse_format(name))}
    exact = {"int4-sym-g32", "int5-sym-g32", "int8-sym-g32", "bf16", "fp16"}
    assert loaded == exact | {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl"}, "64 inputs: no superblocks of 256"
    wide = Unit("w.weight", "w.weight", (64, 512), "F16", "w", layer=0)
    assert not profile.refusals(wide, parse_format("q4_k"))
    assert profile.refusals(unit, parse_format("q4_k")) == ["blocks of 256 do not divide the 64 inputs"]


@given(name=st.sampled_from(engine_names()), format=format_names(), out=st.integers(1, 300), inputs=st.integers(1, 300))
def test_what_is_allowed_is_in_some_rule(name: str, format: str, out: int, inputs: int) -> None:
    unit = Unit("w.weight", "w.weight", (out, inputs), "F16", "w", layer=0)
    profile, parsed = load_profile(name), parse_format(format)
    if profile.refusals(unit, parsed) or not isinstance(parsed, IntFormat):
        return
    rules = [rule for rule in profile.ints if unit_class(unit) in rule.classes]
    assert any(parsed.width in rule.widths and parsed.symmetric in rule.symmetric for rule in rules)


def test_preflight_gives_every_reason() -> None:
    profile, model = load_profile("vllm"), inventory("llama-gqa")
    choice = dict.fromkeys((unit.name for unit in model.units), "int4-sym-g32")
    choice["lm_head.weight"] = "bf16"
    assert preflight(choice, model, profile) == []
    choice["model.layers.0.self_attn.q_proj.weight"] = "int8-sym-g32"
    choice["model.layers.1.mlp.down_proj.weight"] = "int8-g64"
    del choice["model.layers.0.mlp.down_proj.weight"]
    choice["ghost"] = "bf16"
    texts = [str(reason) for reason in preflight(choice, model, profile)]
    assert texts[0] == "model.layers.0.mlp.down_proj.weight: the plan gives no format to this unit"
    assert texts[1] == "ghost: the model has no such unit"
    assert "model.layers.1.mlp.down_proj.weight: int8-g64 does not load: only symmetric formats" in texts[2]
    assert "the group 64 does not divide the 96 inputs" in texts[3]
    assert texts[4] == (
        "model.layers.0.self_attn.q_proj.weight and 2 more: must share one format, but have int4-sym-g32, int8-sym-g32"
    )
    assert len(texts) == 5


def test_preflight_of_a_plan_for_another_model() -> None:
    model = inventory("llama-gqa")
    plan = tied(model, load_profile("vllm").tie_kinds, ["bf16"])
    other = plan.model_copy(update={"model": plan.model.model_copy(update={"digest": "sha256:other"})})
    reasons = preflight(other, model, load_profile("vllm"))
    assert [reason.unit for reason in reasons] == [None]
    assert "another model" in str(reasons[0])


GOOD = """
profile = 1
name = "x"
title = "X"
version = "1"
since = "1"
revision = "2026-11-22"
[names]
map = "hugging-face"
evidence = ["e"]
[experts]
rule = "block"
says = "one"
evidence = ["e"]
[[devices]]
name = "cpu"
evidence = ["e"]
[[ints]]
classes = ["dense"]
widths = [4]
symmetric = [true]
evidence = ["e"]
[[evidence]]
id = "e"
kind = "source"
claim = "c"
source = "s"
version = "1"
date = "2026-11-22"
"""


def test_good_profile_parses() -> None:
    assert parse_profile(GOOD, origin="x.toml").name == "x"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("profile = 1", "profile = 2", "wrong at 'profile'"),
        ('evidence = ["e"]', 'evidence = ["f"]', "evidence is missing"),
        ('map = "hugging-face"', 'map = "klingon"', "wrong at 'names.map'"),
        ("[[devices]]", '[[kv_cache]]\nformat = "q8"\nbits = "99"\nevidence = ["e"]\n[[devices]]', "kv_cache.0.bits"),
        ("[[devices]]", "[[gpus]]", "wrong at 'devices'"),
        ('classes = ["dense"]', 'classes = ["conv"]', "wrong at 'ints.0.classes.0'"),
        ('title = "X"', 'title = "X"\ntypo = 1', "wrong at 'typo'"),
        ('title = "X"', "title = ", "not valid TOML"),
        ('title = "X"', 'title = "X"\ntie_kinds = ["qkv"]', "evidence is missing"),
    ],
)
def test_bad_profiles_name_the_member(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_profile(GOOD.replace(old, new), origin="x.toml")


def test_shipped_profiles_are_sorted() -> None:
    assert list(shipped_profiles()) == sorted(shipped_profiles())


def test_transformers_keeps_stacked_experts_and_still_wants_integers_for_listed_ones() -> None:
    """Stacked experts are parameters that no target names: they load as they are. Listed ones are fused and decoded."""
    profile = load_profile("transformers")
    unit = Unit("e[0]", "e", (64, 64), "F16", "mlp.experts.down_proj", index=0, layer=0, expert=0)
    listed = Unit("e.0.weight", "e.0.weight", (64, 64), "F16", "mlp.experts.down_proj", layer=0, expert=0)
    wide, narrow = parse_format("fp16"), parse_format("int4-sym-g64")
    assert profile.refusals(unit, wide) == []
    assert profile.refusals(unit, narrow) != []
    assert profile.refusals(listed, wide) != []
    assert profile.refusals(listed, narrow) == []
