"""`linearity`: how steeply KL rises with noise in one unit, measured without data (HIGGS, arXiv:2411.17525).

The linearity theorem: for small errors without direction, the loss rises by alpha_u t^2 with the relative error t^2
= ||dW||^2 / ||W||^2, alpha_u being the unit's own and the same for every quantizer. So alpha is measured with noise,
W + t_j ||W|| / sqrt(n) N(0, 1), as the KL from the clean model on random tokens (the paper's data-free variant), and

    loss[u, f] = alpha_u t^2[u, f],    alpha_u = sum_j KL_j t_j^2 / sum_j t_j^4    (least squares through the origin)

Levels t_j lie evenly between the errors of 5 and of 3 bits; the paper takes 15, the option's default is 4. Every level
draws its own noise, so that levels also average over directions. t^2[u, f] is what the quantizer really does to the
unit; the option `distortion = "grid"` takes the constant of the format's grid instead, as the paper does (higgs
formats only; the two agree where rotated weights are normal).

Loss unit: nats of KL (on random tokens). Cost: units x levels forward passes; formats cost nothing. `stderr` is the
scatter of the levels around the line. Trusted from 3 bits up: below, errors meet errors of other layers
(research/01, section 5). The R^2 of the lines is told: where it is low, the theorem does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput
from bitwright.core.formats import FloatFormat, Format, GridFormat
from gpu_kernels.gaussian_grids import grid_distortion
from sensitivity.base import Scores, ScoringTask
from sensitivity.deltas import unit_weight
from sensitivity.fallback import fill_silent
from sensitivity.partial import State
from sensitivity.probes import Probe, Prober
from sensitivity.share import by_units, one_by_one
from sensitivity.stream_options import OPTIONS
from sensitivity.synthetic import random_items

#: Relative errors t between which levels lie evenly: Gaussian quantizers of 5 bits and of 3 bits (research/01).
RANGE = (0.0025**0.5, 0.035**0.5)
LEVELS, MAX_LEVELS = 4, 64
TOKENS = 2048
#: alpha below this share of the largest counts as this share: no unit is free (the paper clamps negative ones).
FLOOR = 1e-4
MEASURED, GRID = "measured", "grid"
_STREAM = 0x1115

Floats = NDArray[np.float64]


def slopes(levels: Floats, rises: Floats) -> tuple[Floats, Floats, Floats]:
    """(alpha, its standard error, R^2) of lines through the origin. levels: (j,) t^2; rises: (units, j)."""
    norm = float((levels**2).sum())
    alpha = rises @ levels / norm
    left = rises - alpha[:, None] * levels
    error = np.sqrt((left**2).sum(axis=1) / max(1, len(levels) - 1) / norm)
    power = (rises**2).sum(axis=1)
    return alpha, error, 1.0 - np.divide((left**2).sum(axis=1), power, out=np.ones_like(power), where=power > 0)


class Linearity:
    """Noise probes. Options: `levels`, noise levels a unit; `tokens`, random tokens a probe runs on (image models:
    images); `distortion`: "measured" or "grid".
    """

    name = "linearity"
    needs_data = False
    options = frozenset({"tokens", "levels", "distortion", *OPTIONS})

    def score(self, task: ScoringTask) -> Scores:
        """See sensitivity.base.Metric. Raises InvalidInput for options out of range."""
        wanted = _count(task, "tokens", TOKENS if task.inventory.task != "image-classification" else 64, 1 << 30)
        levels = squares(_count(task, "levels", LEVELS, MAX_LEVELS))
        relative = _relative_errors(task)
        data = random_items(task.source, task.inventory, wanted, task.seed)
        prober = Prober(task)

        def probe(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
            names = {(u, j): f"{u} {j}" for u in units for j in range(len(levels))}
            probes = {name: _noisy(task, u, j, float(levels[j])) for (u, j), name in names.items()}
            found = prober.measure(probes, data)
            for u in units:
                yield u, {"kl": np.array([found[names[u, j]].kl for j in range(len(levels))], np.float64)}

        probed = by_units(task, one_by_one(task.inventory), probe)
        rises = np.array([probed[u]["kl"] for u in range(task.shape[0])])
        alpha, error, fit = slopes(levels, rises)
        alpha = np.maximum(alpha, FLOOR * float(alpha.max(initial=0.0)))
        loss, stderr = (np.where(rises.any(axis=1), of, 0.0)[:, None] * relative for of in (alpha, error))
        loss, stderr, unmeasured = fill_silent(task, loss, stderr)
        return Scores(
            loss=loss, stderr=stderr, loss_unit=prober.loss_unit, unmeasured=unmeasured,
            tokens=data.tokens, samples=len(levels), warnings=prober.warnings,
            parameters={
                "levels": levels.tolist(), "random_tokens": data.tokens, "r2_median": float(np.median(fit)),
                "r2_above_0.9": float((fit > 0.9).mean()), "distortion": task.options.get("distortion", MEASURED),
                "alpha": {unit.name: float(a) for unit, a in zip(task.inventory.units, alpha, strict=True)},
            },
        )  # fmt: skip


def squares(count: int) -> Floats:
    """(count,) relative squared errors t_j^2, the t_j lying evenly in RANGE; one level is its upper end."""
    ends = RANGE if count > 1 else (RANGE[1], RANGE[1])
    return np.asarray(np.linspace(*ends, count) ** 2)


def _count(task: ScoringTask, name: str, usual: int, most: int) -> int:
    wanted = task.options.get(name, usual)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= most:
        raise InvalidInput(
            f"the option {name} of linearity must be a positive count", expected=f"1 to {most}", got=repr(wanted)[:80]
        )
    return wanted


def _relative_errors(task: ScoringTask) -> Floats:
    """(units, formats) t^2: what the quantizer does to each unit, or the constants of the formats' grids."""
    kind = task.options.get("distortion", MEASURED)
    if kind not in (MEASURED, GRID):
        raise InvalidInput(
            "the option distortion of linearity is unknown", expected=f"{MEASURED}, {GRID}", got=repr(kind)[:80]
        )
    if kind == GRID:
        row = [_constant(format) for format in task.formats]
        return np.tile(np.array(row, np.float64), (task.shape[0], 1))

    def measure(units: tuple[int, ...]) -> Iterator[tuple[int, State]]:
        for number in units:
            weight = unit_weight(task.source, task.inventory.units[number]).astype(np.float64)
            yield number, {"energy": task.deltas.energy(number), "power": np.array(float(np.vdot(weight, weight)))}
            task.progress("quantize", (number + 1) / task.shape[0], task.inventory.units[number].name)

    found = by_units(task, one_by_one(task.inventory), measure)
    energy = task.deltas.energies()
    power = np.array([float(found[number]["power"]) for number in range(task.shape[0])])[:, None]
    return np.asarray(np.divide(energy, power, out=np.zeros_like(energy), where=power > 0))


def _constant(format: Format) -> float:
    if isinstance(format, FloatFormat):
        return 0.0
    if not isinstance(format, GridFormat):
        raise InvalidInput(
            'distortion = "grid" is about formats that rotate weights', expected="higgs-... formats", got=format.label
        )
    loss = grid_distortion(format.layout)
    return loss / (1 - loss)  # gpu_kernels.grid_codec undoes the points' shrinkage by 1 - loss


def _noisy(task: ScoringTask, unit: int, level: int, square: float) -> Probe:
    """The unit with Gaussian noise of relative squared error `square`, drawn anew for every level."""
    spec = task.inventory.units[unit]

    def weights() -> NDArray[np.float32]:
        weight = unit_weight(task.source, spec)
        generator = np.random.Generator(np.random.Philox(key=[task.seed ^ _STREAM, unit * MAX_LEVELS + level]))
        scale = np.sqrt(square * float(np.vdot(weight.astype(np.float64), weight)) / weight.size)
        noisy: NDArray[np.float32] = weight + np.float32(scale) * generator.standard_normal(weight.shape, np.float32)
        return noisy

    return Probe(unit, weights)


METRIC = Linearity()
