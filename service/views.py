"""Jobs as the API shows them: the store's document with links."""

from __future__ import annotations

from typing import Any

from bitwright.jobs import states
from bitwright.jobs.values import Job

#: Members of a request that may be large; a list shows the job without them.
_LARGE = frozenset({"plan"})


def job_document(job: Job) -> dict[str, Any]:
    return {**job.to_json(), "links": job_links(job)}


def job_summary(job: Job) -> dict[str, Any]:
    """For lists: no result, no large members of the request; errors stay, they are short and wanted."""
    document = job_document(job)
    document.pop("result", None)
    document["request"] = {key: value for key, value in job.request.items() if key not in _LARGE}
    return document


def job_links(job: Job) -> dict[str, str]:
    here = f"/v1/jobs/{job.id}"
    links = {"self": here, "events": f"{here}/events", "result": f"{here}/result"}
    if not job.done:
        links["cancel"] = f"{here}:cancel"
    result = job.result if job.state == states.SUCCEEDED and isinstance(job.result, dict) else {}
    if result.get("plan_digest"):
        links["plan"] = f"/v1/plans/{result['plan_digest']}"
    if result.get("better_digest"):
        links["better"] = f"/v1/plans/{result['better_digest']}"
    if result.get("table_digest"):
        links["sensitivities"] = f"/v1/sensitivities/{result['table_digest']}"
    return links
