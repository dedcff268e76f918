"""Online dynamic pruning of experts (MC-MoE's ODP): against a model of one expert a token, and by its formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.core.errors import Unsupported
from bitwright.core.recipe import Pruning
from sensitivity.evaluate import measure
from sensitivity.pruning import PruningRunner, importance, pruning_runner
from sensitivity.runner import load_runner
from tests.sensitivity.tiny_models import Opened, token_data
from tests.steps.bench import Bench

DATA = token_data(6, 32)


def runner(tiny: dict[str, Opened], **rule: object) -> PruningRunner:
    return pruning_runner(load_runner(*tiny["mixtral"]), Pruning.model_validate(rule), DATA)


def kl(found: PruningRunner, tiny: dict[str, Opened]) -> float:
    return measure(*tiny["mixtral"], {"pruned": None}, DATA, runner=found)["pruned"].kl


def test_at_the_median_half_of_the_second_experts_go(tiny: dict[str, Opened]) -> None:
    """Thresholds of the first block's tokens are exact; behind it, pruning itself moves the routes a little."""
    found = runner(tiny, protect=0)
    assert kl(found, tiny) > 0
    assert found.counts.to_json()["share"] == pytest.approx(0.5, abs=0.05)
    assert found.counts.tokens == DATA.tokens * len(found.thresholds)


def test_whoever_is_protected_keeps_both_experts(tiny: dict[str, Opened]) -> None:
    found = runner(tiny, protect=1)
    assert kl(found, tiny) == pytest.approx(0, abs=1e-9)
    assert found.counts.dropped == 0
    assert found.counts.protected == pytest.approx(0.5 * found.counts.tokens, rel=0.1)


def test_protection_lowers_the_cost(tiny: dict[str, Opened]) -> None:
    costs = [kl(runner(tiny, protect=protect), tiny) for protect in (0, 0.5)]
    assert costs[1] < costs[0]


def test_dropping_every_second_expert_is_the_model_of_one_expert(tiny: dict[str, Opened]) -> None:
    found = runner(tiny, protect=0)
    everywhere = PruningRunner(
        found.source, found.inventory, found.model, found.head, found.slices, found.warnings, found.rule,
        dict.fromkeys(found.thresholds, np.inf),
    )  # fmt: skip
    with torch.inference_mode(), everywhere.replaced({}):
        pruned = everywhere.output(DATA)
    for module in everywhere.model.modules():
        if hasattr(module, "top_k"):
            module.top_k = 1
    with torch.inference_mode():
        alone = everywhere.output(DATA)
    torch.testing.assert_close(pruned, alone)
    assert everywhere.counts.dropped == everywhere.counts.tokens


def test_nothing_is_left_behind(tiny: dict[str, Opened]) -> None:
    found = runner(tiny, protect=0)
    with torch.inference_mode():
        before = found.output(DATA)
        with found.replaced({}):
            assert not torch.equal(found.output(DATA), before)
        assert torch.equal(found.output(DATA), before)


def test_importance_is_the_attention_received_and_compat_knows_none() -> None:
    hidden = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32))
    attention = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.6, 0.1, 0.2]])
    attention = attention.expand(1, 2, 4, 4)
    size = hidden.abs().sum(-1)[0]
    received = importance(hidden, attention, "received")[0]
    torch.testing.assert_close(received, size * torch.tensor([1.8 / 4, 1.4 / 3, 0.6 / 2, 0.2 / 1]))
    torch.testing.assert_close(importance(hidden, attention, "compat")[0], size / torch.tensor([4.0, 3, 2, 1]))


def test_dense_models_and_other_routers_are_refused(tiny: dict[str, Opened]) -> None:
    with pytest.raises(Unsupported, match="mixture of experts") as error:
        pruning_runner(load_runner(*tiny["llama"]), Pruning(), DATA)
    assert error.value.hint == "leave --prune-experts out"
    three = load_runner(*tiny["mixtral"])
    for module in three.model.modules():
        if hasattr(module, "top_k"):
            module.top_k = 3
    with pytest.raises(Unsupported, match="two experts a token"):
        pruning_runner(three, Pruning(), DATA)


def test_an_evaluation_tells_share_and_cost_and_takes_the_recipes_rule(tiny: dict[str, Opened], tmp_path: Path) -> None:
    bench, model = Bench(tmp_path / "state"), str(tiny["mixtral"][0].path)
    text = str(tmp_path / "tokens.npz")
    np.savez(text, input_ids=np.random.default_rng(1).integers(0, 50, (24, 32)))
    small = {"calibration": text, "calibration_tokens": 256}
    plan = bench.run("plan", model=model, recipe="mc-moe", budget="4bpw", confirm=False, **small)["plan"]
    assert plan["provenance"]["pruning"] == {"protect": 0.02, "importance": "received"}
    shared = {"model": model, "plan": plan, "text": text, "calibration": text, "tokens": 256}
    whole = bench.run("evaluate", **shared)
    found = bench.run("evaluate", **shared, prune_experts={"importance": "compat"})
    told = found["pruning"]
    assert (told["protect"], told["importance"]) == (0.02, "compat")
    assert told["kl_without"] == pytest.approx(whole["quality"]["kl"], rel=1e-5)
    assert told["cost"] == found["quality"]["kl"] - told["kl_without"]
    assert 0.2 < told["share"] < 0.8
    assert set(told["thresholds"]) == {f"model.layers.{layer}.mlp" for layer in range(2)}
