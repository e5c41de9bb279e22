import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.rewards.math import extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{6}, no: \boxed{7}", "7"),
        ("She has 9 eggs.\nA: 26", "26"),
        ("A: 26\n\n", "26"),
        ("So 9 * 2 = 18.\n#### 18", "18"),
        ("#### 18\nDone.", "18"),
        ("The answer is 7.", "7"),
        ("the final answer is: $x = 7$.", "x = 7"),
        ("**Answer:** 7", "7"),
        ("ANSWER = 7", "7"),
        ("Answer:\n\\[\n\\frac{3}{4}\n\\]\nThat is all.", r"\frac{3}{4}"),
        ("The answer to this is 7 because 3 + 4 = 7.", "7"),
        ("The answer is 3. The answer is 4.", "4"),
        ("The answer is 3 or 4.", "3 or 4"),
        ("The answer is 3. Or 4.", "3. Or 4"),
        ("<answer>\\boxed{3}</answer> \\boxed{4}", "3"),
        ("<think>\\boxed{3}</think>\\boxed{4}", "4"),
        ("\\boxed{3}</think>The answer is 4", "4"),
        ("Seven bags hold 84 candies.", "84 candies"),
        ("That makes 2 + 3 = <<2+3=5>>5 bolts of cloth", "5 bolts of cloth"),
        ("3 apples cost $6 = $2 * 3", None),
        ("x = -5", "x = -5"),
        ("It is 16-3", None),
        ("#### Step 18\nThat leaves 7.", "7"),
        ("So there are 3 + 9 = 12 apples +", None),
        ("<answer>There are 3 cats, 4 dogs</answer>", "3 cats, 4 dogs"),
    ],
)
def test_where_the_answer_stands(text, answer):
    assert extract(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "<think>\\boxed{3}",
        "The result is \\boxed{3",
        "How many are 3 and 4?",
        "Find 3 + 4.",
        "It is not 5.",
        "It isn’t 5.",
        "It might be 5.",
        "It is at least 5.",
        "32768 feet * 2 =",
        "3 apples and 4 oranges",
        "Step 5",
        "\\boxed{}",
    ],
)
def test_no_answer(text):
    assert extract(text) is None


def test_accept_says_how_much_of_a_mark_is_wanted():
    boxed, marked, bare = "It is \\boxed{7}.", "The answer is 7.", "3 + 4 = 7"
    found = [
        [extract(text, accept=accept) is not None for text in (boxed, marked, bare)]
        for accept in ("boxed", "marked", "bare")
    ]
    assert found == [[True, False, False], [True, True, False], [True, True, True]]


def test_several_boxes_may_have_to_agree():
    assert extract(r"\boxed{1}\boxed{2}\boxed{2}") == "2"
    assert extract(r"\boxed{1}\boxed{2}\boxed{2}", several="agree") is None
    assert extract(r"\boxed{2}\boxed{2}", several="agree") == "2"


PIECES = [
    "\\boxed{", "}", "{", "<answer>", "</answer>", "<think>", "</think>", "####", "A: ", "\n", "answer is ", "Answer:",
    " 7", "$", "\\[", "?", ". ", " or ", "= ", "¾", "\ud800", "and ", "-",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25).map("".join),
    st.sampled_from(["bare", "marked", "boxed"]),
)
def test_no_text_raises_and_an_answer_is_never_blank(text, accept):
    found = extract(text, accept=accept)
    assert found is None or found.strip()


LONG = [
    *(piece * (100_000 // len(piece)) for piece in PIECES),
    *("A: " + piece * (100_000 // len(piece)) for piece in ("x", ".", "1 and ", "\\text{")),
    *("\\boxed{" + piece * (100_000 // len(piece)) + "}" for piece in (".", "7 and ", "a")),
    "answer" + " " * 100_000,
    "answer to " * 10_000,
    "answer is \\[" * 8_000,
    "1 and " * 16_000,
    "1 " * 50_000,
]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_a_hundred_kilobytes_take_no_time(text):
    begin = time.process_time()
    extract(text)
    extract(text + "\n")
    assert time.process_time() - begin < 1.0
