import pytest

from guerdon.algebra import spec
from guerdon.core.errors import Abstain, SpecError
from guerdon.rewards import code
from guerdon.rewards.code import options
from guerdon.sandbox import SandboxUnavailable


@pytest.fixture(scope="module", autouse=True)
def isolated():
    try:
        options.check(packages=())
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def outcomes(completion, inputs, outputs, **settings):
    score, details = code.stdin_tests(**settings).evaluate(completion, inputs, outputs)
    return score, details["outcomes"]


SUM = "print(sum(map(int, input().split())))"


def test_what_is_printed_is_compared_test_by_test():
    assert outcomes(SUM, ["1 2\n", "3 4\n"], ["3\n", "7\n"]) == (1.0, ["passed", "passed"])
    assert outcomes(SUM, ["1 2\n", "3 4\n"], ["3\n", "8\n"]) == (0.0, ["passed", "printed '7\\n'"])
    assert outcomes(SUM, ["1 2\n", "3 4\n"], ["4\n", "7\n"], credit="each") == (0.5, ["printed '3\\n'", "passed"])
    assert outcomes(SUM, ["1 2\n", "3 4\n"], ["4\n", "7\n"])[1][1] == "not run"


def test_tests_may_be_lists_of_lines_and_json_text():
    lines = "import sys\nprint(*sys.stdin.read().split('\\n'), sep='-')"
    assert outcomes(lines, [["a", "b"]], [["a-b"]])[0] == 1
    assert outcomes(SUM, '["1 2"]', '["3"]')[0] == 1


def test_numbers_have_a_tolerance_where_one_is_given():
    third = "print(float(input()) / 3)"
    assert outcomes(third, ["1"], ["0.33333"])[0] == 0
    assert outcomes(third, ["1"], ["0.33333"], tolerance=1e-4)[0] == 1


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print(3)\n1 / 0", "exit code 1: ZeroDivisionError: division by zero"),
        ("print(3)\nraise SystemExit(2)", "exit code 2"),
        ("print(3, flush=True)\nimport os\nos.abort()", "ended by SIG"),
        ("print(3, flush=True)\nwhile True: pass", "past its deadline"),
        ("while True: print(3)", "too much output"),
        ("print(3", "exit code 1: SyntaxError"),
        ("x = bytearray(1 << 30)\nprint(3)", "exit code 1: MemoryError"),
        ("", "no program"),
        ("pass", "printed ''"),
    ],
)
def test_a_run_that_goes_wrong_fails_whatever_it_printed(program, said):
    score, (why,) = outcomes(program, ["1 2"], ["3"], seconds=1.0)
    assert score == 0
    assert why.startswith(said)


def test_a_late_run_does_not_fail_the_others():
    program = "n = int(input())\nwhile n == 1: pass\nprint(n)"
    score, said = outcomes(program, ["0", "1", "2"], ["0", "1", "2"], credit="each", seconds=0.3)
    assert (score, said) == (2 / 3, ["passed", "past its deadline", "passed"])


def test_tests_that_are_not_reached_in_time_have_failed():
    program = "n = int(input())\nwhile n == 1: pass\nprint(n)"
    score, said = outcomes(program, ["1", "0"], ["1", "0"], credit="each", seconds=0.3, total=0.3)
    assert (score, said) == (0.0, ["past its deadline", "not reached within 0.3 s"])


def test_output_may_be_as_long_as_is_expected():
    assert outcomes("print('x' * 3_000_000)", [""], ["x" * 3_000_000])[0] == 1


def divides(given, printed, expected):
    return printed.strip().isdigit() and int(given) % int(printed) == 0 and printed.strip() not in ("1", given)


def test_a_checker_says_which_answers_are_right():
    assert outcomes("print(3)", ["12"], ["2"], checker=divides)[0] == 1
    assert outcomes("print(5)", ["12"], ["2"], checker=divides)[0] == 0
    assert outcomes("print(3)\n1 / 0", ["12"], ["2"], checker=divides)[0] == 0


def test_a_checker_that_does_not_decide_abstains():
    with pytest.raises(Abstain, match="the checker gave None, not True or False"):
        outcomes("print(3)", ["12"], ["2"], checker=lambda *texts: None)
    with pytest.raises(ZeroDivisionError):
        outcomes("print(3)", ["12"], ["2"], checker=lambda *texts: 1 / 0)


def test_a_checker_is_named_in_a_spec_where_imports_are_allowed():
    leaf = code.stdin_tests(tolerance=1e-6, packages=("numpy",))
    assert spec.load(spec.dump(leaf)) == leaf
    checked = code.stdin_tests(checker=divides)
    assert spec.load(spec.dump(checked), allow_import=True) == checked
    with pytest.raises(SpecError, match="--allow-import"):
        spec.load(spec.dump(checked))
    with pytest.raises(SpecError, match="checker"):
        spec.dump(code.stdin_tests(checker=lambda *texts: True))


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ([], [], "inputs not a list"),
        ("1 2", ["3"], "inputs not readable as JSON"),
        (["1 2"], ["3", "4"], "1 inputs and 2 outputs"),
        ([1], ["3"], "inputs not text"),
        (["1 2"], [3], "outputs not text"),
    ],
)
def test_tests_that_cannot_be_used_abstain(inputs, outputs, reason):
    with pytest.raises(Abstain, match=reason):
        outcomes(SUM, inputs, outputs)
