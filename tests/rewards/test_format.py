import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.rewards import format

GOOD = "<think>6 · 7</think>\n<answer>42</answer>"


def score(text, *names, **options):
    return format.tags(*(names or ("think", "answer")), **options).evaluate(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, 1.0),
        (f"  {GOOD}\n", 1.0),
        ("<think>6 < 7 </p></think><answer>42</answer>", 1.0),
        ("<answer>42</answer><think>6 · 7</think>", 0.0),
        ("<think>6 · 7</think>", 0.0),
        ("<think>6 · 7<answer>42</answer></think>", 0.0),
        ("<think>6 · 7<answer></think>42</answer>", 0.0),
        ("<think></think><answer>42</answer>", 0.0),
        ("<think>6 · 7</think><answer>\n</answer>", 0.0),
        ("<think>6 · 7</think><answer>42", 0.0),
        ("<think>6 · 7</think><answer>41</answer><answer>42</answer>", 0.0),
        ("<think>6</think><think>7</think><answer>42</answer>", 0.0),
        ("</think><think>6 · 7<answer>42</answer>", 0.0),
        (f"Sure! {GOOD}", 0.0),
        (f"{GOOD} Done.", 0.0),
        ("<think>6 · 7</think> so <answer>42</answer>", 0.0),
        ("<Think>6 · 7</Think><answer>42</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_exactly_these_tags(text, expected):
    assert score(text) == expected


def test_text_outside_may_be_accepted():
    assert score(f"Sure! {GOOD} Done.", outside="accept") == 1.0
    assert score("Sure! <answer>42</answer>", outside="accept") == 0.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (GOOD, 1.0),
        ("<answer>42</answer>", 0.5),
        ("so <answer>42</answer><think>6 · 7</think>", 1.0),
        ("<think>6 · 7</think><answer>41</answer><answer>42</answer>", 0.5),
        ("<think>6 · 7<answer>42</answer></think>", 0.5),
        ("<think></think><answer>42", 0.0),
    ],
)
def test_each_tag_may_earn_its_share(text, share):
    assert score(text, credit="each") == share


def test_a_chat_and_another_name():
    assert score([{"role": "assistant", "content": "<tool_call>{}</tool_call>"}], "tool_call") == 1.0


@pytest.mark.parametrize("names", [(), ("a", "a"), ("<a>",), ("a b",), ("",)])
def test_names_that_make_no_sense(names):
    with pytest.raises(ValueError, match="names of different tags"):
        format.tags(*names).evaluate(GOOD)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", " "]), max_size=8).map("".join))
def test_full_marks_are_for_one_shape_only(text):
    pattern = (
        text.replace("<think>", "T")
        .replace("</think>", "t")
        .replace("<answer>", "A")
        .replace("</answer>", "a")
        .replace(" ", "")
    )
    right = pattern.lstrip("T").startswith("x") and [*filter(None, pattern.split("x"))] == ["T", "tA", "a"]
    assert score(text) == right


def test_called_as_trl_calls_a_reward_function():
    assert format.tags("think", "answer")(prompts=["?"] * 2, completions=[GOOD, "42"]) == [1.0, 0.0]
