"""SAGA / TCGBench: how good a suite of tests is, and tests that a model writes."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon import Rollouts
from guerdon.core.errors import Abstain
from guerdon.rewards import code
from guerdon.rewards.code import options
from guerdon.rewards.code.matrix import PassMatrix
from guerdon.sandbox import SandboxUnavailable

KILLS = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0]], bool)

tables = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=6).map(
        lambda rows: np.array(rows, bool)
    )
)


@pytest.fixture(scope="module")
def isolated():
    try:
        options.check(packages=())
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_saga_worked_example():
    found = code.suite_quality(KILLS)
    assert (found.detection, found.accurate, found.patterns, found.diversity) == (2 / 3, False, 2, 2 / 3)
    assert code.effective_tests(100, 0.05) == pytest.approx(100 / 5.95)
    assert round(code.effective_tests(100, 0.05), 1) == 16.8
    assert round(code.detection_estimate(0.1, 100, 0.05), 3) == 0.830
    assert round(code.detection_estimate(0.1, math.inf, 0.05), 3) == 0.878


@settings(deadline=None)
@given(tables)
def test_saga_metrics_are_those_of_the_definition(table):
    found = code.suite_quality(table)
    caught = [any(row) for row in table.tolist()]
    columns = {tuple(column) for column in table.T.tolist()} - {(False,) * len(table)}
    assert found.detection == pytest.approx(sum(caught) / len(caught))
    assert found.accurate == all(caught)
    assert found.patterns == len(columns)
    assert found.diversity == pytest.approx(len(columns) / table.shape[1])
    told = [column for column in table.T if 0 < column.sum() < len(column)]
    pairs = [np.corrcoef(a, b)[0, 1] for i, a in enumerate(told) for b in told[i + 1 :]]
    assert (found.correlation is None) == (not pairs)
    if pairs:
        assert found.correlation == pytest.approx(np.mean(pairs), abs=1e-9)


@settings(deadline=None)
@given(tables, st.data())
def test_saga_duplicate_tests_never_change_detection_and_lower_diversity(table, data):
    column = data.draw(st.integers(0, table.shape[1] - 1))
    before, after = (code.suite_quality(kills) for kills in (table, np.concatenate([table, table[:, [column]]], 1)))
    assert (after.detection, after.accurate, after.patterns) == (before.detection, before.accurate, before.patterns)
    assert after.diversity <= before.diversity
    assert (after.diversity < before.diversity) == (before.patterns > 0)


@settings(deadline=None)
@given(tables)
def test_saga_curves_are_the_metrics_of_the_first_tests(table):
    detection, accuracy = code.quality_curve(table)
    for k in range(1, table.shape[1] + 1):
        found = code.suite_quality(table, first=k)
        assert (detection[k - 1], accuracy[k - 1]) == (found.detection, float(found.accurate))


def test_saga_area_of_a_constant_is_the_constant():
    assert code.curve_area([5, 10, 30, 31], [0.4] * 4) == pytest.approx(0.4)
    assert code.curve_area([7], [0.3]) == 0.3
    assert code.curve_area([10, 20, 40], [0.2, 0.4, 0.4]) == pytest.approx((0.3 * 10 + 0.4 * 20) / 30)
    with pytest.raises(ValueError, match="sizes must grow"):
        code.curve_area([2, 2], [0.1, 0.2])


def test_saga_means_over_problems():
    problems = [KILLS, np.ones((2, 1), bool)]
    assert code.benchmark_quality(problems) == pytest.approx(
        {"detection": 5 / 6, "accuracy": 0.5, "patterns": 1.5, "diversity": 5 / 6}
    )
    with pytest.raises(ValueError, match="no problems"):
        code.benchmark_quality([])


def test_saga_estimate_is_exact_for_copies_and_no_bound():
    """20 independent tests, five times each, are worth 20; exchangeable tests of the same ρ find far more."""
    rho = 4 / 99  # of two tests, the share of pairs that are copies
    assert code.effective_tests(100, rho) == pytest.approx(20)
    assert code.detection_estimate(0.1, 100, rho) == pytest.approx(1 - 0.9**20)
    rng = np.random.default_rng(0)
    copies = np.repeat(rng.random((4000, 20)) < 0.1, 5, axis=1)
    found = code.suite_quality(copies)
    assert found.correlation == pytest.approx(rho, abs=0.005)
    assert found.detection == pytest.approx(1 - 0.9**20, abs=0.02)
    exchangeable = rng.random((4000, 60)) < rng.beta(1.9, 17.1, 4000)[:, None]
    found = code.suite_quality(exchangeable)
    assert (found.power, found.correlation) == pytest.approx((0.1, 0.05), abs=0.005)
    assert found.detection > code.detection_estimate(found.power, 60, found.correlation) + 0.1


@pytest.mark.parametrize("power", [-0.1, 1.1, math.nan])
def test_power_is_a_probability(power):
    with pytest.raises(ValueError, match="power is a probability"):
        code.detection_estimate(power, 3, 0.1)


def test_a_pass_matrix_of_wrong_programs_is_a_kill_matrix():
    matrix = PassMatrix.of([["gave 1", "passed"], ["passed", "not run"]])
    assert code.suite_quality(matrix) == code.suite_quality(np.array([[1, 0], [0, 0]], bool))


@settings(deadline=None)
@given(tables, st.integers(0, 4))
def test_kept_tests_kill_what_all_kill_and_each_kills_another(table, most):
    kept = code.killing_tests(table)
    assert table[:, kept].any(1).tolist() == table.any(1).tolist()
    alive = np.ones(len(table), bool)
    for test in kept:
        gains = [int((column & alive).sum()) for column in table.T]
        assert gains[test] == max(gains) > 0
        alive &= ~table[:, test]
    assert code.killing_tests(table, most=most).tolist() == kept[:most].tolist()


def test_turnarounds_are_the_last_wrong_and_the_first_right_of_a_user():
    users = ["a", "b", "a", "a", "a", "c", "b"]
    right = [False, True, False, True, False, False, True]
    assert [tuple(pair) for pair in code.turnarounds(users, right)] == [("a", 2, 3)]
    with pytest.raises(ValueError, match="2 users and 1 verdicts"):
        code.turnarounds(["a", "b"], [True])


@pytest.mark.parametrize("bad", [np.zeros((0, 3), bool), np.zeros((3, 0), bool), np.zeros(3, bool)])
def test_no_programs_and_no_tests_are_refused(bad):
    for part in (code.suite_quality, code.quality_curve, code.killing_tests):
        with pytest.raises(ValueError, match="at least one of each"):
            part(bad)
    with pytest.raises(ValueError, match="leaves none"):
        code.suite_quality(KILLS, first=0)


@pytest.mark.parametrize(("tests", "correlation"), [(0, 0.1), (3, -0.1), (3, 1.1), (math.nan, 0.5)])
def test_effective_tests_outside_of_what_can_be(tests, correlation):
    with pytest.raises(ValueError, match="tests ≥ 1"):
        code.effective_tests(tests, correlation)


def test_saga_a_recorded_kill_matrix_is_a_reward():
    batch = Rollouts(["?"] * 5, [""] * 5, {"kills": [KILLS.tolist(), "[[1], [1]]", None, [[1, 0], [1]], [["a"]]]})
    scores = code.detection().score(batch)
    assert scores.read(math.nan)[:2].tolist() == [2 / 3, 1.0]
    assert scores.abstained.tolist() == [False, False, True, True, False]  # a text that is not 'passed' is a failure
    assert code.detection(metric="accuracy").score(batch).read(0.0)[:2].tolist() == [0.0, 1.0]
    assert code.detection(metric="diversity", first=1).score(batch).read(0.0)[0] == 1.0
    with pytest.raises(ValueError, match="first is None or at least 1"):
        code.detection(first=0)


RIGHT = "a, b = map(int, input().split())\nprint(max(a, b))"
ALSO_RIGHT = "a, b = sorted(map(int, input().split()))\nprint(b)"
WRONG = [
    "a, b = map(int, input().split())\nprint(a)",
    "a, b = map(int, input().split())\nprint(max(a, b, 0))",
    "a, b = map(int, input().split())\nprint(a + b if a > 9 else max(a, b))",
]
VALID = "def validate_all_inputs(text):\n    return len(text.split()) == 2\n"


def generator(*inputs, valid=VALID):
    return f"```python\n{valid}\ndef gen_TC1():\n    return {list(inputs)!r}\n```"


def judged(reply, solutions=(RIGHT, ALSO_RIGHT), wrong=WRONG, **settings):
    settings = {"seconds": 2.0, **settings}
    return code.written_tests(**settings).evaluate(reply, list(solutions), list(wrong))


def test_saga_tests_that_are_written_are_paid_for_the_programs_they_catch(isolated):
    score, details = judged(generator("2 1", "1 2"))
    assert score == 1 / 3
    assert details["kills"] == [[False, True], [False, False], [False, False]]
    better, details = judged(generator("1 2", "-1 -2", "10 11", "1 2"))
    assert (better, details["inputs"], details["used"], details["patterns"]) == (1.0, 4, 3, 3)
    assert judged(generator("1 2"), metric="accuracy")[0] == 0.0


def test_saga_from_what_somebody_got_wrong_to_a_better_suite(isolated):
    """The whole way without a model: a user's two submissions, inputs that separate them, kills, the tests to keep."""
    submissions = [("ann", WRONG[1]), ("bob", RIGHT), ("ann", RIGHT)]
    (pair,) = code.turnarounds([user for user, _ in submissions], [text == RIGHT for _, text in submissions])
    wrong, right = submissions[pair.wrong][1], submissions[pair.right][1]
    assert wrong in code.difference_prompt("The larger of two.", wrong, right)

    def writer(pattern):
        return generator(*(pattern(i) for i in range(5)))

    plain, _ = judged(writer(lambda i: f"{i + 1} {i}"), wrong=WRONG)
    sharp, details = judged(writer(lambda i: f"{-i - 1} {-i - 2}" if i % 2 else f"{i} {i + 1}"), wrong=WRONG)
    assert plain == 0.0
    assert sharp == 2 / 3
    kept = code.killing_tests(np.array(details["kills"]))
    assert len(kept) == 2
    assert code.suite_quality(np.array(details["kills"])[:, kept]).detection == sharp


def test_what_the_problem_leaves_open_kills_nobody(isolated):
    """The known hack: a validator that lets everything in, and inputs on which right programs differ."""
    anything = "def validate_all_inputs(text):\n    return True\n"
    twice = "a = list(map(int, input().split()))\nprint(a[1] if len(a) > 2 else max(a))"
    score, details = judged(
        generator("5 1 7", "x", valid=anything), solutions=[RIGHT.replace("a, b", "a, b, *_"), twice]
    )
    assert (score, details["used"]) == (0.0, 0)
    assert details["problem"] == "no input on which the solutions agree"


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("I cannot.", "no gen_TC"),
        ("```python\ndef gen_TC1(): return ['1 2']\n```", "no validate_all_inputs"),
        (f"```python\n{VALID}\ndef gen_TC1(): return 1 / 0\n```", "ZeroDivisionError"),
        (f"```python\n{VALID}\ndef gen_TC1():\n    while True: pass\n```", "deadline"),
        (
            f"```python\n{VALID}\ndef gen_TC1(): return [1, None, 'x']\n```",
            "no input that the reply itself calls valid",
        ),
        ("```python\ndef gen_TC1(\ndef validate_all_inputs(s): 1\n```", "does not load"),
    ],
)
def test_replies_that_give_no_tests_earn_the_floor(isolated, reply, problem):
    score, details = judged(reply, generating=0.5, seconds=0.5)
    assert (score, details["used"]) == (0.0, 0)
    assert problem in details["problem"]


@pytest.mark.parametrize(
    ("solutions", "wrong", "reason"),
    [
        ([], WRONG, "solutions not a list"),
        ([RIGHT], None, "wrong not a list"),
        ([RIGHT], [3], "wrong not programs"),
        (["print("], WRONG, "a solution is not Python"),
    ],
)
def test_problems_that_cannot_be_used_abstain(solutions, wrong, reason):
    with pytest.raises(Abstain, match=reason):
        code.written_tests().evaluate(generator("1 2"), solutions, wrong)


def test_the_prompts_show_at_most_ten_solutions():
    text = code.analysis_prompt("Add.", [f"print({i})" for i in range(12)])
    assert "print(9)" in text
    assert "print(10)" not in text


def test_saga_scores_a_file(tmp_path):
    from typer.testing import CliRunner

    from guerdon.cli import app

    rows = [{"prompt": "p", "completion": "x", "kills": kills} for kills in (KILLS.tolist(), [[True]], None)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["score", tmp_path / "in.jsonl", "-r", "code.detection", "-o", tmp_path / "out.jsonl"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["score"] for row in scored] == [2 / 3, 1.0, None]
    assert scored[0]["details"]["patterns"] == 2


@pytest.mark.parametrize("bad", [{"most": 0}, {"generating": 0.0}, {"generating": 99.0}])
def test_limits_of_written_tests(bad):
    with pytest.raises(ValueError, match="most is at least 1"):
        code.written_tests(**bad)
