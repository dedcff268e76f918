"""JSON of untrusted files: bounded, UTF-8, without doubled keys; only typed errors leave this module."""

from __future__ import annotations

import json
from typing import Any

from bitwright.core.errors import InvalidModel


class _DoubledKeyError(ValueError):
    """Raised inside the parser, turned into InvalidModel outside it."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _DoubledKeyError(twice)
    return found


def parse_object(data: bytes, *, what: str, containers: int) -> dict[str, Any]:
    """As `parse_value`, for files that must hold an object."""
    value = parse_value(data, what=what, containers=containers)
    if not isinstance(value, dict):
        raise InvalidModel(f"{what} is not a JSON object", expected="an object", got=type(value).__name__)
    return value


def parse_value(data: bytes, *, what: str, containers: int) -> Any:
    """The JSON value in `data`; `what` names the file in errors.

    containers: largest number of opening braces, and half that of brackets, so that a small file cannot grow into
    gigabytes of empty lists. Raises InvalidModel.
    """
    if data.count(b"{") > containers or data.count(b"[") > 2 * containers:
        raise InvalidModel(
            f"{what} holds too many values", expected=f"at most {containers} objects", got="more than that"
        )
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise InvalidModel(
            f"{what} is not UTF-8 text", expected="JSON in UTF-8", got=f"a bad byte at {error.start}"
        ) from error
    except _DoubledKeyError as error:
        raise InvalidModel(
            f"{what} names a key twice",
            expected="each key once",
            got=repr(error.args[0])[:80],
            hint="the file is damaged or hostile",
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidModel(
            f"{what} is not valid JSON", expected="a JSON object", got=f"{error.msg} at byte {error.pos}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidModel(
            f"{what} is not acceptable JSON", expected="plain values, nested a few levels", got=str(error)[:80]
        ) from error


def check_depth(value: Any, *, what: str, depth: int) -> None:
    """Raises InvalidModel when containers nest deeper than `depth`; walks without recursion."""
    todo: list[tuple[Any, int]] = [(value, 1)]
    while todo:
        item, level = todo.pop()
        if not isinstance(item, dict | list):
            continue
        if level > depth:
            raise InvalidModel(f"{what} nests too deeply", expected=f"at most {depth} levels", got="more than that")
        todo.extend((child, level + 1) for child in (item.values() if isinstance(item, dict) else item))
