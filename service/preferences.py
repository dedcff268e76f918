"""`Prefer` (RFC 7240), `Idempotency-Key` and entity tags: reading request headers."""

from __future__ import annotations

import re

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from bitwright.core.errors import InvalidInput

_FLAG = TypeAdapter(bool)
_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*", re.IGNORECASE)
#: Printable ASCII; the draft asks for a quoted string, the field sends both.
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def flag(request: Request, name: str) -> bool:
    """A query parameter that is true or false, false when it is left out; the last one counts. Raises InvalidInput."""
    text = request.query_params.get(name)
    if text is None:
        return False
    try:
        return _FLAG.validate_python(text)
    except ValidationError as error:
        message = error.errors(include_url=False, include_context=False)[0]["msg"]
        raise InvalidInput(
            f"query parameter '{name}': {message}", expected="true or false", got=repr(text)[:80],
            hint="the parameters of every route are in GET /openapi.json",
            errors=[{"parameter": name, "in": "query", "message": message}],
        ) from error  # fmt: skip


def preferred_wait(headers: list[str], longest: float) -> float | None:
    """Seconds that `Prefer: wait=N` asks for, cut to `longest`; None without it. Unknown preferences are ignored."""
    for part in (part for header in headers for part in header.split(",")):
        match = _WAIT.fullmatch(part.partition(";")[0])
        if match:
            return min(float(match[1]), longest)
    return None


def idempotency_key(header: str | None) -> str | None:
    """The key, quoted (a structured-field string) or bare. Raises InvalidInput."""
    if header is None:
        return None
    text = header.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r"\\([\"\\])", r"\1", text[1:-1])
    if not _KEY.fullmatch(text):
        raise InvalidInput(
            "the Idempotency-Key cannot be used",
            expected="1 to 255 printable ASCII characters, such as a UUID",
            got=repr(header)[:80],
            errors=[{"parameter": "Idempotency-Key", "in": "header", "message": "not valid"}],
        )
    return text


def etag(version: int | str) -> str:
    return f'"{version}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether an If-None-Match / If-Match list names this entity tag (weak comparison, RFC 9110 section 8.8.3.2)."""
    if header is None:
        return False
    given = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in given or tag in given
