"""Problem files round-trip bit by bit; whatever else comes in, only typed errors come out."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core import npz
from bitwright.core.certificate import lagrangian
from bitwright.core.errors import BitwrightError, InvalidProblem
from bitwright.core.problem import Problem
from bitwright.core.problem_file import (
    load_problem,
    parse_json,
    problem_from_arrays,
    problem_from_json,
    problem_to_arrays,
    problem_to_json,
    read_npz,
    save_problem,
)
from tests.strategies import problems

RICH = problems(rules=True, pairs=True, resources=(1, 3), subsets=True)


def assert_same(a: Problem, b: Problem) -> None:
    first, second = problem_to_arrays(a), problem_to_arrays(b)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.array_equal(array, second[name]), name


@given(RICH)
def test_npz_round_trip(tmp_path_factory: pytest.TempPathFactory, problem: Problem) -> None:
    path = tmp_path_factory.mktemp("npz") / "p.npz"
    save_problem(problem, path)
    back = load_problem(path)
    assert_same(problem, back)
    assert back.loss.dtype == problem.loss.dtype


@given(RICH)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, problem: Problem) -> None:
    path = tmp_path_factory.mktemp("json") / "p.json"
    save_problem(problem, path)
    assert_same(Problem(problem.loss.astype(np.float64), *_rest(problem)), load_problem(path))
    assert json.loads(path.read_text()) == problem_to_json(problem)


def _rest(p: Problem) -> tuple[Any, ...]:
    return (p.resources, p.limits, p.tie, p.rules, p.pairs, p.unit_names, p.format_names)


@given(RICH)
def test_a_file_means_the_same_problem(problem: Problem) -> None:
    back = problem_from_arrays(problem_to_arrays(problem))
    multipliers = {m.name: 0.5 for m in problem.limits}
    assert lagrangian(back, multipliers) == lagrangian(problem, multipliers)


# --- bad input: each rule of the format by its name -----------------------------------------------------------------


def arrays(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "loss": np.array([[1.0, 0.0], [2.0, 0.5]]),
        "size": np.array([8, 8]),
        "rate": np.array([2, 4]),
        "limit_bits": 48,
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


BAD = {
    "no_loss": arrays(loss=None),
    "loss_nan": arrays(loss=np.array([[np.nan, 0.0], [1, 1]])),
    "loss_minus_inf": arrays(loss=np.array([[-np.inf, 0.0], [1, 1]])),
    "loss_vector": arrays(loss=np.ones(2)),
    "loss_text": arrays(loss=np.array([["a", "b"], ["c", "d"]])),
    "loss_complex": arrays(loss=np.ones((2, 2), np.complex128)),
    "loss_empty": arrays(loss=np.ones((0, 2))),
    "loss_row_forbidden": arrays(loss=np.array([[np.inf, np.inf], [1, 1]])),
    "tie_forbids_all": arrays(loss=np.array([[np.inf, 1], [1, np.inf]]), tie=np.array([0, 0])),
    "too_many_formats": arrays(loss=np.ones((2, 65)), rate=np.ones(65, np.int64)),
    "size_without_rate": arrays(rate=None),
    "size_negative": arrays(size=np.array([-8, 8])),
    "size_float": arrays(size=np.array([8.5, 8.0])),
    "size_short": arrays(size=np.array([8])),
    "rate_den_zero": arrays(rate_den=0),
    "total_overflow": arrays(size=np.array([2**62, 2**62])),
    "uint64_overflow": arrays(size=np.array([2**63, 1], np.uint64)),
    "limit_nan": arrays(limit_bits=np.nan),
    "limit_array": arrays(limit_bits=np.array([1, 2])),
    "limit_of_nothing": arrays(limit_latency=3),
    "limit_without_subset": arrays(**{"limit_bits@attn": 3}),
    "subset_out_of_range": arrays(**{"limit_bits@attn": 3, "subset_attn": np.array([7])}),
    "cost_nan": arrays(cost_bytes=np.array([[np.nan, 1], [1, 1]])),
    "cost_negative": arrays(cost_bytes=np.array([[-1, 1], [1, 1]])),
    "cost_shape": arrays(cost_bytes=np.ones((2, 3))),
    "tie_short": arrays(tie=np.array([0])),
    "tie_float": arrays(tie=np.array([0.5, 1.0])),
    "names_short": arrays(unit_names=np.array(["a"])),
    "names_twice": arrays(unit_names=np.array(["a", "a"])),
    "names_control": arrays(unit_names=np.array(["a\x1b[31m", "b"])),
    "names_empty": arrays(format_names=np.array(["", "b"])),
    "rules_half": arrays(rule_sense=np.array([1])),
    "rule_sense_zero": arrays(
        rule_subset=np.array([[0, 0]]),
        rule_format=np.array([[0, 0]]),
        rule_sense=np.array([0]),
        rule_count=np.array([1]),
    ),
    "rule_index": arrays(
        rule_subset=np.array([[3, 0]]),
        rule_format=np.array([[0, 0]]),
        rule_sense=np.array([1]),
        rule_count=np.array([1]),
    ),
    "pairs_half": arrays(pair_loss=np.array([1.0])),
    "pair_with_itself": arrays(pair_unit=np.array([[0, 0]]), pair_format=np.array([[0, 0]]), pair_loss=np.array([1.0])),
    "pair_nan": arrays(pair_unit=np.array([[0, 1]]), pair_format=np.array([[0, 0]]), pair_loss=np.array([np.nan])),
    "loss_long": arrays(loss=np.array([[np.longdouble("1e400"), 0], [1, 1]])),
    "cost_long": arrays(cost_bytes=np.array([[np.longdouble("1e400"), 0], [1, 1]])),
    "cost_without_name": arrays(cost_=np.array([[1, 2], [3, 4]])),
    "rate_den_fraction": arrays(rate_den=1.5),
    "limit_inf": arrays(limit_bits=np.inf),
    "limit_too_large": arrays(limit_bits=1e300),
    "limit_flag": arrays(limit_bits=True),
    "limit_of_no_subset": arrays(**{"limit_bits@": 3}, limit_bits=None),
    "subset_of_no_limit": arrays(subset_attn=np.array([0])),
    "subset_twice": arrays(**{"limit_bits@attn": 30, "subset_attn": np.array([0, 0])}),
    "losses_overflow": arrays(loss=np.array([[1e308, 0], [1e308, np.inf]])),
    "losses_overflow_below": arrays(loss=np.array([[-1e308, 0], [-1e308, 1]])),
    "cost_overflow": arrays(cost_bytes=np.array([[1e308, 1], [1e308, 1]])),
    "pairs_overflow": arrays(
        pair_unit=np.array([[0, 1]] * 3), pair_format=np.array([[0, 0]] * 3), pair_loss=np.array([1e308] * 3)
    ),
    "loss_structured": arrays(loss=np.zeros((2, 2), [("a", "f8")])),
    "loss_flags": arrays(loss=np.ones((2, 2), bool)),
    "names_bytes": arrays(unit_names=np.array([b"a", b"b"])),
    "resource_twice": arrays(cost_bits=np.array([[1, 2], [3, 4]])),
    "unknown_array": arrays(losses=np.ones(2)),
    # To numpy a span of time is a signed integer.
    "loss_of_time": arrays(loss=np.ones((2, 2), "m8[s]")),
    "size_of_time": arrays(size=np.array([8, 8], "m8[s]")),
    "cost_of_time": arrays(cost_bytes=np.ones((2, 2), "m8[s]")),
    "limit_of_time": arrays(limit_bits=np.timedelta64(48, "s")),
}


#: float80 exists on some machines only; where it is float64, 1e400 is inf already.
if np.finfo(np.longdouble).max <= np.finfo(np.float64).max:
    del BAD["loss_long"], BAD["cost_long"]


@pytest.mark.parametrize("name", BAD)
def test_each_broken_rule_is_refused_in_memory_and_in_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidProblem):
        problem_from_arrays(BAD[name])
    np.savez(tmp_path / "p.npz", **BAD[name])
    with pytest.raises(InvalidProblem):
        load_problem(tmp_path / "p.npz")


def test_pickled_arrays_are_refused_unread(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("the pickle was run",))

    np.savez(tmp_path / "p.npz", loss=np.array([Trap()], dtype=object))
    with pytest.raises(InvalidProblem, match="pickle"):
        load_problem(tmp_path / "p.npz")


def test_an_array_that_claims_more_than_it_has_is_refused_before_allocation() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 8)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("loss.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(InvalidProblem, match="claims more data"):
        read_npz(file)


def test_an_archive_bomb_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("loss.npy", b"\0" * 50_000_000)
    with pytest.raises(InvalidProblem, match="not plausible"):
        read_npz(file)


def test_a_large_bomb_of_moderate_ratio_and_arrays_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "LARGE", 10_000_000)
    rng, file = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("loss.npy", rng.bytes(150_000) + b"\0" * 50_000_000)
    with pytest.raises(InvalidProblem, match="not plausible"):
        read_npz(file)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("loss.npy", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("loss.npy", b"y")
    with pytest.raises(InvalidProblem, match="share a name"):
        read_npz(file)


def archive_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_an_array_with_and_without_the_ending_is_one_name_twice() -> None:
    """Regression: of `limit_bits.npy` and `limit_bits` the later one won."""
    with pytest.raises(InvalidProblem, match="share a name"):
        read_npz(archive_of({"limit_bits.npy": npy(np.array(3)), "limit_bits": npy(np.array(9))}))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_archives_are_packed_as_numpy_packs_them(method: int) -> None:
    """Regression: damage inside an LZMA member came out as LZMAError."""
    with pytest.raises(InvalidProblem, match="as numpy writes"):
        read_npz(archive_of({"loss.npy": npy(np.ones((2, 2)))}, method))


def test_members_that_claim_more_packed_bytes_than_the_file_has_overlap() -> None:
    """Regression: entries that share their bytes passed the ratio, each by itself (Fifield 2019; Python 3.11.7)."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("loss.npy", npy(rng.random((500, 4))))
        for number in range(3):
            shared = copy(archive.getinfo("loss.npy"))
            shared.filename = f"cost_{number}.npy"
            archive.filelist.append(shared)
    with pytest.raises(InvalidProblem, match="overlap"):
        read_npz(file)


@pytest.mark.parametrize(
    ("descr", "shape", "data"),
    [("<f8", (True, 2), b"\0" * 16), ("<U1", (2,), b"\xff" * 8), (">U1", (2,), b"\x7f" * 8)],
)
def test_headers_that_numpy_reads_but_arrays_cannot_be(descr: str, shape: tuple[int, ...], data: bytes) -> None:
    """Regression: a flag as a length gave TypeError, code points beyond unicode SystemError when text was made."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    with pytest.raises(InvalidProblem):
        read_npz(archive_of({"loss.npy": header.getvalue() + data}))


def test_a_missing_file_and_a_folder_are_typed_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(InvalidProblem):
            load_problem(path)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"loss": 1}', '{"loss": [[NaN]]}', '{"loss": [[1, 2], [3]]}', '{"loss": [["x"]]}',
        '{"loss": [[1]], "size": "a", "rate": [1]}', '{"loss": [[1e999]]}', '{"loss": [[1]], "limit_bits": {}}',
        '{"loss": [[1]], "tie": [99999999999999999999]}', "[" * 100_000,
        '{"loss": [[1]], "loss": [[2]]}', '{"loss": [[1]], "size": [1000000000000000000000], "rate": [1]}',
        '{"loss": [[1]], "cost_a": [[1]], "limit_a": 1e400}',
        # Regression: numpy makes numbers of text and flags, and a number beyond float64 silently forbade its cell.
        '{"loss": [[1, 1e400]]}', '{"loss": [["0.5", 1]]}', '{"loss": [["Infinity", 1]]}', '{"loss": [[true, 1]]}',
        '{"loss": ["12", "34"]}', '{"loss": [{"1": 2}]}', '{"loss": [[1]], "unit_names": [1]}',
        '{"loss": [[1]], "unit_names": [null]}', '{"loss": [[1]], "unit_names": ["a\\u0000"]}',
    ],
)  # fmt: skip
def test_bad_json_is_a_typed_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InvalidProblem):
        load_problem(tmp_path / "p.json")


# --- fuzz: random damage never gives anything but a typed error -------------------------------------------------------


@given(RICH, st.data())
def test_damaged_files_give_typed_errors_only(
    tmp_path_factory: pytest.TempPathFactory, problem: Problem, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "p.npz"
    save_problem(problem, path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    with contextlib.suppress(BitwrightError):
        load_problem(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)
_KEYS = st.sampled_from(
    ["loss", "size", "rate", "rate_den", "tie", "limit_bits", "cost_bytes", "unit_names", "rule_subset", "rule_format",
     "rule_sense", "rule_count", "pair_unit", "pair_format", "pair_loss", "subset_a", "limit_bits@a"]
)  # fmt: skip


@given(st.dictionaries(_KEYS, _JSON, max_size=8))
def test_any_json_gives_typed_errors_only(document: dict[str, Any]) -> None:
    document.setdefault("loss", [[1.0, 2.0], [0.5, 0.25]])
    with contextlib.suppress(BitwrightError):
        problem_from_json(document)


@given(st.binary(max_size=200))
def test_any_bytes_give_typed_errors_only(raw: bytes) -> None:
    for read in (parse_json, lambda data: read_npz(io.BytesIO(data))):
        with contextlib.suppress(BitwrightError):
            read(raw)
