"""The prediction that a plan carries: its interval, its response, and its stability under resampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import solvers
from bitwright.models import inspect, open_model
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import calibrated, save_model, token_data
from worker.steps.prediction import prediction


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory):
    source = open_model(str(save_model("llama", Path(tmp_path_factory.mktemp("m")))))
    return score(
        source, inspect(source), ("int2-g32", "int3-g32", "int4-g32"), calibration=calibrated(token_data(8, 9))
    )


def test_a_plan_knows_its_interval_and_its_stability(table) -> None:
    problem = table.problem(int(table.cost_bytes()[:, 1].sum()))
    solution = solvers.solve(problem)
    found = prediction(table, problem, solution, "auto")["prediction"]
    rows = np.arange(problem.n)
    assert found["additive"] == pytest.approx(table.loss[rows, solution.choice].sum())
    assert 0 < found["low"] < found["kl"] < found["high"]
    assert found["stability"]["tables"] == 20
    assert 0 <= found["stability"]["changed"] <= 1
    assert found["optimism"] == found["stability"]["optimism"] >= 1
    assert prediction(table, problem, solution, "auto")["prediction"] == found
    scale, jump = found["response"]["scale"], found["response"]["jump"]
    total = found["additive"]
    assert found["response"]["optimised"], "the anchors flatter themselves like the plan"
    assert found["kl"] == pytest.approx(scale * total + jump * total**0.5)


def test_tables_that_are_not_in_nats_promise_nothing(table) -> None:
    bare = replace(table, provenance={}, extras={})
    problem = bare.problem(None)
    assert prediction(bare, problem, solvers.solve(problem), "auto") == {}


def test_forbidden_cells_stay_forbidden_when_resampled(table) -> None:
    allowed = np.ones(table.loss.shape, np.bool_)
    allowed[:, 0] = False
    problem = table.problem(int(table.cost_bytes()[:, 2].sum()), allowed=allowed)
    solution = solvers.solve(problem)
    found = prediction(table, problem, solution, "auto")["prediction"]
    assert (solution.choice > 0).all()
    assert found["low"] < found["high"]
