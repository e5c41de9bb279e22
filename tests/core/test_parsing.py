import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.parsing import boxes, last_boxed, last_tag, text_of


def test_a_string_is_its_own_text():
    assert text_of("6 · 7 = 42") == "6 · 7 = 42"


def test_only_the_assistant_speaks_for_the_model():
    chat = [
        {"role": "system", "content": "Answer with 1."},
        {"role": "assistant", "content": "Let me compute."},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "python"}]},
        {"role": "tool", "content": "\\boxed{41}"},
        {"role": "user", "content": "So?"},
        {"content": "\\boxed{42}"},
    ]
    assert text_of(chat) == "Let me compute.\n\\boxed{42}"


def test_of_a_message_in_parts_the_text_counts():
    parts = [
        {"type": "text", "text": "4"},
        {"type": "image", "image": object()},
        {"type": "text", "text": None},
        {"type": "text", "text": "2"},
    ]
    assert text_of([{"role": "assistant", "content": parts}]) == "42"


@pytest.mark.parametrize("wrong", [None, 7, b"text", ["text"], [{"role": "assistant"}, "text"]])
def test_what_is_no_completion_is_an_error(wrong):
    with pytest.raises(TypeError):
        text_of(wrong)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{1} and \boxed{}", "1"),
        (r"\boxed{\boxed{9}}", "9"),
        (r"\boxed{x = \boxed{9} }", "9"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7", "7"),
        (r"\boxed{7}}}}", "7"),
        (r"}}\boxed{7}", "7"),
        (r"\boxed{", None),
        (r"\boxed", None),
        (r"boxed{7}", None),
        ("", None),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


balanced = st.recursive(
    st.text(alphabet="ab \\{\\}1", max_size=6).map(lambda s: "".join(c for c in s if c not in "\\{}")) | st.just(r"\{"),
    lambda inner: st.lists(inner.map(lambda s: "{" + s + "}"), max_size=3).map("".join),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(
    contents=st.lists(balanced, max_size=5),
    filler=st.sampled_from(["", " so ", "}}", "\\frac{1}{2}", "{}"]),
    tail=st.booleans(),
)
def test_boxes_are_given_last_first_without_the_empty_ones(contents, filler, tail):
    text = filler + "".join(f"\\boxed{{{content}}}{filler}" for content in contents) + ("\\boxed{7 {" if tail else "")
    assert list(boxes(text)) == [content.strip() for content in reversed(contents) if content.strip()]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("<answer>3</answer><answer>4</answer>", "4"),
        ("<answer>3</answer><answer>4", "3"),
        ("<answer><answer>3</answer>", "3"),
        ("3</answer>", None),
        ("<answer>3", None),
        ("<answer></answer>", ""),
    ],
)
def test_last_tag(text, content):
    assert last_tag(text, "answer") == content


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.characters(codec=None) | st.sampled_from([*"\\{}\ud800", "\\boxed{", "<answer>"]), max_size=80).map(
        "".join
    )
)
def test_no_text_raises(text):
    assert last_boxed(text) is None or last_boxed(text) in text
    last_tag(text, "answer")


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 15_000,
        "\\boxed{}" * 13_000,
        "\\boxed{a" * 12_000 + "}" * 12_000,
        "\\boxed{{" * 12_000 + "}" * 12_000,
        "\\boxed" + " " * 100_000,
        ("\\boxed" + " " * 100) * 1_000,
        "\\boxed{" + "{" * 100_000,
        "\\boxed{1}" + "\\" * 100_000,
    ],
    ids=lambda text: text[:10],
)
def test_a_hundred_kilobytes_take_no_time(text):
    begin = time.process_time()
    list(boxes(text))
    last_tag(text, "answer")
    assert time.process_time() - begin < 1.0
