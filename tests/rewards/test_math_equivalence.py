import time
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings, strategies as st

from guerdon.rewards.math import equivalent
from guerdon.rewards.math.equivalence import meaningful
from guerdon.rewards.math.names import unnamed
from guerdon.rewards.math.structure import Clock, clock, collection, numeral


def test_where_a_number_is_asked_for_its_computation_is_no_answer():
    for exercise in ("37 * 91", r"37 \times 91", "3000 + 367", r"\sqrt{11336689}", r"\frac{6734}{2}", r"3367 \cdot 1"):
        assert not equivalent(exercise, "3367")
        assert equivalent(exercise, "3367", unfinished="accept")
    assert equivalent("37 * 91 = 3367", "3367")
    assert equivalent(r"\frac{6}{4}", r"\frac{3}{2}")
    assert equivalent("84/7", "84/7")
    assert equivalent("12", "84/7")


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_integers_are_equal_only_to_themselves(a, b):
    assert equivalent(f"{a:,}", str(b)) == (a == b)
    assert equivalent(f"\\frac{{{a}}}{{3}}", f"{b}/3") == (a == b)


def test_order_counts_in_tuples_and_not_in_sets():
    for order in permutations(["1", r"\frac12", "-3"]):
        inside = ", ".join(order)
        assert equivalent(rf"\{{{inside}\}}", r"\{1, 0.5, -3\}")
        assert equivalent(f"({inside})", "(1, 0.5, -3)") == (order == ("1", r"\frac12", "-3"))
    assert equivalent(r"\{1, 1, 2\}", r"\{1, 2, 2\}")
    assert equivalent("1, 2, 1", "1, 1, 2")
    assert equivalent("1, 2, 2", "1, 2")
    assert not equivalent("1, 2, 2", "1, 1, 2")
    assert not equivalent("1, 2", "1, 1, 2")
    assert not equivalent("1, 2, 3", "1, 2")
    assert not equivalent("(1, 2)", r"\{1, 2\}")
    assert not equivalent("[1, 2]", "(1, 2)")


@pytest.mark.parametrize(
    ("text", "brackets", "items"),
    [
        ("1, 2", "", ("1", "2")),
        ("3, 4, and 5", "", ("3", "4", "5")),
        (r"(1, \{2, 3\})", "()", ("1", r"\{2, 3\}")),
        (r"\left[0, \dfrac12\right)", "[)", ("0", r"\frac12")),
        (r"(1,2] \cup [3,4)", "∪", ("(1,2]", "[3,4)")),
        ("(1,2) U (3,4)", "∪", ("(1,2)", "(3,4)")),
        (r"\langle 1, 2 \rangle", "()", ("1", "2")),
        (r"\pm 3", "", ("3", "-3")),
        ("3 : 4 : 5", ":", ("3", "4", "5")),
        (r"\{5\}", "{}", ("5",)),
        ("{1, 2}", "", ("1", "2")),
        ("1, 2; 3, 4", "", ("1, 2", "3, 4")),
        (
            r"x = \frac{-1 \pm \sqrt{13}}{4}, 5",
            "",
            (r"x = \frac{-1 + \sqrt{13}}{4}", r"x = \frac{-1 - \sqrt{13}}{4}", "5"),
        ),
        ("p = 5, q = 2 and p = 7, q = 3", "", ("p = 5, q = 2", "p = 7, q = 3")),
        ("x = 1, x = 2", "", ("x = 1", "x = 2")),
        ("a = 1, b = 2, c = 3", "", ("a = 1", "b = 2", "c = 3")),
        ("p = 5, q = 2, q = 3, p = 7", "", ("p = 5", "q = 2", "q = 3", "p = 7")),
    ],
)
def test_collections(text, brackets, items):
    assert collection(text) == (brackets, items)


@pytest.mark.parametrize(
    "text",
    ["", "5", "(5)", "(x+1)(x-1)", "1,", ",", "(1,2", "()", "((((((1,2),3),4),5),6),7)", ",".join("1" * 65)],
)
def test_what_is_no_collection(text):
    assert collection(text) is None or "," in collection(text).items[0]


@pytest.mark.parametrize(
    ("answer", "reference", "values"),
    [
        ("y = 2x + 1", "2x + 1", ("2x + 1", "2x + 1")),
        ("2x + 1", "f(x) = 2x + 1", ("2x + 1", "2x + 1")),
        (r"a_{1} = \pi", r"a_1 = \pi", (r"\pi", r"\pi")),
        ("(p, q) = (3, 2)", "(3, 2)", ("(3, 2)", "(3, 2)")),
        (r"\frac{NO}{BO} = \sqrt2", r"\sqrt2", (r"\sqrt2", r"\sqrt2")),
        ("|AB| = 1", "1", ("1", "1")),
        ("7 : 32", "S_{1} : S = 7 : 32", ("7 : 32", "7 : 32")),
        (r"x \in [1, 2)", "1 \\le x < 2", ("[1, 2)", "1 \\le x < 2")),
        ("x = 2 + 3 = y", "y", ("y", "y")),
        ("2x = 10 = x = 5", "5", ("5", "5")),
        (r"x \in [1, \frac{4}{2})", r"t \in [1, 2)", (r"[1, \frac{4}{2})", "[1, 2)")),
        (r"x = 1/3 \approx 0.33", "1/3", ("1/3", "1/3")),
        ("n = 1, 2, 3", "1, 2, 3", ("1, 2, 3", "1, 2, 3")),
        ("x = 2y", "y = x/2", None),
        ("x = 1, y = 2", "1, 2", None),
        ("2x - y = -1", "y = 2x + 1", None),
        ("6", "x + y = 6", None),
        ("6", "xy = 6", None),
        ("x^2", "x < 2", None),
        ("x = y < 2", "y", None),
        ("5", "5", None),
    ],
)
def test_names_are_dropped_where_they_only_name(answer, reference, values):
    assert unnamed(answer, reference) == values


def test_a_comma_may_be_a_decimal_point_where_that_is_asked_for():
    for decimal, point in [
        ("1,22", "1.22"),
        ("1000,99", "1000.99"),
        ("-0,5", "-1/2"),
        ("0,111", "0.111"),
        ("2,74 €", "2.74"),
    ]:
        assert equivalent(decimal, point, comma="either")
        assert equivalent(point, decimal, comma="either")
        assert not equivalent(decimal, point)
    for not_decimal in ("1,222", "1, 22", "1,2,3"):
        assert not equivalent(not_decimal, "1.22", comma="either")
        assert not equivalent(not_decimal, "1.222", comma="either")
    assert equivalent("1,222", "1222", comma="either")
    assert equivalent("22, 1", "1,22", comma="either")


def test_variables_may_be_renamed_where_that_is_asked_for():
    assert not equivalent("f(y)", "f(x)")
    assert equivalent("f(y)", "f(x)", variables="renamed")
    assert equivalent("b^2 + b", "x^2 + x", variables="renamed")
    assert not equivalent("b^2 + 2b", "x^2 + x", variables="renamed")


def test_a_relation_is_the_set_of_its_solutions_unless_that_is_ruled_out():
    assert equivalent(r"-2 \le x \le 7", r"x \in [-2, 7]")
    assert not equivalent(r"-2 \le x \le 6", r"x \in [-2, 7]")
    assert not equivalent(r"-2 \le x \le 7", r"x \in [-2, 7]", relations="apart")


def test_a_constant_function_is_the_same_for_any_argument():
    assert equivalent("W(x)=1orW(x)=-1", r"W(n) = 1 \text{ and } W(n) = -1")
    assert not equivalent("W(x)=1orW(x)=1", r"W(n) = 1 \text{ and } W(n) = -1")
    assert not equivalent("f(n) = 2x", "f(x) = 2x")
    assert not equivalent("V(x) = 1", "W(x) = 1")


def test_matrices_are_compared_entry_by_entry():
    matrix = r"\begin{pmatrix} 1 & \frac12 \\ 3 & x \end{pmatrix}"
    assert equivalent(r"\begin{bmatrix} 1 & 0.5 \\ 3 & x \end{bmatrix}", matrix)
    assert equivalent(r"\left[\begin{array}{cc} 1 & 1/2 \\ 3 & x \end{array}\right]", matrix)
    assert not equivalent(r"\begin{pmatrix} 1 & 3 \\ \frac12 & x \end{pmatrix}", matrix)
    assert not equivalent(r"\begin{pmatrix} 1 & \frac12 & 3 & x \end{pmatrix}", matrix)


def test_a_time_without_half_of_the_day_may_be_either():
    assert clock("3:30") == Clock(12600, False)
    assert clock("12:15 am") == Clock(900, True)
    assert clock("12:15 pm") == Clock(44100, True)
    assert clock("25:00") is None
    assert clock("13:00 pm") is None
    assert clock("3:60") is None
    assert equivalent("3:30", "3:30 PM")
    assert equivalent("15:30", "3:30 p.m.")
    assert not equivalent("3:30 AM", "3:30 PM")
    assert not equivalent("3:30", "16:30")


def test_digits_in_a_base():
    assert numeral("0FF_{16}") == ("FF", 16)
    assert equivalent("0ff_{16}", "0FF_16")
    assert equivalent("101", "101_2")
    assert not equivalent("101_3", "101_2")
    assert not equivalent("5", "101_2")


@pytest.mark.parametrize(
    "text",
    [
        "18",
        "Tuesday",
        "no solution",
        "S:T = 7:2",
        "9^{9^9}",
        "x + 1",
        "(1, y)",
        "3:30",
        r"\pi",
        r"x \in [0, 1)",
        "A",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        "1011_2",
    ],
)
def test_values(text):
    assert meaningful(text)


@pytest.mark.parametrize(
    "text",
    ["", "see above", "unknown", r"\text{no answer given}", "nan", "(1, see above)", r"\frac{", "}{", "?", "x" * 3000],
)
def test_no_values(text):
    assert not meaningful(text)


@settings(max_examples=100, deadline=None)
@given(st.fractions(max_denominator=50), st.fractions(max_denominator=50))
def test_a_list_is_equal_item_by_item(a, b):
    assert equivalent(f"{a}, {b}", f"{b}, {a}")
    other = b + Fraction(1, 7)
    assert not equivalent(f"({a}, {b})", f"({a}, {other})")


def test_expressions_are_compared_to_the_tolerance():
    assert equivalent("1.414214", r"\sqrt2")
    assert not equivalent("1.414", r"\sqrt2")
    assert equivalent("1.414", r"\sqrt2", tolerance=1e-3)
    assert not equivalent("1.41421356", r"\sqrt2", tolerance=0.0)


def test_a_tower_of_powers_is_not_climbed():
    begin = time.process_time()
    for reference in (r"2\sqrt{3}", "x + 1", "(1, 2)", r"\{1, x\}"):
        assert not equivalent("5^{5^{5^{5^{5}}}}", reference)
        assert not equivalent("123456!", reference)
    assert time.process_time() - begin < 1.0


def test_a_letter_is_no_unit_in_an_expression():
    assert not equivalent("5", "5m")
    assert equivalent("m5", "5m")
