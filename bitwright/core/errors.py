"""Every error that bitwright shows to a person or a program.

    BitwrightError
    ├── InvalidInput               exit 2, HTTP 422   the request can never work as it stands
    │   ├── InvalidBudget          budget text or value
    │   ├── InvalidProblem         problem file or arrays
    │   ├── InvalidPlan            plan, solution or sensitivity table
    │   ├── InvalidReference       model reference grammar
    │   ├── InvalidModel           a directory or file that is no readable model
    │   │   └── UnsafeFormat       pickled weights and the like: refused, not read
    │   ├── InvalidCalibration     calibration or evaluation data
    │   ├── InvalidSetting         environment or configuration value
    │   ├── UnknownName            no such format, solver, metric, engine, recipe ...
    │   └── Unsupported            a valid request that this model, engine or container cannot serve
    ├── Infeasible                 exit 3             carries the smallest reachable limit
    ├── JobFailed                  exit 1, HTTP 500   the work itself went wrong
    │   ├── NotFinite              NaN or infinity came out of the model
    │   ├── VerificationFailed     a plan, certificate or checkpoint is not what it claims to be
    │   ├── OutOfResources         out of memory or time, limits of the sandbox
    │   │   └── DiskFull           HTTP 507           nothing can be written until there is room
    │   └── WorkerLost             the process died three times
    ├── Temporary                  exit 75, HTTP 503  try again
    ├── Cancelled                  exit 130
    └── HttpError                  only over HTTP: not found, conflict, precondition, too large ...

Each error has a stable `slug` (RFC 9457 `type`), a constant `title`, and says in its message what was expected,
what came and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

PROBLEM_TYPE_BASE = "https://bitwright.dev/problems/"


class BitwrightError(Exception):
    """Base of every typed error. `detail` is for people; `extra` holds machine-readable members of the problem."""

    slug: ClassVar[str] = "error"
    title: ClassVar[str] = "bitwright error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        detail: str,
        *,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.expected = expected
        self.got = got
        self.hint = hint
        self.extra = extra

    def __str__(self) -> str:
        parts = [self.detail]
        if self.expected is not None:
            parts.append(f"expected: {self.expected}")
        if self.got is not None:
            parts.append(f"got: {self.got}")
        if self.hint is not None:
            parts.append(f"what to do: {self.hint}")
        return "\n  ".join(parts)

    def to_problem(self) -> dict[str, Any]:
        """RFC 9457 problem details (without `instance`, which the HTTP layer adds)."""
        problem: dict[str, Any] = {
            "type": PROBLEM_TYPE_BASE + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        for key, value in (("expected", self.expected), ("got", self.got), ("hint", self.hint)):
            if value is not None:
                problem[key] = value
        problem.update(self.extra)
        return problem


class InvalidInput(BitwrightError):
    slug, title, status, exit_code = "invalid-input", "The input is not valid", 422, 2


class InvalidBudget(InvalidInput):
    slug, title = "invalid-budget", "The budget is not valid"


class InvalidProblem(InvalidInput):
    slug, title = "invalid-problem", "The problem is not valid"


class InvalidPlan(InvalidInput):
    slug, title = "invalid-plan", "The plan, solution or table is not valid"


class InvalidReference(InvalidInput):
    slug, title = "invalid-reference", "The model reference is not valid"


class InvalidModel(InvalidInput):
    slug, title = "invalid-model", "The model cannot be read"


class UnsafeFormat(InvalidModel):
    slug, title = "unsafe-format", "The weights are in a format that can run code"


class InvalidCalibration(InvalidInput):
    slug, title = "invalid-calibration", "The calibration data cannot be used"


class InvalidSetting(InvalidInput):
    slug, title = "invalid-setting", "A setting is not valid"


class UnknownName(InvalidInput):
    slug, title = "unknown-name", "There is nothing of that name"


class Unsupported(InvalidInput):
    slug, title = "unsupported", "This combination is not supported"


class Infeasible(BitwrightError):
    """No plan fits. `extra['smallest_limit']` gives the smallest reachable limit for each resource."""

    slug, title, status, exit_code = "infeasible", "No plan fits the limits", 422, 3


class JobFailed(BitwrightError):
    slug, title = "job-failed", "The job failed"


class NotFinite(JobFailed):
    slug, title = "not-finite", "The model gave NaN or infinity"


class VerificationFailed(JobFailed):
    slug, title = "verification-failed", "A result is not what it claims to be"


class OutOfResources(JobFailed):
    slug, title = "out-of-resources", "Disk, memory or time ran out"


class DiskFull(OutOfResources):
    """What was accepted before is safe; the request itself was right (RFC 4918 section 11.5)."""

    slug, title, status = "disk-full", "The disk is full", 507


class WorkerLost(JobFailed):
    slug, title = "worker-lost", "The process doing the work was lost"


class Temporary(BitwrightError):
    slug, title, status, exit_code = "temporary", "Not possible right now", 503, 75


class Cancelled(BitwrightError):
    slug, title, status, exit_code = "cancelled", "The job was cancelled", 409, 130


class HttpError(BitwrightError):
    slug, title, status = "http-error", "The request cannot be served", 400


class Unauthorized(HttpError):
    slug, title, status, exit_code = "unauthorized", "An API key is needed", 401, 2


class Forbidden(HttpError):
    slug, title, status, exit_code = "forbidden", "This request is not allowed", 403, 2


class NotFound(HttpError):
    slug, title, status, exit_code = "not-found", "There is no such resource", 404, 2


class ResultNotReady(HttpError):
    slug, title, status, exit_code = "result-not-ready", "The job has not ended yet", 404, 75


class MethodNotAllowed(HttpError):
    slug, title, status = "method-not-allowed", "This resource does not take that method", 405


class Conflict(HttpError):
    slug, title, status = "conflict", "The request conflicts with the state of the resource", 409


class PreconditionFailed(HttpError):
    slug, title, status = "precondition-failed", "The resource has changed", 412


class TooLarge(HttpError):
    slug, title, status, exit_code = "too-large", "The request is too large", 413, 2


class UnsupportedMedia(HttpError):
    slug, title, status = "unsupported-media-type", "The content type or encoding is not supported", 415


class IdempotencyMismatch(HttpError):
    slug, title, status, exit_code = "idempotency-mismatch", "This key was used with another request", 422, 2


class TooManyRequests(HttpError):
    slug, title, status, exit_code = "too-many-requests", "A quota or rate is used up", 429, 75


class Internal(HttpError):
    slug, title, status = "internal", "The server met an unexpected error", 500


def error_classes() -> Mapping[str, type[BitwrightError]]:
    """Every class of the tree by slug, for the client (problem -> exception) and for the docs."""
    found: dict[str, type[BitwrightError]] = {}
    todo: list[type[BitwrightError]] = [BitwrightError]
    while todo:
        cls = todo.pop()
        found[cls.slug] = cls
        todo.extend(cls.__subclasses__())
    return dict(sorted(found.items()))


def from_problem(problem: Mapping[str, Any]) -> BitwrightError:
    """The exception that a problem document describes (the inverse of `to_problem`); unknown types give the base."""
    slug = str(problem.get("type", "")).removeprefix(PROBLEM_TYPE_BASE)
    cls = error_classes().get(slug, BitwrightError)
    known = {"type", "title", "status", "detail", "expected", "got", "hint", "instance"}
    extra = {str(k): v for k, v in problem.items() if k not in known}
    return cls(
        str(problem.get("detail") or problem.get("title") or "unknown error"),
        expected=problem.get("expected"),
        got=problem.get("got"),
        hint=problem.get("hint"),
        **extra,
    )
