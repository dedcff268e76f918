"""The command line. Exit codes: 0 ok, 1 failed, 2 invalid input, 3 infeasible, 75 temporary, 130 cancelled.

Results go to stdout (a table, or exactly one JSON document with --json); errors, logs and the progress bar go to
stderr. With --json an error is also one JSON document on stdout: an RFC 9457 problem (docs/cli.md).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bitwright.core.errors import BitwrightError, Cancelled


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. `--help` and `--version` raise SystemExit(0), as argparse does."""
    from bitwright.cli.output import report_error, report_unexpected
    from bitwright.cli.parser import build_parser
    from bitwright.cli.shadow import check_packages

    words = list(sys.argv[1:] if argv is None else argv)
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
    except KeyboardInterrupt:
        if "--debug" in words:
            raise
        stopped = Cancelled(
            "stopped by the keyboard", hint="run the same command again: finished steps are not done twice"
        )
        return report_error(stopped, as_json=as_json)
    except BrokenPipeError:
        # The reader (head, less) went away: nobody is left to tell. Python would complain once more when it flushes
        # stdout at exit, so stdout is pointed at nothing first (as the documentation of `signal` advises).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if "--debug" in words:
            raise
        return report_unexpected(error, as_json=as_json)
