"""config.json strictly as data: a bounded JSON object. No name in it is ever imported, downloaded or run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidModel
from bitwright.models.files import read_bounded
from bitwright.models.limits import DEFAULT_LIMITS, Limits
from bitwright.models.strict_json import check_depth, parse_object

CONFIG_NAME = "config.json"
#: Ways of computing attention that transformers has itself.
ATTENTION = frozenset({"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})


def read_config(folder: Path, *, beneath: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """The model's config. Raises InvalidModel when it is missing, too large, too deep or no JSON object, and when it
    names code to be fetched."""
    data = read_bounded(folder / CONFIG_NAME, limits.config_bytes, beneath)
    config = parse_object(data, what=CONFIG_NAME, containers=limits.config_bytes)
    check_depth(config, what=CONFIG_NAME, depth=limits.config_depth)
    _refuse_kernels(config, inside=False)
    return config


def _refuse_kernels(value: Any, *, inside: bool) -> None:
    """A member `*attn_implementation*` may name a repository of the hub, whose code transformers then fetches and runs
    where the package `kernels` is there (CVE-2026-4372). inside: below such a member. Raises InvalidModel."""
    if isinstance(value, dict):
        for key, member in value.items():
            _refuse_kernels(member, inside=inside or "attn_implementation" in key)
    elif isinstance(value, list):
        for member in value:
            _refuse_kernels(member, inside=inside)
    elif inside and isinstance(value, str) and value not in ATTENTION:
        raise InvalidModel(
            f"{CONFIG_NAME} names code that would be fetched and run", expected=", ".join(sorted(ATTENTION)),
            got=ascii(value)[:80], hint="take the member *attn_implementation out of config.json",
        )  # fmt: skip


def text(config: Mapping[str, Any], key: str, default: str = "") -> str:
    """A text member. Raises InvalidModel when it is something else."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or not value.isprintable() or len(value) > 256:
        raise InvalidModel(
            f"{CONFIG_NAME} is wrong at '{key}'", expected="a short printable text", got=ascii(value)[:80]
        )
    return value


def texts(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts. Raises InvalidModel when it is something else."""
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(v, str) and v.isprintable() and len(v) <= 256 for v in value):
        raise InvalidModel(
            f"{CONFIG_NAME} is wrong at '{key}'", expected="a list of short texts", got=ascii(value)[:80]
        )
    return tuple(value)


def count(config: Mapping[str, Any], key: str) -> int | None:
    """A count, or None when absent. Raises InvalidModel when it is something else."""
    value = config.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise InvalidModel(
            f"{CONFIG_NAME} is wrong at '{key}'", expected="a non-negative integer", got=ascii(value)[:80]
        )
    return value


def flag(config: Mapping[str, Any], key: str) -> bool | None:
    """True, False, or None when absent. Raises InvalidModel when it is something else."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidModel(f"{CONFIG_NAME} is wrong at '{key}'", expected="true or false", got=ascii(value)[:80])
    return value
