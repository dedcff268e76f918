"""compare-recipes on a tiny model: ranked by measurement, refusals with their reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.cli import main

Capture = pytest.CaptureFixture[str]
SMALL = ["--calibration-tokens", "512", "--confirm-tokens", "256", "--samples", "1"]


@pytest.fixture(autouse=True)
def _local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_STATE_DIR", str(tmp_path))


def test_recipes_are_ranked_by_what_was_measured(models: dict[str, str], tokens: str, capsys: Capture) -> None:
    words = ["compare-recipes", models["llama"], "--budget", "4.5bpw", "--calibration", tokens, *SMALL]
    words += ["--recipes", "data-free,mc-moe,auto"]
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert [row["recipe"] for row in rows][-1] == "mc-moe"
    assert rows[0]["kl"] <= rows[1]["kl"]
    assert all(row["bits_per_weight"] <= 4.5 for row in rows[:2])
    assert "experts" in rows[2]["reason"]
    assert main(words) == 0
    assert "mc-moe: the recipe mc-moe allocates bits to experts" in capsys.readouterr().out


def test_an_unknown_recipe_is_a_reason_and_auto_stands_beside_it(
    models: dict[str, str], tokens: str, tmp_path: Path, capsys: Capture
) -> None:
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\nsummary = "x"\nmetric = "wieght-mse"\n', "utf-8")
    words = [
        "compare-recipes",
        models["llama"],
        "--budget",
        "4bpw",
        "--recipes",
        f"cake,{own}",
        "--calibration",
        tokens,
    ]
    assert main([*words, *SMALL, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert [row["recipe"] for row in rows] == ["auto", "cake", str(own)]
    assert rows[0]["kl"] is not None
    assert "cake" in json.dumps(rows[1])
    assert "own.toml line 3" in rows[2]["reason"]
    assert "did you mean weight-mse?" in rows[2]["reason"]


def test_a_budget_out_of_reach_is_told_with_the_smallest(models: dict[str, str], tokens: str, capsys: Capture) -> None:
    words = ["compare-recipes", models["mixtral"], "--budget", "1bpw", "--recipes", "mc-moe", "--calibration", tokens]
    assert main([*words, *SMALL, "--json"]) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["recipes"]}
    assert rows["mc-moe"]["kl"] is None
    assert "the smallest feasible budget is" in rows["mc-moe"]["reason"]


def test_the_list_of_recipes_teaches(capsys: Capture) -> None:
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    for word in ("mc-moe (arXiv:2410.06270, 2024)", "allocates", "cost", "when"):
        assert word in text
