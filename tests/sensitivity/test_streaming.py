"""Scoring block by block: the same numbers as in memory, from one block in memory at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.core.formats import parse_format
from bitwright.core.table import SensitivityTable
from quantizers.rtn import QUANTIZER as RTN
from sensitivity.blocks import OUTSIDE, open_blocks
from sensitivity.codes import Codes
from sensitivity.deltas import quantized_weight, unit_weight
from sensitivity.evaluate import measure, measure_variants
from sensitivity.partial import Forgetful
from sensitivity.scoring import score
from sensitivity.shelf import Shelf
from sensitivity.stream import Stream
from tests.sensitivity.tiny_models import DATA, Opened, calibrated, token_data

FORMATS = ("int2-g32", "int4-g32")


def _streamed(opened: Opened, data, **options) -> SensitivityTable:
    return score(*opened, FORMATS, calibration=calibrated(data), samples=2, seed=3, options={"stream": True, **options})


@pytest.mark.parametrize("name", ["llama", "bert", "mixtral", "vit"])
@pytest.mark.parametrize("waits", [0, None], ids=["disk", "memory"])
def test_equals_scoring_in_memory(tiny: dict[str, Opened], name: str, waits: int | None, monkeypatch) -> None:
    """Losses, doubt, resampled tables, response and stand-ins; MoE experts are stacked and ViT's names changed."""
    data = DATA[name]()
    whole = score(*tiny[name], FORMATS, calibration=calibrated(data), samples=2, seed=3)
    if waits is not None:
        monkeypatch.setattr("sensitivity.walk.Shelf", lambda limit, folder: Shelf(waits, folder))
        monkeypatch.setattr("sensitivity.stream_measure.Shelf", lambda limit, folder: Shelf(waits, folder))
    found = _streamed(tiny[name], data)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.stderr, whole.stderr, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(found.extras["resampled"], whole.extras["resampled"], rtol=1e-4, atol=1e-9)
    scale = np.abs(whole.extras["signed"]).max()
    np.testing.assert_allclose(found.extras["signed"], whole.extras["signed"], rtol=1e-3, atol=1e-4 * scale)
    assert found.provenance["unmeasured"] == whole.provenance["unmeasured"]
    for key in ("scale", "jump", "spread", "anchors"):
        told = whole.provenance["response"][key]
        assert found.provenance["response"][key] == pytest.approx(told, rel=1e-3, abs=1e-6)


LOCAL = (
    "fisher-token", "fisher-pooled", "hessian", "hessian-trace", "taylor", "grad-output", "kron", "awq-scale",
    "salience", "gptq-loss", "output-kl",
)  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        *((metric, name) for metric in LOCAL for name in ("llama", "mixtral")),
        *(("kron", "bert"), ("salience", "bert"), ("taylor", "vit"), ("output-kl", "vit")),
    ],
)
def test_metrics_of_single_layers_equal_those_in_memory(tiny: dict[str, Opened], metric: str, name: str) -> None:
    data = DATA[name]()
    asked = {"metric": metric, "calibration": calibrated(data), "samples": 2, "seed": 3}
    whole = score(*tiny[name], FORMATS, **asked)
    found = score(*tiny[name], FORMATS, **asked, options={"stream": True, "activation_mib": 1})
    # Differences of log softmaxes in float32, summed over rows in another order: small ones keep three digits.
    np.testing.assert_allclose(found.loss, whole.loss, rtol=5e-3 if metric == "output-kl" else 1e-4, atol=1e-9)
    np.testing.assert_allclose(found.stderr, whole.stderr, rtol=1e-3, atol=1e-9)
    assert found.provenance["unmeasured"] == whole.provenance["unmeasured"]
    assert found.loss_unit == whole.loss_unit
    assert found.provenance["samples"] == whole.provenance["samples"]


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        ("moe", {}), ("moe", {"together": True}), ("rank", {"by": "frequency"}), ("rank", {"by": "block"}),
        ("rank", {"by": "block", "residual": True}),
    ],
    ids=str,
)  # fmt: skip
def test_metrics_of_experts_equal_those_in_memory(tiny: dict[str, Opened], metric: str, options: dict) -> None:
    """A layer's block of experts is looked at when the layer is read, not when the model has run."""
    asked = {"metric": metric, "calibration": calibrated(token_data(6, 4)), "seed": 3}
    whole = score(*tiny["mixtral"], FORMATS, **asked, options=options)
    found = score(*tiny["mixtral"], FORMATS, **asked, options={**options, "stream": True, "activation_mib": 1})
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-4)
    assert found.provenance["unmeasured"] == whole.provenance["unmeasured"]
    for name in ("frequency", "weight", "block_cosine", "scores"):
        first, second = (table.provenance["parameters"].get(name, {}) for table in (found, whole))
        assert list(first) == list(second)
        for key in first:
            np.testing.assert_allclose(first[key], second[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("metric", ["salience", "gptq-loss"])
def test_parts_equal_those_in_memory(tiny: dict[str, Opened], metric: str) -> None:
    asked = {"metric": metric, "calibration": calibrated(DATA["llama"]()), "granularity": "column:16"}
    formats = ("int2-g16", "int4-g16")
    whole = score(*tiny["llama"], formats, **asked)
    found = score(*tiny["llama"], formats, **asked, options={"stream": True})
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-4)


ROWS = (("llama", "row"), ("llama", "row:5"), ("mixtral", "row"), ("vit", "row:3"), ("bert", "row"))
OTHERS = (("llama", "column"), ("llama", "column:16"), ("llama", "group"), ("mixtral", "group"))


@pytest.mark.parametrize(
    ("name", "granularity", "replayed"),
    [*((*asked, True) for asked in ROWS), *((*asked, False) for asked in (*ROWS, *OTHERS))],
)
def test_fisher_of_parts_equals_that_in_memory(
    tiny: dict[str, Opened], name: str, granularity: str, replayed: bool, monkeypatch
) -> None:
    """Rows by either way; a limit of gradients that takes the items of a batch one by one."""
    monkeypatch.setattr("sensitivity.parts_streamed.replays", lambda *sizes: replayed)
    monkeypatch.setattr("sensitivity.parts_streamed.GRADIENT_CELLS", 1)
    asked = {"calibration": calibrated(DATA[name]()), "granularity": granularity, "samples": 2, "seed": 3}
    formats = ("int2-g16", "int4-g16")
    whole = score(*tiny[name], formats, **asked)
    found = score(*tiny[name], formats, **asked, options={"stream": True, "activation_mib": 1})
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-3, atol=1e-6 * whole.loss.max())
    np.testing.assert_allclose(found.stderr, whole.stderr, rtol=5e-3, atol=1e-6 * whole.loss.max())
    assert found.row_names() == whole.row_names()
    for key in ("unmeasured", "samples", "tokens"):
        assert found.provenance[key] == whole.provenance[key]
    assert found.provenance["parameters"]["streamed"]


@pytest.mark.parametrize("name", ["llama", "bert", "mixtral", "vit"])
def test_measuring_equals_measuring_in_memory(tiny: dict[str, Opened], name: str) -> None:
    source, inventory = tiny[name]
    data = DATA[name]()
    first = [FORMATS[i % 2] for i in range(len(inventory.units))]
    whole = measure(source, inventory, {"original": None, "mixed": first, "low": [FORMATS[0]] * len(first)}, data)

    def of(names: list[str] | None):
        return lambda unit: (
            None
            if names is None
            else quantized_weight(RTN, unit_weight(source, unit), parse_format(names[_number(inventory, unit)]), unit)
        )

    variants = {"original": of(None), "mixed": of(first), "low": of([FORMATS[0]] * len(first))}
    found = measure_variants(source, inventory, variants, data, stream=True)
    for key, quality in whole.items():
        assert found[key].kl == pytest.approx(quality.kl, rel=1e-4, abs=1e-9)
        assert found[key].stderr == pytest.approx(quality.stderr, rel=1e-3, abs=1e-9)
        assert found[key].tokens == quality.tokens


def _number(inventory, unit) -> int:
    return [one.name for one in inventory.units].index(unit.name)


@pytest.mark.parametrize("name", ["llama", "mixtral", "vit"])
def test_probes_of_single_units_equal_those_in_memory(tiny: dict[str, Opened], name: str) -> None:
    """A probe joins the walk at its unit's block; those of the head, outside the blocks, at its end."""
    data = DATA[name]()
    for metric, options in (("kl-probe", {"tokens": 32}), ("linearity", {"tokens": 32, "levels": 2})):
        asked = {"metric": metric, "calibration": calibrated(data), "seed": 3}
        whole = score(*tiny[name], FORMATS, **asked, options=options)
        found = score(*tiny[name], FORMATS, **asked, options={**options, "stream": True, "activation_mib": 1})
        np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(found.stderr, whole.stderr, rtol=2e-2, atol=1e-8)
        assert found.loss_unit == whole.loss_unit


def test_parts_of_a_model_that_does_not_fit_are_read_block_by_block(tiny: dict[str, Opened], monkeypatch) -> None:
    monkeypatch.setattr("sensitivity.memory.free_memory", lambda: 1e4)
    table = score(*tiny["llama"], FORMATS, calibration=calibrated(DATA["llama"]()), granularity="row")
    assert table.provenance["parameters"]["streamed"]


def test_parts_refuse_options_that_they_would_not_heed(tiny: dict[str, Opened]) -> None:
    for stream in (False, True):
        for option in ({"relative_error": 0.1}, {"span": 4}, {"keep_samples": True}):
            options = {"stream": stream, **option}
            with pytest.raises(InvalidInput, match="is one of whole tensors"):
                score(
                    *tiny["llama"], FORMATS, calibration=calibrated(DATA["llama"]()), granularity="row", options=options
                )


@pytest.mark.parametrize("name", ["llama", "mixtral", "vit", "bert"])
def test_relevance_equals_that_in_memory(tiny: dict[str, Opened], name: str, monkeypatch) -> None:
    """Block by block, three items at a time; conserved at every operation that it knows in memory."""
    monkeypatch.setattr("sensitivity.streaming.GROUP_TOKENS", 30)
    asked = {"metric": "lrp", "calibration": calibrated(DATA[name]()), "seed": 3}
    whole = score(*tiny[name], FORMATS, **asked)
    found = score(*tiny[name], FORMATS, **asked, options={"stream": True, "activation_mib": 1})
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-3, atol=1e-7 * whole.loss.max())
    first, second = (table.provenance["parameters"]["conservation"] for table in (found, whole))
    assert set(first) == set(second)
    assert max(first.values()) < 1e-4
    assert found.provenance["unmeasured"] == whole.provenance["unmeasured"]
    with pytest.raises(InvalidInput, match="no such option"):
        score(*tiny[name], FORMATS, **asked, options={"stream": True, "dtype": "bfloat16"})


def test_bfloat16_is_near(tiny: dict[str, Opened]) -> None:
    data = DATA["llama"]()
    whole = score(*tiny["llama"], FORMATS, calibration=calibrated(data), samples=2, seed=3)
    found = score(
        *tiny["llama"], FORMATS, calibration=calibrated(data), samples=2, seed=3, options={"dtype": "bfloat16"}
    )
    assert found.provenance["parameters"]["streamed"]
    np.testing.assert_allclose(found.loss, whole.loss, rtol=0.1)
    assert not np.allclose(found.loss, whole.loss, rtol=1e-5)


def test_is_deterministic(tiny: dict[str, Opened]) -> None:
    first, second = (_streamed(tiny["llama"], token_data(5, 9)).loss for _ in range(2))
    assert np.array_equal(first, second)


def test_one_block_is_in_memory_at_a_time(tiny: dict[str, Opened]) -> None:
    model = open_blocks(*tiny["mixtral"])

    def held() -> set[int]:
        parameters = dict(model.model.named_parameters())
        return {where for name, where in model.of_block.items() if parameters[name].device.type != "meta"}

    assert held() == set()
    with model.loaded(1):
        assert held() == {1}
    with model.loaded(OUTSIDE):
        assert held() == {OUTSIDE}
    assert held() == set()


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_a_run_that_was_stopped_goes_on(tiny: dict[str, Opened], granularity: str, monkeypatch) -> None:
    """Groups that were done are not done again, and the table is that of one run."""
    monkeypatch.setattr("sensitivity.streaming.GROUP_TOKENS", 36)
    data, states, runs = token_data(9, 9), [], []
    arguments = {
        "calibration": calibrated(data), "samples": 2, "seed": 3, "options": {"stream": True},
        "granularity": granularity,
    }  # fmt: skip
    whole = score(*tiny["llama"], FORMATS, **arguments)

    class Kept(Forgetful):
        def __init__(self, state) -> None:
            self.load = lambda: state

        def save(self, state) -> None:
            states.append({name: np.array(array) for name, array in state().items()})
            if len(states) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "begin", lambda self, stream, plain=Stream.begin: (runs.append(1), plain(self, stream)))
    with pytest.raises(KeyboardInterrupt):
        score(*tiny["llama"], FORMATS, **arguments, partial=Kept({}))
    before = len(runs)
    found = score(*tiny["llama"], FORMATS, **arguments, partial=Kept(states[-1]))
    assert found.digest == whole.digest
    assert before == 1
    assert len(runs) == 1 + 2 + (granularity == "tensor")  # the groups left, and the anchors of the response


def test_what_cannot_be_streamed_says_so(tiny: dict[str, Opened]) -> None:
    with pytest.raises(Unsupported):
        _streamed(tiny["gpt2"], DATA["gpt2"]())
    with pytest.raises(InvalidInput):
        _streamed(tiny["llama"], DATA["llama"](), relative_error=0.1)


def test_a_shelf_goes_to_disk_beyond_its_limit(tmp_path) -> None:
    shelf = Shelf(100, tmp_path)
    for number in range(4):
        shelf.put(("x", number), torch.full((10,), float(number)))
    assert len(list(tmp_path.iterdir())) == 2
    assert [float(shelf.get(("x", number))[0]) for number in range(4)] == [0, 1, 2, 3]
    shelf.drop(("x", 3))
    shelf.drop(("x", 0))
    assert len(list(tmp_path.iterdir())) == 1


#: Runs in a process of its own, whose VmHWM begins at zero (ru_maxrss would still hold what pytest had when it forked).
_CHILD = """
import json, re, sys
from pathlib import Path
import numpy as np
from bitwright.models import inspect, open_model
from sensitivity.data import Calibration, Data
from sensitivity.partial import Forgetful
from sensitivity.scoring import score
source = open_model(sys.argv[1])
inventory = inspect(source)
data = Data("tokens", {"input_ids": np.arange(64).reshape(2, 32) % 64})
table = score(source, inventory, ("int4-g64",), calibration=Calibration("tokens", data, data, data.digest, "test"),
              samples=1, options={"stream": True})
assert (table.loss > 0).all()
status = Path("/proc/self/status").read_text()
print(json.dumps({"peak": 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1))}))
"""


def _deep(folder: Path, blocks: int) -> Path:
    """A random Llama of so many blocks of 25 MiB in float32, written block by block."""
    width, inner = 512, 3456
    shapes = {f"self_attn.{n}_proj": (width, width) for n in "qkvo"}
    shapes |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"model.layers.{b}.{n}.weight": (torch.randn(s, generator=generator) * s[1] ** -0.5).half()
        for b in range(blocks)
        for n, s in shapes.items()
    }
    names = ("input_layernorm", "post_attention_layernorm")
    norms = [f"model.layers.{b}.{n}.weight" for b in range(blocks) for n in names]
    tensors |= {name: torch.ones(width).half() for name in [*norms, "model.norm.weight"]}
    tensors |= {name: torch.randn(64, width).half() for name in ("model.embed_tokens.weight", "lm_head.weight")}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=width, intermediate_size=inner, num_hidden_layers=blocks, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=64, tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    """Six more blocks (146 MiB in float32): the peak grows by less than one of them, and stays below the promise."""
    peaks = []
    for blocks in (2, 8):
        model = _deep(tmp_path / str(blocks), blocks)
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(model)], capture_output=True, text=True, check=True, timeout=500
        )
        peaks.append(json.loads(done.stdout.splitlines()[-1])["peak"])
    block = 4 * (4 * 512 * 512 + 3 * 512 * 3456)
    assert peaks[1] - peaks[0] < block, [peak >> 20 for peak in peaks]
    assert max(peaks) < 4 * block + (1 << 30)


#: A process that may take 300 MiB of data more than it has, and a model of 200 MiB that is to be scored in memory.
_TIGHT = """
import resource, sys
import numpy as np
from bitwright.core.errors import OutOfResources
from bitwright.models import inspect, open_model
from sensitivity.data import Calibration, Data
from sensitivity.scoring import score
import sensitivity.fisher
source = open_model(sys.argv[1])
inventory = inspect(source)
data = Data("tokens", {"input_ids": np.arange(64).reshape(2, 32) % 64})
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
limit = held + (150 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    score(source, inventory, ("int4-g64",), calibration=Calibration("tokens", data, data, data.digest, "test"),
          samples=1, options={"stream": False})
except OutOfResources as error:
    print("OutOfResources", error.hint)
"""


def test_memory_that_runs_out_is_a_typed_error_that_says_what_to_do(tmp_path: Path) -> None:
    model = _deep(tmp_path / "m", 8)
    done = subprocess.run(
        [sys.executable, "-c", _TIGHT, str(model)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.startswith("OutOfResources"), done.stderr[-2000:]
    assert "stream" in done.stdout


def test_moe_measures_the_layers_that_it_uses_alone(tiny: dict[str, Opened], monkeypatch) -> None:
    """Regression: block by block, output errors of every expert's layers were measured, and thrown away."""
    made: list[int] = []
    monkeypatch.setattr(Codes, "error", lambda self, unit, column, plain=Codes.error: (
        made.append(unit), plain(self, unit, column))[1])  # fmt: skip
    source, inventory = tiny["mixtral"]
    asked = {"metric": "moe", "calibration": calibrated(token_data(6, 4))}
    score(source, inventory, FORMATS, **asked, options={"stream": True})
    assert set(made) == {number for number, unit in enumerate(inventory.units) if unit.expert is None}
