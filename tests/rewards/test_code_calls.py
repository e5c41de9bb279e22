import pytest

from guerdon.core.errors import Abstain
from guerdon.rewards import code
from guerdon.rewards.code import options
from guerdon.sandbox import SandboxUnavailable


@pytest.fixture(scope="module", autouse=True)
def isolated():
    try:
        options.check(packages=())
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def outcomes(completion, name, inputs, outputs, **settings):
    score, details = code.call_tests(**settings).evaluate(completion, name, inputs, outputs)
    return score, details["outcomes"]


ADD = "def add(a, b):\n    return a + b"


def test_a_function_is_called_with_each_list_of_arguments():
    assert outcomes(ADD, "add", [[1, 2], [[1], [2]], ["a", "b"]], [3, [1, 2], "ab"]) == (1.0, ["passed"] * 3)
    assert outcomes(ADD, "add", [[1, 2], [2, 2]], [3, 5]) == (0.0, ["passed", "gave 4"])
    assert outcomes(ADD, "add", [[2, 2], [1, 2]], [5, 3]) == (0.0, ["gave 4", "not run"])
    assert outcomes(ADD, "add", [[2, 2], [1, 2]], [5, 3], credit="each") == (0.5, ["gave 4", "passed"])


def test_a_method_of_solution_is_called_as_leetcode_does():
    solution = (
        "from typing import List\nclass Solution:\n    def sum(self, xs: List[int]) -> int:\n        return sum(xs)"
    )
    assert outcomes(solution, "sum", [[[1, 2]], [[]]], [3, 0])[0] == 1


def test_arguments_may_be_lines_of_json():
    assert outcomes(ADD, "add", ["1\n2\n", '"a"\n"b"'], ["3", '"ab"'])[0] == 1
    assert outcomes(ADD, "add", ["[1]\n[2]"], ["[1, 2]"])[0] == 1
    assert outcomes("def f(x):\n    return x", "f", ['"1"'], ["1"])[0] == 0


def test_all_of_it_may_be_json_text():
    assert outcomes(ADD, "add", "[[1, 2], [3, 4]]", "[3, 7]")[0] == 1
    assert outcomes(ADD, "add", '["1\\n2"]', '["3"]')[0] == 1


def test_text_among_listed_arguments_is_itself():
    assert outcomes("def f(x):\n    return x", "f", [["1"]], ["1"])[0] == 1
    assert outcomes("def f(x):\n    return x", "f", [["1"]], [1])[0] == 0


def test_tuples_are_lists_and_numbers_have_a_tolerance():
    assert outcomes("def f(x):\n    return (x, (x,))", "f", [[1]], [[1, [1]]])[0] == 1
    third = "def f(x):\n    return x / 3"
    assert outcomes(third, "f", [[1]], [0.3333])[0] == 0
    assert outcomes(third, "f", [[1]], [0.3333], tolerance=1e-4)[0] == 1
    assert outcomes(third, "f", [[1]], [0.3333], tolerance=1e-5)[0] == 0


def test_a_test_may_expect_nan():
    mean = "def mean(xs):\n    return sum(xs) / len(xs) if xs else float('nan')"
    assert outcomes(mean, "mean", ["[]", "[1]"], ["NaN", "1"])[0] == 1
    assert outcomes(mean, "mean", [[[]], [[1]]], [float("nan")] * 2)[0] == 0


def test_what_a_call_does_to_its_arguments_stays_where_it_is():
    shared = [3, 1, 2]
    inputs = [[shared], [shared]]
    assert outcomes("def f(xs):\n    xs.sort()\n    return xs.pop()", "f", inputs, [3, 3])[0] == 1
    assert shared == [3, 1, 2]


def test_state_between_the_calls_is_the_programs_own():
    assert outcomes("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", "f", [[0], [0]], [1, 2])[0] == 1


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("", "no program"),
        ("def f(:", "does not load: SyntaxError"),
        ("def g(x): ...", "raised NameError: name 'f' is not defined"),
        ("f = 3", "raised TypeError"),
        ("def f(x):\n    return object()", "raised TypeError"),
        ("def f(x):\n    return int('1' * 4000) ** 2", "gave int too long to be shown"),
        ("def f(x):\n    return f(x)", "raised RecursionError"),
    ],
)
def test_what_is_wrong_with_a_program_is_said(program, said):
    score, (why,) = outcomes(program, "f", [[1]], [2])
    assert score == 0
    assert why.startswith(said)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "reason"),
    [
        ("f", [], [], "inputs not a list"),
        ("f", None, [1], "inputs not a list"),
        ("f", [[1]], None, "outputs not a list"),
        ("f", [[1]], [1, 2], "1 inputs and 2 outputs"),
        ("f", [1], [1], "test 1 has no list of arguments"),
        ("f", ["{1"], ["1"], "test 1 not readable as JSON"),
        ("f", ["1"], ["x"], "test 1 not readable as JSON"),
        ("f", "[[1]", "[1]", "inputs not readable as JSON"),
        ("f", [[object]], [1], "test 1 not usable"),
        (None, [[1]], [1], "fn_name not a name"),
        ("f(1)", [[1]], [1], "fn_name not a name"),
    ],
)
def test_tests_that_cannot_be_used_abstain(name, inputs, outputs, reason):
    with pytest.raises(Abstain, match=reason):
        outcomes("def f(x): return x", name, inputs, outputs)


def test_a_tolerance_is_not_negative():
    with pytest.raises(ValueError, match="tolerance"):
        code.call_tests(tolerance=-1.0)
