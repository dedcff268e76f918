"""What a profile says beside its format rules: devices, names, experts, the silent habits of an engine, memory.

Every line names its evidence, like the rules do.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from pydantic import Field, field_validator

from bitwright.engines.rules import Data

#: hugging-face: names of the checkpoint. in-memory: modules as transformers has them. gguf, mlx: stacked experts and
#: own roots. exl3: module prefixes.
NameMap = Literal["hugging-face", "in-memory", "gguf", "mlx", "exl3"]
#: Which experts must share one format: those of a role in a block, of a block, of the model; free; never quantized.
MoeRule = Literal["matrix", "role", "block", "model", "expert", "unquantized"]

_DEVICE = re.compile(r"(?P<name>[a-z]+)(?::(?P<capability>[0-9]{1,2}(?:\.[0-9])?))?")


class _Fact(Data):
    evidence: tuple[str, ...] = Field(min_length=1)


class Names(_Fact):
    """Under which names the engine looks for weights."""

    map: NameMap


class Experts(_Fact):
    """The rule for the experts of a mixture."""

    rule: MoeRule
    says: str = Field(min_length=1, max_length=300)


class Never(_Fact):
    """A part that the engine never loads quantized."""

    part: str = Field(min_length=1, max_length=80)
    reason: str = Field(min_length=1, max_length=200)


class Silent(_Fact):
    """What the engine does without a word where another would refuse, and what bitwright does about it."""

    when: str = Field(min_length=1, max_length=200)
    then: str = Field(min_length=1, max_length=200)
    guard: str = Field(min_length=1, max_length=200)


class KvCache(_Fact):
    """A format of the KV cache. bits: stored bits of one number, scales included (`17/2` for q8_0).

    parts: `keys`, `values`, or `both` where one setting holds for the two.
    """

    format: str = Field(pattern=r"^[a-z0-9_-]{1,32}$")
    bits: str = Field(pattern=r"^[0-9]{1,3}(/[0-9]{1,2})?$")
    parts: Literal["keys", "values", "both"] = "both"
    block: int = Field(default=1, ge=1, description="the head's size must be a multiple of it")

    @field_validator("bits")
    @classmethod
    def _sane(cls, text: str) -> str:
        if not 0 < Fraction(text) <= 32:
            raise ValueError("a number of the cache takes more than 0 and at most 32 bits")
        return text

    @property
    def width(self) -> Fraction:
        return Fraction(self.bits)


class Memory(_Fact):
    """What a device holds besides weights and KV cache.

    fixed_bytes: runtime, libraries, graphs. step_tokens: tokens of one forward step at most (a longer prompt goes in
    pieces); activation_bytes: of one number. logits: rows of logits held at once, `step` for every token of a step or
    `sequence` for one a sequence. usable: share of the device's memory that the engine takes.
    """

    fixed_bytes: int = Field(ge=0)
    step_tokens: int = Field(ge=1)
    activation_bytes: int = Field(ge=1, le=8)
    logits: Literal["step", "sequence"]
    usable: float = Field(gt=0, le=1)


class Device(_Fact):
    """A device that the engine runs on. capability: least CUDA compute capability; widths: integer widths it serves
    there (empty = all that the rules list)."""

    name: str = Field(pattern=r"^[a-z]{2,16}$")
    capability: str | None = Field(default=None, pattern=r"^[0-9]{1,2}\.[0-9]$")
    widths: tuple[int, ...] = ()

    def refusals(self, capability: str | None, width: int | None) -> list[str]:
        """Why this device does not serve a format of that integer width."""
        found = []
        if capability is not None and self.capability is not None and _version(capability) < _version(self.capability):
            found.append(f"{self.name} needs compute capability {self.capability}, not {capability}")
        if width is not None and self.widths and width not in self.widths:
            found.append(f"on {self.name} widths are {', '.join(map(str, self.widths))}, not {width}")
        return found


def parse_device(text: str) -> tuple[str, str | None] | None:
    """(name, compute capability or None) of `cpu`, `metal`, `cuda`, `cuda:8.0`; None for anything else."""
    match = _DEVICE.fullmatch(text)
    return None if match is None else (match["name"], match["capability"])


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
