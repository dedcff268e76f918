"""Commands about plans: plan, execute, evaluate, export, diff."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from bitwright.cli.models import SCORING, add_scoring, members
from bitwright.cli.output import emit, note
from bitwright.cli.parser import add_model, add_out, add_progress, add_run, add_server, command

CONTAINERS = "packed, compressed-tensors, compressed-tensors-0.17, gptq, mlx, gguf"
TARGETS = (
    "llama.cpp, gptqmodel, compressed-tensors, autoround, torchao, mlx, exllamav3,\n         llm-compressor, modelopt"
)


def add(commands: Any) -> None:
    _add_plan(commands)
    _add_execute(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_diff(commands)


def _add_plan(commands: Any) -> None:
    plan = command(
        commands, "plan", run_plan,
        summary="choose a format for every unit within a budget: certified, and measured on held-out data",
        about="Inspect, score, solve, and confirm the plan by its measured KL on held-out calibration\n"
        "data, beside the best uniform plan of no fewer bytes. If a feasible uniform plan measures better,\n"
        "it is taken, and said so.\n\n"
        "budgets: 3.5bpw bounds the stored bits of the planned units (codes, scales, zero points, padding)\n"
        "over their weights, the unquantized rest left out; 4.2GiB or 120MB bound the whole file;\n"
        "'24GiB device, 8192 context, batch 4' bounds a device: file, KV cache, activations and the\n"
        "engine's own needs, with the formats of weights and cache chosen together (needs --engine).",
        examples="  bitwright plan ./model --budget 3.5bpw --out plan.json\n"
        "  bitwright plan ./model --budget 3.5bpw --recipe auto-gptq      slower, and a fraction of the loss\n"
        "  bitwright plan ./model --budget 4.2GiB --formats int2-g64,int4-g64,int8-g64 --calibration t.txt\n"
        "  bitwright plan hf:org/name --budget 120MB --to packed --checkpoint ./out --json > plan.json\n"
        "  bitwright plan file:models/llama --budget 3.5bpw --server http://localhost:8321",
    )  # fmt: skip
    add_model(plan)
    plan.add_argument("--budget", metavar="SIZE", required=True, help="3.5bpw, 4.2GiB, 120MB, or a device (see above)")
    add_scoring(plan)
    plan.add_argument("--solver", metavar="NAME", help="default: the recipe's (auto); see `bitwright solvers`")
    plan.add_argument("--time-limit", metavar="S", type=float, help="seconds for the solver (default 10)")
    plan.add_argument("--confirm-tokens", metavar="N", type=int, help="tokens to measure on (default 16384)")
    plan.add_argument("--no-confirm", dest="confirm", action="store_const", const=False, help="do not measure the plan")
    plan.add_argument(
        "--spike-bits", metavar="BITS", type=float,
        help="layers whose inputs hold activation spikes keep at least so many stored bits",
    )  # fmt: skip
    plan.add_argument("--to", metavar="CONTAINER", help=f"also write a checkpoint: {CONTAINERS}")
    plan.add_argument("--checkpoint", metavar="DIR", type=Path, help="folder of the checkpoint (with --to, local)")
    add_out(plan, "the plan (JSON)")
    plan.add_argument(
        "--problem-out", metavar="FILE", type=Path,
        help="write the problem that the plan answers, for `bitwright verify --problem` (.npz or .json, local)",
    )  # fmt: skip
    add_run(plan)
    add_progress(plan)
    add_server(plan, job=True)


#: Help of --calibration where a plan is carried out or measured.
OF_PLAN = "for plans of gptq or clip: the text that the plan was made with (default: bundled)"


def _add_execute(commands: Any) -> None:
    execute = command(
        commands, "execute", run_execute,
        summary="write the packed checkpoint of a plan, read it back and compare it with the plan",
        about="Quantize and pack a model as its plan says. The folder appears under its name only when it is\n"
        "whole and its widths and bytes are those of the plan.",
        examples="  bitwright execute ./model --plan plan.json --to packed ./out\n"
        "  bitwright execute ./model --plan plan.json --to compressed-tensors ./out",
    )  # fmt: skip
    add_model(execute)
    execute.add_argument(
        "out", metavar="DIR", type=Path, nargs="?", help="folder to write (with --server: leave it out)"
    )
    execute.late = "out"
    execute.add_argument("--plan", metavar="PLAN", type=Path, required=True, help="the plan file")
    execute.add_argument("--to", metavar="CONTAINER", default="packed", help=f"{CONTAINERS} (default packed)")
    execute.add_argument("--calibration", metavar="FILE", help=OF_PLAN)
    add_progress(execute)
    add_server(execute, job=True)


def _add_evaluate(commands: Any) -> None:
    evaluate = command(
        commands, "evaluate", run_evaluate,
        summary="measure a plan or a checkpoint against the original model, with error bars",
        about="KL to the original, and by task: perplexity and top-1 agreement (causal LM), accuracy\n"
        "(classifier), cosine and rank correlation of similarities (embedding model).",
        examples="  bitwright evaluate ./model --plan plan.json --text held_out.txt\n"
        "  bitwright evaluate ./model --checkpoint ./out --tokens 65536 --json\n"
        "  bitwright evaluate ./moe --plan plan.json --prune-experts\n"
        "  bitwright evaluate ./model --text held_out.txt            # the original model itself",
    )  # fmt: skip
    add_model(evaluate)
    what = evaluate.add_mutually_exclusive_group()
    what.add_argument("--plan", metavar="PLAN", type=Path, help="measure this plan")
    what.add_argument(
        "--checkpoint", metavar="DIR", help="measure this checkpoint (on a server: the name that a job gave)"
    )
    evaluate.add_argument("--text", metavar="FILE", help="evaluation text or data (default: bundled)")
    evaluate.add_argument("--tokens", metavar="N", type=int, help="tokens to measure on (default 16384)")
    evaluate.add_argument("--calibration", metavar="FILE", help=OF_PLAN)
    evaluate.add_argument(
        "--prune-experts",
        action="store_true",
        help="run with second experts dropped online (MC-MoE), and say at what cost",
    )
    evaluate.add_argument(
        "--protect",
        metavar="SHARE",
        type=float,
        help="share of tokens that keep both experts (default: the recipe's, 0.02)",
    )
    evaluate.add_argument(
        "--importance",
        choices=("received", "compat"),
        help="what ranks tokens to protect (default: received attention)",
    )
    add_run(evaluate)
    add_progress(evaluate)
    add_server(evaluate, job=True)


def _add_export(commands: Any) -> None:
    export = command(
        commands, "export", run_export,
        summary="write a plan in another tool's own syntax",
        about=f"Patterns are exact and anchored; what the target cannot say is refused.\n\ntargets: {TARGETS}",
        examples="  bitwright export plan.json --to llama.cpp > overrides.txt\n"
        "  bitwright export plan.json --to llama.cpp --nearest > overrides.txt\n"
        "  bitwright export plan.json --to compressed-tensors --out quantization_config.json",
    )  # fmt: skip
    export.add_argument("plan", metavar="PLAN", type=Path, help="the plan file")
    export.add_argument("--to", metavar="TARGET", required=True, help="the tool that will read it")
    export.add_argument(
        "--nearest",
        action="store_true",
        help="take the nearest type where the target holds none exactly (llama.cpp, exllamav3); each is told on stderr",
    )
    add_out(export, "the export")
    add_server(export)


def _add_diff(commands: Any) -> None:
    diff = command(
        commands,
        "diff",
        run_diff,
        summary="what changed between two plans, unit by unit, and what it costs",
        examples="  bitwright diff old.json new.json\n  bitwright diff old.json new.json --json",
    )
    diff.add_argument("before", metavar="A.json", type=Path)
    diff.add_argument("after", metavar="B.json", type=Path)


def run_plan(args: Namespace) -> int:
    from bitwright.cli.running import job
    from bitwright.cli.views import plan_text
    from bitwright.core.errors import Unsupported

    if args.server and args.problem_out is not None:
        raise Unsupported("a server sends plans, not their problems", hint="leave out --server or --problem-out")
    options = members(args, (*SCORING, "solver", "time_limit", "confirm", "confirm_tokens", "to", "spike_bits"))

    def local(progress: Any) -> tuple[Any, Any]:
        from bitwright import face

        kept = {"checkpoint_out": args.checkpoint, "problem_out": args.problem_out}
        found = face.plan(args.model, args.budget, progress=progress, **kept, **options)
        return found.plan, found.checkpoint

    request = {"model": args.model, "budget": args.budget, **options}
    plan, checkpoint = job(args, "plan", request, local=local, remote=_plan_result)
    if args.out is not None:
        plan.save(args.out)
        note(f"written: {args.out}")
    document = plan.to_json() if checkpoint is None else {**plan.to_json(), "checkpoint": checkpoint}
    emit(args, document, plan_text(plan, checkpoint))
    return 0


def _plan_result(result: Any, _: Any) -> tuple[Any, Any]:
    from bitwright.core.errors import from_problem
    from bitwright.core.plan import plan_from_json

    if not result["feasible"]:
        raise from_problem(result["infeasible"])
    return plan_from_json(result["plan"]), result.get("checkpoint")


def run_execute(args: Namespace) -> int:
    from bitwright.cli.running import job
    from bitwright.cli.views import checkpoint_text
    from bitwright.core.errors import InvalidInput
    from bitwright.core.plan import load_plan

    plan = load_plan(args.plan)
    if args.out is None and not args.server:
        raise InvalidInput(
            "say where the checkpoint goes", expected="a folder after the options", hint="bitwright execute --help"
        )

    options = members(args, ("calibration",))

    def local(progress: Any) -> Any:
        from bitwright import face

        return face.execute(args.model, plan, to=args.to, out=args.out, progress=progress, **options)

    request = {"model": args.model, "plan": plan.to_json(), "to": args.to, **options}
    checkpoint = job(args, "execute", request, local=local, remote=lambda result, _: result["checkpoint"])
    emit(args, checkpoint, checkpoint_text(checkpoint))
    return 0


def run_evaluate(args: Namespace) -> int:
    from bitwright.cli.running import job
    from bitwright.cli.views import quality_text
    from bitwright.core.errors import InvalidInput
    from bitwright.core.plan import load_plan

    options = members(args, ("checkpoint", "text", "tokens", "calibration", "seed", "threads"))
    plan = load_plan(args.plan) if args.plan is not None else None
    pruning = members(args, ("protect", "importance"))
    if pruning and not args.prune_experts:
        raise InvalidInput(
            "these options say how experts are pruned", got=", ".join(pruning), hint="add --prune-experts"
        )
    if args.prune_experts:
        options["prune_experts"] = pruning

    def local(progress: Any) -> Any:
        from bitwright import face

        return face.evaluate(args.model, plan=plan, progress=progress, **options)

    request = {"model": args.model, **options, **({"plan": plan.to_json()} if plan is not None else {})}
    result = job(args, "evaluate", request, local=local, remote=lambda result, _: result)
    emit(args, result, quality_text(result))
    return 0


def run_export(args: Namespace) -> int:
    from bitwright.cli.output import save_text
    from bitwright.core.plan import load_plan

    plan, options = load_plan(args.plan), _nearest(args)
    if args.server:
        from bitwright.cli.running import client

        with client(args) as remote:
            text = remote.export(plan, args.to)
    else:
        from bitwright import face

        text = face.export(plan, args.to, **options)
    if args.out is not None:
        save_text(args.out, text)
    if args.out is None or args.json:
        emit(args, {"target": args.to, "text": text}, text.rstrip("\n"))
    return 0


def _nearest(args: Namespace) -> dict[str, bool]:
    """The option of targets that can take a nearest type. Raises Unsupported for others, and for a server."""
    from bitwright.core.errors import Unsupported
    from bitwright.engines import EXPORTERS

    if not args.nearest:
        return {}
    if args.server:
        raise Unsupported("a server exports exactly or not at all", hint="leave out --server: an export needs no model")
    if not EXPORTERS.get(args.to).traits.get("nearest"):
        able = ", ".join(entry.name for entry in EXPORTERS if entry.traits.get("nearest"))
        raise Unsupported(f"{args.to} takes exact formats only", expected=f"--nearest with {able}", got=args.to)
    return {"nearest": True}


def run_diff(args: Namespace) -> int:
    from bitwright.cli.views import diff_text
    from bitwright.core.diff import diff_plans
    from bitwright.core.plan import load_plan

    found = diff_plans(load_plan(args.before), load_plan(args.after))
    emit(args, found.to_json(), diff_text(found))
    return 0
