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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitwright.core.canonical import FULL, digest_json, write_json
from bitwright.core.errors import (
    BitwrightError,
    DiskFull,
    InvalidInput,
    OutOfResources,
    VerificationFailed,
)
from bitwright.core.exhaustion import ran_out
from bitwright.core.formats import Format
from quantizers.base import Quantizer
from quantizers.catalog import QUANTIZERS
from quantizers.containers.base import MANIFEST, ContainerReport, Made, Progress, WriteRequest
from quantizers.containers.companions import copy_companions
from quantizers.containers.crew import finished
from quantizers.containers.files import OutputFiles
from quantizers.containers.groups import Context, checksum_of, fingerprint, group_sizes, make_group, worker_count
from quantizers.containers.journal import Journal, open_journal
from quantizers.containers.memory import kept_memory


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
    with kept_memory(), _exhaustion(partial), open_journal(partial, _key(request)) as journal:
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


_DECIDING = ("quantizer", "quantizer_calibration", "quantizer_options", "made_on")


def _decision(plan: Mapping[str, Any] | None) -> list[Any] | None:
    """What of a plan decides every byte of a checkpoint: formats to the part, the quantizer with its data, and the
    device where that can matter."""
    if plan is None:
        return None
    made = dict(plan.get("provenance", {}))
    units = [[unit["name"], unit["format"]] for unit in plan["units"]]
    return [units, *(made.get(name) for name in _DECIDING)]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError:
        return None


def _label(format: Format | None) -> str:
    return "nothing" if format is None else format.label


@contextmanager
def _exhaustion(partial: Path) -> Iterator[None]:
    """Disk and memory that ran out, as errors of ours; what is written stays for the next run, but on a full disk."""
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
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise OutOfResources(
            "memory ran out while the checkpoint was written",
            got=str(error)[:120],
            hint="allow the process more memory and run the same command again: it goes on where it stood",
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
            arrays, mark = made[index]() if index in made else make_group(request, index, quantizer, context)
            for spec in blueprint.groups[index]:
                files.place(spec.name, arrays[spec.name])
            return mark

        for index, mark in finished(
            left, group_sizes(request, quantizer), place, workers=worker_count(quantizer, context)
        ):
            journal.add(index, mark)
            progress("write", len(journal.done) / len(blueprint.groups), _name(request, index))


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
            return checksum_of(checkpoint.raw(spec.name) for spec in blueprint.groups[index])
        unit, planned = request.inventory.units[index], request.formats[index]
        if written.get(unit.name) != planned:
            raise VerificationFailed(
                f"{unit.name} is stored in another format",
                expected=planned.label,
                got=_label(written.get(unit.name)),
            )
        return fingerprint(checkpoint.quantized(unit.name))

    total = len(blueprint.groups)
    for count, (index, mark) in enumerate(finished(range(total), group_sizes(request), read_back), start=1):
        if mark != journal.done[index]:
            raise VerificationFailed(
                f"{_name(request, index)} reads back differently from what was written",
                hint="the disk or memory may be failing; run again, on another disk if it happens twice",
            )
        progress("verify", count / total, _name(request, index))


def _name(request: WriteRequest, index: int) -> str:
    units = request.inventory.units
    return units[index].name if index < len(units) else request.inventory.rest[index - len(units)].name
