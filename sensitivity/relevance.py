"""Layer-wise relevance propagation through transformers: rules for every operation, conservation checked at each.

A relevance R starts at the output (one-hot at the predicted class) and is handed back from operation to operation,
each of which shares what arrives at its output among its inputs. Autograd carries it: every operation with a rule is
replaced by one whose 'gradient' is the relevance, so that branch points add up and reshaping costs nothing. (Rules:
those that the vision transformer literature uses, research/02 section 6.)

    linear            alpha = 1: x+ (S W+) + x- (S W-), S = R / Z, Z = x+ W+' + x- W-'; the bias gets nothing
    product of two    half to each operand; for matrix products by its share u dZ/du of Z, rescaled to exactly half
    sum of two        a / (a + b) and b / (a + b), the totals rescaled to |R_a| and |R_b| shares an item
    softmax, norms, activations, constants added or multiplied: unchanged
    selecting, moving, repeating: as autograd does it

Operations in place give a new tensor, which augmented assignments take up; a model that throws it away computes
something else while it is watched, which `lrp` finds out by comparing outputs. An operation on tracked values that
has neither a rule nor a place in STRUCTURAL raises Unsupported: relevance never leaks through something unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from bitwright.core.errors import Unsupported
from sensitivity.capture import Key, Part, weight_key
from sensitivity.partial import State

functional = torch.nn.functional
#: Operations that move values without mixing them: their gradients hand relevance on whole.
STRUCTURAL = frozenset({
    "transpose", "view", "reshape", "permute", "contiguous", "to", "float", "type", "type_as", "__getitem__", "chunk",
    "split", "unbind", "unsqueeze", "squeeze", "expand", "flatten", "unflatten", "cat", "stack", "dropout", "clone",
    "topk", "gather", "mean", "index_select", "narrow", "detach", "view_as", "swapaxes", "movedim", "requires_grad_",
    "_to_copy", "double", "repeat_interleave", "__get__", "select", "adaptive_avg_pool1d",
})  # fmt: skip
_IDENTITY = frozenset({
    "softmax", "silu", "gelu", "relu", "tanh", "sigmoid", "layer_norm", "rms_norm", "neg", "__neg__", "normalize",
    "clamp", "quick_gelu", "leaky_relu", "hardtanh",
})  # fmt: skip


@dataclass
class Ledger:
    """violations: op name -> largest |sum in - sum out| / sum |out| seen. through: (unit, positive relevance) of each
    use of a layer, in the order in which they were met."""

    violations: dict[str, float] = field(default_factory=dict)
    through: list[tuple[int, float]] = field(default_factory=list)

    def check(self, name: str, out: torch.Tensor, *inputs: torch.Tensor | None) -> None:
        total, scale = float(out.double().sum()), float(out.double().abs().sum())
        given = sum(float(r.double().sum()) for r in inputs if r is not None)
        if scale > 0:
            self.violations[name] = max(self.violations.get(name, 0.0), abs(given - total) / scale)

    def arrays(self) -> State:
        """As arrays by name, for those who put together what several went through."""
        return {
            "units": np.array([unit for unit, _ in self.through], np.int64),
            "positive": np.array([positive for _, positive in self.through], np.float64),
            "operations": np.array([*self.violations], np.str_),
            "violations": np.array([*self.violations.values()], np.float64),
        }


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return torch.where(whole == 0, torch.zeros_like(part), part / torch.where(whole == 0, 1.0, whole))


class _Rule(torch.autograd.Function):
    """An operation whose backward pass shares relevance. share: (R) -> one relevance an operand, or None."""

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor, share: Callable[..., Any], *operands: torch.Tensor) -> torch.Tensor:
        ctx.share = share
        ctx.count = len(operands)
        return result.detach().clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        return (None, None, *ctx.share(relevance[0]))


class _IndexAdd(torch.autograd.Function):
    """target.index_add_(dim 0, index, source) in place, sharing by what each had in the sum."""

    @staticmethod
    def forward(
        ctx: Any, target: torch.Tensor, index: torch.Tensor, source: torch.Tensor, share: Callable[..., Any]
    ) -> torch.Tensor:
        before = target.detach().clone()
        target.index_add_(0, index, source)
        ctx.mark_dirty(target)
        ctx.share = lambda relevance: share(relevance, before, index, source.detach())
        return target

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        mine, other = ctx.share(relevance[0])
        return mine, None, other, None


def _reduced(relevance: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return relevance.sum_to_size(like.shape) if relevance.shape != like.shape else relevance


class Propagation(TorchFunctionMode):
    """While active, operations on tracked tensors hand back relevance instead of gradients."""

    def __init__(self, layers: dict[Key, tuple[Part, ...]], ledger: Ledger) -> None:
        super().__init__()
        self._layers = layers
        self._ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if func in (functional.embedding, functional.conv2d):
            return func(*args, **kwargs).detach().requires_grad_()
        flat = [a for a in args if isinstance(a, torch.Tensor)]
        if name in ("cat", "stack") and any(t.requires_grad for t in args[0]):
            tracked = [t if t.requires_grad else t.detach().requires_grad_() for t in args[0]]
            return func(tracked, *args[1:], **kwargs)
        if not any(t.requires_grad for t in flat):
            return func(*args, **kwargs)
        rule = self._rule(name)
        if rule is not None:
            return rule(name, func, args, kwargs)
        result = func(*args, **kwargs)
        if name not in STRUCTURAL and _tracked(result):
            raise Unsupported(
                f"relevance cannot be handed through the operation {name}",
                expected="linears, products, sums, softmax, norms and activations",
                got=name,
                hint="use --metric fisher",
            )
        return result

    def _rule(self, name: str) -> Callable[..., Any] | None:
        if name in _IDENTITY:
            return self._unchanged
        return {
            "linear": self._linear, "matmul": self._matmul, "bmm": self._matmul, "__matmul__": self._matmul,
            "mul": self._product, "__mul__": self._product, "__rmul__": self._product, "mul_": self._product,
            "div": self._quotient, "__truediv__": self._quotient, "div_": self._quotient,
            "add": self._sum, "__add__": self._sum, "__radd__": self._sum, "add_": self._sum,
            "sum": self._total, "index_add_": self._index_add,
        }.get(name)  # fmt: skip

    def _apply(self, name: str, result: torch.Tensor, share: Callable[..., Any], *operands: torch.Tensor) -> Any:
        def checked(relevance: torch.Tensor) -> Any:
            given = share(relevance)
            self._ledger.check(name, relevance, *given)
            return given

        return _Rule.apply(result, checked, *operands)  # type: ignore[no-untyped-call]

    def _unchanged(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        operand = args[0]
        result = func(operand.detach(), *args[1:], **kwargs)
        return self._apply(name, result, lambda r: (_reduced(r, operand),), operand)

    def _linear(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        x, weight = args[0].detach(), (args[1] if len(args) > 1 else kwargs["weight"]).detach()
        parts = self._layers.get(weight_key(weight), ())

        def share(r: torch.Tensor) -> tuple[torch.Tensor]:
            for part in parts:
                positive = float(r[..., part.start : part.stop].double().clamp(min=0).sum())
                self._ledger.through.append((part.unit, positive))
            up, down = weight.clamp(min=0), weight.clamp(max=0)
            high, low = x.clamp(min=0), x.clamp(max=0)
            s = _ratio(r, high @ up.T + low @ down.T)
            return (high * (s @ up) + low * (s @ down),)

        result = func(x, *args[1:], **kwargs)
        return self._apply(name, result, share, args[0])

    def _matmul(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        a, b = args[0].detach(), args[1].detach()
        result = func(a, b)

        def share(r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            s = _ratio(r, result)
            both = (a * (s @ b.mT), b * (a.mT @ s))
            return tuple(_rescaled(part, r, 0.5) for part in both)  # type: ignore[return-value]

        return self._apply(name, result, share, args[0], args[1])

    def _product(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        return self._pair(name, torch.mul, args, lambda r, a, b: (r / 2, r / 2))

    def _quotient(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        divisor = args[1].detach() if isinstance(args[1], torch.Tensor) else args[1]
        return self._pair(name, torch.div, (args[0], divisor), lambda r, a, b: (r, None))

    def _sum(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        return self._pair(name, torch.add, args, _residual)

    def _pair(self, name: str, func: Any, args: Any, share: Callable[..., Any]) -> Any:
        """Two operands: the rule where both are tracked, everything to the tracked one otherwise."""
        tracked = [isinstance(a, torch.Tensor) and a.requires_grad for a in args[:2]]
        a, b = (x.detach() if isinstance(x, torch.Tensor) else x for x in args[:2])
        result = func(a, b)
        if not all(tracked):
            only = args[0] if tracked[0] else args[1]
            return self._apply(name, result, lambda r: (_reduced(r, only),), only)

        def both(r: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = share(r, a, b)
            return tuple(_reduced(part, operand) for part, operand in zip(given, (a, b), strict=True))

        return self._apply(name, result, both, args[0], args[1])

    def _total(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        x = args[0].detach()
        keeping = {**kwargs, "keepdim": True} if len(args) > 1 or "dim" in kwargs else kwargs
        whole = func(x, *args[1:], **keeping)
        result = func(x, *args[1:], **kwargs)
        return self._apply(name, result, lambda r: (_ratio(x, whole) * r.reshape(whole.shape),), args[0])

    def _index_add(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        target, _, index, source = args

        def share(r: torch.Tensor, before: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> Any:
            rows, old = r[index], before[index]
            mine, other = _residual(rows, old, source)
            kept = r.clone()
            kept[index] = mine
            self._ledger.check(name, r, kept, other)
            return kept, other

        return _IndexAdd.apply(target, index, source, share)  # type: ignore[no-untyped-call]


def _residual(r: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares of a + b, their totals rescaled to |R_a| : |R_b| of the whole, an item of the first axis at a time."""
    whole = a + b
    first, second = _ratio(a, whole) * r, _ratio(b, whole) * r
    axes = tuple(range(1, r.ndim))
    sums = [part.sum(axes, keepdim=True) for part in (first, second)]
    size = sums[0].abs() + sums[1].abs()
    total = r.sum(axes, keepdim=True)
    even = torch.full_like(total, 0.5)
    shares = [torch.where(size == 0, even, s.abs() / torch.where(size == 0, 1.0, size)) for s in sums]
    return tuple(  # type: ignore[return-value]
        _ratio(part, s.expand_as(part)) * total * share
        for part, s, share in zip((first, second), sums, shares, strict=True)
    )


def _rescaled(part: torch.Tensor, r: torch.Tensor, share: float) -> torch.Tensor:
    """`part` scaled so that its total is that share of R's, an item of the first axis at a time."""
    totals = [t.sum(tuple(range(1, t.ndim)), keepdim=True) for t in (part, r)]
    scale = _ratio(totals[1].reshape(len(r), -1), totals[0].reshape(len(part), -1)) * share
    return part * scale.reshape(len(part), *[1] * (part.ndim - 1))


def _tracked(result: Any) -> bool:
    parts = result if isinstance(result, tuple | list) else (result,)
    return any(isinstance(part, torch.Tensor) and part.requires_grad for part in parts)


@contextmanager
def norms_unchanged(model: torch.nn.Module, ledger: Ledger) -> Iterator[None]:
    """Normalisation modules hand relevance through unchanged, whatever they do inside."""
    changed = [m for m in model.modules() if "norm" in type(m).__name__.lower() and not list(m.children())]

    def wrapped(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            result = original(x.detach(), *args, **kwargs)

            def share(r: torch.Tensor) -> tuple[torch.Tensor]:
                ledger.check("norm", r, r)
                return (r,)

            applied: torch.Tensor = _Rule.apply(result, share, x)  # type: ignore[no-untyped-call]
            return applied

        return forward

    try:
        for module in changed:
            module.forward = wrapped(module.forward)
        yield
    finally:
        for module in changed:
            del module.forward


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Attention as its formula is written, operation by operation: fused kernels have no rule."""
    previous = getattr(model.config, "_attn_implementation", None)
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if previous is not None:
            model.set_attn_implementation(previous)


def check_same(watched: torch.Tensor, plain: torch.Tensor) -> None:
    """Raises Unsupported when the model computes something else while it is watched."""
    if not bool(torch.allclose(watched, plain.detach(), rtol=1e-3, atol=1e-4 * float(plain.detach().abs().max()))):
        raise Unsupported(
            "this model changes tensors in place in a way that relevance cannot follow", hint="use --metric fisher"
        )


def start(output: torch.Tensor) -> torch.Tensor:
    """One-hot at the largest output of every position; of embeddings, each coordinate's share of the squared length."""
    if output.ndim == 2 and bool(torch.isclose(output.norm(dim=-1), output.new_ones(len(output))).all()):
        return output.square()
    return torch.nn.functional.one_hot(output.argmax(-1), output.shape[-1]).to(output.dtype)
