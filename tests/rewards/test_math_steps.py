from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from guerdon import Rollouts
from guerdon.rewards import math
from guerdon.rewards.math.working import holds


def scores(texts, answers, **options):
    rollouts = Rollouts([""] * len(texts), texts, {"answer": answers})
    return math.steps(separator=";", **options).score(rollouts)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("3+4=7", True), ("3 + 4 = 8", False), ("7-10=-3", True), ("2 × 3 = 6 and 6 ÷ 4 = 1.5", True),
        ("2 × 3 = 6 and 6 ÷ 4 = 2", False), ("1 + 1 = 2 = 4 / 2", True), ("1 + 1 = 2 = 3", False),
        ("0.1 + 0.2 = 0.3", True), ("(1 + 2) * 3 = 9", True), ("x = 3", None), ("so it is 7", None),
        ("1/0 = 0", None), ("2**9 = 512", None), ("x2 = 4", None), ("07 + 1 = 8", None),
    ],
)  # fmt: skip
def test_an_equation_holds_or_does_not(text, verdict):
    assert holds(text) is verdict


@given(a=st.integers(-99, 99), b=st.integers(-99, 99), c=st.integers(1, 99), slip=st.integers(-3, 3))
def test_equations_are_exact(a, b, c, slip):
    assert holds(f"{a} + {b} / {c} = {Fraction(a * c + b + slip, c)}") is (slip == 0)


@settings(deadline=None)
@given(st.text(alphabet="0123456789+-*/=() .;#x", max_size=120))
def test_no_text_breaks_it(text):
    assert holds(text) in (True, False, None)
    assert scores([text], ["4"]).mask.shape[0] == 1


def test_the_last_step_is_judged_by_the_reference_and_the_others_by_themselves():
    found = scores(["5-1=4;4;4;#### 4", "5-1=3;#### 3", "1=2"], ["4", "4", "4"])
    assert found.read(0.0).tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.spans.rows()[1] == [(0, 6), (6, 12)]
    assert scores(["5-1=4;4;#### 5"], ["4"], bare=0.5, final="bare").read(0.0).tolist() == [[1, 0.5, 0.5]]


def test_a_reference_that_is_no_number_is_an_abstention():
    found = scores(["1+1=2;#### 2", "1+1=2;#### 2"], ["?", "2"])
    assert found.abstained.any(1).tolist() == [True, False]
    assert "not a number" in found.reasons[0]


def test_an_answer_left_to_be_computed_is_not_right():
    assert scores(["#### 2+2"], ["4"]).read(0.0).tolist() == [[0.0]]


def test_bare_is_a_score():
    with pytest.raises(ValueError, match="bare must be from 0 to 1"):
        math.steps(bare=2)
