"""Commands that make pictures: report (one HTML file), plot (SVG or PNG)."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.cli.output import emit, note, save_text
from bitwright.cli.parser import command, names

if TYPE_CHECKING:
    from bitwright.core.plan import Plan
    from bitwright.plot.frontier import Mark


def add(commands: Any) -> None:
    _add_report(commands)
    _add_plot(commands)


def _add_report(commands: Any) -> None:
    report = command(
        commands, "report", run_report,
        summary="a plan's page of the dashboard as one self-contained HTML file",
        about="Heat map, certificate, what was measured, preflight and exports in one file that opens from a\n"
        "disk and fetches nothing: for a pull request or a model card. With --table, the plan's own\n"
        "sensitivity table (`bitwright score`, or GET /v1/sensitivities), the file also explains each unit,\n"
        "says how sure the plan is, and holds the whole frontier to drag.",
        examples="  bitwright report plan.json --out report.html\n"
        "  bitwright report plan.json --table table.npz --out report.html",
    )  # fmt: skip
    report.add_argument("plan", metavar="PLAN", type=Path, help="the plan file")
    report.add_argument("--table", metavar="TABLE.npz", type=Path, help="the plan's sensitivity table")
    report.add_argument("--out", metavar="FILE", type=Path, required=True, help="the HTML file to write")


def _add_plot(commands: Any) -> None:
    plot = command(
        commands, "plot", run_plot,
        summary="a plan's heat map, or the frontier of a sensitivity table, as SVG or PNG",
        about="A plan gives its heat map: bits by layer and module. A sensitivity table or a problem gives\n"
        "loss against bytes for every budget, with the uniform plans and the knee; --plan marks a plan.\n"
        "FILE.svg needs nothing else; FILE.png needs the package resvg-py.",
        examples="  bitwright plot plan.json --out plan.svg\n"
        "  bitwright plot table.npz --plan plan.json --out frontier.svg",
    )  # fmt: skip
    plot.add_argument("file", metavar="PLAN|TABLE", type=Path, help="a plan (.json), or a table or problem (.npz)")
    plot.add_argument("--plan", metavar="PLAN", type=Path, help="mark this plan on the frontier")
    plot.add_argument("--ties", metavar="LIST", type=names, default=(), help="tie kinds for a table: qkv, gate_up ...")
    plot.add_argument("--out", metavar="FILE", type=Path, required=True, help="the .svg or .png file to write")


def run_report(args: Namespace) -> int:
    from bitwright.cli.views import plan_text
    from bitwright.core.plan import load_plan
    from bitwright.core.table import load_table
    from service.report import report_html

    plan = load_plan(args.plan)
    table = None if args.table is None else load_table(args.table)
    html = report_html(plan, table, plan_text(plan, None))
    save_text(args.out, html)
    if args.json:
        emit(args, {"out": str(args.out), "bytes": len(html.encode()), "plan": plan.digest}, "")
    return 0


def run_plot(args: Namespace) -> int:
    from bitwright.plot import write_picture

    size = write_picture(_svg(args), args.out)
    note(f"written: {args.out}")
    if args.json:
        emit(args, {"out": str(args.out), "bytes": size}, "")
    return 0


def _svg(args: Namespace) -> str:
    from bitwright.core.errors import InvalidInput
    from bitwright.core.plan import load_plan
    from bitwright.plot import heatmap_svg

    if args.file.suffix.lower() == ".npz":
        return _frontier_svg(args)
    if args.plan is not None or args.ties:
        raise InvalidInput("--plan and --ties belong to the picture of a frontier", expected="a .npz file first")
    return heatmap_svg(load_plan(args.file))


def _frontier_svg(args: Namespace) -> str:
    from bitwright import face
    from bitwright.core.plan import load_plan
    from bitwright.core.table import SensitivityTable
    from solvers.frontier import frontier
    from solvers.picture import frontier_picture

    source = face.load_source(args.file)
    plan = None if args.plan is None else _mark(load_plan(args.plan))
    if not isinstance(source, SensitivityTable):
        return frontier_picture(frontier(source), args.file.name, plan=plan)
    found = frontier(source.problem(None, tie_kinds=args.ties), "bytes")
    inventory = source.inventory
    return frontier_picture(found, inventory.ref, weights=inventory.weights, loss_unit=source.loss_unit, plan=plan)


def _mark(plan: Plan) -> Mark:
    from bitwright.plot.frontier import Mark

    name = f"plan of {plan.budget}" if plan.budget else "plan"
    return Mark(name, plan.totals.bytes, plan.totals.predicted_loss)
