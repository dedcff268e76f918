"""Commands about inference engines: preflight. The list of engines is `bitwright engines` (catalogs)."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from bitwright.cli import render
from bitwright.cli.output import emit, note
from bitwright.cli.parser import add_server, command

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
    preflight.add_argument(
        "--table", metavar="TABLE", help="sensitivity table, for the predicted loss; with --server its digest"
    )
    add_server(preflight)


def run_preflight(args: Namespace) -> int:
    found = _remote(args) if args.server else _local(args)
    emit(args, found, preflight_text(found))
    if not found["loads"]:
        note(f"{found['engine']} does not load this plan")
    return 0 if found["loads"] else 1


def _local(args: Namespace) -> dict[str, Any]:
    from bitwright import face

    return face.preflight(args.plan, args.engine, device=args.device, model=args.model, table=args.table).to_json()


def _remote(args: Namespace) -> dict[str, Any]:
    from bitwright.cli.running import client
    from bitwright.core.errors import InvalidInput
    from bitwright.core.plan import load_plan

    if args.model is not None:
        raise InvalidInput(
            "a server compares a plan with no model", got="--model", hint="leave out --model or --server"
        )
    with client(args) as server:
        return server.preflight(load_plan(args.plan), args.engine, device=args.device, table=args.table)


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


def preflight_text(found: dict[str, Any]) -> str:
    """Yes, or the reasons and the nearest plan, of the JSON form."""
    reasons, nearest, best = found["reasons"], found["nearest"], found["best"]
    head = render.facts([
        ("engine", f"{found['title']} ({found['version']}), data of {found['revision']}"),
        ("loads", "yes" if found["loads"] else f"no, {len(reasons)} reasons"),
    ])  # fmt: skip
    parts = [head, *(f"warning: {text}" for text in found["warnings"])]
    if reasons:
        more = len(reasons) - SHOWN
        shown = ["  " + ": ".join(filter(None, (reason["unit"], reason["message"]))) for reason in reasons[:SHOWN]]
        parts.append("\n".join(["reasons", *shown, *([f"  and {more} more"] if more > 0 else [])]))
    if nearest is not None and nearest["changed"]:
        changed = nearest["changed"]
        rows = [[change["unit"], change["before"], change["after"]] for change in changed[:SHOWN]]
        delta = nearest["loss_delta"]
        facts = render.facts([
            ("nearest", f"{len(changed)} units change, {nearest['bytes_delta']:+,} B"),
            ("predicted loss", "not known (add --table)" if delta is None else f"{delta:+.4g}"),
        ])  # fmt: skip
        parts.append(render.table(["unit", "before", "after"], rows) + "\n\n" + facts)
        if best is not None:
            parts.append(render.facts([
                ("best that loads", f"{best['bytes']:,} B, predicted loss {best['predicted_loss']:.4g}"),
                ("what loading costs", f"{best['loss_delta']:+.4g} against this plan, in no more bytes"),
            ]))  # fmt: skip
    elif not found["loads"]:
        parts.append("the engine loads some unit in no format that bitwright knows: see `bitwright engines --json`")
    return "\n\n".join(parts)
