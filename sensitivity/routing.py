"""What a mixture-of-experts model's router does: which block an expert belongs to, its tokens and their weights.

A block is found by name: the module whose child `experts` holds the planned expert weights. Its router is the one
parameter with a row an expert. Routes are the top k of the softmax of the router's logits, as Mixtral and its kin
choose them; a router that adds a bias or picks groups first is not followed, and one that cannot be found is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.inventory import Inventory
from sensitivity.data import Data
from sensitivity.on_device import back
from sensitivity.runner import Runner

#: The norm before a block of experts in the layers of Mixtral and its kin; what enters it is the residual stream.
NORM = "post_attention_layernorm"
_TOP_K = ("num_experts_per_tok", "moe_k", "num_selected_experts", "top_k_experts")


@dataclass(frozen=True, eq=False)
class Block:
    """module: name of the block. experts: unit numbers by expert. inputs: (tokens, hidden) of the block.

    outputs: (tokens, hidden). residual: (tokens, hidden) the stream that the block adds its output to, where asked for;
    sequence: tokens of one item. probabilities: (tokens, experts) softmax of the router's logits, not renormalised.
    chosen: bool (tokens, experts), the top k.
    """

    module: str
    experts: dict[int, tuple[int, ...]]
    inputs: torch.Tensor
    outputs: torch.Tensor
    probabilities: torch.Tensor
    chosen: torch.Tensor
    sequence: int = 0
    residual: torch.Tensor | None = None

    def frequency(self) -> NDArray[np.float64]:
        """(experts,) share of the routes that go to each expert (MC-MoE's phi, summing to 1)."""
        counts = self.chosen.double().sum(0)
        return np.asarray(back(counts / counts.sum()), np.float64)

    def weight(self) -> NDArray[np.float64]:
        """(experts,) share of the routing weight (MC-MoE's w, summing to 1)."""
        mass = (self.probabilities * self.chosen).double().sum(0)
        return np.asarray(back(mass / mass.sum()), np.float64)

    def cosine(self) -> float:
        """Mean cosine a token of what stands before and behind the block (QuantMoE-Bench): high means little change."""
        before, after = self.ends()
        return float(torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1).mean())

    def ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Input and output, or, with `residual`, the stream before and after the output is added to it."""
        if self.residual is None:
            return self.inputs, self.outputs
        return self.residual, self.residual + self.outputs


def find_blocks(runner: Runner) -> dict[str, dict[int, tuple[int, ...]]]:
    """Module name -> expert -> unit numbers. Empty for dense models."""
    found: dict[str, dict[int, list[int]]] = {}
    for number, unit in enumerate(runner.inventory.units):
        parameter = runner.slices[unit.name].parameter
        if unit.expert is not None and ".experts." in parameter:
            module = parameter.rsplit(".experts.", 1)[0]
            found.setdefault(module, {}).setdefault(unit.expert, []).append(number)
    return {name: {e: tuple(units) for e, units in experts.items()} for name, experts in found.items()}


def no_experts(inventory: Inventory) -> Unsupported:
    return Unsupported(
        "this model has no experts to route to", expected="a mixture of experts", got=inventory.architecture,
        hint="use --metric fisher",
    )  # fmt: skip


def watch(runner: Runner, data: Data, *, residual: bool = False) -> list[Block]:
    """Runs the model once and gives every block with what went in and came out. Raises Unsupported."""
    found = find_blocks(runner)
    if not found:
        raise no_experts(runner.inventory)
    with watching(runner, found, residual=residual) as seen:
        run_hooked(runner, data, ())
    return seen()


@contextmanager
def watching(
    runner: Runner, found: Mapping[str, dict[int, tuple[int, ...]]], *, residual: bool = False
) -> Iterator[Callable[[], list[Block]]]:
    """Listens to these blocks inside the context, items one at a time; gives what makes them of all that was heard."""
    modules = {name: runner.model.get_submodule(name) for name in found}
    heard: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]] = {name: ([], []) for name in found}
    streams: dict[str, list[torch.Tensor]] = {name: [] for name in found}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            result = output[0] if isinstance(output, tuple) else output
            assert isinstance(result, torch.Tensor)
            heard[name][0].append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))
            heard[name][1].append(result.detach().reshape(-1, result.shape[-1]))

        return modules[name].register_forward_hook(hook)

    def before(name: str) -> Any:
        norm = getattr(runner.model.get_submodule(name.rpartition(".")[0]), NORM, None)
        if norm is None:
            raise Unsupported(
                f"the stream that {name} adds to cannot be found", expected=NORM, got=runner.inventory.architecture,
                hint="rank blocks by their own input and output (residual = false)",
            )  # fmt: skip

        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            streams[name].append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))

        return norm.register_forward_pre_hook(hook)

    def made() -> list[Block]:
        return [
            replace(
                _block(runner, modules[name], name, experts, *map(torch.cat, heard[name])),
                sequence=len(heard[name][0][0]), residual=torch.cat(streams[name]) if residual else None,
            )
            for name, experts in found.items()
        ]  # fmt: skip

    handles = [keep(name) for name in found] + [before(name) for name in found if residual]
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()


def run_hooked(runner: Runner, data: Data, handles: Sequence[Any]) -> None:
    """Runs the data item by item for hooks that watch, and removes them whatever happens."""
    try:
        with torch.inference_mode():
            for row in range(data.items):
                runner.output(data.take(np.array([row])))
    finally:
        for handle in handles:
            handle.remove()


def _block(
    runner: Runner, module: torch.nn.Module, name: str, experts: dict[int, tuple[int, ...]], inputs: torch.Tensor,
    outputs: torch.Tensor,
) -> Block:  # fmt: skip
    count = max(experts) + 1
    routers = [
        parameter
        for key, parameter in module.named_parameters()
        if "experts" not in key.split(".")[:-1] and parameter.ndim == 2 and parameter.shape == (count, inputs.shape[-1])
    ]
    top = next((v for key in _TOP_K if isinstance(v := runner.source.config.get(key), int)), None)
    if len(routers) != 1 or top is None:
        raise Unsupported(
            f"the router of {name} cannot be found", expected=f"one parameter of {count} rows, and how many are chosen",
            got=f"{len(routers)} such parameters, top {top}", hint="use --metric fisher",
        )  # fmt: skip
    probabilities = torch.softmax((inputs @ routers[0].detach().T).float(), dim=-1)
    chosen = torch.zeros_like(probabilities, dtype=torch.bool)
    chosen.scatter_(-1, probabilities.topk(min(top, count), dim=-1).indices, True)
    return Block(name, experts, inputs, outputs, probabilities, chosen)


def run_block(runner: Runner, block: Block, tokens: torch.Tensor) -> torch.Tensor:
    """(n, hidden) output of the block for some of its tokens, by their numbers."""
    module = runner.model.get_submodule(block.module)
    with torch.inference_mode():
        result = module(block.inputs[tokens][None])
    output: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return output.reshape(len(tokens), -1)


def outlier_scores(weights: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """QuantMoE-Bench's score of every linear: max over input columns of (largest / mean magnitude down the column).

    arXiv:2406.08155; needs no data; the same for c W. weights: (out, in) each. Columns of zeros count as 1.
    """
    found = []
    for weight in weights:
        size = np.abs(weight.astype(np.float64))
        mean = size.mean(axis=0)
        found.append(float(np.divide(size.max(axis=0), mean, out=np.ones_like(mean), where=mean > 0).max()))
    return np.array(found, np.float64)
