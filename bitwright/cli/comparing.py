"""compare-recipes: several recipes on one model at one budget, ranked by what was measured."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from bitwright.cli import render
from bitwright.cli.models import members
from bitwright.cli.output import emit, note
from bitwright.cli.parser import add_model, add_progress, add_run, command, names

#: What every recipe is given alike.
SHARED = ("calibration", "calibration_tokens", "confirm_tokens", "samples", "seed", "threads")


def add(commands: Any) -> None:
    compare = command(
        commands, "compare-recipes", run_compare,
        summary="plan one model with several recipes and rank them by measured loss at equal true bytes",
        about="Every recipe plans within the same budget, scales and all counted, and is measured on the same\n"
        "held-out data; `auto` is always among them. A recipe that cannot plan this model at this budget is\n"
        "listed with the reason.",
        examples="  bitwright compare-recipes ./model --budget 3bpw\n"
        "  bitwright compare-recipes ./moe --budget 2.6bpw --recipes auto,mc-moe,quantmoe-frequent --json",
    )  # fmt: skip
    add_model(compare)
    compare.add_argument("--budget", metavar="SIZE", required=True, help="as for `bitwright plan`")
    compare.add_argument(
        "--recipes", metavar="A,B,...", type=names, help="names or TOML files (default: every shipped recipe)"
    )
    compare.add_argument("--calibration", metavar="FILE", help="text or data to score on (default: bundled)")
    compare.add_argument("--calibration-tokens", metavar="N", type=int, help="tokens to score on (default 16384)")
    compare.add_argument("--confirm-tokens", metavar="N", type=int, help="tokens to measure on (default 16384)")
    compare.add_argument("--samples", metavar="N", type=int, help="label samples a sequence (fisher)")
    add_run(compare)
    add_progress(compare)


def run_compare(args: Namespace) -> int:
    from bitwright.recipes import shipped_recipes

    options = members(args, SHARED)
    # The default stands beside every method, so that one sees what a method is worth.
    recipes = dict.fromkeys([*(args.recipes or shipped_recipes()), "auto"])
    rows = [_planned(args, recipe, options) for recipe in recipes]
    rows.sort(key=lambda row: (row["kl"] is None, row["kl"]))
    emit(args, {"model": args.model, "budget": args.budget, "recipes": rows}, _text(rows))
    return 0


def _planned(args: Namespace, recipe: str, options: dict[str, Any]) -> dict[str, Any]:
    """A row of the comparison; an error that a person can act on is a reason, not the end."""
    from bitwright import face
    from bitwright.cli.progress import progress_bar
    from bitwright.core.errors import Infeasible, InvalidInput

    note(f"recipe {recipe}")
    empty = dict.fromkeys(("kl", "stderr", "unit", "bits_per_weight", "code_bits", "bytes", "plan", "reason"))
    try:
        with progress_bar(args) as progress:
            plan = face.plan(args.model, args.budget, recipe=recipe, progress=progress, **options).plan
    except (InvalidInput, Infeasible) as error:
        reason = error.detail if error.hint is None else f"{error.detail}; {error.hint}"
        return {"recipe": recipe, **empty, "reason": reason}
    measured = plan.measured
    return {
        "recipe": recipe, **empty,
        "kl": None if measured is None else measured.kl, "stderr": None if measured is None else measured.stderr,
        "unit": None if measured is None else measured.unit, "bits_per_weight": plan.totals.bits_per_weight,
        "code_bits": plan.code_bits, "bytes": plan.totals.bytes, "plan": plan.digest,
        "reason": None if measured is not None else "the task of this model is unknown, so nothing was measured",
    }  # fmt: skip


def _text(rows: list[dict[str, Any]]) -> str:
    done = [row for row in rows if row["kl"] is not None]
    cells = [
        [r["recipe"], r["kl"], None if r["stderr"] is None else 1.96 * r["stderr"], r["bits_per_weight"],
         r["code_bits"], r["bytes"]]
        for r in done
    ]  # fmt: skip
    parts = ["no recipe could be measured"]
    if done:
        head = ["recipe", f"measured, {done[0]['unit']}", "±", "stored bits", "code bits", "bytes"]
        parts = [render.table(head, cells)]
    parts += [f"{row['recipe']}: {row['reason']}" for row in rows if row["reason"]]
    return "\n".join(parts)
