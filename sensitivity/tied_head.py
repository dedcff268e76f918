"""Whether a head that the config ties to the embeddings really is their copy."""

from __future__ import annotations

from bitwright.core.errors import InvalidModel
from bitwright.core.inventory import Inventory, RestTensor
from bitwright.models import ModelSource

#: Rows that are compared at a time.
ROWS = 4096


def check_tied_head(source: ModelSource, inventory: Inventory) -> None:
    """Engines drop the stored copy and use the embeddings; transformers keeps one that differs, as a head of its own.

    What is measured would then be another model than what is served. Raises InvalidModel.
    """
    for head in (tensor for tensor in inventory.rest if tensor.role == "tied_head"):
        twins = [t for t in inventory.rest if t.role == "embedding" and t.shape == head.shape]
        if twins and not any(_same(source, head, twin) for twin in twins):
            raise InvalidModel(
                f"{head.name} is not the copy of the embeddings that config.json says it is",
                expected=f"the values of {twins[0].name}, or none", got="other values",
                hint="set tie_word_embeddings to false, or leave the tensor out of the files",
            )  # fmt: skip


def _same(source: ModelSource, first: RestTensor, second: RestTensor) -> bool:
    if first.dtype != second.dtype:
        return bool((source.read_float32(first.name) == source.read_float32(second.name)).all())
    parts = [(row, min(row + ROWS, first.shape[0])) for row in range(0, first.shape[0], ROWS)]
    return all(
        source.read(first.name, rows=some).tobytes() == source.read(second.name, rows=some).tobytes() for some in parts
    )
