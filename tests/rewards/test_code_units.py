import gzip
import json
from pathlib import Path

import pytest

from guerdon.core.errors import Abstain
from guerdon.rewards import code
from guerdon.rewards.code import options
from guerdon.sandbox import SandboxUnavailable

HUMANEVAL = Path(__file__).parents[3] / "shared/data/humaneval.jsonl.gz"


@pytest.fixture(scope="module", autouse=True)
def isolated():
    try:
        options.check(packages=())
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def outcomes(completion, tests, *given, **settings):
    score, details = code.unit_tests(**settings).evaluate(completion, tests, *given)
    assert details["tests"] == len(details["outcomes"])
    assert details["passed"] == details["outcomes"].count("passed")
    return score, details["outcomes"]


def by_the_judge(tests):
    """The same tests, none of them simple."""
    return [f"{test}\npass" for test in tests]


PROGRAM = """
def f(x):
    return [1, (1, 2), True, float("nan"), {1}, [0.1 + 0.2], None, iter([1])][x]
"""

TESTS = [
    ("assert f(0) == 1", True),
    ("assert f(0) == 1.0", True),
    ("assert f(0) == True", True),
    ("assert f(0) is True", False),
    ("assert f(1) == (1, 2)", True),
    ("assert f(1) == [1, 2]", False),
    ("assert f(2) is True", True),
    ("assert f(2) == 1", True),
    ("assert f(3) == 0", False),
    ("assert f(4) == {1}", True),
    ("assert f(4) == [1]", False),
    ("assert f(5) == [0.3]", False),
    ("assert f(6) is None", True),
    ("assert not f(6)", True),
    ("assert f(6)", False),
    ("assert f(7) == [1]", False),
    ("assert f(8) == 1", False),
    ("assert f() == 1", False),
    ("assert f(x=0) == 1", True),
]


def test_calls_judged_here_and_asserts_judged_inside_agree():
    tests, expected = zip(*TESTS, strict=True)
    here = outcomes(PROGRAM, list(tests), credit="each")
    inside = outcomes(PROGRAM, by_the_judge(tests), credit="each")
    assert [said == "passed" for said in here[1]] == [said == "passed" for said in inside[1]] == list(expected)
    assert here[0] == inside[0] == sum(expected) / len(expected)


def test_all_or_nothing_stops_at_the_first_failure():
    tests = ["assert f(0) == 1", "assert f(0) == 2", "assert f(0) == 1"]
    assert outcomes(PROGRAM, tests) == (0.0, ["passed", "gave 1", "not run"])
    score, said = outcomes(PROGRAM, by_the_judge(tests))
    assert (score, said[0], said[2]) == (0.0, "passed", "not run")
    assert "AssertionError" in said[1]


def test_all_tests_passed_is_one_in_both_kinds_of_credit():
    for credit in ("all", "each"):
        assert outcomes(PROGRAM, ["assert f(0) == 1", "assert f(2)"], credit=credit) == (1.0, ["passed", "passed"])


def test_tests_may_be_json_text():
    assert outcomes(PROGRAM, '["assert f(0) == 1"]')[0] == 1


def test_the_program_may_be_in_a_chat():
    chat = [{"role": "assistant", "content": f"Here you are:\n```python\n{PROGRAM}\n```"}]
    assert outcomes(chat, ["assert f(0) == 1"])[0] == 1


@pytest.mark.parametrize("tests", [["assert f(1) == 2"], ["assert f(1) + 0 == 2"]])
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "no program"),
        ("def f(x) return 2", "does not load: SyntaxError"),
        ("def f(x):\n return 2\n1 / 0", "does not load: ZeroDivisionError"),
        ("def f(x):\n return 2\nimport os; os._exit(0)", "does not load"),
        ("def f(x):\n return 2\nwhile True: pass", "does not load: deadline"),
        ("def g(x):\n return 2", "NameError"),
        ("def f(x):\n raise KeyError('no')", "KeyError"),
        ("\ud800", "does not load: SyntaxError"),
        ("x = '\0'", "does not load: SyntaxError"),
    ],
)
def test_a_program_that_cannot_be_run_earns_the_floor(program, reason, tests):
    score, (said,) = outcomes(program, tests, seconds=0.5)
    assert score == 0
    assert reason in said


SLOW = "import time\ndef f(x):\n    while x == 1: pass\n    return x"


@pytest.mark.parametrize("rewrite", [list, by_the_judge])
def test_a_program_that_is_late_is_loaded_again_for_the_other_tests(rewrite):
    tests = rewrite([f"assert f({i}) == {i}" for i in range(3)])
    assert outcomes(SLOW, tests, credit="each", seconds=0.3) == (2 / 3, ["passed", "deadline 0.3 s", "passed"])


@pytest.mark.parametrize("rewrite", [list, by_the_judge])
def test_tests_that_are_not_reached_in_time_have_failed(rewrite):
    tests = rewrite(["assert f(1) == 1", "assert f(0) == 0"])
    score, said = outcomes(SLOW, tests, credit="each", seconds=0.3, total=0.3)
    assert (score, said[1]) == (0.0, "not reached within 0.3 s")
    assert "deadline" in said[0]


def test_a_program_that_uses_up_its_time_does_not_make_the_setup_late():
    program = "import time\ntime.sleep(0.2)\ndef f(x):\n    while x == 1: pass\n    return x"
    tests = by_the_judge(["assert f(1) == 1", "assert f(0) == 0"])
    setup = "import time\ntime.sleep(0.2)"
    settings = {"setup": "helpers", "seconds": 0.6, "total": 1.75, "credit": "each"}
    score, said = outcomes(program, tests, setup, **settings)
    assert (score, len(said)) == (0.0, 2)


def test_a_program_that_ends_is_loaded_again_for_the_other_tests():
    program = "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    return x"
    score, said = outcomes(program, [f"assert f({i}) == {i}" for i in range(3)], credit="each")
    assert (score, said[0], said[2]) == (2 / 3, "passed", "passed")


def test_memory_is_limited():
    program = "def f(n):\n    return len(bytearray(n << 20))"
    tests = [f"assert f(100) == {100 << 20}"]
    assert outcomes(program, tests)[0] == 1
    assert outcomes(program, tests, memory=50) == (0.0, ["raised MemoryError"])


def test_packages_are_there_by_name_only():
    program = "import numpy as np\ndef f(n):\n    return np.arange(n).sum()"
    tests = ["assert f(4) == 6"]
    assert "ModuleNotFoundError" in outcomes(program, tests)[1][0]
    assert outcomes(program, tests, packages=("numpy",)) == (1.0, ["passed"])
    inside = ["assert np.isclose(f(4), 6)", "assert np.allclose(np.ones(2) * f(4), [6, 6])"]
    assert outcomes(program, inside, packages=("numpy",))[0] == 1


def test_tests_may_use_classes_exceptions_and_modules():
    program = """
class Full(Exception):
    pass

class Stack:
    def __init__(self, size):
        self.items, self.size = [], size
    def push(self, item):
        if len(self.items) == self.size:
            raise Full("full")
        self.items.append(item)
"""
    tests = [
        "s = Stack(1)\ns.push(4)\nassert s.items == [4]",
        "s = Stack(0)\ntry:\n    s.push(1)\nexcept Full as e:\n    assert str(e) == 'full'\nelse:\n    assert False",
        "assert math.isclose(len(Stack(3).items), 0.0)",
    ]
    assert outcomes(program, tests) == (1.0, ["passed"] * 3)


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ([], "tests not a list"),
        (None, "tests not a list"),
        ("assert f(1) == 1", "tests not readable as JSON"),
        ('{"f": 1}', "tests not a list"),
        ([1], "test 1 not text"),
        (["assert f(1) == 1", "assert f(1"], "test 2 not Python"),
        ([" "], "test 1 is empty"),
    ],
)
def test_tests_that_cannot_be_used_abstain(tests, reason):
    for completion in (PROGRAM, ""):
        with pytest.raises(Abstain, match=reason):
            code.unit_tests().evaluate(completion, tests)


SETUP = "from math import sqrt\n\ndef poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n"
ROOT = "assert abs(poly([-2, 1], find([-2, 1]))) < 1e-9"


def test_the_setup_is_there_for_the_program_and_the_tests():
    assert outcomes("def find(xs): return sqrt(4.0)", [ROOT], SETUP, setup="helpers")[0] == 1
    assert outcomes("def find(xs): return sqrt(9.0)", [ROOT], SETUP, setup="helpers")[0] == 0
    assert outcomes("def find(xs): return sqrt(4.0)", ["assert find([1]) == 2"], SETUP, setup="helpers")[0] == 1


@pytest.mark.parametrize("tests", [["assert f(0) == 1"], ["assert f(0) + 0 == 1"]])
@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(0)", "not usable"),
        ("while True: pass", "deadline"),
        ("def g(:", "not Python"),
        ([{"role": "user", "content": "Write f."}], "prompt not text"),
    ],
)
def test_a_setup_that_fails_by_itself_abstains(setup, reason, tests):
    with pytest.raises(Abstain, match=reason):
        outcomes(PROGRAM, tests, setup, setup="prompt", seconds=0.5)


def test_a_program_is_to_blame_where_the_setup_is_sound():
    score, (said,) = outcomes("1 / 0", ["assert f(0) == 1"], SETUP, setup="helpers")
    assert (score, said) == (0.0, "does not load: ZeroDivisionError: division by zero")


def test_an_empty_setup_is_none():
    assert outcomes(PROGRAM, ["assert f(0) == 1"], None, setup="helpers")[0] == 1


TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n"
PROMPT = "def double(x):\n    '''Twice x.'''\n"


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("    return 2 * x", 1),
        ("    return x + 2", 0.5),
        ("```python\ndef double(x):\n    return 2 * x\n```", 1),
        ("```python\n    return 2 * x\n```", 1),
        ("class Solution:\n    def double(self, x):\n        return 2 * x", 0),
        ("    pass", 0),
        ("", 0),
    ],
)
def test_humaneval_takes_bodies_and_whole_functions(completion, score):
    assert code.humaneval(credit="each").evaluate(completion, TEST, "double", PROMPT)[0] == score


@pytest.mark.parametrize(
    ("test", "entry_point", "prompt", "reason"),
    [
        (None, "double", PROMPT, "test not text"),
        (TEST, None, PROMPT, "entry_point not a name"),
        (TEST, "double()", PROMPT, "entry_point not a name"),
        ("def verify(f): ...", "double", PROMPT, "no check"),
        (TEST, "double", "def double(x):", "setup not Python"),
        (TEST, "double", [{"role": "user", "content": "?"}], "prompt not text"),
        ("import nothing_of_this_name\n" + TEST.replace("== 4", "< 5"), "double", PROMPT, "ModuleNotFoundError"),
    ],
)
def test_humaneval_abstains_where_the_task_cannot_be_used(test, entry_point, prompt, reason):
    with pytest.raises(Abstain, match=reason):
        code.humaneval().evaluate("    return 2 * x", test, entry_point, prompt)


@pytest.fixture(scope="module")
def tasks():
    if not HUMANEVAL.exists():
        pytest.skip("the data of HumanEval are not here")
    with gzip.open(HUMANEVAL, "rt") as file:
        return [json.loads(line) for line in file]


def solved(tasks, completion):
    leaf = code.humaneval()
    return sum(leaf.evaluate(completion(task), task["test"], task["entry_point"], task["prompt"])[0] for task in tasks)


def test_all_164_solutions_of_humaneval_pass(tasks):
    assert solved(tasks, lambda task: task["canonical_solution"]) == len(tasks) == 164


def test_no_function_of_humaneval_passes_without_a_body(tasks):
    assert solved(tasks, lambda task: f"```python\n{task['prompt']}    pass\n```") == 0


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"seconds": 0}, "seconds"),
        ({"seconds": 5.0, "total": 4.0}, "total"),
        ({"total": float("inf")}, "total"),
        ({"memory": 0}, "memory"),
        ({"packages": "numpy"}, "numpy"),
    ],
)
def test_options_that_cannot_be_meant_are_errors_at_once(settings, error):
    with pytest.raises(ValueError, match=error):
        code.unit_tests(**settings)


def test_the_columns_are_those_that_the_options_name():
    assert code.unit_tests().reads == ("completion", "tests")
    assert code.unit_tests(setup="test_setup_code").reads == ("completion", "tests", "test_setup_code")
    assert code.humaneval().reads == ("completion", "test", "entry_point", "prompt")
    assert code.humaneval(setup=None).requires == {"completion", "test", "entry_point"}
