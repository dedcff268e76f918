"""Configs, tokenizers, quantization configs with members of every wrong kind: typed errors or answers, never traces."""

from __future__ import annotations

import ast
import json
import random
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from bitwright.core.errors import BitwrightError
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from quantizers.containers.catalog import CONTAINERS
from quantizers.importers.catalog import IMPORTERS
from sensitivity.runner import load_runner
from tests.models_inspect.checkpoints import LAYOUTS, SIZES, write
from tests.sensitivity.tiny_models import save_model

JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3.5, 1e308, float("nan"), "", "x", "4", [], [1], [None], {}, {"a": 1}, 10**30, -0.5,
    "linear", ["x"] * 3,
)  # fmt: skip
ROPES: tuple[dict[str, Any], ...] = (
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    {
        "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": [1.0] * 8,
        "long_factor": [1.0] * 8, "original_max_position_embeddings": 64,
    },
)  # fmt: skip
TOKENIZER: dict[str, Any] = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "byte_fallback": True},
    "added_tokens": [{"id": 3, "content": "<s>", "special": True}], "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel"},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}}]},
}  # fmt: skip
SETTINGS = {"bos_token": "<s>", "eos_token": {"content": "a"}, "add_bos_token": True, "chat_template": "x"}
CONFIG = {
    "rope_theta": 1e4, "hidden_act": "silu", "rms_norm_eps": 1e-6, "num_experts_per_tok": 2, "head_dim": 16,
    "norm_topk_prob": True, "bos_token_id": 1,
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every member of a document."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in rows:
        yield (*path, key)
        yield from places(member, (*path, key))


def spoiled(document: Any, draw: random.Random) -> Any:
    """One member dropped or made something else."""
    made = json.loads(json.dumps(document))
    path = draw.choice(list(places(made)))
    parent = made
    for key in path[:-1]:
        parent = parent[key]
    if isinstance(parent, dict) and draw.random() < 0.2:
        parent.pop(path[-1])
    else:
        parent[path[-1]] = draw.choice(JUNK)
    return made


def answers(act: Callable[[], Any]) -> bool:
    """Whether the act succeeded; anything but a typed error goes through and fails the test."""
    try:
        act()
    except BitwrightError:
        return False
    return True


@pytest.mark.parametrize("layout", ["llama-gqa", "qwen3-moe-listed"])
def test_gguf_metadata_of_hostile_configs(layout: str, tmp_path: Path) -> None:
    draw = random.Random(layout)
    config, shapes = LAYOUTS[layout]
    folder = write(tmp_path / "m", ({**SIZES, **config}, shapes))

    def predict() -> None:
        source = open_model(str(folder))
        inventory = inspect(source)
        formats = [parse_format("fp16")] * len(inventory.units)
        CONTAINERS.load("gguf").predict(inventory, formats, source=source)

    ended = set()
    for turn in range(120):
        good = {**SIZES, **CONFIG, **config, "rope_scaling": ROPES[turn % 4]}
        (folder / "config.json").write_text(json.dumps(spoiled(good, draw)))
        (folder / "tokenizer.json").write_text(json.dumps(spoiled(TOKENIZER, draw) if turn % 2 else TOKENIZER))
        (folder / "tokenizer_config.json").write_text(json.dumps(spoiled(SETTINGS, draw)))
        ended.add(answers(predict))
    assert ended == {True, False}


@pytest.mark.parametrize("kind", ["compressed-tensors", "gptq"])
def test_importers_and_readers_of_hostile_quantization_configs(kind: str, tmp_path: Path) -> None:
    draw = random.Random(kind)
    config, shapes = LAYOUTS["llama-gqa"]
    source = open_model(str(write(tmp_path / "m", ({**SIZES, **config}, shapes))))
    inventory = inspect(source)
    menu = ["int4-sym-g32", "int8-g32"]
    formats = [parse_format("fp16" if u.layer is None else menu[i % 2]) for i, u in enumerate(inventory.units)]
    out, container = tmp_path / "out", CONTAINERS.load(kind)
    container.write(source, inventory, formats, out)
    document = json.loads((out / "config.json").read_text())
    ended = set()
    for _ in range(80):
        made = spoiled(document["quantization_config"], draw)
        (out / "config.json").write_text(json.dumps({**document, "quantization_config": made}))
        (out / "quantize_config.json").write_text(json.dumps(made))
        for importer in map(IMPORTERS.load, (kind, "auto-round", "modelopt")):
            ended.add(answers(lambda one=importer: one.recognizes(out) and one.read(out, inventory)))  # type: ignore[misc]
        ended.add(answers(lambda: container.read(out)))
    assert ended == {True, False}


NAMED = {"_attn_implementation": "evil/kernel"}


@pytest.mark.parametrize(
    "members",
    [NAMED, {"attn_implementation": "evil/kernel:run"}, {"text_config": NAMED}, {"x": [{"y": NAMED}]},
     {"_attn_implementation_internal": {"text_config": "evil/kernel"}}],
)  # fmt: skip
def test_a_config_that_names_a_kernel_repository_is_refused(members: dict[str, Any], tmp_path: Path) -> None:
    """CVE-2026-4372: transformers fetches and runs it where the package `kernels` is installed."""
    config, shapes = LAYOUTS["llama-gqa"]
    for value, fine in ((members, False), ({"_attn_implementation": "sdpa"}, True)):
        write(tmp_path / "model", ({**config, **SIZES, **value}, shapes))
        assert answers(lambda: open_model(str(tmp_path / "model"))) is fine


def test_code_beside_a_model_is_never_run(tmp_path: Path) -> None:
    """`auto_map` names classes of the model's own folder; ours or none are used."""
    folder = save_model("llama", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    source = open_model(str(folder))
    assert type(load_runner(source, inspect(source)).model).__module__.startswith("transformers.")
    assert not (tmp_path / "ran").exists()


def test_every_load_through_transformers_is_offline_and_runs_no_code_of_the_model(repository: Path) -> None:
    calls = [
        call
        for folder in ("bitwright", "sensitivity", "quantizers", "worker", "service")
        for path in (repository / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "from_pretrained"
    ]
    assert len(calls) >= 3
    for call in calls:
        words = {word.arg: word.value for word in call.keywords}
        said = {name: ast.literal_eval(words[name]) for name in ("local_files_only", "trust_remote_code")}
        assert said == {"local_files_only": True, "trust_remote_code": False}, ast.unparse(call)


def test_frameworks_are_above_what_their_advisories_name(repository: Path) -> None:
    """CVE-2026-24747 (torch < 2.10), CVE-2026-4372 (transformers < 5.3)."""
    wanted = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]["models"]
    for name, least in (("torch", (2, 10)), ("transformers", (5, 3))):
        (floor,) = [text.split(">=")[1] for text in wanted if text.startswith(f"{name}>=")]
        assert tuple(map(int, floor.split("."))) >= least
        assert tuple(map(int, version(name).split("+")[0].split(".")[:2])) >= least
