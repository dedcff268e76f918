"""`bitwright engines`, `preflight` and `export --nearest`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.cli import main
from tests.engines.plans import inventory, plan_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    plan_of(inventory("llama-gqa"), ["int4-g32", "int8-g32"]).save(path)
    return str(path)


def test_preflight_says_every_reason_and_the_nearest_plan(plan: str, capsys: Capture) -> None:
    assert main(["preflight", plan, "--engine", "transformers", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["loads"] is False
    assert len(found["reasons"]) == len(found["nearest"]["changed"]) == 15
    assert main(["preflight", plan, "--engine", "transformers"]) == 1
    text = capsys.readouterr().out
    assert "no, 15 reasons" in text
    assert "15 units change" in text


def test_preflight_says_yes(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "plan.json"
    plan_of(inventory("llama-gqa"), ["int4-sym-g32", "int3-sym-g32"]).save(path)
    assert main(["preflight", str(path), "--engine", "transformers@5.23", "--device", "cpu"]) == 0
    assert "yes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--engine", "vlm"], ["--engine", "vllm@0.1"], ["--engine", "vllm", "--device", "?"]]
)
def test_preflight_of_what_is_unknown_is_invalid_input(words: list[str], plan: str, capsys: Capture) -> None:
    assert main(["preflight", plan, *words]) == 2
    assert "expected" in capsys.readouterr().err


def test_engines_are_listed_with_what_they_load(capsys: Capture) -> None:
    assert main(["engines"]) == 0
    out = capsys.readouterr().out
    assert "tensorrt-llm" in out
    assert "1,2,3,4,5,6,7,8" in out


def test_export_takes_nearest_types_only_when_asked(plan: str, capsys: Capture) -> None:
    assert main(["export", plan, "--to", "llama.cpp"]) == 2
    assert main(["export", plan, "--to", "llama.cpp", "--nearest"]) == 0
    out, err = capsys.readouterr()
    assert "^blk\\.0\\.attn_q\\.weight$=" in out
    assert "int8-g32 -> q8_0" in err
    assert main(["export", plan, "--to", "mlx", "--nearest"]) == 2
    assert "exact formats only" in capsys.readouterr().err


def test_a_checkpoint_that_no_engine_loads_is_told_on_the_screen() -> None:
    from bitwright.cli.views import checkpoint_text

    text = checkpoint_text({"container": "gptq", "path": "out", "file_bytes": 7, "warnings": ["no engine loads it"]})
    assert text.endswith("warning: no engine loads it")
