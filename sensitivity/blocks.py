"""A model of which one block is in memory at a time: skeleton, blocks, reading and dropping of their weights.

The skeleton is built without weights; embeddings, final norm and head are read once and stay (they are small beside
the blocks of a large model), a block's weights are read when it is used and dropped afterwards. The files are read
tensor by tensor, never mapped, so what is resident is what is held.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bitwright.core.errors import Unsupported
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from sensitivity.heads import Head, head_for
from sensitivity.quiet import quiet
from sensitivity.runner import model_folder


@dataclass(frozen=True, eq=False)
class BlockModel:
    """blocks: the modules that are run one after another. tensors: parameter name -> name in the files.

    units: unit number -> parameter name. of_block: parameter name -> block number, or -1 outside.
    """

    source: ModelSource
    inventory: Inventory
    model: torch.nn.Module
    head: Head
    blocks: tuple[torch.nn.Module, ...]
    tensors: dict[str, str]
    units: dict[int, str]
    of_block: dict[str, int]

    def units_of(self, block: int) -> tuple[int, ...]:
        """Numbers of the units inside a block, -1 for those outside all blocks."""
        return tuple(unit for unit, name in self.units.items() if self.of_block[name] == block)

    def parameters_of(self, block: int) -> tuple[str, ...]:
        return tuple(name for name, where in self.of_block.items() if where == block)

    @contextmanager
    def loaded(self, block: int) -> Iterator[None]:
        """The block's weights in memory, float32, inside the context."""
        names = self.parameters_of(block)
        for name in names:
            self.fill(name)
        try:
            yield
        finally:
            for name in names:
                owner, leaf = _owner(self.model, name)
                owner._parameters[leaf] = _empty(owner._parameters[leaf])
            _allocator("malloc_trim", 0)

    def fill(self, name: str) -> None:
        owner, leaf = _owner(self.model, name)
        values = torch.from_numpy(self.source.read_float32(self.tensors[name]))
        shape = owner._parameters[leaf].shape  # type: ignore[union-attr]
        owner._parameters[leaf] = torch.nn.Parameter(values.reshape(shape), requires_grad=False)


#: glibc's mallopt parameter for the size from which memory comes from the system and goes back to it when freed.
_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


def _allocator(name: str, *arguments: int) -> None:
    """Calls a function of glibc's allocator, where there is one.

    Left alone, glibc raises its threshold to the largest block it ever gave back, keeps freed weights in its heap, and
    what is resident grows with every block that was read.
    """
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def _owner(model: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _empty(parameter: torch.Tensor | None) -> torch.nn.Parameter:
    assert parameter is not None
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


def open_blocks(source: ModelSource, inventory: Inventory) -> BlockModel:
    """The skeleton with everything outside the blocks read. Raises Unsupported for models that cannot be streamed."""
    import transformers

    _allocator("mallopt", _MMAP_THRESHOLD, _LARGE)
    head = head_for(inventory.task)
    folder = model_folder(source)
    quiet()
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with _without_weights():
            model = getattr(transformers, head.auto_class).from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise Unsupported("transformers cannot build this model", got=str(error)[:200]) from error
    model.eval()
    model.requires_grad_(False)
    path, blocks = _find_blocks(model)
    names = [name for name, _ in model.named_parameters()]
    tensors = {name: _tensor_of(source, name, head.uses_pooler) for name in names}
    known = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    of_block = {name: _block_of(name, path) for name in known}
    by_tensor = {tensor: name for name, tensor in known.items()}
    units = {number: by_tensor.get(unit.tensor, "") for number, unit in enumerate(inventory.units)}
    lost = [inventory.units[n].name for n, name in units.items() if not name or inventory.units[n].index is not None]
    if lost:
        raise Unsupported(
            "this model cannot be read block by block: its weights are rearranged when it is loaded",
            expected="every planned tensor of the files to be one parameter of the model",
            got=f"{len(lost)} others, first {lost[0]}",
            hint="score it in memory",
        )
    found = BlockModel(source, inventory, model, head, blocks, known, units, of_block)
    for name in found.parameters_of(-1):
        found.fill(name)
    model.tie_weights()
    return found


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
    return int(name[len(path) + 1 :].split(".")[0]) if name.startswith(path + ".") else -1


def _tensor_of(source: ModelSource, name: str, pooled: bool) -> str | None:
    """The tensor of the files that holds a parameter: by its name, or that name with or without a leading part."""
    short = name.split(".", 1)[-1]
    for candidate in (name, short, *(t for t in source.tensors if t.endswith("." + name))):
        if candidate in source.tensors:
            return candidate
    if "pooler" in name and not pooled:
        return None
    if name.endswith("lm_head.weight"):
        return None  # tied to the embeddings; `tie_weights` puts it in place
    raise Unsupported(
        "this model cannot be read block by block", expected=f"a tensor for {name}", got="none in the files",
        hint="score it in memory",
    )  # fmt: skip


class Shelf:
    """Tensors by key, in memory up to `limit` bytes and in a folder beyond."""

    def __init__(self, limit: int, folder: Any) -> None:
        self._limit = limit
        self._folder = folder
        self._kept: dict[tuple[Any, ...], torch.Tensor] = {}
        self._used = 0

    def put(self, key: tuple[Any, ...], value: torch.Tensor) -> None:
        self.drop(key)
        size = value.numel() * value.element_size()
        if self._used + size <= self._limit:
            self._kept[key] = value
            self._used += size
        else:
            torch.save(value, self._path(key))

    def get(self, key: tuple[Any, ...]) -> torch.Tensor:
        if key in self._kept:
            return self._kept[key]
        value: torch.Tensor = torch.load(self._path(key), weights_only=True)
        return value

    def drop(self, key: tuple[Any, ...]) -> None:
        value = self._kept.pop(key, None)
        if value is not None:
            self._used -= value.numel() * value.element_size()
        else:
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: tuple[Any, ...]) -> Any:
        return self._folder / "-".join(map(str, key))
