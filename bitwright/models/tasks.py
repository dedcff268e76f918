"""What a model is for, read from the class names of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.models.architectures import Architecture
from bitwright.models.config import texts

#: Ending of the class name to task (the `task` of core.inventory.Inventory).
SUFFIXES = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForSequenceClassification": "text-classification",
}


def task_of(config: Mapping[str, Any], architecture: Architecture, *, sentence_transformers: bool) -> str:
    """`embedding` for a sentence-transformers folder; else by class name; a bare model by its architecture."""
    names = texts(config, "architectures")
    name = names[0] if names else ""
    for suffix, task in SUFFIXES.items():
        if name.endswith(suffix):
            return task
    if sentence_transformers:
        return "embedding"
    return architecture.bare_task if name.endswith("Model") else "unknown"
