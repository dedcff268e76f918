"""Sensitivity metrics by name; order is preference, the first is the default."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry

METRICS = Catalog(
    "metric",
    (
        Entry(
            "fisher",
            "sensitivity.fisher:METRIC",
            "KL curvature from labels the model draws itself, errors summed over a sequence before squaring (default)",
            needs=("torch", "transformers"),
            traits={"data": "calibration", "loss_unit": "nats of KL", "passes": "1 forward + K backward"},
        ),
        Entry(
            "weight-mse",
            "sensitivity.weight_mse:METRIC",
            "squared error of the weights; needs no data, knows nothing of the model's function",
            traits={"data": "none", "loss_unit": "squared error", "passes": "none"},
        ),
    ),
)
