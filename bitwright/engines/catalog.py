"""The shipped profiles: one TOML file each in `profiles/`. Adding an engine is one file there."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from pydantic import ValidationError

from bitwright.core.catalog import unknown_name
from bitwright.core.errors import InvalidInput, UnknownName
from bitwright.engines.profile import EngineProfile


def parse_profile(text: str, *, origin: str) -> EngineProfile:
    """Raises InvalidInput naming the member that is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"the engine profile {origin} is not valid TOML", got=str(error)) from error
    try:
        return EngineProfile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        member = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"the engine profile {origin} is wrong at '{member}'",
            expected=first["msg"],
            got=repr(first.get("input"))[:80],
        ) from error


@cache
def shipped_profiles() -> dict[str, EngineProfile]:
    """Every profile by name, in alphabetical order."""
    folder = resources.files("bitwright.engines") / "profiles"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".toml")),
        key=lambda file: file.name.removesuffix(".toml"),
    )
    found = [parse_profile(file.read_text("utf-8"), origin=file.name) for file in files]
    return {profile.name: profile for profile in found}


def engine_names() -> tuple[str, ...]:
    return tuple(shipped_profiles())


def load_profile(name: str) -> EngineProfile:
    """The profile of that name or alias.

    `NAME@VERSION` asks for an engine version that the data must cover, or for the data's own date. Raises UnknownName.
    """
    wanted, at, version = name.partition("@")
    profiles = shipped_profiles()
    found = next((p for p in profiles.values() if wanted == p.name or wanted in p.aliases), None)
    if found is None:
        raise unknown_name("engine", wanted, tuple(profiles))
    if at and version != found.revision and not found.covers(version):
        until = f" and before {found.before}" if found.before else ""
        raise UnknownName(
            f"the profile of '{wanted}' knows nothing of that version",
            expected=f"version {found.since} or later{until}, or the data's date {found.revision}",
            got=repr(name)[:80],
            hint=f"leave out the version to use what is known: {found.version}",
        )
    return found
