"""ERQ's weight-error step (arXiv:2407.06794): round half of what is left, let the rest make up for it.

Of the inputs still to be rounded (set s + r) the half s is rounded on the grid that the quantizer chose; with d the
errors of s, what is left takes the ridge solution  w_r -= d H_sr (H_rr + ridge)^-1,  the change of w_r that makes up
for d best. Then r is halved, until one input is left: a dozen solves, where GPTQ corrects after every input. H comes
with its ridge, a share of its mean diagonal (the paper's lambda belongs to an unscaled Gram matrix).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from quantizers.base import Float32Matrix, Quantized, group_spans
from quantizers.hessian import Float64


class Ridge:
    """The ridge correction, inputs by falling second moment."""

    def improve(self, weight: Float32Matrix, value: Quantized, hessian: Float64) -> Quantized:
        """See quantizers.compensation.Compensator. Scales and zero points stay."""
        spans = group_spans(weight.shape[1], value.format)
        group = np.repeat(np.arange(len(spans)), [stop - start for start, stop in spans])
        scales = value.scales.astype(np.float64)
        zeros = np.full(scales.shape, value.format.middle, np.float64) if value.zeros is None else value.zeros
        work, codes = weight.astype(np.float64), np.empty(weight.shape, np.uint8)
        left = np.argsort(-np.diag(hessian), kind="stable")
        while len(left):
            now, left = left[: (len(left) + 1) // 2], left[(len(left) + 1) // 2 :]
            step, zero = scales[:, group[now]], zeros[:, group[now]].astype(np.float64)
            rounded = np.clip(np.rint(work[:, now] / step) + zero, 0, value.format.top)
            codes[:, now] = rounded
            if len(left):
                errors = (rounded - zero) * step - work[:, now]
                factor = cho_factor(hessian[np.ix_(left, left)], lower=True)
                work[:, left] -= cho_solve(factor, hessian[np.ix_(left, now)] @ errors.T).T
        return Quantized(codes, value.scales, value.zeros, value.format)
