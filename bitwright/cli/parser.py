"""The argument parser. Imports nothing heavy: `bitwright --help` must answer at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from bitwright import __version__
from bitwright.core.errors import InvalidInput

DESCRIPTION = """\
How many bits should every part of a neural network get, within a budget? bitwright answers with a plan, proves
how good the plan is, measures it on the real model, and writes the packed checkpoint."""

EPILOG = """\
examples:
  bitwright inspect ./model                                what the model consists of
  bitwright plan ./model --budget 3.5bpw --out plan.json   a certified, measured plan
  bitwright execute ./model --plan plan.json --to packed ./out
  bitwright solve problem.npz --json                       the allocation problem alone, no model
  bitwright serve                                          API, dashboard and worker on this machine

exit codes: 0 ok, 1 failed, 2 invalid input, 3 infeasible, 75 temporary, 130 cancelled
Results go to stdout; errors, logs and the progress bar go to stderr. `bitwright COMMAND --help` has examples."""

#: One command group a module; each has `add(commands)`.
GROUPS = (
    "models", "plans", "comparing", "report", "engines", "importing", "problems", "serving", "keys", "catalogs",
    "upkeep",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse with typed errors, whole option names only (scripts must not break when an option is added)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    #: Name of an optional positional that may also stand behind the options: argparse itself gives it up as soon as
    #: an option follows the positionals before it.
    late: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, extra = super().parse_known_args(args, namespace)
        if self.late and getattr(found, self.late) is None and len(extra) == 1 and not extra[0].startswith("-"):
            setattr(found, self.late, Path(extra.pop()))
        return found, extra

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(message, hint=f"{self.prog} --help")


def build_parser() -> Parser:
    """The parser of the whole command line; `args.handler(args)` runs the chosen command."""
    import importlib

    parser = Parser(prog="bitwright", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"bitwright {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=Parser
    )
    for group in GROUPS:
        importlib.import_module(f"bitwright.cli.{group}").add(commands)
    return parser


def command(commands: Any, name: str, handler: Any, *, summary: str, examples: str, about: str = "") -> Parser:
    """A command with the options that all commands share."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=about or summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples.rstrip()}",
    )
    parser.set_defaults(handler=handler)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout (also for errors)")
    parser.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return parser


def add_server(parser: Parser, *, job: bool = False) -> None:
    """job: the command becomes a job there, which a pipeline's repeat must not create twice."""
    parser.add_argument("--server", metavar="URL", help="run the same command on a bitwright server")
    if job:
        parser.add_argument(
            "--idempotency-key", metavar="KEY", help="with --server: the same key again gives the same job, for 24 h"
        )


def add_progress(parser: Parser) -> None:
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, default=None,
        help="progress bar on stderr (default: only on a terminal)",
    )  # fmt: skip


def add_out(parser: Parser, what: str) -> None:
    parser.add_argument("--out", metavar="FILE", type=Path, help=f"write {what} to FILE (whole or not at all)")


def add_model(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a directory, file:ROOT/path, or hf:org/name[@revision]")


def add_run(parser: Parser) -> None:
    """Options of everything that computes on a model."""
    parser.add_argument("--seed", metavar="N", type=int, help="seed of every random draw (default 0)")
    parser.add_argument("--threads", metavar="N", type=int, help="compute threads (default: all cores)")


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
