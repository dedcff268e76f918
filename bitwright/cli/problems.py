"""Commands about pure allocation problems: solve, verify, frontier. They load neither pydantic nor torch."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.cli import render
from bitwright.cli.output import emit, note, save_text
from bitwright.cli.parser import add_out, add_server, command

if TYPE_CHECKING:
    from bitwright.core.certificate import Verdict
    from bitwright.core.problem import Problem
    from bitwright.core.solution import Solution

#: Points of a frontier shown on the screen; --json and --out give up to --points.
SCREEN_POINTS = 24
PICTURES = (".svg", ".png")


def add(commands: Any) -> None:
    solve = command(
        commands, "solve", run_solve,
        summary="solve an allocation problem file, with a certificate",
        about="The problem file is .npz or JSON (docs/problem.md): losses, costs, limits, ties, rules, pair\n"
        "terms. The answer carries multipliers that prove how good it is; `bitwright verify` recomputes\n"
        "them with none of the solver's code.",
        examples="  bitwright solve problem.npz\n"
        "  bitwright solve problem.npz --time-limit 30 --out solution.json\n"
        "  bitwright solve problem.json --solver milp --json\n"
        "  bitwright solve problem.npz --limit bytes=35000000      # another value of a limit",
    )  # fmt: skip
    solve.add_argument("problem", metavar="PROBLEM", type=Path, help=".npz or .json problem file")
    solve.add_argument("--solver", metavar="NAME", default="auto", help="see `bitwright solvers` (default auto)")
    solve.add_argument("--time-limit", metavar="S", type=float, default=10.0, help="seconds (default 10)")
    add_limit(solve)
    solve.add_argument("--seed", metavar="N", type=int, default=0, help="seed of solvers that draw (default 0)")
    add_out(solve, "the solution (JSON)")
    add_server(solve)
    verify = command(
        commands, "verify", run_verify,
        summary="recompute a plan or a solution from scratch: cost, loss, feasibility, bound, gap",
        about="Uses none of the solver's code. Exit code 0 when everything holds, 1 when something does not.",
        examples="  bitwright verify solution.json --problem problem.npz\n"
        "  bitwright verify solution.json --problem problem.npz --limit bytes=35000000\n"
        "  bitwright verify plan.json\n"
        "  bitwright verify plan.json --problem table.npz      # the bound too, and that of weights and KV cache",
    )  # fmt: skip
    verify.add_argument("subject", metavar="PLAN_OR_SOLUTION", type=Path, help="a plan or solution file (JSON)")
    verify.add_argument(
        "--problem",
        metavar="PROBLEM",
        type=Path,
        help="the problem it answers (needed for a solution); for a plan also its sensitivity table",
    )
    add_limit(verify)
    add_server(verify)
    frontier = command(
        commands, "frontier", run_frontier,
        summary="every budget at once: the best loss for each value of one limit",
        examples="  bitwright frontier table.npz\n"
        "  bitwright frontier problem.npz --limit bits --json\n"
        "  bitwright frontier table.npz --out frontier.csv\n"
        "  bitwright frontier table.npz --out frontier.svg         # a picture (local)",
    )  # fmt: skip
    frontier.add_argument("source", metavar="TABLE_OR_PROBLEM", type=Path, help="a sensitivity table or a problem file")
    frontier.add_argument("--limit", metavar="NAME", help="the limit to vary (needed when there are several)")
    frontier.add_argument(
        "--points", metavar="N", type=int, default=1000, help="at most about this many points (default 1000)"
    )
    add_out(frontier, "the points (.json, .csv) or a picture (.svg, .png)")
    add_server(frontier)


def add_limit(parser: Any) -> None:
    parser.add_argument(
        "--limit", metavar="NAME=VALUE", action="append", default=[],
        help="change or add a limit of the problem (repeatable)",
    )  # fmt: skip


def run_solve(args: Namespace) -> int:
    from bitwright.core.problem_file import load_problem

    problem = with_limits(load_problem(args.problem), args.limit)
    if args.server:
        from bitwright.cli.running import client

        with client(args) as remote:
            solution = remote.solve(problem, solver=args.solver, time_limit=args.time_limit, seed=args.seed)
    else:
        from bitwright import face

        solution = face.solve(problem, solver=args.solver, time_limit=args.time_limit, seed=args.seed)
    if args.out is not None:
        solution.save(args.out)
        note(f"written: {args.out}")
    require_feasible(solution)
    emit(args, solution.to_json() if args.json else None, solution_text(problem, solution))
    return 0


def require_feasible(solution: Solution) -> None:
    """Raises Infeasible whose problem document also holds the solution: its certificate can be verified."""
    from bitwright.core.errors import Infeasible

    try:
        solution.require()
    except Infeasible as error:
        error.extra.update(solution.to_json())
        raise


def with_limits(problem: Problem, changes: list[str]) -> Problem:
    """The problem with `name=value` limits applied. Raises InvalidInput for a text that is none."""
    from bitwright.core.errors import InvalidInput

    for text in changes:
        name, _, value = text.partition("=")
        try:
            problem = problem.with_limit(name, int(value) if value.lstrip("+-").isdigit() else float(value))
        except ValueError as error:
            raise InvalidInput(
                "a limit cannot be read", expected="NAME=NUMBER, such as bytes=35000000", got=repr(text)[:80]
            ) from error
    return problem


def solution_text(problem: Problem, solution: Solution) -> str:
    """Units by format, cost against limits, loss, certificate."""
    import numpy as np

    from bitwright.core.blocks import row_blocks

    certificate = solution.certificate
    parts = [np.bincount(solution.choice[rows], minlength=problem.k) for rows in row_blocks(problem.n)]
    counts = np.sum(parts, axis=0)
    formats = problem.format_names or tuple(f"format {j}" for j in range(problem.k))
    rows = [[name, int(count)] for name, count in zip(formats, counts, strict=True) if count]
    limits = [
        (f"limit {name}", f"{render.cell(certificate.cost.get(name))} of {render.cell(limit)}")
        for name, limit in certificate.limits.items()
    ]
    facts = render.facts([
        ("units", f"{problem.n} in {problem.groups} groups, {problem.k} formats"),
        ("solver", solution.solver),
        ("loss", repr(solution.loss)),
        *limits,
        ("certificate", render.certificate(certificate.to_json())),
    ])  # fmt: skip
    return f"{render.table(['format', 'units'], rows)}\n\n{facts}"


def run_verify(args: Namespace) -> int:
    from bitwright.core.errors import VerificationFailed

    problem = _limited_problem(args)
    verdict = _remote_verify(args, problem) if args.server else _local_verify(args, problem)
    if verdict.ok:
        emit(args, verdict.to_json(), verdict_text(verdict))
        return 0
    raise VerificationFailed(
        f"{args.subject.name} is not what it claims to be",
        got="; ".join(verdict.failures)[:800],
        hint="solve or plan again, or find out who changed the file",
        **verdict.to_json(),
    )


def _limited_problem(args: Namespace) -> Problem | None:
    from bitwright import face
    from bitwright.core.errors import InvalidInput

    if args.problem is not None:
        return with_limits(face.answered_problem(args.subject, args.problem), args.limit)
    if args.limit:
        raise InvalidInput("--limit changes the problem that --problem names", hint="add --problem PROBLEM.npz")
    return None


def _local_verify(args: Namespace, problem: Problem | None) -> Verdict:
    from bitwright import face

    return face.verify(args.subject, problem)


def _remote_verify(args: Namespace, problem: Problem | None) -> Verdict:
    from bitwright.cli.running import client

    with client(args) as remote:
        verdict: Verdict = remote.verify(args.subject, problem)
        return verdict


def verdict_text(verdict: Verdict) -> str:
    notes = "\n".join(f"  {text}" for text in verdict.notes)
    return f"verified: {render.certificate(verdict.certificate.to_json())}" + (f"\n{notes}" if notes else "")


def run_frontier(args: Namespace) -> int:
    if args.points < 2:
        from bitwright.core.errors import InvalidInput

        raise InvalidInput("a frontier needs its two ends", expected="--points of 2 or more", got=str(args.points))
    document = _remote_frontier(args) if args.server else _local_frontier(args)
    if args.out is not None and args.out.suffix not in PICTURES:
        _save_points(args.out, document)
    emit(args, document, frontier_text(document))
    return 0


def _local_frontier(args: Namespace) -> dict[str, Any]:
    from bitwright import face

    found = face.frontier(args.source, limit=args.limit)
    if args.out is not None and args.out.suffix in PICTURES:
        from solvers.picture import draw_frontier

        draw_frontier(found, args.out)
        note(f"written: {args.out}")
    return found.to_json(args.points)


def _remote_frontier(args: Namespace) -> dict[str, Any]:
    from bitwright.cli.running import client
    from bitwright.core.errors import Unsupported

    if args.out is not None and args.out.suffix in PICTURES:
        raise Unsupported("a server sends points, not pictures", hint="write .json or .csv, or leave out --server")
    with client(args) as remote:
        document: dict[str, Any] = remote.frontier(args.source, limit=args.limit, points=args.points)
        return document


def _save_points(path: Path, document: dict[str, Any]) -> None:
    from bitwright.cli.output import save_document

    if path.suffix != ".csv":
        save_document(path, document)
        return
    knee = (document.get("knee") or {}).get("cost")
    kinds = ["knee" if p["cost"] == knee else "frontier" for p in document["points"]]
    rows = [
        f"{p['cost']!r},{p['loss']!r},{p['gain_per_unit']!r},{kind}"
        for p, kind in zip(document["points"], kinds, strict=True)
    ]
    rows += [f"{u['cost']!r},{u['loss']!r},,uniform:{u['name']}" for u in document["uniform"]]
    save_text(path, "\n".join(["cost,loss,gain_per_unit,kind", *rows]) + "\n")


def frontier_text(document: dict[str, Any]) -> str:
    points = document["points"]
    step = max(1, -(-len(points) // SCREEN_POINTS))
    kept = sorted({*range(0, len(points), step), len(points) - 1}) if points else []
    rows = [[points[i]["cost"], points[i]["loss"], points[i]["gain_per_unit"]] for i in kept]
    uniform = [[u["name"], u["cost"], u["loss"]] for u in document["uniform"]]
    knee = document.get("knee")
    facts = render.facts([
        ("limit", document["limit"]),
        ("breakpoints", f"{document['breakpoints']:,} ({len(kept)} shown)"),
        ("knee", f"cost {render.cell(knee['cost'])}, loss {render.number(knee['loss'])}" if knee else None),
    ])  # fmt: skip
    parts = [render.table([document["limit"], "loss", "loss saved per unit"], rows)]
    if uniform:
        parts.append(render.table(["uniform", document["limit"], "loss"], uniform))
    return "\n\n".join([*parts, facts])
