"""From a request body to a job that can be accepted: everything that can be refused now is refused now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from bitwright.core.callbacks import check_callback
from bitwright.core.canonical import canonical_json
from bitwright.core.errors import Forbidden, InvalidCalibration, InvalidInput, InvalidReference, TooLarge
from bitwright.core.plan import plan_from_json
from bitwright.core.refs import parse_ref
from bitwright.core.requests import EvaluateRequest, ImportRequest, JobRequest, Scoring, invalid_members, parse_request
from bitwright.jobs.create import NewJob
from bitwright.settings import Settings
from service.auth import EXECUTE, Principal
from service.owning import owns_checkpoint
from service.same_work import work_digest
from service.state import State

_DIGEST = "sha256:"


class Envelope(BaseModel):
    """Members of a job that are about its handling, not its work."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deadline: AwareDatetime | None = Field(default=None, description="RFC 3339; a job not ended by then fails")
    priority: int = Field(default=0, ge=-100, le=100, description="higher runs first")
    queue: Literal["cpu", "gpu", "solve"] = Field(default="cpu", description="whose workers take it")
    callback: str | None = Field(
        default=None, max_length=2048, description="https address that a webhook tells of the job's end"
    )


@dataclass(frozen=True)
class Accepted:
    """request: as plain JSON; deadline in seconds since 1970; work_digest: names the work by its content."""

    request: dict[str, Any]
    priority: int
    deadline: float | None
    queue: str
    callback: str | None
    work_digest: str | None

    def job(self, tenant: str, **more: Any) -> NewJob:
        """What the store is asked to create."""
        return NewJob(
            self.request, tenant=tenant, priority=self.priority, deadline=self.deadline, queue=self.queue,
            callback=self.callback, work_digest=self.work_digest, **more,
        )  # fmt: skip


def accept(data: Any, state: State, who: Principal) -> Accepted:
    """Raises InvalidInput (or a more telling kind) with JSON pointers for what is wrong, and Forbidden for a job that
    writes a checkpoint and a key that must not."""
    if not isinstance(data, dict):
        raise InvalidInput("a job is a JSON object", expected='an object with "kind"', got=type(data).__name__)
    members = dict(data)
    try:
        envelope = Envelope.model_validate({key: members.pop(key) for key in Envelope.model_fields if key in members})
    except ValidationError as error:
        raise invalid_members(error) from error
    request = parse_request(members)
    settings = state.settings
    _check_sizes(request, settings)
    _check_references(request, state, who.tenant)
    if getattr(request, "to", None) is not None and EXECUTE not in who.scopes:
        raise Forbidden(
            "the API key must not write checkpoints", expected=EXECUTE, got=", ".join(who.scopes),
            hint="leave out 'to', or use a key with that scope",
        )  # fmt: skip
    if envelope.callback is not None:
        check_callback(envelope.callback, settings.webhook_internal)
    plain = request.model_dump(mode="json", exclude_none=True)
    return Accepted(
        plain, envelope.priority, _seconds(envelope.deadline), envelope.queue, envelope.callback,
        work_digest(request, settings),
    )  # fmt: skip


def _seconds(deadline: datetime | None) -> float | None:
    if deadline is None:
        return None
    seconds = deadline.timestamp()
    if seconds <= time.time():
        raise InvalidInput(
            "the deadline is in the past",
            got=deadline.isoformat(),
            errors=[{"pointer": "/deadline", "message": "in the past"}],
        )
    return seconds


def _check_sizes(request: JobRequest, settings: Settings) -> None:
    """What the operator bounds beyond the ranges of the members (research/06 C6)."""
    if request.threads is not None and request.threads > settings.max_threads:
        raise InvalidInput(
            "too many compute threads", expected=f"at most {settings.max_threads}", got=str(request.threads),
            errors=[{"pointer": "/threads", "message": "more than this server allows"}],
        )  # fmt: skip
    plan = getattr(request, "plan", None)
    size = len(canonical_json(plan)) if plan is not None else 0
    if size > settings.max_plan_bytes:
        raise TooLarge(
            "the plan is too large", expected=f"at most {settings.max_plan_bytes} bytes", got=f"{size} bytes",
            hint="plan by larger units, or raise BITWRIGHT_MAX_PLAN_BYTES",
        )  # fmt: skip


def _check_references(request: JobRequest, state: State, tenant: str) -> None:
    """Names and references that this server could never resolve are refused before a worker sees them."""
    parse_ref(request.model, allow_path=False)
    for member in ("calibration", "text"):
        digest = getattr(request, member, None)
        if digest is not None:
            _check_text(member, digest, state, tenant)
    if isinstance(request, ImportRequest):
        parse_ref(request.source, allow_path=False)
        _check_import(request)
    plan = getattr(request, "plan", None)
    if plan is not None:
        plan_from_json(plan)
    if isinstance(request, EvaluateRequest) and plan is not None and request.checkpoint is not None:
        raise InvalidInput(
            "name a plan or a checkpoint, not both", errors=[{"pointer": "/plan", "message": "beside a checkpoint"}]
        )
    checkpoint = getattr(request, "checkpoint", None)
    if checkpoint is not None and not owns_checkpoint(state, tenant, checkpoint):
        raise InvalidReference(
            "this server has no checkpoint of that name", expected="a name that a job returned", got=checkpoint[:80],
            errors=[{"pointer": "/checkpoint", "message": "unknown name"}],
        )  # fmt: skip
    if isinstance(request, Scoring):
        _check_names(request)


def _check_text(member: str, digest: str, state: State, tenant: str) -> None:
    if not digest.startswith(_DIGEST):
        raise InvalidCalibration(
            f"a server takes a stored text as '{member}', not a path",
            expected="sha256:... as POST /v1/texts returned it",
            got=digest[:80],
            errors=[{"pointer": f"/{member}", "message": "not a digest"}],
        )
    if not state.uploads.kept(tenant, "texts", digest):
        raise InvalidCalibration(
            "this server has no text of that digest",
            got=digest[:80],
            hint="upload it with POST /v1/texts first",
            errors=[{"pointer": f"/{member}", "message": "unknown digest"}],
        )


def _check_names(request: Scoring) -> None:
    if request.recipe.endswith(".toml"):
        raise InvalidReference(
            "a server takes recipes by name, not by file",
            got=request.recipe[:80],
            hint="GET /v1/recipes lists them",
            errors=[{"pointer": "/recipe", "message": "a path"}],
        )
    from bitwright.engines import load_profile
    from bitwright.recipes import find_recipe
    from sensitivity.catalog import METRICS
    from solvers.catalog import SOLVERS

    find_recipe(request.recipe)
    if request.metric is not None:
        METRICS.get(request.metric)
    if request.engine is not None:
        load_profile(request.engine)
    solver = getattr(request, "solver", None)
    if solver is not None and solver != "auto":
        SOLVERS.get(solver)


def _check_import(request: ImportRequest) -> None:
    from bitwright.engines import load_profile
    from quantizers.importers.catalog import IMPORTERS
    from sensitivity.catalog import METRICS

    METRICS.get(request.metric)
    if request.tool is not None:
        IMPORTERS.get(request.tool)
    if request.engine is not None:
        load_profile(request.engine)
