"""Commands about a model as it is: inspect, score."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from bitwright.cli import render
from bitwright.cli.output import emit, note
from bitwright.cli.parser import add_model, add_out, add_progress, add_run, add_server, command, names


def add(commands: Any) -> None:
    inspect = command(
        commands, "inspect", run_inspect,
        summary="what a model consists of: units, shapes, ties, bytes, coverage",
        about="Read the headers and the config of a model (never its weights) and say what can be planned, what stays\n"
        "as it is and why, and what that costs.",
        examples="  bitwright inspect ./Llama-3.2-1B\n"
        "  bitwright inspect hf:org/name@main --json\n"
        "  bitwright inspect file:models/llama --server http://localhost:8321",
    )  # fmt: skip
    add_model(inspect)
    inspect.add_argument("--units", action="store_true", help="list every unit, not only the modules")
    add_progress(inspect)
    add_server(inspect, job=True)
    score = command(
        commands, "score", run_score,
        summary="make the sensitivity table of a model: predicted loss of each unit in each format",
        about="Score a model once; the table then answers every budget without the model (see `bitwright frontier`).",
        examples="  bitwright score ./model --out table.npz\n"
        "  bitwright score ./model --metric weight-mse --formats int2-g64,int3-g64,int4-g64,int8-g64 --out table.npz\n"
        "  bitwright score ./model --metric fisher --calibration text.txt --samples 4 --out table.npz",
    )  # fmt: skip
    add_model(score)
    add_scoring(score)
    add_out(score, "the table (.npz)")
    add_run(score)
    add_progress(score)
    add_server(score, job=True)


def add_scoring(parser: Any) -> None:
    """Options of everything that scores: `score` and `plan`. Defaults live in the request, not here."""
    parser.add_argument(
        "--metric", metavar="NAME", help="how losses are predicted (default: the recipe's; see `bitwright metrics`)"
    )
    parser.add_argument(
        "--formats", metavar="A,B,...", type=names, help="menu of formats (default: int2 to int8 at group 64)"
    )
    parser.add_argument("--engine", metavar="NAME", help="cut the menu to what this engine loads, and apply its ties")
    parser.add_argument("--recipe", metavar="NAME", help="a published method by name, or a TOML file (default auto)")
    parser.add_argument(
        "--granularity",
        metavar="WHAT",
        help="what gets a format of its own: tensor (default), expert, row, row:B (B rows), column, column:B, group; "
        "only `packed` checkpoints hold more than one format a tensor",
    )
    parser.add_argument(
        "--quantizer",
        metavar="NAME",
        help="rtn, clip, gptq, gptq-gain, erq, sqc, rtn-bias or gptq-bias: what makes the codes "
        "(default: the recipe's)",
    )
    parser.add_argument(
        "--calibration", metavar="FILE", help="text or data to score on, or `random`, or `self` (default: bundled)"
    )
    parser.add_argument("--calibration-tokens", metavar="N", type=int, help="tokens to score on (default 16384)")
    parser.add_argument("--samples", metavar="N", type=int, help="label samples a sequence (fisher)")


#: Members of the scoring requests that are options of the same name here.
SCORING = (
    "metric",
    "formats",
    "engine",
    "recipe",
    "granularity",
    "quantizer",
    "calibration",
    "calibration_tokens",
    "samples",
    "seed",
    "threads",
)


def members(args: Namespace, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The request members that were given on the command line."""
    found = {name: getattr(args, name) for name in wanted}
    return {name: value for name, value in found.items() if value is not None}


def run_inspect(args: Namespace) -> int:
    from bitwright.cli.running import job
    from bitwright.core.inventory import Inventory

    def local(progress: Any) -> Inventory:
        from bitwright import face

        return face.inspect(args.model, progress=progress)

    inventory = job(
        args,
        "inspect",
        {"model": args.model},
        local=local,
        remote=lambda result, _: Inventory.from_json(result["inventory"]),
    )
    emit(args, inventory.to_json(), inventory_text(inventory, units=args.units))
    return 0


def run_score(args: Namespace) -> int:
    from bitwright.cli.running import fetch_table, job
    from bitwright.core.table import SensitivityTable

    options = members(args, SCORING)

    def local(progress: Any) -> SensitivityTable:
        from bitwright import face

        return face.score(args.model, progress=progress, **options)

    table = job(args, "sensitivity", {"model": args.model, **options}, local=local, remote=fetch_table)
    if args.out is not None:
        table.save(args.out)
        note(f"written: {args.out}")
    emit(args, table_document(table), table_text(table))
    return 0


def inventory_text(inventory: Any, *, units: bool) -> str:
    """Inventory for people: totals, modules (or units), the unquantized rest, warnings."""
    coverage = inventory.coverage()
    planned = render.byte_text(inventory.unit_stored_bytes)
    head = render.facts([
        ("model", inventory.ref),
        ("architecture", f"{inventory.architecture} ({inventory.task}), {inventory.layers} layers"),
        ("planned", f"{len(inventory.units)} units, {inventory.weights:,} weights, {planned}"),
        ("not planned", f"{len(inventory.rest)} tensors, {render.byte_text(inventory.rest_bytes)}"),
        ("coverage", f"{100 * coverage['planned_share']:.1f}% of the stored bytes"),
    ])  # fmt: skip
    rest = [
        [row["role"], row["tensors"], row["bytes"], f"{100 * row['share']:.1f}%", row["reason"]]
        for row in coverage["unquantized"]
    ]
    parts = [head, _unit_rows(inventory) if units else _module_rows(inventory)]
    if rest:
        parts.append(
            "what is not quantized, and what that costs\n"
            + render.table(["role", "tensors", "bytes", "share", "reason"], rest)
        )
    parts += [f"warning: {text}" for text in inventory.warnings]
    return "\n\n".join(parts)


def _unit_rows(inventory: Any) -> str:
    rows = [[u.name, "x".join(map(str, u.shape)), u.dtype, u.elements, u.stored_bytes] for u in inventory.units]
    return render.table(["unit", "shape", "dtype", "weights", "bytes"], rows)


def _module_rows(inventory: Any) -> str:
    modules: dict[tuple[str, str], list[int]] = {}
    for unit in inventory.units:
        row = modules.setdefault((unit.module, "x".join(map(str, unit.shape))), [0, 0, 0])
        row[0] += 1
        row[1] += unit.elements
        row[2] += unit.stored_bytes
    rows = [[module, shape, *counts] for (module, shape), counts in modules.items()]
    return render.table(["module", "shape", "units", "weights", "bytes"], rows)


def table_document(table: Any) -> dict[str, Any]:
    """The table as JSON: losses, standard errors and costs; null for a forbidden cell or an unknown error."""
    import math

    def plain(matrix: Any) -> list[list[float | None]]:
        return [[v if math.isfinite(v) else None for v in row] for row in matrix.tolist()]

    return {
        "table_digest": table.digest,
        "metric": table.metric,
        "loss_unit": table.loss_unit,
        "units": list(table.row_names()),
        "formats": list(table.formats),
        "loss": plain(table.loss),
        "stderr": plain(table.stderr),
        "bytes": table.cost_bytes().tolist(),
        "provenance": dict(table.provenance),
    }


def table_text(table: Any) -> str:
    """Losses of units, those not measured marked; of a table of parts, their sums over each unit; warnings."""
    digest, table, told = table.digest, table.by_unit(), table.provenance
    unmeasured = set(told.get("unmeasured", ()))
    names = [f"{u.name} (not measured)" if u.name in unmeasured else u.name for u in table.inventory.units]
    rows = [[name, *map(float, row)] for name, row in zip(names, table.loss, strict=True)]
    head = render.facts([("metric", f"{table.metric} ({table.loss_unit})"), ("digest", digest)])
    said = [f"warning: {text}" for text in told.get("warnings", ())]
    return "\n\n".join([head, render.table(["unit", *table.formats], rows), *said])
