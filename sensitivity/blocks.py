"""A model of which one block is in memory at a time: skeleton, blocks, reading and dropping of their weights.

The skeleton is built without weights; a block's weights, and those outside all blocks (embeddings, final norm, head),
are read when they are used and dropped afterwards. The files are read tensor by tensor, never mapped, so what is
resident is what is held.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bitwright.core.errors import InvalidModel, OutOfResources, Unsupported
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from sensitivity.block_reader import Reader, make_reader
from sensitivity.heads import Head, head_for
from sensitivity.memory import ran_out
from sensitivity.on_device import computing
from sensitivity.quiet import quiet
from sensitivity.runner import model_folder
from sensitivity.tied_head import check_tied_head
from sensitivity.units_map import Slice, map_units

#: The number that stands for everything outside the blocks.
OUTSIDE = -1


@dataclass(frozen=True)
class Slot:
    """Where a parameter hangs, under one of its names: an attribute of a module."""

    module: torch.nn.Module
    leaf: str

    def get(self) -> torch.nn.Parameter:
        found: torch.nn.Parameter = self.module._parameters[self.leaf]  # type: ignore[assignment]
        return found

    def put(self, parameter: torch.nn.Parameter) -> None:
        self.module._parameters[self.leaf] = parameter


@dataclass(frozen=True, eq=False)
class BlockModel:
    """blocks: the modules that are run one after another. of_block: parameter name -> block number, or OUTSIDE.

    units: block number -> its units' numbers. places: unit number -> where it lies, known once its block was loaded.
    slots: block number -> parameters by name. aliases: block number -> second names of tied parameters.
    checked: blocks whose units are known to be used as linear layers only.
    """

    source: ModelSource
    inventory: Inventory
    model: torch.nn.Module
    head: Head
    blocks: tuple[torch.nn.Module, ...]
    reader: Reader
    of_block: dict[str, int]
    units: dict[int, tuple[int, ...]]
    slots: dict[int, dict[str, Slot]]
    aliases: dict[int, tuple[Slot, ...]]
    places: dict[int, Slice] = field(default_factory=dict)
    checked: set[int] = field(default_factory=set)

    @property
    def device(self) -> torch.device:
        return computing()

    @property
    def experts(self) -> bool:
        return any(unit.expert is not None for unit in self.inventory.units)

    def units_of(self, block: int) -> tuple[int, ...]:
        """Numbers of the units inside a block; of OUTSIDE, those outside all blocks."""
        return self.units.get(block, ())

    def parameters_of(self, block: int) -> dict[str, torch.nn.Parameter]:
        return {name: slot.get() for name, slot in self.slots.get(block, {}).items()}

    @contextmanager
    def loaded(self, block: int) -> Iterator[None]:
        """The block's weights in memory inside the context. Raises InvalidModel, Unsupported."""
        slots = self.slots.get(block, {})
        for name, slot in slots.items():
            slot.put(torch.nn.Parameter(self.reader.read(name, slot.get().shape), requires_grad=False))
        try:
            self._locate(block)
            for slot in slots.values():
                slot.put(torch.nn.Parameter(slot.get().data.to(self.device), requires_grad=False))
            if block == OUTSIDE:
                self.model.tie_weights()  # type: ignore[operator]
            yield
        finally:
            # Tied parameters have a second name, which would keep their weights.
            for slot in (*slots.values(), *self.aliases.get(block, ())):
                slot.put(_empty(slot.get()))
            allocator("malloc_trim", 0)

    def view(self, unit: int) -> torch.Tensor:
        """(out, in) weights of a unit whose block is loaded: a view, writable in place."""
        place = self.places[unit]
        return place.view({place.parameter: self.parameter(place.parameter)})

    def bias_view(self, unit: int) -> torch.Tensor:
        """(out,) bias of a unit whose block is loaded: a view, writable in place. Raises Unsupported."""
        place = self.places[unit]
        return place.bias_view(self.parameters_of(self.of_block[place.parameter]))

    def parameter(self, name: str) -> torch.nn.Parameter:
        return self.slots[self.of_block[name]][name].get()

    def _locate(self, block: int) -> None:
        """Finds the block's units in its parameters, by their values, the first time it is loaded."""
        units = self.units_of(block)
        if not units or units[0] in self.places:
            return
        some = replace(self.inventory, units=tuple(self.inventory.units[unit] for unit in units))
        found = map_units(self.source, some, self.parameters_of(block))
        self.places.update({unit: found[self.inventory.units[unit].name] for unit in units})


#: glibc's mallopt parameter for the size from which memory comes from the system and goes back to it when freed.
_MMAP_THRESHOLD = -3
_LARGE = 1 << 20
#: The same while a skeleton is built: its parameters are allocated, and dropped before anything is written to them.
#: From the heap they would leave a hole each between the modules, which no later tensor fits and a limit counts.
_SMALL = 1 << 14


def allocator(name: str, *arguments: int) -> None:
    """Calls a function of glibc's allocator, where there is one.

    Left alone, glibc raises its threshold to the largest block it ever gave back, keeps freed weights in its heap, and
    what is resident grows with every block that was read.
    """
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def _empty(parameter: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=False)


@contextmanager
def _without_weights() -> Iterator[None]:
    """Parameters made inside hold no memory; buffers (rotary frequencies) are computed as ever."""
    original = torch.nn.Module.register_parameter

    def register(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        original(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = _empty(parameter)

    torch.nn.Module.register_parameter = register  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = original  # type: ignore[method-assign]


def open_blocks(source: ModelSource, inventory: Inventory, dtype: torch.dtype = torch.float32) -> BlockModel:
    """The skeleton, with nothing read. Raises Unsupported for models that cannot be streamed, InvalidModel."""
    head = head_for(inventory.task)
    check_tied_head(source, inventory)
    allocator("mallopt", _MMAP_THRESHOLD, _SMALL)
    try:
        model = _skeleton(source, head, dtype)
    finally:
        allocator("mallopt", _MMAP_THRESHOLD, _LARGE)
    path, blocks = _find_blocks(model)
    reader = make_reader(source, model, dtype)
    of_block = {}
    for name, _ in model.named_parameters():
        if name in reader.origins:
            of_block[name] = _block_of(name, path)
        elif not name.endswith("lm_head.weight") and not ("pooler" in name and not head.uses_pooler):
            # A head without a tensor is tied to the embeddings; `tie_weights` puts it in place.
            raise Unsupported(
                "this model cannot be read block by block", expected=f"tensors for {name}", got="none in the files",
                hint="score it in memory",
            )  # fmt: skip
    by_tensor = {tensor: name for name in of_block for tensor in reader.origins[name].tensors}
    lost = [unit.name for unit in inventory.units if unit.tensor not in by_tensor]
    if lost:
        raise InvalidModel(
            f"{lost[0]}: the model holds this tensor nowhere", expected="every planned tensor in the model",
            got=f"{len(lost)} others", hint="the files and config.json may belong to different models",
        )  # fmt: skip
    units: dict[int, tuple[int, ...]] = {}
    for number, unit in enumerate(inventory.units):
        where = of_block[by_tensor[unit.tensor]]
        units[where] = (*units.get(where, ()), number)
    slots, aliases = _slots(model, of_block)
    return BlockModel(source, inventory, model, head, blocks, reader, of_block, units, slots, aliases)


def _slots(
    model: torch.nn.Module, of_block: dict[str, int]
) -> tuple[dict[int, dict[str, Slot]], dict[int, tuple[Slot, ...]]]:
    """Parameters by block and name, and what else holds them: looked up once, for models of thousands of parameters."""
    slots: dict[int, dict[str, Slot]] = {}
    aliases: dict[int, tuple[Slot, ...]] = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        slot, block = Slot(model.get_submodule(path), leaf), of_block.get(name, OUTSIDE)
        if name in of_block:
            slots.setdefault(block, {})[name] = slot
        else:
            aliases[block] = (*aliases.get(block, ()), slot)
    return slots, aliases


def _skeleton(source: ModelSource, head: Head, dtype: torch.dtype) -> torch.nn.Module:
    import transformers

    folder = model_folder(source)
    quiet()
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with _without_weights():
            model: Any = getattr(transformers, head.auto_class).from_config(
                config, dtype=dtype, experts_implementation="eager"
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        if ran_out(error):
            raise OutOfResources("not even one block of the model fits in memory", got=str(error)[:200]) from error
        raise Unsupported("transformers cannot build this model", got=str(error)[:200]) from error
    model.eval()
    model.requires_grad_(False)
    for module in model.modules():
        module._buffers.update({name: to.to(computing()) for name, to in module._buffers.items() if to is not None})
    return model  # type: ignore[no-any-return]


def _find_blocks(model: torch.nn.Module) -> tuple[str, tuple[torch.nn.Module, ...]]:
    lists = [
        (name, tuple(module))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len({type(child) for child in module}) == 1
    ]
    if not lists:
        raise Unsupported("this model has no sequence of blocks", got=type(model).__name__, hint="score it in memory")
    sizes = {name: sum(p.numel() for block in blocks for p in block.parameters()) for name, blocks in lists}
    return max(lists, key=lambda pair: sizes[pair[0]])


def _block_of(name: str, path: str) -> int:
    return int(name[len(path) + 1 :].split(".")[0]) if name.startswith(path + ".") else OUTSIDE
