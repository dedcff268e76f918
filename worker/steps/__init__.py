"""What each kind of job does: request in, plain JSON result out. One file a kind, one line in the table below."""

from __future__ import annotations

import importlib
from typing import Any

from bitwright.core.requests import JobRequest
from sensitivity.room import require_room
from worker.steps.context import Context

#: Job kind -> "module:function"; imported only when such a job runs.
STEPS = {
    "inspect": "worker.steps.inspect:run",
    "sensitivity": "worker.steps.score:run",
    "plan": "worker.steps.plan:run",
    "execute": "worker.steps.execute:run",
    "evaluate": "worker.steps.evaluate:run",
    "import": "worker.steps.importing:run",
}
#: Kinds that load torch whatever they are asked.
WITH_TORCH = frozenset({"sensitivity", "plan", "evaluate", "import"})


def run(request: JobRequest, context: Context) -> dict[str, Any]:
    """Do one job. Raises BitwrightError; returns the job's result as a JSON value."""
    if request.kind in WITH_TORCH:
        require_room()
    module, _, function = STEPS[request.kind].partition(":")
    result: dict[str, Any] = getattr(importlib.import_module(module), function)(request, context)
    return result
