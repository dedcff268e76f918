"""Commands about inference engines: preflight. The list of engines is `bitwright engines` (catalogs)."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.cli import render
from bitwright.cli.output import emit, note
from bitwright.cli.parser import command

if TYPE_CHECKING:
    from bitwright.engines.answer import Preflight

#: Reasons and changes shown on the screen; --json has all of them.
SHOWN = 20


def add(commands: Any) -> None:
    preflight = command(
        commands, "preflight", run_preflight,
        summary="does this engine load this plan? yes, or every reason why not, and the nearest plan that would load",
        about="Checks a plan against an engine's profile: formats by module class, ties, block sizes, device.\n"
        "Exit code 0 when the plan loads, 1 when it does not. Needs no model; with --model its digest and\n"
        "units are compared too, and with --table the nearest loadable plan's predicted loss is told.",
        examples="  bitwright preflight plan.json --engine vllm\n"
        "  bitwright preflight plan.json --engine transformers@5.23 --device cpu --json\n"
        "  bitwright preflight plan.json --engine llama.cpp --model ./model --table table.npz",
    )  # fmt: skip
    preflight.add_argument("plan", metavar="PLAN", type=Path, help="the plan file")
    preflight.add_argument(
        "--engine", metavar="NAME[@VERSION]", required=True, help="see `bitwright engines`; a version must be covered"
    )
    preflight.add_argument("--device", metavar="NAME", help="cpu, metal, cuda, or cuda:8.0 (compute capability)")
    preflight.add_argument("--model", metavar="MODEL", help="also compare with this model's digest and units")
    preflight.add_argument("--table", metavar="TABLE", type=Path, help="sensitivity table, for the predicted loss")


def run_preflight(args: Namespace) -> int:
    from bitwright import face

    found = face.preflight(args.plan, args.engine, device=args.device, model=args.model, table=args.table)
    emit(args, found.to_json(), preflight_text(found))
    if not found.loads:
        note(f"{found.engine} does not load this plan")
    return 0 if found.loads else 1


def engines_text(rows: list[dict[str, Any]]) -> str:
    """One line an engine: what it loads, ties and writes. Rows as `engines --json` and a server give them."""
    cells = []
    for row in rows:
        rules, kv = row.get("ints", ()), row.get("kv_cache", ())
        widths = row.get("widths") or sorted({width for rule in rules for width in rule["widths"]})
        caches = sorted({cache if isinstance(cache, str) else cache["format"] for cache in kv})
        ties, devices = row.get("ties", row.get("tie_kinds", ())), row.get("devices", ())
        cells.append([
            row["name"], row["version"], ",".join(map(str, widths)) or "-", ",".join(ties) or "-",
            ",".join(device if isinstance(device, str) else device["name"] for device in devices) or "-",
            ",".join(caches) or "-", row.get("container") or "-", row.get("export") or "-",
        ])  # fmt: skip
    titles = ["name", "version", "int widths", "ties", "devices", "kv cache", "container", "export"]
    return render.table(titles, cells) + "\n\nrules, silent habits and the evidence of every line: --json"


def preflight_text(found: Preflight) -> str:
    """Yes, or the reasons and the nearest plan."""
    head = render.facts([
        ("engine", f"{found.title} ({found.version}), data of {found.revision}"),
        ("loads", "yes" if found.loads else f"no, {len(found.reasons)} reasons"),
    ])  # fmt: skip
    parts = [head, *(f"warning: {text}" for text in found.warnings)]
    if found.reasons:
        more = len(found.reasons) - SHOWN
        lines = [f"  {reason}" for reason in found.reasons[:SHOWN]] + ([f"  and {more} more"] if more > 0 else [])
        parts.append("\n".join(["reasons", *lines]))
    if found.nearest is not None and found.nearest.changed:
        nearest = found.nearest
        rows = [list(change) for change in nearest.changed[:SHOWN]]
        delta = "not known (add --table)" if nearest.loss_delta is None else f"{nearest.loss_delta:+.4g}"
        facts = render.facts([
            ("nearest", f"{len(nearest.changed)} units change, {nearest.bytes_delta:+,} B"),
            ("predicted loss", delta),
        ])  # fmt: skip
        parts.append(render.table(["unit", "before", "after"], rows) + "\n\n" + facts)
        if found.best is not None:
            parts.append(render.facts([
                ("best that loads", f"{found.best.bytes:,} B, predicted loss {found.best.predicted_loss:.4g}"),
                ("what loading costs", f"{found.best.loss_delta:+.4g} against this plan, in no more bytes"),
            ]))  # fmt: skip
    elif not found.loads:
        parts.append("the engine loads some unit in no format that bitwright knows: see `bitwright engines --json`")
    return "\n\n".join(parts)
