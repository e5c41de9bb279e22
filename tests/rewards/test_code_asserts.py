import pytest
from hypothesis import given, strategies as st

from guerdon.core.errors import Abstain
from guerdon.rewards.code.asserts import checked, suite

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.sets(st.integers(), min_size=1, max_size=3)
)
LITERALS = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(st.lists(LITERALS, max_size=3), LITERALS, LITERALS)
def test_a_simple_assert_is_the_call_that_python_makes_of_it(arguments, expected, value):
    seen = []
    test = f"assert f({''.join(f'{a!r}, ' for a in arguments)}) == {expected!r}, 'no ' + 'good'"
    namespace = {"f": lambda *given: (seen.append(given), value)[1]}
    try:
        exec(test, namespace)
        passes = True
    except AssertionError:
        passes = False
    (case,) = suite((test,)).cases
    assert (case.name, tuple(case.arguments), case.keywords) == ("f", seen[0], {})
    assert case.passes(value) == passes


@pytest.mark.parametrize(
    ("test", "value", "passes"),
    [
        ("assert f(1) is True", True, True),
        ("assert f(1) is True", 1, False),
        ("assert f(1) is False", 0, False),
        ("assert f(1) is None", None, True),
        ("assert f(1) == True", 1, True),
        ("assert f(1)", [0], True),
        ("assert f(1)", [], False),
        ("assert not f(1)", [], True),
        ("assert not f(1)", [0], False),
        ("assert f(1) == -2.5", -2.5, True),
        ("assert f(1) == (1, [2])", (1, [2]), True),
        ("assert f(1) == (1, [2])", [1, [2]], False),
        ("assert f(1) == set()", set(), True),
        ("assert f(x=1, y=[2]) == 3", 3, True),
    ],
)
def test_simple_asserts(test, value, passes):
    (case,) = suite((test,)).cases
    assert case.passes(value) is passes


def test_keywords_are_passed_on():
    (case,) = suite(("assert f(1, y=[2]) == 3",)).cases
    assert (case.arguments, case.keywords) == ([1], {"y": [2]})


@pytest.mark.parametrize(
    "test",
    [
        "assert f(g(1)) == 2",
        "assert f(x) == 2",
        "assert f(*[1]) == 2",
        "assert f(**{'x': 1}) == 2",
        "assert f(1) == g(2)",
        "assert f(1) == 2 == 2",
        "assert f(1) != 2",
        "assert f(1) is 2",
        "assert f(1) in (1, 2)",
        "assert abs(f(1) - 2) < 1e-6",
        "assert f(1)[0] == 2",
        "assert m.f(1) == 2",
        "assert f(1) == 2 and f(2) == 3",
        "assert f(...) == 2",
        "assert f({[]: 1}) == 2",
        "assert f(1) == [2] * 3",
        "x = 1\nassert f(1) == 2",
        "for i in range(3): assert f(i) == i",
        "f(1)",
    ],
)
def test_what_is_not_simple_is_for_the_judge(test):
    tests = suite((test, "assert f(0) == 0"))
    assert tests.cases is None
    assert tests.tests == (test, "assert f(0) == 0")
    assert tests.under_test == ("f",)


@pytest.mark.parametrize(
    ("tests", "setup", "under_test"),
    [
        (["assert sum([1, 2]) == 3"], "", ("sum",)),
        (["assert total([1]) == 1", "assert set((4, 5)) == {4, 5}"], "", ("total",)),
        (["assert set(same((3, 4), (4, 5))) == set((4,))"], "", ()),
        (["assert sorted(f([2, 1])) == sorted([1, 2])", "assert f([]) == []"], "", ("f",)),
        (["assert make(3) == [1, 2, 3]", "assert total(1) == 1"], "def make(n): ...", ("total",)),
        (["assert gcd(4, 6) == 2"], "from math import gcd", ()),
        (["assert f(1) == 1", "assert g(1) == 1"], "", ("f", "g")),
    ],
)
def test_under_test_is_what_is_called_with_literals(tests, setup, under_test):
    assert suite(tuple(tests), setup).under_test == under_test


def test_a_test_of_anything_else_is_not_for_the_program_to_answer():
    assert suite(("assert total([1]) == 1", "assert len('ab') == 2")).cases is None


@pytest.mark.parametrize(
    ("tests", "setup", "reason"),
    [
        (("assert f(1) ==",), "", "test 1 not Python"),
        (("assert f(1)", "# nothing"), "", "test 2 is empty"),
        (("assert f(1)",), "def g(:", "setup not Python"),
        (("assert f('\0')",), "", "test 1 not Python"),
        (("(" * 5000,), "", "test 1 not Python"),
    ],
)
def test_tests_that_cannot_be_used_abstain(tests, setup, reason):
    with pytest.raises(Abstain, match=reason):
        suite(tests, setup)


def test_asserts_of_check_are_a_test_each():
    body = "'doc'\n    assert True, 'fine'\n    assert candidate(1) == 2\n    assert candidate(2) == 3"
    test = f"M = {{}}\ndef check(candidate):\n    {body}"
    found = checked(test, "import math", "f")
    assert found.tests == ("assert f(1) == 2", "assert f(2) == 3")
    assert [case.name for case in found.cases] == ["f", "f"]
    assert found.under_test == ("f",)


@pytest.mark.parametrize(
    "body", ["for i in range(2):\n        assert candidate(i) == i", "x = 1\n    assert candidate(x) == x"]
)
def test_a_check_that_does_more_is_one_test(body):
    found = checked(f"def check(candidate):\n    {body}", "", "f")
    assert (found.tests, found.cases) == (("check(f)",), None)


def test_a_check_with_asserts_that_are_not_simple_is_still_a_test_each():
    found = checked("def check(g):\n    assert abs(g(1) - 1) < 1e-6\n    assert g(2) == 2", "", "f")
    assert (found.tests, found.cases) == (("assert abs(f(1) - 1) < 1e-06", "assert f(2) == 2"), None)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("def verify(f): ...", "no check"),
        ("def check(candidate)", "not Python"),
        ("", "empty"),
        ("def check(candidate):\n    assert True", "asserts nothing"),
        ("def check(candidate): pass", "asserts nothing"),
    ],
)
def test_a_module_without_check_abstains(test, reason):
    with pytest.raises(Abstain, match=reason):
        checked(test, "", "f")
