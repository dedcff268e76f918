"""Online dynamic pruning of experts: tokens that hardly need their second expert go without it (MC-MoE's ODP).

For every token of a block of two routes, with routing weights w0 >= w1 (arXiv:2410.06270, research/02 section 1):

    1. the second expert is dropped where  w1 < mu w0,  mu being the block's median of w1 / w0 over calibration tokens
       of the original model;
    2. but the tokens of highest importance, a share `protect` of every sequence, keep both;
       I_j = ||h_j||_1  (attention that j receives, averaged over heads)  /  (queries that see j)
       "received" sums the columns of the attention matrix, as the paper's text says; the released code sums its rows,
       which are all 1, and so ranks by ||h_j||_1 / (L - j): importance "compat";
    3. the weights that are left are made to sum to 1 again.

h is what enters the block. An evaluation runs whole sequences, as a prefill does; decoding token by token, the original
applies rule 1 alone (protect = 0). The released code prunes the ten layers that lose least; here every layer is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from bitwright.core.errors import Unsupported
from bitwright.core.recipe import Pruning
from sensitivity.data import Data
from sensitivity.routing import find_blocks, run_hooked
from sensitivity.runner import Runner
from sensitivity.units_map import Changed

#: Each gate's output ends with (tokens, routes) weights and expert numbers; transformers' routers since version 5.
ROUTES = 2


@dataclass(frozen=True, eq=False)
class _Place:
    """A block: its own module, its router and the attention before it."""

    block: torch.nn.Module
    gate: torch.nn.Module
    attention: torch.nn.Module


@dataclass(eq=False)
class Counts:
    """Routes seen, second experts dropped, and those that protection alone kept."""

    tokens: int = 0
    dropped: int = 0
    protected: int = 0

    def to_json(self) -> dict[str, float]:
        """share: of the second experts; of all routed experts it is half of that."""
        whole = max(1, self.tokens)
        return {"share": self.dropped / whole, "protected": self.protected / whole}


@dataclass(frozen=True)
class PruningRunner(Runner):
    """A runner whose changed models (`replaced`) prune; the original runs as it is."""

    rule: Pruning = field(default_factory=Pruning)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)

    @contextmanager
    def replaced(self, weights: Mapping[str, Changed]) -> Iterator[None]:
        """See sensitivity.runner.Runner."""
        with super().replaced(weights), ExitStack() as stack:
            for name, place in _places(self).items():
                stack.enter_context(_pruned(place, self.rule, self.thresholds[name], self.counts))
            yield


def pruning_runner(runner: Runner, rule: Pruning, data: Data) -> PruningRunner:
    """The same model, pruned where it is changed. data: calibration items that give the thresholds.

    Raises Unsupported for dense models, other than two routes a token, and blocks that cannot be followed.
    """
    places = _places(runner)
    runner.model.set_attn_implementation("eager")  # type: ignore[operator]  # others do not give their weights out
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in places}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, __: object, output: Any) -> None:
            weights = _routes(name, output)[0]
            seen[name].append(weights[:, 1] / weights[:, 0])

        return hook

    run_hooked(runner, data, [place.gate.register_forward_hook(keep(name)) for name, place in places.items()])
    thresholds = {name: float(torch.cat(ratios).double().median()) for name, ratios in seen.items()}
    return PruningRunner(
        runner.source, runner.inventory, runner.model, runner.head, runner.slices, runner.warnings, rule, thresholds
    )


def _places(runner: Runner) -> dict[str, _Place]:
    found = find_blocks(runner)
    if not found:
        raise Unsupported(
            "only a mixture of experts can prune experts", expected="a mixture-of-experts model",
            got=runner.inventory.architecture, hint="leave --prune-experts out",
        )  # fmt: skip
    modules, places = dict(runner.model.named_modules()), {}
    for name in found:
        gate = next((modules[key] for key in (f"{name}.gate", f"{name}.router") if key in modules), None)
        attention = modules.get(f"{name.rpartition('.')[0]}.self_attn")
        if gate is None or attention is None:
            raise Unsupported(
                f"the router or the attention of {name} cannot be found", expected="gate and self_attn",
                got=runner.inventory.architecture, hint="leave --prune-experts out",
            )  # fmt: skip
        places[name] = _Place(modules[name], gate, attention)
    return places


def _routes(name: str, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, 2) weights, the larger first, and expert numbers."""
    last = output[-2:] if isinstance(output, tuple) and len(output) >= ROUTES else ()
    if len(last) != ROUTES or last[0].shape != last[1].shape or last[0].shape[-1] != ROUTES:
        raise Unsupported(
            f"the router of {name} does not choose two experts a token", expected="top-2 routing, as Mixtral's",
            got=f"{[tuple(part.shape) for part in last]}"[:120], hint="leave --prune-experts out",
        )  # fmt: skip
    return last[0], last[1]


def importance(hidden: torch.Tensor, attention: torch.Tensor, kind: str) -> torch.Tensor:
    """(items, positions). hidden: (items, positions, size); attention: (items, heads, queries, positions)."""
    length = hidden.shape[1]
    seen_by = torch.arange(length, 0, -1, dtype=torch.float32, device=hidden.device)
    mass = attention.mean(dim=1).sum(dim=1 if kind == "received" else 2)
    return hidden.abs().sum(dim=-1) * mass / seen_by


@contextmanager
def _pruned(place: _Place, rule: Pruning, threshold: float, counts: Counts) -> Iterator[None]:
    state: dict[str, torch.Tensor] = {}

    def attended(module: torch.nn.Module, _: object, output: Any) -> None:
        if not isinstance(output, tuple) or len(output) < ROUTES or not isinstance(output[1], torch.Tensor):
            raise Unsupported(
                "this model's attention does not give its weights out", expected="attention weights of every head",
                got=type(module).__name__, hint="leave --prune-experts out",
            )  # fmt: skip
        state["attention"] = output[1]

    def entered(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        state["hidden"] = inputs[0]

    def routed(_: torch.nn.Module, __: object, output: Any) -> Any:
        weights, experts = _routes("the block", output)
        small = weights[:, 1] < threshold * weights[:, 0]
        spared = small & _protected(state["hidden"], state["attention"], rule)
        drop = small & ~spared
        counts.tokens += len(weights)
        counts.dropped += int(drop.sum())
        counts.protected += int(spared.sum())
        kept = torch.stack([weights[:, 0], torch.where(drop, 0.0, weights[:, 1])], dim=1)
        return (*output[:-2], kept * (weights.sum(dim=1) / kept.sum(dim=1))[:, None], experts)

    handles = [
        place.attention.register_forward_hook(attended), place.block.register_forward_pre_hook(entered),
        place.gate.register_forward_hook(routed),
    ]  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _protected(hidden: torch.Tensor, attention: torch.Tensor, rule: Pruning) -> torch.Tensor:
    """bool (items x positions): the share `protect` of every sequence, the most important tokens, rounded up."""
    items, length = hidden.shape[:2]
    found = torch.zeros(items, length, dtype=torch.bool, device=hidden.device)
    count = min(length, math.ceil(rule.protect * length))
    if count:
        top = importance(hidden, attention, rule.importance).topk(count, dim=1).indices
        found.scatter_(1, top, True)
    return found.reshape(-1)
