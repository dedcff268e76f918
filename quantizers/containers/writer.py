"""Writing a checkpoint: a few units in memory at a time, resumable, read back before it gets its final name.

The files are made in a hidden folder beside the target at their final sizes, tensors written to their known places.
A journal there records what is done with a checksum of it. When all is written, everything is read back through the
same reader that users have, compared with the checksums and the plan, and the folder renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bitwright.core.canonical import FULL, canonical_json, digest_json, write_json
from bitwright.core.errors import (
    BitwrightError,
    DiskFull,
    InvalidInput,
    InvalidModel,
    OutOfResources,
    Unsupported,
    VerificationFailed,
)
from bitwright.core.formats import Format
from bitwright.core.inventory import DTYPE_BYTES, Unit
from bitwright.models import check_stored
from gpu_kernels.kernels import checksum, widen
from quantizers.base import Quantizer, Stored
from quantizers.bias import bias_shift, shifted
from quantizers.catalog import QUANTIZERS
from quantizers.containers.base import MANIFEST, ContainerReport, Made, Progress, WriteRequest
from quantizers.containers.companions import copy_companions
from quantizers.containers.crew import finished
from quantizers.containers.files import OutputFiles
from quantizers.containers.journal import Journal, open_journal
from quantizers.containers.memory import kept_memory
from quantizers.mixed import quantize

Context = Callable[[Unit], Mapping[str, Any]]


def write_checkpoint(
    request: WriteRequest, progress: Progress, context: Context | None, made: Mapping[int, Made]
) -> ContainerReport:
    """See Container.write."""
    out = request.out_dir
    finished = _already_there(request)
    if finished is not None:
        return finished
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.partial"
    with kept_memory(), _disk_errors(partial), open_journal(partial, _key(request)) as journal:
        try:
            _fill(request, partial, journal, progress, context, made)
            with ThreadPoolExecutor(1) as pool:  # the disk is slow: it takes the files while they are read back
                synced = pool.submit(_sync, request, partial)
                _verify(request, partial, journal, progress)
                synced.result()
        except BitwrightError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        journal.remove()
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    report = request.blueprint.report
    return ContainerReport(
        out, report.files, report.file_bytes, report.unit_bytes, report.rest_bytes, report.overhead_bytes
    )


def _sync(request: WriteRequest, partial: Path) -> None:
    for file in request.blueprint.files:
        with (partial / file.name).open("rb") as handle:
            os.fsync(handle.fileno())


def _key(request: WriteRequest) -> str:
    """What makes a half-written folder ours to go on with."""
    return digest_json(
        {
            "container": [request.container.name, request.container.version],
            "model": request.inventory.digest,
            "formats": [f.name for f in request.formats],
            "quantizer": [request.quantizer, request.context_key],
            "files": [[f.name, f.size, zlib.crc32(f.header)] for f in request.blueprint.files],
        }
    )


def _already_there(request: WriteRequest) -> ContainerReport | None:
    """The report of an equal finished checkpoint; None when the name is free. Raises InvalidInput when it is taken."""
    out = request.out_dir
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    blueprint, manifest = request.blueprint, out / MANIFEST
    sizes = {f.name: f.size for f in blueprint.files} | {n: len(text) for n, text in blueprint.documents.items()}
    same = manifest.is_file() and manifest.read_bytes() == blueprint.documents[MANIFEST]
    same = same and _decision(request.plan_json) == _decision(_read_json(out / "plan.json"))
    if same and all((out / n).is_file() and (out / n).stat().st_size == size for n, size in sizes.items()):
        report = blueprint.report
        return ContainerReport(
            out, report.files, report.file_bytes, report.unit_bytes, report.rest_bytes, report.overhead_bytes
        )
    raise InvalidInput(
        "the output folder is not empty",
        expected="a new or empty folder",
        got=f"{out.name} holds something else",
        hint="choose another folder, or remove this one",
    )


def _decision(plan: Mapping[str, Any] | None) -> list[Any] | None:
    """What of a plan decides every byte of a checkpoint: formats to the part, and the quantizer with its data."""
    if plan is None:
        return None
    made = dict(plan.get("provenance", {}))
    units = [[unit["name"], unit["format"]] for unit in plan["units"]]
    return [units, made.get("quantizer"), made.get("quantizer_calibration"), made.get("quantizer_options")]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError:
        return None


def _label(format: Format | None) -> str:
    return "nothing" if format is None else format.label


@contextmanager
def _disk_errors(partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        if full:
            shutil.rmtree(partial, ignore_errors=True)
        raise (DiskFull if full else OutOfResources)(
            f"cannot write the checkpoint: {error.strerror or error}",
            hint="free disk space or choose another output folder, then run the same command again",
        ) from error


def _fill(
    request: WriteRequest, partial: Path, journal: Journal, progress: Progress, context: Context | None,
    made: Mapping[int, Made],
) -> None:  # fmt: skip
    """Write every file: headers, documents, companions, then tensors that the journal does not have."""
    blueprint = request.blueprint
    if not journal.done:
        free = shutil.disk_usage(partial).free
        if free < blueprint.report.file_bytes:
            raise DiskFull(
                "the disk has not enough room for the checkpoint",
                expected=f"{blueprint.report.file_bytes} free bytes",
                got=str(free),
                hint="free disk space or choose another output folder",
            )
        for file in blueprint.files:
            with (partial / file.name).open("wb") as handle:
                handle.write(file.header)
                handle.truncate(file.size)
    for name, text in blueprint.documents.items():
        (partial / name).write_bytes(text)
    own = request.container.companions(request.inventory, request.formats, request.source.config)
    for name, text in own.items():
        (partial / name).write_bytes(text)
    copy_companions(request.source.path, partial, skip=frozenset([*blueprint.documents, *own]))
    if request.plan_json is not None:
        write_json(partial / "plan.json", dict(request.plan_json))
    left = [index for index in range(len(blueprint.groups)) if index not in journal.done]
    quantizer: Quantizer = QUANTIZERS.load(request.quantizer)
    with OutputFiles(partial, blueprint.files) as files:

        def place(index: int) -> int:
            arrays, mark = made[index]() if index in made else _produce(request, index, quantizer, context)
            for spec in blueprint.groups[index]:
                files.place(spec.name, arrays[spec.name])
            return mark

        for index, mark in finished(left, _sizes(request, quantizer), place, workers=_workers(quantizer, context)):
            journal.add(index, mark)
            progress("write", len(journal.done) / len(blueprint.groups), _name(request, index))


def make_groups(
    request: WriteRequest, indexes: list[int], context: Context | None
) -> Iterator[tuple[int, dict[str, NDArray[Any]], int]]:
    """(index, arrays by name, checksum of their meaning) of these groups, as they are done."""
    quantizer: Quantizer = QUANTIZERS.load(request.quantizer)

    def make(index: int) -> tuple[dict[str, NDArray[Any]], int]:
        return _produce(request, index, quantizer, context)

    for index, (arrays, mark) in finished(
        indexes, _sizes(request, quantizer), make, workers=_workers(quantizer, context)
    ):
        yield index, arrays, mark


def _sizes(request: WriteRequest, quantizer: Quantizer | None = None) -> Callable[[int], int]:
    """Bytes of a group when it is worked on: its weights as read, as stored, and in between.

    quantizer: the one that works, or None when nothing is quantized. Most hold a float32 copy, and codes as bytes.
    """
    units, groups = request.inventory.units, request.blueprint.groups
    between = 0 if quantizer is None or getattr(quantizer, "takes_stored", False) else 5

    def size(index: int) -> int:
        stored = sum(spec.nbytes for spec in groups[index])
        number = index if index < len(units) or quantizer is None else _corrected(request, index, quantizer)
        if number is None or number >= len(units):
            return stored
        return stored + units[number].elements * (DTYPE_BYTES[units[number].dtype] + between)

    return size


def _workers(quantizer: Quantizer, context: Context | None) -> int | None:
    """Quantizers that remember nothing are asked by all threads at once; moments are loaded one after another."""
    return None if context is None and getattr(quantizer, "stateless", False) else 1


def _read(request: WriteRequest, index: int) -> NDArray[Any] | None:
    """A group's tensor as it is stored; None: there is nothing to read, or a unit that only float32 can hold."""
    units = request.inventory.units
    if index >= len(units):
        specs = request.blueprint.groups[index]
        return request.source.read(request.inventory.rest[index - len(units)].name) if specs else None
    unit = units[index]
    return request.source.read(unit.tensor, unit.index) if unit.dtype in ("F16", "BF16") else None


def _produce(
    request: WriteRequest, index: int, quantizer: Quantizer, context: Context | None
) -> tuple[dict[str, NDArray[Any]], int]:
    """Arrays of one group and a checksum of their meaning."""
    value = _produce_in_pieces(request, index, quantizer) if context is None else None
    if value is not None:
        return request.container.encode(request.inventory.units[index], value), fingerprint(value)
    units, specs = request.inventory.units, request.blueprint.groups[index]
    if index >= len(units):
        stored = _read(request, index)
        if stored is None:
            if _corrected(request, index, quantizer) is not None:
                raise _no_room_for(request, index)
            return {}, 0
        tensor = request.inventory.rest[index - len(units)]
        check_stored(tensor.name, stored, tensor.dtype)
        number = _corrected(request, index, quantizer)
        if number is not None:
            stored = _with_bias_shift(request, number, stored, quantizer, context)
        arrays = request.container.encode_rest(tensor, stored)
        return arrays, _checksum(arrays[spec.name] for spec in specs)
    value = _quantized(request, index, _weight(request, index, quantizer), quantizer, context)
    return request.container.encode(units[index], value), fingerprint(value)


def _weight(request: WriteRequest, index: int, quantizer: Quantizer) -> NDArray[Any]:
    """A unit's weights as its quantizer takes them."""
    unit, stored = request.inventory.units[index], _read(request, index)
    if stored is None:
        weight: NDArray[Any] = request.source.read_float32(unit.tensor, unit.index)
    else:  # the kernels widen 16-bit floats many times faster than numpy
        weight = stored if getattr(quantizer, "takes_stored", False) else widen(stored)
    if weight.shape != unit.shape:
        raise InvalidModel(f"{unit.name} changed its shape", expected=str(unit.shape), got=str(weight.shape))
    return weight


def _quantized(
    request: WriteRequest, index: int, weight: NDArray[Any], quantizer: Quantizer, context: Context | None
) -> Stored:
    unit = request.inventory.units[index]
    more = context(unit) if context else {}
    value = quantize(quantizer, weight, request.formats[index], name=unit.name, **more)
    if value.format != request.formats[index]:
        raise VerificationFailed(
            f"{unit.name}: wrong format", expected=request.formats[index].label, got=value.format.label
        )
    return value


def _corrected(request: WriteRequest, index: int, quantizer: Quantizer) -> int | None:
    """The unit whose bias this group of the rest is, when the quantizer moves biases."""
    if not hasattr(quantizer, "bias_shift"):
        return None
    return request.unit_of_bias.get(request.inventory.rest[index - len(request.inventory.units)].name)


def _with_bias_shift(
    request: WriteRequest, number: int, stored: NDArray[Any], quantizer: Quantizer, context: Context | None
) -> NDArray[Any]:
    """The bias of unit `number`, moved. The unit is made again: no tensor waits for another, so that any may resume."""
    unit = request.inventory.units[number]
    weight = _weight(request, number, quantizer)
    value = _quantized(request, number, weight, quantizer, context)
    shift = bias_shift(quantizer, weight, value, name=unit.name, **(context(unit) if context else {}))
    return stored if shift is None else shifted(stored, shift, unit.name)


def _no_room_for(request: WriteRequest, index: int) -> BitwrightError:
    tensor = request.inventory.rest[index - len(request.inventory.units)]
    return Unsupported(
        f"the {request.container.name} container leaves out {tensor.name}, which {request.quantizer} corrects",
        expected="a container that stores biases", got="none of them", hint="use the packed container",
    )  # fmt: skip


def _produce_in_pieces(request: WriteRequest, index: int, quantizer: Quantizer) -> Stored | None:
    """A unit that its quantizer takes as it is read; None: it wants the whole matrix."""
    units, take = request.inventory.units, getattr(quantizer, "quantize_read", None)
    if take is None or index >= len(units) or units[index].dtype not in ("F16", "BF16", "F32"):
        return None
    unit = units[index]

    def read(start: int, stop: int) -> NDArray[Any]:
        return request.source.read(unit.tensor, unit.index, (start, stop))

    made: Stored | None = take(read, unit.shape, request.formats[index])
    return made


def _verify(request: WriteRequest, partial: Path, journal: Journal, progress: Progress) -> None:
    """Read everything back through the public reader; widths, bytes and values must be the plan's."""
    blueprint = request.blueprint
    for file in blueprint.files:
        got = (partial / file.name).stat().st_size
        if got != file.size:
            raise VerificationFailed(
                f"{file.name} has another size than predicted", expected=str(file.size), got=str(got)
            )
    checkpoint = request.container.read(partial)
    written: dict[str, Format] = checkpoint.formats()

    def read_back(index: int) -> int:
        if index >= len(request.formats):
            return _checksum(checkpoint.raw(spec.name) for spec in blueprint.groups[index])
        unit, planned = request.inventory.units[index], request.formats[index]
        if written.get(unit.name) != planned:
            raise VerificationFailed(
                f"{unit.name} is stored in another format",
                expected=planned.label,
                got=_label(written.get(unit.name)),
            )
        return fingerprint(checkpoint.quantized(unit.name))

    total = len(blueprint.groups)
    for count, (index, mark) in enumerate(finished(range(total), _sizes(request), read_back), start=1):
        if mark != journal.done[index]:
            raise VerificationFailed(
                f"{_name(request, index)} reads back differently from what was written",
                hint="the disk or memory may be failing; run again, on another disk if it happens twice",
            )
        progress("verify", count / total, _name(request, index))


def _name(request: WriteRequest, index: int) -> str:
    units = request.inventory.units
    return units[index].name if index < len(units) else request.inventory.rest[index - len(units)].name


def _checksum(arrays: Iterable[NDArray[Any]], mark: int = 0) -> int:
    for array in arrays:
        mark = checksum(array, mark)
    return mark


def fingerprint(value: Stored) -> int:
    """A checksum of what a unit means: format and shape, then its arrays (codes, scales, ...)."""
    return _checksum(value.arrays(), zlib.crc32(canonical_json([value.format.name, list(value.shape)])))
