import json
import time

import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core.parsing import (
    DEEPEST,
    boxes,
    last_boxed,
    last_code_block,
    last_tag,
    passage,
    read_json,
    shown,
    text_of,
)


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


REPLY = "<think>maybe\n\\boxed{1}</think>So\n```\nx = 2\n```\n<answer>\\boxed{3}</answer>\nDone. \n"


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("completion", REPLY),
        ("reply", "So\n```\nx = 2\n```\n<answer>\\boxed{3}</answer>\nDone. \n"),
        ("answer_tag", "\\boxed{3}"),
        ("boxed", "3"),
        ("code_block", "x = 2"),
        ("last_line", "Done."),
    ],
)
def test_passages(which, expected):
    assert passage(REPLY, which) == expected


def test_what_is_thought_is_no_reply():
    assert passage("<think>6</think>7<think>8</think>9") == "9"
    assert passage("prefilled thinking</think>7") == "7"
    for which in ("reply", "answer_tag", "boxed", "code_block", "last_line"):
        assert passage("<answer>\\boxed{1}</answer><think>" + REPLY.replace("</think>", ""), which) is None
    assert passage("", "reply") == ""
    assert passage(" \n", "last_line") is None


def test_a_passage_that_does_not_exist_is_not_guessed():
    with pytest.raises(ValueError, match="there is no passage 'answer': did you mean 'answer_tag'"):
        passage("7", "answer")


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("```\na\n```", "a"),
        ("```json\na\n\nb\n```\n", "a\n\nb"),
        ("```\na\n```\n```\nb\n```", "b"),
        ("```\na\n```\n```\nb", "a"),
        ("~~~\n```\na\n```\n~~~", "```\na\n```"),
        ("````\n```\n````", "```"),
        ("```\n```", ""),
        ("   ```\na\n  ```", "a"),
        ("    ```\na\n    ```", None),
        ("```\na\n``` not closed", None),
        ("``` `inline` ```", None),
        ("a ```\nb\n```", None),
        ("", None),
    ],
)
def test_last_code_block(text, block):
    assert last_code_block(text) == block


@pytest.mark.parametrize("text", ["null", "1", "-0.5e3", '"\\ud800"', "[]", '{"a": {"b": []}}', " [1 , 2]\n"])
def test_json_is_read_as_json(text):
    assert read_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("{'a': 1}", "Expecting property name"),
        ("[1,]", "value|comma"),
        ("01", "Extra data"),
        ("1 2", "Extra data"),
        ("[NaN]", "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested more than 64 levels"),
        ('{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1), "nested more than 64 levels"),
        ("[" * 100_000, "nested more than 64 levels"),
    ],
    ids=range(11),
)
def test_what_is_no_json(text, problem):
    with pytest.raises(ValueError, match=problem):
        read_json(text)


def test_what_python_takes_for_json_may_be_accepted():
    assert read_json('{"a": 1, "a": 2}', duplicates="accept") == {"a": 2}
    assert read_json("[Infinity]", nan="accept") == [float("inf")]
    assert read_json("[" * DEEPEST + "]" * DEEPEST) is not None
    assert read_json("9" * 5000) == float("inf")
    assert read_json("9" * 4300) == 10**4300 - 1


def test_what_a_reason_shows_is_short():
    assert shown([1, "a"]) == "[1, 'a']"
    assert len(shown("x" * 1000)) == 80


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "```", "\n", "~~~", "<answer>", "</answer>", "\\boxed{", "}", "a"]),
        max_size=30,
    ).map("".join)
)
def test_a_passage_is_a_part_of_the_text(text):
    for which in ("completion", "reply", "answer_tag", "boxed", "code_block", "last_line"):
        part = passage(text, which)
        assert part is None or part in text


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_written_as_json_is_read_back(value):
    assert read_json(json.dumps(value)) == value
