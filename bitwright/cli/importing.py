"""`bitwright import`: another tool's mixed checkpoint as a plan."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from bitwright.cli.output import emit, note
from bitwright.cli.parser import add_model, add_out, add_progress, add_server, command, names

KINDS = "gguf, tensor-types, compressed-tensors, gptq, auto-round, modelopt"


def add(commands: Any) -> None:
    parser = command(
        commands, "import", run_import,
        summary="another tool's mix as a plan: to verify, to diff, to improve",
        about="Reads which unit of MODEL another tool stored in which format, predicts what that costs, and says\n"
        "how much the same formats would lose if they were dealt otherwise in the same bytes.\n\n"
        f"kinds: {KINDS} (found out by themselves)",
        examples="  bitwright import ./model --from model-Q4_K_M.gguf --out theirs.json\n"
        "  bitwright import ./model --from ./model-gptq-dynamic --metric fisher --out theirs.json\n"
        "  bitwright import ./model --from model-Q4_K_M.gguf --out theirs.json --better ours.json\n"
        "  bitwright diff theirs.json ours.json\n"
        "  bitwright import file:m/llama --from file:m/llama-Q4_K_M.gguf --server http://plans:8321 --out theirs.json",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        required=True,
        help="the other tool's file or folder; with --server file:ROOT/path",
    )
    parser.add_argument("--kind", metavar="NAME", help="what it is, where it cannot be found out")
    parser.add_argument("--metric", metavar="NAME", default="weight-mse", help="how losses are predicted")
    parser.add_argument("--formats", metavar="A,B,...", type=names, default=(), help="more formats to compare with")
    parser.add_argument("--engine", metavar="NAME", help="what a better plan must load in (default: whose file it is)")
    add_out(parser, "the plan (JSON)")
    parser.add_argument(
        "--better", metavar="FILE", type=Path, help="write the best plan of the same formats and bytes here"
    )
    add_server(parser, job=True)
    add_progress(parser)


def run_import(args: Namespace) -> int:
    from bitwright.cli.running import job
    from bitwright.cli.views import plan_text
    from bitwright.core.plan import Plan, plan_from_json

    def local(progress: Any) -> tuple[Plan, Plan | None]:
        from bitwright import face

        found = face.import_plans(
            args.model, args.source, kind=args.kind, metric=args.metric, formats=args.formats, engine=args.engine,
            progress=progress,
        )  # fmt: skip
        return found.plan, found.better

    def remote(result: Any, _: Any) -> tuple[Plan, Plan | None]:
        return plan_from_json(result["plan"]), result["better"] and plan_from_json(result["better"])

    asked = {"tool": args.kind, "formats": list(args.formats) or None, "engine": args.engine}
    request = {
        "model": args.model, "source": args.source, "metric": args.metric,
        **{name: value for name, value in asked.items() if value is not None},
    }  # fmt: skip
    plan, better = job(args, "import", request, local=local, remote=remote)
    if args.out is not None:
        plan.save(args.out)
        note(f"written: {args.out}")
    if args.better is not None and better is not None:
        better.save(args.better)
        note(f"written: {args.better}")
    elif args.better is not None:
        note("nothing better was found in these bytes")
    emit(args, plan.to_json(), plan_text(plan, None))
    return 0
