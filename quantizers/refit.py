"""Scales fitted anew to codes that are made: the least-squares scales of every row, all its groups together.

With q_g the steps of group g (zero elsewhere) and w a row, the error (w - sum s_g q_g) H (w - sum s_g q_g)' is a
quadratic in the row's scales: A s = b with A_gh = q_g H q_h' and b_g = w H q_g'. A ridge toward the scales as they are,
RIDGE of A's diagonal, keeps rows with few tokens in place. GPTQ chooses its scales before it knows what its codes will
make up for; this is the choice afterwards.
"""

from __future__ import annotations

import numpy as np

from quantizers.base import BLOCK_ELEMENTS, Float32Matrix, Quantized, group_spans
from quantizers.hessian import Float64
from quantizers.rtn import GAIN_LIMITS, stored_scale

RIDGE = 0.01
#: Groups a row up to which all of its scales are fitted together; beyond (tiny groups) the scales stay.
MOST_GROUPS = 1024


class RefitScales:
    """Least-squares scales of given codes; a scale changes within GAIN_LIMITS."""

    def improve(self, weight: Float32Matrix, value: Quantized, hessian: Float64) -> Quantized:
        """See quantizers.compensation.Compensator. Codes and zero points stay; one scale a tensor stays too."""
        spans = group_spans(weight.shape[1], value.format)
        if value.format.tensor or not 0 < len(spans) <= MOST_GROUPS or not len(weight):
            return value
        scales = np.empty_like(value.scales)
        step = max(1, BLOCK_ELEMENTS // max(weight.shape[1], len(spans) ** 2))
        for start in range(0, len(weight), step):
            rows = slice(start, start + step)
            zeros = np.full_like(value.scales[rows], value.format.middle) if value.zeros is None else value.zeros[rows]
            group = np.repeat(np.arange(len(spans)), [stop - start for start, stop in spans])
            steps = value.codes[rows].astype(np.float64) - zeros.astype(np.float64)[:, group]
            before = value.scales[rows].astype(np.float64)
            found = _fitted(weight[rows].astype(np.float64) @ hessian, steps, before, spans, hessian)
            scales[rows] = stored_scale(found.astype(np.float32), value.format, "weight")
        return Quantized(value.codes, scales, value.zeros, value.format)


def _fitted(
    pulled: Float64, steps: Float64, before: Float64, spans: list[tuple[int, int]], hessian: Float64
) -> Float64:
    """(rows, groups) scales. pulled: w H of every row."""
    count = len(spans)
    starts = [start for start, _ in spans]
    gram = np.empty((len(steps), count, count))
    for number, (start, stop) in enumerate(spans):
        gram[:, number] = np.add.reduceat((steps[:, start:stop] @ hessian[start:stop]) * steps, starts, axis=1)
    wanted = np.add.reduceat(pulled * steps, starts, axis=1) - np.einsum("rgh,rh->rg", gram, before)
    diagonal = np.arange(count)
    weight = gram[:, diagonal, diagonal]
    # A group of zero steps has no scale to fit: it keeps its own.
    gram[:, diagonal, diagonal] = np.where(weight > 0, weight * (1 + RIDGE), 1.0)
    change = np.linalg.solve(gram, wanted[..., None])[..., 0]
    low, high = (limit * np.abs(before) - np.abs(before) for limit in GAIN_LIMITS)
    grown: Float64 = before + np.clip(change * np.sign(before), low, high) * np.sign(before)
    return grown
