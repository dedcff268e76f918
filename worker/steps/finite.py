"""Are the model's numbers numbers? Asked once a model, before anything is computed from it.

Later it would show up as a forward pass that gave NaN, which does not say which tensor is damaged, or, in a plan
without data, not at all: a norm or an embedding is copied into the checkpoint as it is.
"""

from __future__ import annotations

from pathlib import Path

from bitwright.core.canonical import canonical_json, digest_json
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource, check_stored
from worker.steps.context import Context


def require_finite(source: ModelSource, inventory: Inventory, context: Context) -> None:
    """Raises InvalidModel naming the first tensor, planned or not, that holds NaN or infinity."""

    def build(path: Path) -> None:
        for unit in inventory.units:
            check_stored(unit.name, source.read(unit.tensor, unit.index), unit.dtype)
        for tensor in inventory.rest:
            check_stored(tensor.name, source.read(tensor.name), tensor.dtype)
        path.write_bytes(canonical_json({"finite": inventory.digest}))

    context.blobs.memo("finite", digest_json({"finite": inventory.digest}), build)
