"""From headers to an inventory: what is planned, what stays, what it weighs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.core.errors import InvalidModel
from bitwright.core.inventory import Inventory, RestTensor, Unit
from bitwright.models.architectures import Architecture, Facts, Keep, Linear, Match, find
from bitwright.models.config import count, flag, text, texts
from bitwright.models.safetensors_header import TensorInfo
from bitwright.models.source import ModelSource
from bitwright.models.tasks import task_of

#: Stored dtypes that hold plain weights; anything else is already packed by someone.
PLANNABLE = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class _Placed:
    """A unit and its place: blocks in order, in a block the order of the table, experts one after another."""

    key: tuple[int, int, int, int, str]
    unit: Unit


def inspect(source: ModelSource) -> Inventory:
    """The inventory of an opened model. Reads no weights, except once for the content digest. Raises InvalidModel."""
    model_type = text(source.config, "model_type", "unknown")
    architecture = find(model_type)
    task = task_of(source.config, architecture, sentence_transformers=source.sentence_transformers)
    tied = flag(source.config, "tie_word_embeddings")
    facts = Facts(task, architecture.tied_default if tied is None else tied, source.config)
    placed, rest = _sort(source, architecture, facts)
    units = tuple(p.unit for p in sorted(placed, key=lambda p: p.key))
    layers = 1 + max((unit.layer for unit in units if unit.layer is not None), default=-1)
    names = texts(source.config, "architectures")
    return Inventory(
        ref=source.ref, digest=source.digest, architecture=names[0] if names else architecture.name,
        model_type=model_type, task=task, layers=layers, units=units, rest=tuple(rest),
        warnings=tuple(_warnings(source, architecture, model_type, layers, units, rest)),
    )  # fmt: skip


def _sort(source: ModelSource, architecture: Architecture, facts: Facts) -> tuple[list[_Placed], list[RestTensor]]:
    placed: list[_Placed] = []
    rest: list[RestTensor] = []
    for info in source.tensors.values():
        match = architecture.classify(info.name, facts)
        why = _why_not(info, match)
        if why is None and match is not None and isinstance(match.rule, Linear):
            _check_count(len(placed) + (info.shape[0] if match.rule.stacked else 1), source.limits.units)
            placed.extend(_units(info, match, match.rule))
        else:
            role, reason = why or ("other", "not a matrix")
            rest.append(RestTensor(info.name, info.shape, info.dtype, reason, role))
    return placed, rest


def _check_count(units: int, limit: int) -> None:
    if units > limit:
        raise InvalidModel("the model has too many units", expected=f"at most {limit}", got=f"{units} or more")


def _why_not(info: TensorInfo, match: Match | None) -> tuple[str, str] | None:
    """(role, reason) of a tensor that is not planned, or None for a unit."""
    if match is not None and isinstance(match.rule, Keep):
        return match.rule.role, match.rule.reason
    if info.elements == 0:
        return "empty", "holds no element"
    if info.dtype not in PLANNABLE:
        return "packed", f"stored as {info.dtype}: not plain weights (already quantized, or an index)"
    rank = len(info.shape)
    if match is None:
        return (
            ("vector", "a vector; quantizing it saves nothing")
            if rank < 2
            else ("unrecognized", "no rule of this architecture names it")
        )
    if isinstance(match.rule, Linear) and rank != (3 if match.rule.stacked else 2):
        return (
            ("vector", "a vector; quantizing it saves nothing")
            if rank < 2
            else ("other", f"a tensor of {rank} dimensions, not a matrix")
        )
    return None


def _units(info: TensorInfo, match: Match, rule: Linear) -> Iterator[_Placed]:
    experts = range(info.shape[0]) if rule.stacked else (match.expert,)
    for expert in experts:
        groups = {**match.groups, "expert": str(expert)}
        unit = Unit(
            name=f"{info.name}[{expert}]" if rule.stacked else info.name,
            tensor=info.name,
            shape=(info.shape[-2], info.shape[-1]),
            dtype=info.dtype,
            module=rule.module.format_map(groups),
            index=expert if rule.stacked else None,
            layer=match.layer,
            expert=expert,
            families={kind: template.format_map(groups) for kind, template in rule.families.items()},
        )
        yield _Placed(_key(unit, match.order), unit)


def _key(unit: Unit, order: int) -> tuple[int, int, int, int, str]:
    block = (1, 0) if unit.layer is None else (0, unit.layer)
    return (*block, -1 if unit.expert is None else unit.expert, order, unit.name)


def _warnings(
    source: ModelSource,
    architecture: Architecture,
    model_type: str,
    layers: int,
    units: tuple[Unit, ...],
    rest: list[RestTensor],
) -> Iterator[str]:
    if architecture.assumed is not None:
        yield architecture.assumed.format(model_type=model_type)
    stated = count(source.config, "num_hidden_layers")
    if stated is not None and stated != layers and architecture.assumed is None:
        yield f"config.json says {stated} layers; the weight files hold units of {layers}"
    strange = [tensor for tensor in rest if tensor.role in {"unrecognized", "other"}]
    if strange:
        size = sum(tensor.stored_bytes for tensor in strange)
        yield f"{len(strange)} tensors ({size} bytes) fit no rule and stay as they are, such as {strange[0].name[:120]}"
    if any(tensor.role == "packed" for tensor in rest) and ("quantization_config" in source.config or not units):
        yield "this checkpoint is already quantized: its packed tensors stay as they are; start from the original model"
    yield from _stacked_warnings(source, units)


def _stacked_warnings(source: ModelSource, units: tuple[Unit, ...]) -> Iterator[str]:
    """Stacked experts must be (experts, out, in); some models store them transposed (in before out)."""
    hidden = count(source.config, "hidden_size")
    for unit in units:
        if unit.index is None or hidden is None:
            continue
        inputs_are_hidden = "down" not in unit.module
        if unit.shape[1 if inputs_are_hidden else 0] != hidden:
            yield f"{unit.tensor} has no hidden_size {hidden} where (experts, out, in) puts it: its rows may be inputs"
            return
