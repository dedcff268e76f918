"""The command line. Exit codes: 0 ok, 1 failed, 2 invalid input, 3 infeasible, 75 temporary, 130 cancelled.

Results go to stdout (a table, or exactly one JSON document with --json); errors, logs and the progress bar go to
stderr. With --json an error is also one JSON document on stdout: an RFC 9457 problem (docs/cli.md).
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. `--help` and `--version` raise SystemExit(0), as argparse does.

    Nothing is imported outside the `try`: Ctrl-C during the imports is answered like any other.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        from bitwright.cli.command import run

        return run(words)
    except KeyboardInterrupt:
        if "--debug" in words:
            raise
        return _stopped(words)


def _stopped(words: list[str]) -> int:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the answer to the first
    from bitwright.cli.output import report_error
    from bitwright.core.errors import Cancelled

    stopped = Cancelled("stopped by the keyboard", hint="run the same command again: finished work is not done twice")
    return report_error(stopped, as_json="--json" in words)
