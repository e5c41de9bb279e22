from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional

import pytest
import yaml

from guerdon.core import SpecError
from guerdon.core.coerce import coerce


@dataclass(frozen=True)
class Optimiser:
    rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError("rate must be positive")


@dataclass(frozen=True)
class Recipe:
    optimiser: Optimiser
    steps: int = 1
    names: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("1e-6", float, 1e-6),
        (yaml.safe_load("1e-6"), float, 1e-6),  # YAML 1.1 reads this as text
        (3, float, 3.0),
        (".5", float, 0.5),
        (math.inf, float, math.inf),
        (3.0, int, 3),
        ("1e3", int, 1000),
        (2**60 + 1, int, 2**60 + 1),
        (str(2**60 + 1), int, 2**60 + 1),
        (True, bool, True),
        ("a", str, "a"),
        ("all", Literal["all", "each"], "all"),
        (None, Optional[float], None),  # noqa: UP045
        ("2", float | None, 2.0),
        (1, bool | int, 1),
        (True, int | bool, True),
        ("group", float | Literal["group", "batch"], "group"),
        ("1e-3", float | Literal["group", "batch"], 1e-3),
        ([1, "2"], tuple[float, ...], (1.0, 2.0)),
        ([1, 2], tuple[float, int], (1.0, 2)),
        ([1, "a"], tuple, (1, "a")),
        ((1, 2), list[float], [1.0, 2.0]),
        ([1], Sequence[float], [1.0]),
        ([[1]], list[list[float]], [[1.0]]),
        ({"a": "1"}, dict[str, float], {"a": 1.0}),
        ({1: "1"}, Mapping[int, float], {1: 1.0}),
        ({"a": 1}, dict, {"a": 1}),
        ("1", Annotated[float, "seconds"], 1.0),
        ({"x": [1]}, Any, {"x": [1]}),
        (None, None, None),
    ],
)
def test_plain_data_becomes_what_is_asked_for(value, annotation, expected):
    result = coerce(value, annotation, "here")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("yes", bool, "here: expected true or false, got 'yes'"),
        (1, bool, "here: expected true or false, got 1"),
        (True, float, "here: expected a number, got True"),
        (True, int, "here: expected a number, got True"),
        ("fast", float, "here: expected a number, got 'fast'"),
        (10**400, float, "here: expected a number that a float can hold"),
        (2.5, int, "here: expected a whole number, got 2.5"),
        (math.inf, int, "here: expected a whole number, got inf"),
        (math.nan, int, "here: expected a whole number, got nan"),
        (5, str, "here: expected text, got 5"),
        ("eech", Literal["all", "each"], "here: 'eech' is not a choice: did you mean 'each'?"),
        (True, Literal[1, 2], "here: True is not a choice: valid: 1, 2"),
        ("groop", float | Literal["group"], "expected a number, got 'groop' or here: 'groop' is not a choice"),
        (None, float, "here: expected a number, got None"),
        (3, None, "here: expected nothing (null), got 3"),
        ("ab", tuple[str, ...], "here: expected a list, got 'ab'"),
        ([1], tuple[float, float], "here: expected a list of 2, got [1]"),
        ([1, "x"], tuple[float, ...], "here[1]: expected a number, got 'x'"),
        ("ab", list[str], "here: expected a list"),
        ([[1], ["x"]], list[list[float]], "here[1][0]: expected a number"),
        ([1], dict[str, int], "here: expected a mapping"),
        ({"a": "x"}, dict[str, int], "here.a: expected a number, got 'x'"),
        ("len", Callable[[str], int], "here: expected Callable"),
        (["a"], frozenset[str], "here: expected frozenset"),
        ("a", re.Pattern, "here: expected Pattern"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_where(value, annotation, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        coerce(value, annotation, "here")


def test_dataclasses_from_mappings():
    recipe = coerce({"optimiser": {"rate": "1e-3", "betas": [0.8, "0.9"]}, "names": ["a"]}, Recipe, "")
    assert recipe == Recipe(Optimiser(1e-3, (0.8, 0.9)), names=["a"])
    assert coerce(recipe, Recipe, "") is recipe


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"optimiser": {"rat": 1}}, "optimiser.rat: there is no such setting: did you mean 'rate'?"),
        ({"optimiser": {"rate": 1}, "stepz": 2}, "stepz: there is no such setting: did you mean 'steps'?"),
        ({"optimiser": {}}, "optimiser.rate is missing"),
        ({}, "optimiser is missing"),
        ({"optimiser": {"rate": 1, "betas": [0.9]}}, "optimiser.betas: expected a list of 2"),
        ({"optimiser": {"rate": -1}}, "optimiser: rate must be positive"),
        ({"optimiser": 3}, "optimiser: expected a mapping with the fields of Optimiser, got 3"),
        ({"optimiser": {"rate": 1, 5: 1}}, "optimiser.5: there is no such setting"),
    ],
)
def test_errors_in_dataclasses_say_which_field(value, message):
    with pytest.raises(SpecError, match="^" + re.escape(message)):
        coerce(value, Recipe, "")
