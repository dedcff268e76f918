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
    from bitwright.core.canonical import atomic_write
    from bitwright.core.errors import InvalidInput
    from bitwright.plot import to_png

    kind = args.out.suffix.lower()
    if kind not in (".svg", ".png"):
        raise InvalidInput("the picture's name says its kind", expected="FILE.svg or FILE.png", got=str(args.out))
    svg = _svg(args)
    body = svg.encode() if kind == ".svg" else to_png(svg)
    with atomic_write(args.out) as file:
        file.write(body)
    note(f"written: {args.out}")
    if args.json:
        emit(args, {"out": str(args.out), "bytes": len(body)}, "")
    return 0


def _svg(args: Namespace) -> str:
    from bitwright.core.errors import InvalidInput
    from bitwright.core.plan import load_plan
    from bitwright.plot import heatmap_svg

    if args.file.suffix.lower() != ".npz":
        if args.plan is not None or args.ties:
            raise InvalidInput("--plan and --ties belong to the picture of a frontier", expected="a .npz file first")
        return heatmap_svg(load_plan(args.file))
    return _frontier_svg(args)


def _frontier_svg(args: Namespace) -> str:
    from bitwright.core.plan import load_plan
    from bitwright.core.problem_file import load_problem, read_npz
    from bitwright.core.table import load_table
    from bitwright.plot import frontier_svg
    from bitwright.plot.frontier import Mark
    from solvers.frontier import frontier

    table = load_table(args.file) if "meta" in read_npz(args.file) else None
    problem = load_problem(args.file) if table is None else table.problem(None, tie_kinds=args.ties)
    found = frontier(problem, "bytes" if table is not None else None)
    keep = found.thin(600).tolist()
    plan = None if args.plan is None else load_plan(args.plan)
    return frontier_svg(
        args.file.name if table is None else table.inventory.ref,
        [(float(found.cost[i]), float(found.loss[i])) for i in keep],
        [Mark(mark.name, float(mark.cost), mark.loss) for mark in found.uniform],
        (float(found.cost[found.knee]), float(found.loss[found.knee])),
        weights=None if table is None else table.inventory.weights,
        loss_unit="predicted" if table is None else table.loss_unit,
        plan=None if plan is None else _mark(plan),
    )


def _mark(plan: Plan) -> Mark:
    from bitwright.plot.frontier import Mark

    name = f"plan of {plan.budget}" if plan.budget else "plan"
    return Mark(name, plan.totals.bytes, plan.totals.predicted_loss)
