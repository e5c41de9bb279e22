import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from guerdon.rewards.math.exact import quantity, same
from guerdon.rewards.math.units import NONE, conversion, unit_of


def value(text):
    read = quantity(text)
    return None if read is None else read.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18", 18),
        ("+5", 5),
        ("-5", -5),
        ("− 5", -5),
        ("007", 7),
        ("18.", 18),
        (".5", Fraction(1, 2)),
        ("2.50", Fraction(5, 2)),
        ("1,234,567", 1234567),
        ("1{,}234", 1234),
        (r"12\,345.5", Fraction(24691, 2)),
        ("10 000", 10000),
        ("3/4", Fraction(3, 4)),
        ("3 / -4", Fraction(-3, 4)),
        (r"\dfrac{3}{4}", Fraction(3, 4)),
        (r"-\tfrac34", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"\frac{1.5}{2}", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        (r"1\frac12", Fraction(3, 2)),
        (r"-1\frac{1}{2}", Fraction(-3, 2)),
        ("2½", Fraction(5, 2)),
        ("1e3", 1000),
        ("1.2E-3", Fraction(12, 10_000)),
        (r"1.2\times10^{3}", 1200),
        ("3 · 10⁸", 3 * 10**8),
        ("2^{10}", 1024),
        ("(-2)^3", -8),
        ("-2^2", -4),
        ("2^{-3}", Fraction(1, 8)),
        (r"0.\overline{142857}", Fraction(1, 7)),
        (r"1.2\overline{3}", Fraction(37, 30)),
        ("0.333...", Fraction(1, 3)),
        (r".333\ldots", Fraction(1, 3)),
        ("0.1666…", Fraction(1, 6)),
        ("0.272727...", Fraction(3, 11)),
        (r"0.1\dot{6}", Fraction(1, 6)),
        ("0.(142857)", Fraction(1, 7)),
        ("18...", 18),
        (r"\frac{\frac12}{3}", Fraction(1, 6)),
        (r"\frac{1}{\frac{2}{3}}", Fraction(3, 2)),
        (r"-\dfrac{\frac{1}{2}}{\frac{3}{4}}", Fraction(-2, 3)),
        ("5m²", 5),
        ("1.5 million", 1_500_000),
        ("2 dozen", 24),
        ("twenty-one", 21),
        ("minus five", -5),
        ("(5)", 5),
        ("x = 5", 5),
        ("5 = x", 5),
        ("16 - 3 - 4 = 9", 9),
        (r"\theta = 2 + 1 = 3", 3),
        ("f(2) = 5", 5),
        ("$18$", 18),
        (r"\$18", 18),
        ("-$50", -50),
        ("$-50", -50),
        ("25%", 25),
        (r"25\%", 25),
        ("7th", 7),
        ("18 dollars a day at the farmers' market", 18),
        (r"\text{about } 5", 5),
    ],
)
def test_numbers_as_people_write_them(text, expected):
    assert value(text) == expected


NO_NUMBERS = [
    "", " ", "-", ".", "$", "x", "5m", "5x", "3x + 1", "2 + 3", "37 * 91", "1,23", "1,2345", "1 2 3", "3 or 4", "not 5",
    "5 or more", "5 and 6", "5 and a half", "5 squared", "1/0", r"\frac{1}{0}", "0^{-1}", "1/2/3", "2\\frac{3}{2}",
    r"\sqrt{4}", r"\pi", "5!", "3:30", "(1, 2)", "[5]", "x > 5", r"x \ge 5", "x != 5", "x == 5", "x^2 + y^2 = 25",
    "2x = 10", "5 =", "= x", "nan", "inf", "Infinity", "0x10", "1_000", "٣", "1e", "1e99999",
    "9^9999", "9^9999999", "10^{99999}",
    "5^(5^(5^(5^5)))", "5^{5^{5^5}}", "18?", "\ud800", "1" * 5000,
    "1.414...", "0.33...", "2.5(3)", r"\frac{\frac{84}{1}}{7}", r"\frac{\frac10}{3}", r"\frac{1}{\frac01}", "0,111",
    "5 minus 3", r"x = 1/3\approx1.3", "a = 1, b = 2", "x = 3 or x = 4", "p = -1 and p = 2",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_not_a_number_is_not_read_as_one(text):
    assert quantity(text) is None


@settings(max_examples=150, deadline=None)
@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(
        ["{:d}", "{:,}", "${:d}$", "**{:,}**", "\\boxed_{:d}", "{:d}.", "x = {:d}", "{:,} apples", r"\text{{ {:d} }}"]
    ),
)
def test_an_integer_is_itself_however_it_is_dressed(n, form):
    if form != "\\boxed_{:d}":
        assert value(form.format(n)) == n


@settings(max_examples=150, deadline=None)
@given(
    st.integers(-999, 999),
    st.integers(1, 999),
    st.sampled_from(["{}/{}", r"\frac{{{}}}{{{}}}", r"\dfrac{{{}}}{{ {} }}"]),
)
def test_a_fraction_is_its_value(a, b, form):
    assert value(form.format(a, b)) == Fraction(a, b)


@settings(max_examples=150, deadline=None)
@given(st.decimals(-(10**6), 10**6, places=4))
def test_a_decimal_is_exact(d):
    assert value(f"{d:f}") == Fraction(Decimal(d))
    assert value(f"{d:,f}") == Fraction(Decimal(d))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.from_regex(r"[0-9]{0,3}", fullmatch=True), st.from_regex(r"[0-9]{1,4}", fullmatch=True))
def test_a_repeating_decimal_is_the_limit_of_its_digits(whole, fixed, repeating):
    many = Fraction(f"{whole}.{fixed}{repeating * 30}")
    assert (
        0
        <= value(rf"{whole}.{fixed}\overline{{{repeating}}}") - many
        <= Fraction(1, 10 ** (len(fixed) + 30 * len(repeating)))
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.from_regex(r"[0-9]{0,3}", fullmatch=True), st.from_regex(r"[0-9]{2,4}", fullmatch=True))
def test_dots_go_on_with_the_digits_that_are_repeated(whole, fixed, repeating):
    written = f"{whole}.{fixed}{repeating * 3}"
    limit = Fraction(f"{whole}.{fixed}{repeating * 40}")
    assert abs(value(written + r"\ldots") - limit) <= Fraction(2, 10 ** (len(fixed) + 2 * len(repeating)))
    if len({*repeating}) == len(repeating):  # otherwise a shorter block may be repeated
        assert abs(value(written + "...") - limit) <= Fraction(1, 10 ** (len(fixed) + 39 * len(repeating)))


@settings(max_examples=150, deadline=None)
@given(
    *[st.integers(1, 99)] * 4, st.sampled_from([r"\frac{{{}}}{{{}}}", r"\frac{{ {} }} {{{}}}", r"\tfrac{{{}}}{{{}}}"])
)
def test_a_fraction_of_fractions_is_its_value_unless_it_comes_out_even(a, b, c, d, form):
    expected = Fraction(a, b) / Fraction(c, d)
    read = value(form.format(rf"\frac{{{a}}}{{{b}}}", f"{c}/{d}"))
    assert read == (expected if expected.denominator > 1 else None)


def agree(answer, reference, **options):
    return same(quantity(answer), quantity(reference), **options)


def test_tolerance_is_for_decimals_only_and_relative_below_one():
    assert agree("0.30000000000000004", "0.3")
    assert agree("0.3333333", "1/3")
    assert not agree("0.333", "1/3")
    assert agree("0.333", "1/3", tolerance=1e-2)
    assert not agree("0.3333333", "1/3", tolerance=0.0)
    assert not agree("1000000001/1000000000", "1")
    assert not agree("0.0000001", "0.0000002")
    assert not agree("1000000.5", "1000000")
    # the edge: |1/3 − 0.333333| = 1/3000000 = 1e-6 · 1/3
    assert agree("0.333333", "1/3")
    assert not agree("0.333333", "1/3", tolerance=0.99e-6)


def test_a_percent_sign_is_a_unit_or_a_factor():
    assert agree("25%", "25%")
    assert agree("25%", "25")
    assert agree("25", "25%")
    assert agree("25%", "1/4")
    assert agree("0.25", "25%")
    assert not agree("0.25", "25")
    assert not agree("0.25%", "25%")
    assert not agree("25%", "25", percent="value")
    assert agree("25%", "1/4", percent="value")


def test_units_are_compared_where_both_are_known():
    assert agree("500 cm", "5 m")
    assert agree("18 square meters", "18 m^2")
    assert agree("10000 cm^2", "1 m²")
    assert agree("50 cents", "$0.50")
    assert agree("36 inches", "3 feet")
    assert agree("3 degrees", "3°C")
    assert agree("5 apples", "5 cm")
    assert agree("5", "5 cm")
    assert not agree("5 m", "5 cm")
    assert not agree("5 m", "5 m^2")
    assert not agree("€5", "$5")
    assert not agree("3°F", "3°C")
    assert agree("5 m", "5 cm", units="ignore")


def test_the_unknown_that_is_solved_for_counts():
    assert agree("x = 5", "5")
    assert agree("5", "x = 5")
    assert not agree("y = 5", "x = 5")


@settings(max_examples=100, deadline=None)
@given(st.fractions(), st.fractions(), st.booleans())
def test_sameness_is_symmetric(a, b, decimal):
    left, right = quantity("1")._replace(value=a, decimal=decimal), quantity("1%")._replace(value=b)
    assert same(left, right) == same(right, left)
    assert same(left, left)


def test_what_may_follow_a_number():
    assert all(
        unit_of(text) is not None for text in ("", " apples", " miles per hour", " m/s", " a day", "cm", " cm^{2}")
    )
    assert all(
        unit_of(text) is None for text in ("%", "x", " x", " or so", "m", " million", " squared minus", "!", "^2")
    )


def test_conversions_are_the_textbook_ones():
    assert conversion(unit_of(" miles"), unit_of(" feet")) == 5280
    assert conversion(unit_of(" lb"), unit_of(" oz")) == 16
    assert conversion(unit_of(" yards"), unit_of(" inches")) == 36
    assert conversion(unit_of(" weeks"), unit_of(" hours")) == 168
    assert conversion(unit_of(" cubic feet"), unit_of(" cubic inches")) == 1728
    assert conversion(unit_of(" years"), unit_of(" months")) == 12
    assert conversion(NONE, unit_of(" cm")) == 1


HEAVY = [
    "5^(5^(5^(5^5)))", "9^9999", "1e9999", "1," * 900, "1 " * 900, "." * 2000, "=" * 2000, "{" * 2000, "\\frac" * 400,
    "1/" * 1000, "\\text{" * 300, "5" + " a" * 900, "5" + " and" * 400, "9" * 2000, "x" * 1999 + "=",
    "^" * 2000, "$" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("text", HEAVY, ids=lambda text: text[:8])
def test_nothing_explodes(text):
    begin = time.process_time()
    quantity(text)
    assert time.process_time() - begin < 0.5


PIECES = [*"0123456789.,/^%$€-+=(){}\\ ½²", r"\frac", r"\text{", " cm", "10^", r"\overline", "x", "\ud800"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(codec=None), max_size=30).map("".join))
def test_no_text_raises(text):
    read = quantity(text)
    assert read is None or isinstance(read.value, Fraction)
