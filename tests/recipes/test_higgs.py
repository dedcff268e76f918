"""HIGGS on a trained model: predictions come true above 3 bits, and its plans beat round to nearest at equal bytes.

The short form of `python -m benchmarks.recipes`; docs/recipes/higgs.md holds the long one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import solvers
from bitwright.core.formats import parse_format
from bitwright.models import inspect, open_model
from bitwright.recipes import find_recipe
from sensitivity import calibration
from sensitivity.deltas import Deltas, unit_weight
from sensitivity.evaluate import measure_weights
from sensitivity.runner import load_runner
from sensitivity.scoring import score

FORMATS = ("higgs-p2-n32", "higgs-p2-n64", "higgs-p2-n128", "higgs-p2-n256", "higgs-p2-n1024", "higgs-p1-n64")
RTN = ("int3-sym-g64", "int4-sym-g128")


@pytest.mark.slow
def test_predictions_come_true_and_plans_beat_rounding_to_nearest(models_dir: Path) -> None:
    source = open_model(str(models_dir / "llama-stdlib"))
    inventory, recipe = inspect(source), find_recipe("higgs")
    assert set(FORMATS) <= set(recipe.formats)
    formats = (*FORMATS, *RTN)
    deltas = Deltas(source, inventory, tuple(parse_format(f) for f in formats), "rtn")
    options = {"levels": 3, "tokens": 256}
    table = score(source, inventory, FORMATS, metric=recipe.metric, options=options)
    assert table.provenance["calibration"] is None
    rng, units = np.random.default_rng(0), len(inventory.units)
    choices = {f"random {i}": rng.integers(1, 3 + i % 4, units) for i in range(12)}
    for bits in (3.25, 4.0):
        found = solvers.solve(table.problem(int(bits * inventory.weights / 8)), recipe.solver)
        choices[f"plan {bits}"] = found.choice
    choices |= {name: np.full(units, formats.index(name)) for name in RTN}

    def weights(choice: np.ndarray) -> dict[str, np.ndarray]:
        return {
            unit.name: unit_weight(source, unit) + deltas.stack(row)[choice[row]]
            for row, unit in enumerate(inventory.units)
        }

    data = calibration.load(None, source, inventory, scoring_tokens=256, confirming_tokens=1024).confirming
    makers = {name: (lambda choice=choice: weights(choice)) for name, choice in choices.items()}
    kl = {name: one.kl for name, one in measure_weights(load_runner(source, inventory), makers, data).items()}
    rows = np.arange(units)
    names = [name for name in choices if name.startswith("random")]
    predicted = [float(table.loss[rows, choices[name]].sum()) for name in names]
    assert spearmanr(predicted, [kl[name] for name in names]).statistic >= 0.9
    # Round to nearest has the same bytes, or more: 3.25 and 4.16 bits a weight.
    for plan, rival in zip(("plan 3.25", "plan 4.0"), RTN, strict=True):
        stored = sum(parse_format(rival).storage(u.shape).bits for u in inventory.units) / inventory.weights
        assert stored >= float(plan.split()[1])
        assert kl[plan] < kl[rival]


@pytest.mark.parametrize("name", ["higgs"])
def test_the_recipe_takes_fifteen_levels_and_no_data(name: str) -> None:
    recipe = find_recipe(name)
    assert (recipe.metric, recipe.metric_options["levels"], recipe.solver) == ("linearity", 15, "hull")
