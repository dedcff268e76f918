"""Examples in the OpenAPI document; a test sends each request example to a real server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PROBLEM = {
    "loss": [[0.9, 0.2, 0.01], [0.5, 0.1, 0.02], [3.0, 0.4, None]],
    "cost_bytes": [[256, 384, 512], [256, 384, 512], [512, 768, 1024]],
    "limit_bytes": 1536,
    "format_names": ["int2-g64", "int3-g64", "int4-g64"],
    "unit_names": ["layers.0.q_proj", "layers.0.k_proj", "layers.0.mlp"],
}
_CERTIFICATE = {
    "status": "optimal",
    "loss": 0.7,
    "lower_bound": 0.7,
    "gap": 0.0,
    "cost": {"bytes": 1536},
    "limits": {"bytes": 1536},
    "multipliers": {"bytes": 0.003125},
}
_SOLUTION = {"choice": [1, 1, 1], "loss": 0.7, "certificate": _CERTIFICATE, "solver": "hull"}

EXAMPLES: Mapping[str, Any] = {
    "plan": {"kind": "plan", "model": "hf:org/name", "budget": "3.5bpw", "metric": "fisher", "to": "packed"},
    "batch": {
        "models": ["hf:org/name"],
        "budgets": ["3bpw", "3.5bpw", "4bpw"],
        "job": {"kind": "plan", "metric": "fisher"},
    },
    "inspect": {"kind": "inspect", "model": "hf:org/name@main"},
    "solve": {"problem": _PROBLEM},
    "verify": {"problem": _PROBLEM, "solution": _SOLUTION},
    "solution": _SOLUTION,
    "job": {
        "id": "019abc12-3456-7abc-8def-0123456789ab",
        "kind": "plan",
        "state": "queued",
        "done": False,
        "cancelling": False,
        "version": 1,
        "attempt": 0,
        "queue": "cpu",
        "priority": 0,
        "progress": {"fraction": 0.0, "stage": "", "message": ""},
        "created_at": "2026-01-02T03:04:05.678Z",
        "started_at": None,
        "finished_at": None,
        "deadline": None,
        "batch": None,
        "callback": None,
        "request": {"kind": "plan", "model": "hf:org/name", "budget": "3.5bpw"},
        "links": {
            "self": "/v1/jobs/019abc12-3456-7abc-8def-0123456789ab",
            "events": "/v1/jobs/019abc12-3456-7abc-8def-0123456789ab/events",
            "result": "/v1/jobs/019abc12-3456-7abc-8def-0123456789ab/result",
            "cancel": "/v1/jobs/019abc12-3456-7abc-8def-0123456789ab:cancel",
        },
    },
}
