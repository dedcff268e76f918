"""Pages of jobs: keyset walk, sealed tokens bound to the filters (AIP-158)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bitwright.core.catalog import unknown_name
from bitwright.core.errors import InvalidInput
from bitwright.core.requests import KINDS
from bitwright.jobs import states
from service.state import State
from service.views import job_summary

#: Larger page sizes are cut to this, not refused (AIP-158).
MAX_PAGE = 1000
#: Jobs that one page of a search looks at: milliseconds of work, whatever is searched for.
MAX_SEARCHED = 5_000


@dataclass(frozen=True)
class Filters:
    tenant: str
    states: tuple[str, ...]
    kinds: tuple[str, ...]
    batch: str | None = None
    words: tuple[str, ...] = ()

    @staticmethod
    def of(tenant: str, wanted_states: Iterable[str], kinds: Iterable[str], text: str = "") -> Filters:
        """Raises UnknownName for a state or kind that does not exist. text: words that a job must hold, all of them."""
        known = _known("state", wanted_states, states.STATES), _known("kind", kinds, KINDS)
        return Filters(tenant, *known, words=tuple(text.split()))


def _known(what: str, names: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(sorted({part for name in names for part in name.split(",") if part}))
    for name in found:
        if name not in known:
            raise unknown_name(f"job {what}", name[:80], known)
    return found


def list_page(state: State, filters: Filters, page_size: int, page_token: str) -> dict[str, Any]:
    """{"jobs": [...], "next_page_token": ""}. Raises InvalidInput for a token of another walk."""
    size = min(page_size or state.settings.page_size, MAX_PAGE)
    after = _after(state, filters, page_token) if page_token else None
    if filters.words:
        return _search(state, filters, size, after)
    found = state.store.page(
        tenant=filters.tenant,
        states=filters.states,
        kinds=filters.kinds,
        batch=filters.batch,
        after=after,
        limit=size + 1,
    )
    token = ""
    if len(found) > size:
        last = found[size - 1]
        token = _token(state, filters, (last.created_at, last.id))
    return {"jobs": [job_summary(job) for job in found[:size]], "next_page_token": token}


def _search(state: State, filters: Filters, size: int, after: tuple[float, str] | None) -> dict[str, Any]:
    """A page of those that hold the words: maybe fewer than asked for, or none, while `next_page_token` goes on."""
    found, last = state.store.search(
        filters.words,
        tenant=filters.tenant,
        states=filters.states,
        kinds=filters.kinds,
        after=after,
        limit=size,
        most=MAX_SEARCHED,
    )
    token = "" if last is None else _token(state, filters, last)
    return {"jobs": [job_summary(job) for job in found], "next_page_token": token}


def _token(state: State, filters: Filters, last: tuple[float, str]) -> str:
    return state.sealer.seal({"at": last[0], "id": last[1], "filters": _plain(filters)})


def _plain(filters: Filters) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(filters).items()}


def _after(state: State, filters: Filters, token: str) -> tuple[float, str]:
    walk = state.sealer.open(token)
    if walk["filters"] != _plain(filters):
        raise InvalidInput(
            "the filters changed in the middle of a walk",
            expected="the filters of the first page",
            hint="start again without page_token",
            errors=[{"parameter": "page_token", "in": "query", "message": "other filters"}],
        )
    return float(walk["at"]), str(walk["id"])
