"""Every metric that says what its pieces are, cut over workers: the table of one worker, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitwright.core.requests import parse_request
from bitwright.settings import Settings
from sensitivity import passes
from sensitivity.catalog import METRICS
from tests.sensitivity.tiny_models import save_model
from tests.steps.test_fan_out import turn_by_turn
from worker.steps.context import Context

#: Metrics that no pass is cut of, see docs/service.md.
WHOLE = {"rank"}
#: Cut in tests/steps/test_fan_out.py.
ELSEWHERE = {"fisher", "fisher-pooled", "hessian-trace", "grad-output", "weight-mse", "kl-probe"}
#: (metric, model, further members of the request, stages of the job in turn): two layers, at most three parts.
CASES = {
    "linearity": ("llama", {"metric": "linearity"}, [3, 3]),
    "kron": ("llama", {"metric": "kron", "samples": 1}, [3]),
    "kron of experts": ("mixtral", {"metric": "kron", "samples": 1}, [3]),
    "awq-scale": ("llama", {"metric": "awq-scale"}, [3]),
    "salience": ("llama", {"metric": "salience"}, [3]),
    "salience by columns": ("llama", {"metric": "salience", "granularity": "column:16"}, [3]),
    "lrp": ("llama", {"metric": "lrp"}, [3, 3]),
    "moe": ("mixtral", {"metric": "moe"}, [3, 3]),
    "output-kl": ("llama", {"metric": "output-kl"}, [3]),
    "gptq-loss": ("llama", {"metric": "gptq-loss"}, [3]),
    "rate-distortion": ("llama", {"metric": "rate-distortion"}, [3]),
    "hessian": ("llama", {"metric": "hessian"}, [3]),
    "taylor": ("llama", {"metric": "taylor"}, [3]),
    "fisher-token": ("llama", {"metric": "fisher-token", "samples": 1}, [3]),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("llama", "mixtral"):
        save_model(name, folder / name)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_metric_over_workers_gives_the_table_of_one_worker(
    case: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "BATCH_ITEMS", 1)
    model, members, cuts = CASES[case]
    request = parse_request({
        "kind": "sensitivity", "model": f"file:models/{model}", "formats": ["int3-g16", "int4-g16"],
        "calibration": "random", "calibration_tokens": 192, **members,
    })  # fmt: skip
    digests, stages = [], []
    for shards in (1, 3):
        settings = Settings(
            state_dir=tmp_path / str(shards), model_roots={"models": models}, shards=shards, cut_weights=0
        )
        result, found = turn_by_turn(request, Context(settings))
        digests.append(result["table_digest"])
        stages.append([count for _, count in found])
    assert digests[0] == digests[1]
    assert stages == [[], cuts]


def test_every_metric_is_cut_here_or_named_as_whole() -> None:
    tested = {members["metric"] for _, members, _ in CASES.values()}
    assert tested | ELSEWHERE | WHOLE == {entry.name for entry in METRICS}
