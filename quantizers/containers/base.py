"""What a container is, and everything containers share except the moving of bytes (see `writer`)."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import canonical_json
from bitwright.core.errors import InvalidPlan
from bitwright.core.formats import FloatFormat, Format, IntFormat
from bitwright.core.inventory import Inventory, RestTensor, Unit
from quantizers.base import Stored
from quantizers.containers.tensorfile import FileLayout, StoredTensor, TensorSpec, lay_out, read_header

Progress = Callable[[str, float, str], None]
#: Largest weight file unless told otherwise (what Hugging Face tools use).
MAX_SHARD_BYTES = 5_000_000_000
#: Name of the document that says which unit is stored in which format.
MANIFEST = "bitwright.json"
INDEX = "model.safetensors.index.json"


#: A unit that was made elsewhere: its arrays by name, of any type that has the right bytes, and its checksum.
Made = Callable[[], tuple[dict[str, NDArray[Any]], int]]


class Source(Protocol):
    """The part of bitwright.models.ModelSource that containers use."""

    @property
    def path(self) -> Path: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    def read(self, name: str, index: int | None = None, rows: tuple[int, int] | None = None) -> NDArray[Any]: ...
    def read_float32(self, name: str, index: int | None = None) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class ContainerReport:
    """What was (or would be) written, in bytes.

    file_bytes: the sum of `files`: weights, their index, the manifest. Companions (config.json, tokenizer, plan.json)
    are not in it. file_bytes = unit_bytes + rest_bytes + overhead_bytes; rest_bytes is what the rest takes in the
    model, so a container that stores it otherwise (norms in 32 bits) has the difference in its overhead.
    """

    path: Path | None
    files: tuple[str, ...]
    file_bytes: int
    unit_bytes: int
    rest_bytes: int
    overhead_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "path": None if self.path is None else str(self.path),
            "files": list(self.files),
            "file_bytes": self.file_bytes,
            "unit_bytes": self.unit_bytes,
            "rest_bytes": self.rest_bytes,
            "overhead_bytes": self.overhead_bytes,
        }


@dataclass(frozen=True)
class Blueprint:
    """Everything about a checkpoint that is known before a weight is read.

    groups: tensors written together, one group a unit (in order), then one group a rest tensor.
    documents: generated text files. report: exact sizes.
    """

    groups: tuple[tuple[TensorSpec, ...], ...]
    files: tuple[FileLayout, ...]
    documents: Mapping[str, bytes]
    report: ContainerReport


class Container(ABC):
    """A catalog member. Subclasses say how one unit is stored; the rest is shared."""

    name: str
    version: int = 1

    @abstractmethod
    def check(self, inventory: Inventory, formats: Sequence[Format]) -> None:
        """Raise Unsupported for a plan that this container cannot hold."""

    @abstractmethod
    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        """Tensors that store one unit."""

    @abstractmethod
    def encode(self, unit: Unit, value: Stored) -> dict[str, NDArray[Any]]:
        """The arrays for `unit_tensors`, by name."""

    @abstractmethod
    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Stored:
        """The inverse of `encode`; `tensors` reads a stored tensor by name."""

    def metadata(self) -> dict[str, str]:
        """`__metadata__` of the weight files; transformers wants to see `pt`."""
        return {"format": "pt"}

    def for_source(self, source: Source) -> Container:
        """The container for one model: what it must know of the model's own files is read here. Raises InvalidModel."""
        return self

    def for_formats(self, formats: Sequence[Format]) -> Container:
        """The container for one plan, where a layout of the whole file follows from its formats."""
        return self

    def for_folder(self, path: Path) -> Container:
        """The container as it was when the checkpoint in `path` was written. Raises InvalidModel."""
        return self

    def rest_tensors(self, tensor: RestTensor) -> tuple[TensorSpec, ...]:
        """How a tensor that is no unit is stored: as it is, or elsewhere otherwise, or not at all."""
        return (TensorSpec(self.rest_name(tensor.name), tensor.dtype, tensor.shape),)

    def encode_rest(self, tensor: RestTensor, data: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The arrays for `rest_tensors`, by name, from the stored array."""
        return {self.rest_name(tensor.name): data}

    def decode_rest(self, name: str, data: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `encode_rest` for the tensor `name`, but for a wider type: its rows in the model's order."""
        return data

    def rest_name(self, name: str) -> str:
        """The stored name of a tensor that is no unit."""
        return name

    def files(
        self,
        inventory: Inventory,
        formats: Sequence[Format],
        groups: Sequence[Sequence[TensorSpec]],
        max_shard_bytes: int,
    ) -> tuple[list[FileLayout], dict[str, bytes]]:
        """Weight files and their index for the groups: one a unit, then one a rest tensor."""
        return arrange(groups, self.metadata(), max_shard_bytes)

    def stored(self, path: Path) -> dict[str, StoredTensor]:
        """Every stored tensor of a folder by name. Raises InvalidModel."""
        tensors: dict[str, StoredTensor] = {}
        for file in sorted(path.glob("*.safetensors")):
            tensors |= read_header(file)[0]
        return tensors

    def companions(
        self, inventory: Inventory, formats: Sequence[Format], config: Mapping[str, Any]
    ) -> dict[str, bytes]:
        """Generated files that replace the model's own companions (a config that names the quantization)."""
        return {}

    def manifest(self, inventory: Inventory, formats: Sequence[Format]) -> bytes:
        units = [
            {"name": u.name, "tensor": u.tensor, "index": u.index, "shape": list(u.shape), "format": f.label}
            for u, f in zip(inventory.units, formats, strict=True)
        ]
        head = {"bitwright_container": self.name, "version": self.version, "model": inventory.digest}
        return canonical_json({**head, "units": units}) + b"\n"

    def resolve(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Format:
        """The whole format of a stored unit, when the manifest names it in short. Raises InvalidModel."""
        return format

    def confirm(self, path: Path, units: Sequence[Unit], formats: Sequence[Format]) -> None:
        """Check that what engines read beside the tensors says the same as the manifest. Raises InvalidModel."""
        return None

    def blueprint(
        self,
        inventory: Inventory,
        formats: Sequence[Format],
        *,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> Blueprint:
        """Every name, position and byte count of the checkpoint. Raises InvalidPlan, Unsupported.

        max_shard_bytes: largest amount of data in one weight file.
        """
        if len(formats) != len(inventory.units):
            raise InvalidPlan(
                "a plan needs one format a unit", expected=f"{len(inventory.units)} formats", got=str(len(formats))
            )
        self.check(inventory, formats)
        groups = [self.unit_tensors(unit, format) for unit, format in zip(inventory.units, formats, strict=True)]
        groups += [self.rest_tensors(tensor) for tensor in inventory.rest]
        _check_names(groups)
        files, index = self.files(inventory, formats, groups, max_shard_bytes)
        documents = {MANIFEST: self.manifest(inventory, formats), **index}
        sizes = {f.name: f.size for f in files} | {name: len(text) for name, text in documents.items()}
        unit_bytes = sum(f.storage(u.shape).bytes for u, f in zip(inventory.units, formats, strict=True))
        total = sum(sizes.values())
        overhead = total - unit_bytes - inventory.rest_bytes
        report = ContainerReport(None, tuple(sizes), total, unit_bytes, inventory.rest_bytes, overhead)
        return Blueprint(tuple(groups), tuple(files), documents, report)

    def predict(
        self,
        inventory: Inventory,
        formats: Sequence[Format],
        *,
        max_shard_bytes: int = MAX_SHARD_BYTES,
        source: Source | None = None,
    ) -> ContainerReport:
        """The exact sizes that `write` will report, without reading a weight.

        source: the model, for containers that hold more of it than its tensors (gguf: config and tokenizer).
        """
        container = (self if source is None else self.for_source(source)).for_formats(formats)
        return container.blueprint(inventory, formats, max_shard_bytes=max_shard_bytes).report

    def max_overhead(
        self,
        inventory: Inventory,
        menu: Sequence[Format],
        *,
        max_shard_bytes: int = MAX_SHARD_BYTES,
        source: Source | None = None,
    ) -> int:
        """An upper bound of `overhead_bytes` for every choice of formats from the menu. source: as in `predict`."""
        container = self if source is None else self.for_source(source)
        return container.bound(inventory, menu, max_shard_bytes)

    def bound(self, inventory: Inventory, menu: Sequence[Format], max_shard_bytes: int) -> int:
        """See `max_overhead`."""
        from quantizers.containers.bounds import overhead_bound

        return overhead_bound(self, inventory, menu, max_shard_bytes)

    def write(
        self,
        source: Source,
        inventory: Inventory,
        formats: Sequence[Format],
        out_dir: Path,
        *,
        quantizer: str = "rtn",
        plan_json: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        context: Callable[[Unit], Mapping[str, Any]] | None = None,
        context_key: str | None = None,
        max_shard_bytes: int = MAX_SHARD_BYTES,
        made: Mapping[int, Made] | None = None,
    ) -> ContainerReport:
        """Quantize, write, read back and compare, then give the folder its final name.

        A few units are in memory at a time (see `crew`). A killed run resumes where it stood when called again.
        `context` gives the quantizer what it needs for a unit (a Hessian); `context_key` names that (a digest), and
        without it a run with a context starts afresh. `made`: units, by number, that `make` made elsewhere.
        Raises Unsupported, InvalidModel, OutOfResources, VerificationFailed, Temporary (another process is writing
        there).
        """
        from quantizers.containers.writer import write_checkpoint

        key = context_key or ("" if context is None else secrets.token_hex(8))
        request = self._request(source, inventory, formats, Path(out_dir), max_shard_bytes, quantizer, plan_json, key)
        return write_checkpoint(request, progress or (lambda stage, fraction, message: None), context, made or {})

    def make(
        self,
        source: Source,
        inventory: Inventory,
        formats: Sequence[Format],
        units: range,
        *,
        quantizer: str = "rtn",
        context: Callable[[Unit], Mapping[str, Any]] | None = None,
        context_key: str | None = None,
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]], int]]:
        """(number, arrays by name, checksum) of these units as `write` would make them, one at a time."""
        from quantizers.containers.groups import make_groups

        request = self._request(source, inventory, formats, Path(), MAX_SHARD_BYTES, quantizer, None, context_key or "")
        return make_groups(request, list(units), context)

    def _request(
        self, source: Source, inventory: Inventory, formats: Sequence[Format], out_dir: Path, max_shard_bytes: int,
        quantizer: str, plan_json: Mapping[str, Any] | None, context_key: str,
    ) -> WriteRequest:  # fmt: skip
        container = self.for_source(source).for_formats(formats)
        blueprint = container.blueprint(inventory, formats, max_shard_bytes=max_shard_bytes)
        return WriteRequest(
            container, source, inventory, tuple(formats), out_dir, blueprint, quantizer, plan_json, context_key
        )

    def read(self, path: Path) -> Any:
        """A `Checkpoint` over the folder. Raises InvalidModel."""
        from quantizers.containers.checkpoint import open_checkpoint

        return open_checkpoint(self, Path(path))


@dataclass(frozen=True)
class WriteRequest:
    """One call of `Container.write`."""

    container: Container
    source: Source
    inventory: Inventory
    formats: tuple[Format, ...]
    out_dir: Path
    blueprint: Blueprint
    quantizer: str
    plan_json: Mapping[str, Any] | None
    context_key: str

    @cached_property
    def unit_of_bias(self) -> dict[str, int]:
        """Names of biases -> numbers of the units of their layers."""
        biases = [(self.inventory.bias_of(unit), number) for number, unit in enumerate(self.inventory.units)]
        return {bias.name: number for bias, number in biases if bias is not None}


def arrange(
    groups: Sequence[Sequence[TensorSpec]], metadata: Mapping[str, str], max_shard_bytes: int
) -> tuple[list[FileLayout], dict[str, bytes]]:
    """Files for the groups, in order, each holding at most `max_shard_bytes` of data (or one larger group)."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for group in groups:
        size = sum(spec.nbytes for spec in group)
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1] += group
        filled += size
    if len(shards) == 1:
        return [lay_out("model.safetensors", shards[0], metadata)], {}
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    files = [lay_out(name, shard, metadata) for name, shard in zip(names, shards, strict=True)]
    total = sum(spec.nbytes for group in groups for spec in group)
    weight_map = {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard}
    index = canonical_json({"metadata": {"total_size": total}, "weight_map": weight_map}) + b"\n"
    return files, {INDEX: index}


def float_tensor(unit: Unit, format: FloatFormat, name: str | None = None) -> tuple[TensorSpec, ...]:
    """A pass-through unit is one tensor, under the unit's own name unless another is given."""
    return (TensorSpec(name or unit.name, format.dtype, unit.shape),)


def stored_words(columns: int, format: IntFormat) -> int:
    """32-bit words of a stream of `columns` codes."""
    return -(-columns * format.width // 32)


def _check_names(groups: Sequence[Sequence[TensorSpec]]) -> None:
    names = [spec.name for group in groups for spec in group]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidPlan("two stored tensors would share a name", got=", ".join(twice[:3]))
