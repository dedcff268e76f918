"""What a certificate says, how it is read from JSON and written: `core.certificate` makes and checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitwright.core.errors import InvalidPlan

STATUSES = ("optimal", "bounded", "infeasible")
LISTS = ("messages", "curvature", "cases")


#: What each member of a certificate must be when it comes from outside.
_MEMBERS = {
    **dict.fromkeys(("status", "proof", "blame"), "text"),
    **dict.fromkeys(("loss", "lower_bound", "gap", "case_bound"), "a finite number"),
    **dict.fromkeys(("cost", "limits", "multipliers", "smallest_limit"), "finite numbers by name"),
    **dict.fromkeys(LISTS, "a list of finite numbers"),
}  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1.7e308


def _is_readable(name: str, value: Any) -> bool:
    if _MEMBERS[name] == "text":
        return isinstance(value, str)
    if _MEMBERS[name] == "a finite number":
        return _is_number(value)
    if _MEMBERS[name] == "a list of finite numbers":
        return isinstance(value, list | tuple) and all(map(_is_number, value))
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_number(v) for k, v in value.items())


@dataclass(frozen=True)
class Certificate:
    """status: `optimal`, `bounded` or `infeasible`; multipliers by limit name and `rule:<index>`.

    proof: for `optimal` with gap > 0, the complete search that closed the rest of the gap.
    smallest_limit: for `infeasible`, the smallest reachable total of each limited resource (with every other limit and
    rule held where that was found out); blame: what is in the way; multipliers then prove that nothing fits, if they
    can. messages: for pair terms, (pairs of tie groups, 2, formats) in a row (`core.pair_bound`); or, where they bound
    better, curvature: (groups, formats, formats) and (groups, formats) in a row (`core.pair_curvature`). cases: for one
    limit, what bounds better than its multiplier (`core.cases`); case_bound: their bound, above `lower_bound`.
    """

    status: str
    loss: float | None = None
    lower_bound: float | None = None
    gap: float | None = None
    cost: Mapping[str, int | float] = field(default_factory=dict)
    limits: Mapping[str, int | float] = field(default_factory=dict)
    multipliers: Mapping[str, float] = field(default_factory=dict)
    proof: str | None = None
    smallest_limit: Mapping[str, int | float] | None = None
    blame: str | None = None
    messages: tuple[float, ...] | None = None
    curvature: tuple[float, ...] | None = None
    cases: tuple[float, ...] | None = None
    case_bound: float | None = None

    @property
    def relative_gap(self) -> float | None:
        """To the highest bound that it holds, as a share of the loss."""
        if self.gap is None or self.loss is None:
            return None
        gap = self.gap if self.case_bound is None else self.loss - self.case_bound
        return 0.0 if gap == 0 else gap / max(abs(self.loss), abs(self.lower_bound or 0.0), 5e-324)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "status": self.status, "loss": self.loss, "lower_bound": self.lower_bound, "gap": self.gap,
            "cost": dict(self.cost), "limits": dict(self.limits), "multipliers": dict(self.multipliers),
        }  # fmt: skip
        for key in ("proof", "smallest_limit", "blame", "case_bound", *LISTS):
            value = getattr(self, key)
            if value is not None:
                data[key] = dict(value) if isinstance(value, Mapping) else list(value) if key in LISTS else value
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Certificate:
        try:
            known = {name: data[name] for name in Certificate.__dataclass_fields__ if data.get(name) is not None}
            for name, value in known.items():
                if not _is_readable(name, value):
                    raise InvalidPlan(
                        f"the certificate's {name} cannot be read", expected=_MEMBERS[name], got=repr(value)[:80]
                    )
            known |= {name: tuple(map(float, known[name])) for name in LISTS if name in known}
            certificate = Certificate(**known)
        except (TypeError, KeyError, AttributeError) as error:
            raise InvalidPlan("the certificate cannot be read", got=str(error)[:120]) from error
        if certificate.status not in STATUSES:
            raise InvalidPlan(
                "unknown certificate status", expected=", ".join(STATUSES), got=repr(certificate.status)[:40]
            )
        return certificate
