"""The error tree: every class has its own slug and comes back whole from its problem document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.core.errors import PROBLEM_TYPE_BASE, BitwrightError, error_classes, from_problem

EXIT_CODES = {0, 1, 2, 3, 75, 130}


def _all_classes() -> list[type[BitwrightError]]:
    found, todo = [], [BitwrightError]
    while todo:
        cls = todo.pop()
        found.append(cls)
        todo.extend(cls.__subclasses__())
    return found


def test_slugs_are_unique() -> None:
    # InvalidInput names its own; a subclass that forgot one would share its parent's.
    slugs = [cls.slug for cls in _all_classes()]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("cls", _all_classes(), ids=lambda cls: cls.__name__)
def test_every_class_survives_the_way_over_http(cls: type[BitwrightError]) -> None:
    error = cls("went wrong", expected="this", got="that", hint="do so", smallest_limit={"bytes": 7})
    problem = json.loads(json.dumps(error.to_problem()))
    assert problem["type"] == PROBLEM_TYPE_BASE + cls.slug
    assert 400 <= problem["status"] < 600
    back = from_problem(problem)
    assert type(back) is cls
    assert (str(back), back.extra) == (str(error), error.extra)


@pytest.mark.parametrize("cls", _all_classes(), ids=lambda cls: cls.__name__)
def test_exit_codes_are_the_documented_ones(cls: type[BitwrightError]) -> None:
    assert cls.exit_code in EXIT_CODES - {0}


def test_the_message_says_what_was_expected_what_came_and_what_to_do() -> None:
    text = str(BitwrightError("bad", expected="A", got="B", hint="C"))
    assert text.split("\n  ") == ["bad", "expected: A", "got: B", "what to do: C"]


def test_an_unknown_problem_type_still_gives_a_typed_error() -> None:
    error = from_problem({"type": "about:blank", "title": "Teapot", "status": 418})
    assert type(error) is BitwrightError
    assert str(error) == "Teapot"


def test_problem_types_equal_the_golden_file(golden: Path) -> None:
    from tests.goldens import check_golden

    rows = [
        {"type": PROBLEM_TYPE_BASE + slug, "title": cls.title, "status": cls.status, "exit_code": cls.exit_code}
        for slug, cls in error_classes().items()
    ]
    check_golden(golden / "problem_types.json", json.dumps(rows, indent=2) + "\n")
