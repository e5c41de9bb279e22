import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core.errors import Abstain
from guerdon.rewards import math

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "hard_pairs.jsonl").read_text("utf-8").splitlines()]

grade = math.answer().evaluate


def score(completion, reference, **options):
    return math.answer(**options).evaluate(completion, reference)[0]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["why"])
def test_agrees_with_a_careful_mathematician(pair):
    assert score(pair["completion"], pair["answer"]) == pair["correct"]


def test_the_pairs_are_many_and_different():
    assert len({(pair["completion"], pair["answer"]) for pair in PAIRS}) == len(PAIRS) >= 460
    assert 0.35 < sum(pair["correct"] for pair in PAIRS) / len(PAIRS) < 0.65


def test_called_as_trl_calls_a_reward_function():
    completions = [
        [{"role": "assistant", "content": "It is \\boxed{42}."}],
        [{"role": "tool", "content": "\\boxed{42}"}],
        "A: 41",
        "A: 42",
    ]
    assert math.answer()(prompts=["6 · 7?"] * 4, completions=completions, answer=["42", "42", "42", "?"]) == [
        1.0,
        0.0,
        0.0,
        None,
    ]


def test_near_boxes_are_a_list_in_the_reference_too():
    assert score("A: 2, 1", "\\boxed{1}\\boxed{2}", several="near") == 1.0
    assert score("A: 2, 1", "\\boxed{1}\\boxed{2}") == 0.0


def test_the_extracted_answer_is_told():
    assert grade("It is \\boxed{\\frac{84}{2}}.", "42") == (0.0, {"extracted": "\\frac{84}{2}"})
    assert grade("I do not know.", "42") == (0.0, {"extracted": None})


@pytest.mark.parametrize(
    "reference",
    [None, "", "  ", "n/a", "see above", "\\boxed{}", float("nan"), True, ["42"], b"42", "\\frac{", "x" * 10_000],
)
def test_a_reference_that_cannot_be_read_is_an_abstention_that_shows_it(reference):
    with pytest.raises(Abstain, match="reference not parseable: ") as caught:
        grade("A: 42", reference)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    "reference",
    [
        42,
        42.0,
        np.int64(42),
        np.float32(42),
        "42",
        "#### 42",
        "So \\boxed{42}.",
        "The answer is 42.",
        "$42",
        "42 apples",
    ],
)
def test_references_as_datasets_have_them(reference):
    assert score("A: 42", reference) == 1.0
    assert score("A: 43", reference) == 0.0


@pytest.mark.parametrize(
    ("option", "completion", "reference", "default"),
    [
        ({"accept": "marked"}, "3 + 4 = 7", "7", 1.0),
        ({"several": "agree"}, "\\boxed{6} \\boxed{7}", "7", 1.0),
        ({"several": "near"}, "\\boxed{6} bags, \\boxed{7} boxes", "6, 7", 0.0),
        ({"comma": "either"}, "A: 1,25", "1.25", 0.0),
        ({"tolerance": 0.0}, "A: 0.3333333333", "1/3", 1.0),
        ({"percent": "value"}, "A: 7%", "7", 1.0),
        ({"units": "ignore"}, "A: 7 cm", "7 m", 0.0),
        ({"unfinished": "accept"}, "A: 3 + 4", "7", 0.0),
    ],
)
def test_each_option_turns_an_outcome(option, completion, reference, default):
    assert score(completion, reference) == default
    assert score(completion, reference, **option) == 1.0 - default


def test_a_tower_of_powers_does_not_fell_the_fast_path():
    begin = time.process_time()
    assert score("\\boxed{5^(5^(5^(5^5)))}", "7") == 0.0
    assert score("\\boxed{9^{9999999}}", "7") == 0.0
    assert time.process_time() - begin < 0.5


PIECES = [
    "\\boxed{", "}", "<answer>", "</answer>", "####", "A: ", "\n", "the answer is ", "7", "1/2", ",", " or ", "x", "=",
    "^", "\\frac{", "%", "\\sqrt{", "(", ")",
]  # fmt: skip
FORMS = ["\\boxed{{{:,}}}", "A: {}", "#### {}", "The answer is {}.", "<answer>{}</answer>", "So it is {}."]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.characters(codec=None), max_size=25).map("".join),
    st.sampled_from(["7", "1/2", "7%", "7 cm", "1,000", "3:30"]),
)
def test_any_text_scores_zero_or_one(text, reference):
    score, details = grade(text, reference)
    assert score in (0.0, 1.0)
    assert details["extracted"] is None or isinstance(details["extracted"], str)


SMALL = [
    "x", "y", "2", "3", "1/2", "+", "-", "^", "{", "}", "(", ")", "\\frac{1}{2}", "\\sqrt{", "=", "<", "\\in ", "[",
    "]", ", ", "\\cup ", "!", "\\pi", "\\infty", "|", "\\{", "\\}", "\\pm ", "%", "\\text{and}", "f(x)",
    "\\emptyset ", "\\begin{pmatrix}",
]  # fmt: skip
REFERENCES = [
    "x^2+1",
    "\\frac{\\pi}{4}",
    "[1,2)",
    "(1,x)",
    "x>2",
    "2x+y=3",
    "\\{1,2,x\\}",
    "x=2 or x=\\pi",
    "\\infty",
    "odd",
]


# Always the same examples: nobody knows of all formulas how long SymPy takes.
@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(SMALL), max_size=6).map("".join), st.sampled_from(REFERENCES))
def test_any_formula_scores_zero_or_one_beside_any_reference(formula, reference):
    assert score(f"\\boxed{{{formula}}}", reference) in (0.0, 1.0)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(codec=None), max_size=25).map("".join))
def test_any_reference_is_read_or_abstained_on(reference):
    with contextlib.suppress(Abstain):
        assert score("A: 7", reference) in (0.0, 1.0)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.sampled_from(FORMS))
def test_an_integer_is_right_exactly_when_it_is_the_reference(given_, reference, form):
    assert score(form.format(given_), str(reference)) == (given_ == reference)


@pytest.mark.processes
def test_plain_numbers_need_neither_sympy_nor_torch():
    program = """
import sys
from guerdon.rewards import math
grade = math.answer().evaluate
assert grade("So $9 * 2 = $18.\\n#### 18", "18")[0] == 1.0
assert grade("\\\\boxed{\\\\frac{1}{2}}", "0.5")[0] == 1.0
assert grade("A: 70,000 dollars", 3)[0] == 0.0
print([name for name in ("sympy", "torch", "math_verify") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        (r"\boxed{\frac{1}{2}}", "\frac{1}{2}", 1.0),  # JSON's form feed
        ("\boxed{3}", "3", 1.0),  # a backspace and 'oxed'
        (r"\boxed{5}", "\text{5}", 1.0),  # a tab
        (r"\boxed{\frac{1}{3}}", "\frac{1}{2}", 0.0),
        ("A: 4\tand the rest", "4", 1.0),  # a tab that is one
    ],
)
def test_backslashes_that_an_escape_has_eaten_are_given_back(answer, reference, score):
    assert math.answer().evaluate(answer, reference)[0] == score


def test_a_reference_that_lost_its_last_brace_is_read_and_a_reply_is_not():
    reward = math.answer()
    replies = [r"\boxed{\frac{1}{2}}", r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}"]
    assert reward(prompts=[""] * 3, completions=replies, answer=[r"\boxed{\frac{1}{2}"] * 3) == [1.0, 0.0, 0.0]
