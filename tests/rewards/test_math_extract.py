import time

import pytest
from hypothesis import given, settings, strategies as st

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
        ("The answer is 0.333...", "0.333..."),
        ("$x^2 + 1$", "x^2 + 1"),
        ("Thus $x \\le 2$ is the solution.", "x \\le 2"),
        ("It grows by $28$ percent.", "28 percent"),
        ("So $a = 1$, and $b = 2$.", "a = 1 , and  b = 2"),
        ("$1$ and $2$", "1  and  2"),
        ("We get\n$$\n9\n$$", "9"),
        ("So \\[ x + 1 \\]", "x + 1"),
        ("Let us see.\n(1, 2)", "(1, 2)"),
        ("Soucis : 2,74", "2,74"),
        ("It is not 10 but 12.", "12"),
        ("It's not 10, it's 12.", "12"),
        ("Final answer: the most that it could hold is 19.", "19"),
        ("So there are 12 of them. I hope it is correct.", "12 of them"),
        ("The answer is 7.<|im_end|>\n<|im_start|>user\nThe answer is 8.", "7"),
        ("<|im_start|>assistant\nThe answer is 7.", "7"),
        ("\\boxed{4} is one. The final answer is 5.", "5"),
        ("The final answer is 5, that is \\boxed{4}.", "4"),
        ("\\boxed{4}. The final answer is in the box.", "4"),
        ("\\boxed{x = 3 \\text{ and } x = 4}", "x = 3 \\text{ and } x = 4"),
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
        "It is at least $5$.",
        "Is it $5$?",
        "Find the value of\n\\[ 3/4 \\]",
        "<|im_start|>user\n",
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


def test_joined_boxes_are_a_list():
    assert extract(r"\boxed{1} and \boxed{2}") == "1, 2"
    assert extract(r"\boxed{1}, \boxed{2}, or \boxed{3}") == "1, 2, 3"
    assert extract(r"\[\boxed{(1, 2)}, \quad \boxed{(2, 1)}\]") == "(1, 2), (2, 1)"
    assert extract(r"$y_1 = \boxed{3x}$ and $y_{2} = \boxed{4}$") == "3x, 4"
    assert extract(r"$\boxed{2} \text{ and } \boxed{\frac{1}{2}}$, so \boxed{2}, \boxed{3}") == "2, 3"
    assert extract(r"\boxed{7}, so again \boxed{7}") == "7"
    assert extract(r"\boxed{7} and \boxed{7}") == "7"
    assert extract(r"\boxed{1} and 2 and \boxed{3}") == "3"
    assert extract(r"\boxed{a}, \boxed{b} a a b") == "a, b"


def test_near_boxes_are_a_list_where_that_is_asked_for():
    for reply, last, near in [
        (r"\boxed{1} papers and \boxed{2} bins", "2", "1, 2"),
        (r"\boxed{1}\boxed{2}", "2", "1, 2"),
        (r"\boxed{1} no no no no no \boxed{2}", "2", "2"),
        (r"\boxed{1} and " + "so on " * 12 + r"\boxed{2}", "2", "2"),
    ]:
        assert extract(reply) == last
        assert extract(reply, several="near") == near


PIECES = [
    "\\boxed{", "}", "{", "<answer>", "</answer>", "<think>", "</think>", "####", "A: ", "\n", "answer is ",
    "Answer:", " 7", "$", "\\[", "\\]", "$$", "final answer is", ", ", "not 5 ", "<|im_end|>", "?", ". ", " or ",
    "= ", "¾", "\ud800", "and ", "-",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25).map("".join),
    st.sampled_from(["bare", "marked", "boxed"]),
    st.sampled_from(["last", "near", "agree"]),
)
def test_no_text_raises_and_an_answer_is_never_blank(text, accept, several):
    found = extract(text, accept=accept, several=several)
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
    "\\boxed{7}, " * 9_000,
    "\\boxed{a}\\boxed{b}" + "b" * 90_000,
    "$a$ and " * 12_000 + "$a$",
    "$$ " * 33_000 + "$$",
    "\\boxed{1} final answer is " * 4_000,
    "<|im_end|>" * 10_000,
    "I hope it is correct. " * 4_000,
]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_a_hundred_kilobytes_take_no_time(text):
    begin = time.process_time()
    extract(text)
    extract(text + "\n")
    assert time.process_time() - begin < 1.0
