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


@dataclass(frozen=True)
class Filters:
    tenant: str
    states: tuple[str, ...]
    kinds: tuple[str, ...]
    batch: str | None = None

    @staticmethod
    def of(tenant: str, wanted_states: Iterable[str], kinds: Iterable[str]) -> Filters:
        """Raises UnknownName for a state or kind that does not exist."""
        return Filters(tenant, _known("state", wanted_states, states.STATES), _known("kind", kinds, KINDS))


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
        token = state.sealer.seal({"at": last.created_at, "id": last.id, "filters": _plain(filters)})
    return {"jobs": [job_summary(job) for job in found[:size]], "next_page_token": token}


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
