"""From the tensors of a checkpoint to the parameters of a model, one parameter at a time.

transformers renames tensors and stacks experts when it loads a model; its own table of these conversions is asked
which tensors make a parameter, and its own operations make it, on the tensors of that parameter alone.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from bitwright.core.errors import Unsupported
from bitwright.models import ModelSource
from sensitivity.deltas import read_weight


@dataclass(frozen=True, eq=False)
class Origin:
    """tensors: names in the files, in the order in which they are stacked. patterns: which part of the conversion each
    is; converter: what makes one parameter of them, None for a tensor that is the parameter."""

    tensors: tuple[str, ...]
    patterns: tuple[str, ...]
    converter: Any


@dataclass(frozen=True, eq=False)
class Reader:
    """origins: parameter name -> where it comes from."""

    source: ModelSource
    model: Any
    origins: dict[str, Origin]
    dtype: torch.dtype

    def read(self, name: str, shape: torch.Size) -> torch.Tensor:
        """The parameter's values. Raises Unsupported when they cannot be made."""
        origin = self.origins[name]
        if origin.converter is None:
            return self._tensor(origin.tensors[0]).reshape(shape)
        converter = deepcopy(origin.converter)
        for tensor, pattern in zip(origin.tensors, origin.patterns, strict=True):
            converter.add_tensor(name, tensor, pattern, lambda tensor=tensor: self._tensor(tensor))
        made = converter.convert(name, model=self.model, config=self.model.config)
        value = made.get(name)
        value = value[0] if isinstance(value, list) else value
        if value is None or tuple(value.shape) != tuple(shape):
            raise Unsupported(
                f"{name} cannot be made from the files alone", expected=f"shape {tuple(shape)}",
                got=f"{sorted(made)[:3]} from {len(origin.tensors)} tensors", hint="score it in memory",
            )  # fmt: skip
        made_of: torch.Tensor = value.contiguous()
        return made_of

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(read_weight(self.source, name)).to(self.dtype)


def make_reader(source: ModelSource, model: Any, dtype: torch.dtype) -> Reader:
    """Raises Unsupported when this version of transformers does not tell its conversions."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )
    except ImportError as error:
        raise Unsupported(
            "this version of transformers does not tell how it loads models", got=str(error)[:200],
            hint="score it in memory",
        ) from error  # fmt: skip
    table = get_model_conversion_mapping(model)
    renamings = [entry for entry in table if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in table if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    wanted = dict(model.state_dict())
    found: dict[str, list[tuple[str, str | None]]] = {}
    for tensor in sorted(source.tensors, key=dot_natural_key):
        name, pattern = rename_source_key(tensor, renamings, converters, model.base_model_prefix, wanted)
        if name not in wanted and tensor in wanted:
            name, pattern = rename_source_key(tensor, [], [], model.base_model_prefix, wanted)
        found.setdefault(name, []).append((tensor, pattern))
    origins = {
        name: Origin(
            tuple(tensor for tensor, _ in parts), tuple(pattern or "" for _, pattern in parts),
            None if parts[0][1] is None else by_pattern[parts[0][1]],
        )
        for name, parts in found.items()
    }  # fmt: skip
    return Reader(source, model, origins, dtype)
