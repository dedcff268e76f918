"""Job requests: one model a kind, validated once, shared by the service, the command line and the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bitwright.core.budget import parse_budget
from bitwright.core.errors import InvalidInput
from bitwright.core.formats import parse_format
from bitwright.core.recipe import Granularity, Pruning

#: Calibrations that are no file: tokens drawn evenly, and text that the model writes itself.
RANDOM, SELF = "random", "self"
MADE = (RANDOM, SELF)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


def _format_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        parse_format(name)
    return names


def _budget(text: str) -> str:
    parse_budget(text)
    return text


Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
FormatNames = (
    Annotated[
        tuple[Annotated[str, Field(max_length=64)], ...],
        AfterValidator(_format_names),
        Field(min_length=1, max_length=64),
    ]
    | None
)
Container = Literal["packed", "compressed-tensors", "compressed-tensors-0.17", "gptq", "mlx", "gguf"]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of every random draw; same seed, same plan")
    threads: int | None = Field(default=None, ge=1, le=256, description="compute threads; default: all cores")


class Scoring(_Request):
    """What sensitivities are made of: model, metric, menu and calibration."""

    model: Text = Field(description="file:ROOT/path or hf:org/name@revision; locally also a directory")
    metric: Name | None = Field(default=None, description="default: the recipe's metric (fisher)")
    formats: FormatNames = Field(
        default=None, description="menu of formats; default: the engine's or int2..int8 at g64"
    )
    granularity: Granularity | None = Field(
        default=None, description="what gets a format of its own: tensor, expert, row, row:B, column, column:B or group"
    )
    quantizer: Name | None = Field(
        default=None,
        description="what makes the codes: rtn, clip, gptq, gptq-gain, erq, sqc, rtn-bias or gptq-bias; "
        "default: the recipe's (rtn)",
    )
    calibration: Text | None = Field(
        default=None, description="a text file (local), a stored text (sha256:...), random or self; default: bundled"
    )
    calibration_tokens: int = Field(default=16_384, ge=64, le=4_194_304, description="tokens scored")
    samples: int | None = Field(default=None, ge=1, le=1024, description="label samples a sequence (fisher)")
    engine: Name | None = Field(default=None, description="cut the menu to what this engine loads, and apply its ties")
    recipe: Text = Field(default="auto", description="recipe name or TOML file")

    @property
    def confirming_tokens(self) -> int:
        """Held-out tokens on which the outcome is measured; 0: it is not."""
        return 0


class InspectRequest(_Request):
    kind: Literal["inspect"] = "inspect"
    model: Text


class SensitivityRequest(Scoring):
    kind: Literal["sensitivity"] = "sensitivity"


class PlanRequest(Scoring):
    kind: Literal["plan"] = "plan"
    budget: Annotated[str, AfterValidator(_budget)] = Field(max_length=64, description="3.5bpw, 4.2GiB, 120MB")
    solver: Name | None = None
    time_limit: float = Field(default=10.0, gt=0, le=300, description="seconds for the solver")
    confirm: bool = Field(
        default=True, description="measure the plan and the uniform plan on held-out calibration data"
    )
    confirm_tokens: int = Field(default=16_384, ge=64, le=4_194_304)
    to: Container | None = Field(default=None, description="also write a checkpoint in this container")
    spike_bits: float | None = Field(
        default=None,
        gt=0,
        le=32,
        description="layers with activation spikes keep at least so many stored bits a weight; default: off",
    )

    @property
    def confirming_tokens(self) -> int:
        return self.confirm_tokens if self.confirm else 0


#: Calibrated quantizers (gptq, clip) are carried out on the data that the plan was made with.
QUANTIZER_CALIBRATION: Any = Field(
    default=None,
    description="for plans of a calibrated quantizer: the text that the plan was made with; default: bundled",
)


class ExecuteRequest(_Request):
    kind: Literal["execute"] = "execute"
    model: Text
    plan: dict[str, Any] = Field(description="the plan document")
    to: Container = "packed"
    calibration: Text | None = QUANTIZER_CALIBRATION


class EvaluateRequest(_Request):
    kind: Literal["evaluate"] = "evaluate"
    model: Text
    plan: dict[str, Any] | None = None
    checkpoint: Text | None = None
    text: Text | None = Field(
        default=None, description="evaluation text: a file (local) or sha256:...; default: bundled"
    )
    tokens: int = Field(default=16_384, ge=64, le=16_777_216)
    calibration: Text | None = QUANTIZER_CALIBRATION
    prune_experts: Pruning | None = Field(
        default=None, description="also run with tokens' second experts dropped online (MC-MoE); {}: as the recipe says"
    )


class ImportRequest(_Request):
    kind: Literal["import"] = "import"
    model: Text
    source: Text = Field(
        description="the other tool's file or folder: file:ROOT/path or hf:org/name@revision; locally also a path"
    )
    tool: Name | None = Field(
        default=None,
        description="gguf, tensor-types, compressed-tensors, gptq, auto-round or modelopt; default: found out",
    )
    metric: Name = Field(default="weight-mse", description="how losses are predicted")
    formats: FormatNames = Field(default=None, description="more formats to compare with")
    engine: Name | None = Field(
        default=None, description="what the better plan must load in; default: the engine whose file it is"
    )


JobRequest = Annotated[
    InspectRequest | SensitivityRequest | PlanRequest | ExecuteRequest | EvaluateRequest | ImportRequest,
    Field(discriminator="kind"),
]
#: Every kind of job.
KINDS = tuple(
    str(cls.model_fields["kind"].default)
    for cls in (InspectRequest, SensitivityRequest, PlanRequest, ExecuteRequest, EvaluateRequest, ImportRequest)
)
ADAPTER: TypeAdapter[JobRequest] = TypeAdapter(JobRequest)


def parse_request(data: Any) -> JobRequest:
    """Raises InvalidInput with `errors`: one JSON pointer and message for each wrong member."""
    try:
        return ADAPTER.validate_python(data)
    except ValidationError as error:
        raise invalid_members(error, tagged=True) from error


def invalid_members(error: ValidationError, *, tagged: bool = False) -> InvalidInput:
    """The typed error of a pydantic validation error; tagged: locations begin with the union's tag, not in the body."""
    wrong = error.errors(include_url=False, include_context=False)
    found = [
        {"pointer": "/kind", "message": f"the kind of a job is one of {', '.join(KINDS)}"}
        if e["type"] in ("union_tag_invalid", "union_tag_not_found")
        else {"pointer": _pointer(e["loc"][1:] if tagged else e["loc"]), "message": e["msg"]}
        for e in wrong
    ]
    first, place = found[0], found[0]["pointer"] or "the whole body"
    return InvalidInput(
        f"{first['message']} (at {place})", expected=first["message"], got=got_text(wrong[0]),
        hint=f"correct {place}; the members and their ranges are in GET /openapi.json and in `bitwright plan --help`",
        errors=found[:50],
    )  # fmt: skip


def got_text(error: Mapping[str, Any]) -> str:
    """What came, for people: the value that was refused, or that it was missing. At most 80 characters."""
    return "nothing" if error["type"] == "missing" else repr(error.get("input"))[:80]


def _pointer(location: tuple[int | str, ...]) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)
