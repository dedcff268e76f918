"""llama.cpp: the file of `llama-quantize --tensor-type-file` (research/04 section 5.1)."""

from __future__ import annotations

from bitwright.core.errors import UnknownName
from bitwright.core.plan import Plan, PlanUnit
from bitwright.engines.exporters.common import Report, anchored, one_format_each, refusal, to_stderr, unit_format
from bitwright.engines.exporters.ggml import EXACT, NEAREST, gguf_names
from bitwright.engines.exporters.ggml import nearest as nearest_type

TARGET = "llama.cpp"
EMBEDDING = "token_embd.weight"


def export(plan: Plan, *, nearest: bool = False, embedding: str = "f16", report: Report = to_stderr) -> str:
    """One anchored `^name$=type` a line, in lower case, without comments (the parser knows none).

    int4-, int5- and int8-sym-g32 are q4_0, q5_0 and q8_0 exactly; bf16 and fp16 are themselves. Any other format is
    refused, unless `nearest=True` takes the ggml type nearest in true bits a weight whose block divides the rows: an
    honest statement about size, not about values. `report` then gets a line for each substitution (default: stderr).
    embedding: type of the token embeddings, which are not planned and would else get llama-quantize's base type.
    The patterns take effect only when llama-quantize's base type is a quantized one. Raises Unsupported for units that
    llama.cpp has no name for, for experts of a role that differ, and for formats without a counterpart.
    """
    unnamed = [unit.name for unit in plan.units if not gguf_names(unit.name)]
    if unnamed:
        raise refusal(
            TARGET,
            unnamed,
            "tensors of Llama, Qwen, Mixtral, Qwen-MoE or BERT models",
            "this architecture has no GGUF name map",
        )
    found = one_format_each(plan.units, lambda unit: gguf_names(unit.name), TARGET)
    types = {name: EXACT.get(unit.format) or (_nearest(unit) if nearest else None) for name, unit in found.items()}
    bad = [f"{name}: {found[name].format}" for name, kind in types.items() if kind is None]
    if bad:
        hint = "export with nearest=True for the nearest ggml types, or plan with --engine llama.cpp"
        raise refusal(TARGET, bad, f"formats that ggml holds exactly: {', '.join(EXACT)}", hint)
    made = sorted({(unit.format, types[name]) for name, unit in found.items() if unit.format not in EXACT})
    if made:
        report([f"{was} -> {now}" for was, now in made])
    lines = {EMBEDDING: _embedding_type(embedding), **types}
    return "".join(f"{anchored(name)}={kind}\n" for name, kind in lines.items())


def _embedding_type(name: str) -> str:
    known = (*EXACT.values(), *(kind.name for kind in NEAREST))
    if name not in known:
        raise UnknownName(
            "there is no ggml type of that name", expected=", ".join(sorted(set(known))), got=repr(name)[:40]
        )
    return name


def _nearest(unit: PlanUnit) -> str | None:
    if not unit.shape:
        return None
    kind = nearest_type(unit_format(unit), unit.shape)
    return None if kind is None else kind.name
