"""Where words go: one result on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from bitwright.core.errors import BitwrightError, Internal, OutOfResources
from bitwright.core.exhaustion import ran_out


def emit(args: Namespace, document: Any, text: str) -> None:
    """Print the result: `document` as one JSON document with --json, else `text` for people."""
    if args.json:
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(text)


def note(text: str) -> None:
    """A line for people on stderr."""
    print(text, file=sys.stderr)


def save_document(path: Path | None, document: Any) -> None:
    """Write canonical JSON atomically; nothing when no path was asked for."""
    if path is None:
        return
    from bitwright.core.canonical import write_json

    write_json(path, document)
    note(f"written: {path}")


def save_text(path: Path, text: str) -> None:
    """Write a text atomically."""
    from bitwright.core.canonical import atomic_write

    with atomic_write(path) as file:
        file.write(text.encode())
    note(f"written: {path}")


def report_error(error: BitwrightError, *, as_json: bool) -> int:
    """The error as text on stderr and, with --json, as a problem document on stdout. Returns the exit code."""
    print(f"bitwright: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps(error.to_problem(), indent=2, ensure_ascii=False, default=str))
    return error.exit_code


def report_unexpected(error: Exception, *, as_json: bool) -> int:
    """Memory that ran out wherever it did; else a mistake of ours: one line, and how to see the whole trace."""
    words = " ".join(str(error).split())[:300]
    if ran_out(error):
        full = OutOfResources("memory ran out", got=words or "MemoryError", hint="give the process more memory")
        return report_error(full, as_json=as_json)
    wrapped = Internal(
        f"unexpected {type(error).__name__}: {words}" if words else f"unexpected {type(error).__name__}",
        hint="run the same command with --debug to see the trace, and report it",
    )
    return report_error(wrapped, as_json=as_json)
