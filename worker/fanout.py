"""Cutting a step into parts that any worker may do, with the results where everybody finds them.

    def run(request, context):
        paths = spread(context, "score", "worker.steps.score_part:run", [{"units": [...]}, {"units": [...]}])

A part is a function `(item, context, path) -> None` that writes its output to `path`; the output is a blob named by the
part's inputs, so a part that is there is never done again. Where other workers may help (`shards` in the settings of a
job's child), missing parts become step rows and the job leaves its worker until all of them have ended; it then runs
again from its start, and every part is there. Elsewhere the parts are done here, one after the other.

The order and the content of the parts decide the result, never who does them or how many at a time.
"""

from __future__ import annotations

import bisect
import importlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitwright.core.canonical import digest_json
from bitwright.core.errors import Temporary
from worker.leftovers import PARTS
from worker.steps.context import Context

#: What a part runs: (item, context, path to write).
Part = Callable[[Mapping[str, Any], Context, Path], None]


class FanOut(Exception):
    """Raised through a job's work: these parts are missing, and others may do them."""

    def __init__(self, stage: str, parts: list[dict[str, Any]]) -> None:
        super().__init__(f"{len(parts)} parts of {stage}")
        self.stage = stage
        self.parts = parts


def spread(context: Context, stage: str, function: str, items: Sequence[Mapping[str, Any]]) -> list[Path]:
    """The parts' outputs in the order of `items`. function: "module:name" of a Part; items: plain JSON."""
    parts = [{"function": function, "item": dict(item)} for item in items]
    paths = [context.blobs.path(PARTS, digest_json(part)) for part in parts]
    missing = [part for part, path in zip(parts, paths, strict=True) if not path.exists()]
    if len(missing) > 1 and context.settings.shards > 1:
        raise FanOut(stage, missing)
    for number, part in enumerate(missing):
        context.progress(stage, number / len(missing), f"part {number + 1} of {len(missing)}")
        do_part(part, context)
    return paths


def other_version(expected: str, got: str) -> Temporary:
    """What a worker says to a part that does not fit what it would do itself."""
    return Temporary(
        "the workers of one job are not of one version", expected=expected[:200], got=got[:200],
        hint="run the same version on every worker",
    )  # fmt: skip


def shared(context: Context) -> bool:
    """Whether other workers may take parts: those of a job, never of a command that writes files of its own."""
    return context.settings.shards > 1 and context.out_dir is None and context.problem_out is None


def once(context: Context, question: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """Plain JSON that was decided before the work was cut, and that must be the same whenever the job, or a part of it,
    runs again: made by whoever asks first."""

    def build(path: Path) -> None:
        path.write_text(json.dumps(make()), encoding="utf-8")

    return json.loads(context.blobs.memo(PARTS, digest_json(question), build).read_bytes())


def cut(count: int, shards: int) -> list[range]:
    """`count` things in at most `shards` runs of nearly equal length, none empty."""
    return cut_by([1] * count, shards)


def cut_by(sizes: Sequence[int], shards: int) -> list[range]:
    """Things of these sizes, in their order, in at most `shards` runs of nearly equal size, none empty."""
    shards = max(1, min(shards, len(sizes)))
    reached = [0, *itertools.accumulate(sizes)]
    edges = [0]
    for number in range(1, shards):
        wanted = bisect.bisect_left(reached, reached[-1] * number / shards)
        edges.append(min(max(wanted, edges[-1] + 1), len(sizes) - shards + number))
    return [range(start, end) for start, end in itertools.pairwise([*edges, len(sizes)])]


def do_part(part: Mapping[str, Any], context: Context) -> str:
    """Do one part unless its output is there; the digest that names it. Raises Temporary for a part that only another
    version of this program knows: while workers are exchanged, one of those takes it."""
    digest = digest_json({"function": part["function"], "item": part["item"]})
    module, _, name = str(part["function"]).partition(":")
    try:
        run: Part = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise other_version(str(part["function"]), str(error)) from error
    context.blobs.memo(PARTS, digest, lambda path: run(part["item"], context, path))
    return digest
