"""Results belong to those whose jobs made them: a digest alone opens nothing of another tenant's.

The tenant `default` is the operator's own: it also sees what was made at the command line beside the server.
"""

from __future__ import annotations

from pathlib import Path

from bitwright.core.errors import NotFound
from bitwright.core.plan import Plan, load_plan
from service.documents import stored_plan, stored_table
from service.keys import DEFAULT_TENANT
from service.state import State


def own_plan(state: State, tenant: str, digest: str) -> Plan:
    """Raises NotFound, also for a plan of another tenant: who may not see it learns nothing."""
    return load_plan(own_plan_file(state, tenant, digest))


def own_plan_file(state: State, tenant: str, digest: str) -> Path:
    """Where such a plan lies, as its canonical JSON."""
    path = stored_plan(state.blobs, digest)
    _require(state, tenant, "plan", digest, "better_digest")
    return path


def own_table(state: State, tenant: str, digest: str) -> Path:
    """As `own_plan`, for sensitivity tables."""
    path = stored_table(state.blobs, digest)
    _require(state, tenant, "table", digest)
    return path


def owns(state: State, tenant: str, kind: str, digest: str) -> bool:
    """kind: `tables` or `problems`, what the synchronous routes name by digest."""
    if kind == "problems":
        return state.uploads.kept(tenant, kind, digest)
    return tenant == DEFAULT_TENANT or state.store.made(tenant, "table_digest", digest)


def owns_checkpoint(state: State, tenant: str, name: str) -> bool:
    """Checkpoints are named by the first digits of their plans' digests (worker.steps.execute)."""
    digits = name.partition("-")[0]
    if tenant == DEFAULT_TENANT:
        return True
    return len(digits) >= 16 and state.store.made(tenant, "plan_digest", f"sha256:{digits}", begins=True)


def _require(state: State, tenant: str, what: str, digest: str, *others: str) -> None:
    """others: further members of a job's result that may name it."""
    members = (f"{what}_digest", *others)
    if tenant != DEFAULT_TENANT and not any(state.store.made(tenant, member, digest) for member in members):
        name = {"plan": "plan", "table": "sensitivity table"}[what]
        raise NotFound(f"there is no {name} of that digest", got=digest)
