import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon.rewards.code.comparing import equal, false, near, same_data, same_tokens, true

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, FINITE, st.sampled_from([0.0, 1e-9, 1e-6, 1e-2]))
def test_near_is_its_formula_in_exact_arithmetic(value, expected, tolerance):
    gap = abs(Fraction(value) - Fraction(expected))
    bound = Fraction(tolerance) * max(Fraction(1), abs(Fraction(expected)))
    if abs(gap - bound) > bound * Fraction(1, 10**12):  # beyond the rounding of floats
        assert near(value, expected, tolerance) == (gap <= bound)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_what_is_not_finite_is_near_nothing(value):
    assert not near(value, 1.0, 1e-6)
    assert not near(1.0, value, 1e-6)
    assert not near(value, value, 1e-6)


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "same"),
    [
        (b"1 2\n3\n", "1\n2 3", None, True),
        (b"", "", None, True),
        (b"1 2", "1 2 3", None, False),
        (b"1 2 3 4", "1 2 3", 1e-6, False),
        (b"12", "1 2", None, False),
        (b"YES", "Yes", None, False),
        (b"3.0", "3", None, False),
        (b"3.0", "3", 1e-6, True),
        (b"3.0000005", "3.0", 1e-6, True),
        (b"3.00001", "3.0", 1e-6, False),
        (b"1000000007", "1000000008", 1e-6, False),
        (b"1000000.5", "1000000.6", 1e-6, True),
        (b"0.0000005", "0.0", 1e-6, True),
        (b"nan", "nan", 1e-6, True),
        (b"nan", "1.0", 1e-6, False),
        (b"inf", "1.0", 1e-6, False),
        (b"5.0", "inf", 1e-6, False),
        (b"1_0.0", "10.0", 1e-6, False),
        (b"1e-7", "0.0", 1e-6, True),
        (b"abc", "3.0", 1e-6, False),
        ("é".encode(), "é", None, True),
        (b"\xff", "é", None, False),
    ],
)
def test_output_is_compared_token_by_token(printed, expected, tolerance, same):
    assert same_tokens(printed, expected, tolerance) is same


def test_a_long_word_is_read_in_linear_time():
    assert not same_tokens(b"1" * 2_000_000 + b"x", "1.5", 1e-6)


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "same"),
    [
        ((1, (2, 3)), [1, [2, 3]], None, True),
        ([1, 2], [1, 2, 3], None, False),
        ([1, 2], [2, 1], None, False),
        ({"a": (1,)}, {"a": [1]}, None, True),
        ({"a": 1}, {"a": 1, "b": 2}, None, False),
        ({"a": 1}, {"b": 1}, None, False),
        (1.0, 1, None, True),
        (True, 1, None, True),
        ("1", 1, None, False),
        (None, None, None, True),
        (0.1 + 0.2, 0.3, None, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        ([0.1 + 0.2], [0.3], 1e-9, True),
        ({"a": [0.1 + 0.2]}, {"a": [0.3]}, 1e-9, True),
        (1000000007, 1000000008, 1e-6, False),
        (True, 1.0000001, 1e-6, False),
        (math.inf, math.inf, 1e-6, True),
        (math.nan, -math.nan, 1e-6, True),
        ([np.float64(math.nan)], [float("nan")], None, True),
        (math.nan, 0.0, 1e-6, False),
        (math.nan, None, None, False),
        (None, math.nan, None, False),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], None, True),
        (np.array([1, 2]), [1, 3], None, False),
        (np.float64(0.5), 0.5, None, True),
        ({1, 2}, [1, 2], None, False),
        (iter([1, 2]), [1, 2], None, False),
    ],
)
def test_values_are_compared_as_plain_data(value, expected, tolerance, same):
    assert same_data(value, expected, tolerance) is same


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0, 2.5, math.nan])
    | st.sampled_from(["", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.integers(0, 2), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(PLAIN, PLAIN)
def test_equal_true_and_false_are_what_an_assert_says(value, expected):
    def passes(statement):
        try:
            exec(statement, {"value": value, "expected": expected})
        except AssertionError:
            return False
        return True

    assert equal(value, expected) == passes("assert value == expected")
    assert true(value) == passes("assert value")
    assert false(value) == passes("assert not value")


def test_a_comparison_that_raises_has_not_passed():
    two = np.array([1, 2])
    assert (equal(two, [1, 2]), true(two), false(two)) == (False, False, False)
