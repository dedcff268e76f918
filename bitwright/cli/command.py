"""One command, from its words to its exit code; every error becomes a line for people or a problem document."""

from __future__ import annotations

import os
import sys

from bitwright.cli.output import report_error, report_unexpected
from bitwright.cli.parser import build_parser
from bitwright.cli.shadow import check_packages
from bitwright.core.errors import BitwrightError


def run(words: list[str]) -> int:
    """The exit code. Raises KeyboardInterrupt, and SystemExit for --help and --version."""
    as_json = "--json" in words
    try:
        check_packages()
        args = build_parser().parse_args(words)
        code: int = args.handler(args)
        sys.stdout.flush()
        return code
    except BitwrightError as error:
        if "--debug" in words:
            raise
        return report_error(error, as_json=as_json)
    except BrokenPipeError:
        # The reader (head, less) went away: nobody is left to tell. Python would complain once more when it flushes
        # stdout at exit, so stdout is pointed at nothing first (as the documentation of `signal` advises).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if _interrupted(error):
            raise KeyboardInterrupt from error
        if "--debug" in words:
            raise
        return report_unexpected(error, as_json=as_json)


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: numpy turns one during its import into an ImportError of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
