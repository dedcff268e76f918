"""Strict JSON.

Every way in which a body can be wrong gets a typed answer, before validation begins. Standard library only.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from bitwright.core.errors import InvalidInput
from bitwright.core.problem_check import INT64_MAX

#: Nesting of arrays and objects beyond which a body is refused (research/06 C3); the deepest request needs 8.
MAX_DEPTH = 32
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
#: Escapes of NUL and of surrogates; exponents that may overflow to infinity.
_ESCAPE, _EXPONENT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])"), re.compile(rb"[eE]\+?[0-9]{3}")
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_json_body(data: bytes) -> Any:
    """JSON in UTF-8 without NaN, deep nesting, NUL, lone surrogates or integers beyond int64."""
    if not data.strip():
        raise InvalidInput("the request has no body", expected="a JSON object")
    check_depth(data)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "the body is not UTF-8", got=f"byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"the body is not JSON: {error.msg}", got=f"line {error.lineno}, column {error.colno}"
        ) from error
    except ValueError as error:  # Python's own guard against numbers of thousands of digits
        raise InvalidInput(
            "the JSON holds a number of too many digits", expected="integers of 64 bits, floats of 64 bits"
        ) from error
    if _suspect(data):
        _walk(value, "")
    return value


def _suspect(data: bytes) -> bool:
    """Whether the body may hold what only a walk from value to value can judge: escapes of NUL and surrogates, integers
    beyond int64 (19 digits), exponents that may overflow. (One expression for all of it took longer than the JSON.)"""
    return (
        b"\0" in data
        or b"0" * 19 in data.translate(_DIGITS)
        or _EXPONENT.search(data) is not None
        or (b"\\u" in data and _ESCAPE.search(data) is not None)
    )


def check_depth(data: bytes) -> None:
    """Raises InvalidInput when arrays and objects nest deeper than MAX_DEPTH."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = deepest = 0
    for byte in _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise InvalidInput(
            "the JSON is nested too deeply", expected=f"at most {MAX_DEPTH} levels", got=f"{deepest} levels"
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 section 4: what a name that stands twice means is anyone's guess, so it is refused."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput("a JSON object names a member twice", got=ascii(twice)[:80])
    return found


def _refuse_constant(token: str) -> Any:
    raise InvalidInput("JSON numbers must be finite", got=token)


def _walk(value: Any, pointer: str) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise InvalidInput(
                "a text holds NUL or half a surrogate pair", errors=[{"pointer": pointer, "message": "not valid text"}]
            )
    elif isinstance(value, bool):
        return
    elif isinstance(value, int) and abs(value) > INT64_MAX:
        raise InvalidInput("an integer does not fit 64 bits", errors=[{"pointer": pointer, "message": "beyond int64"}])
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput("a number does not fit a float64", errors=[{"pointer": pointer, "message": "overflows"}])
    elif isinstance(value, dict):
        for key, member in value.items():
            _walk(key, pointer)
            _walk(member, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _walk(member, f"{pointer}/{index}")
