import json
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.algebra import spec
from guerdon.core.errors import Abstain
from guerdon.rewards import tools


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def hermes(*calls):
    return "\n".join(f"<tool_call>\n{json.dumps(one)}\n</tool_call>" for one in calls)


def openai(*calls, encode=json.dumps):
    functions = [{"name": one["name"], "arguments": encode(one["arguments"])} for one in calls]
    called = [{"id": str(i), "type": "function", "function": function} for i, function in enumerate(functions)]
    return [{"role": "assistant", "content": None, "tool_calls": called}]


def score(completion, expected, **options):
    return tools.calls(**options).evaluate(completion, expected)[0]


def share(completion, expected, **options):
    return score(completion, expected, credit="share", **options)


A, B, C = call("a", x=1), call("b", y="two", z=[1, {"k": None}]), call("c")


@pytest.mark.parametrize(
    "write", [hermes, openai, lambda *calls: openai(*calls, encode=dict)], ids=["hermes", "openai", "dict"]
)
def test_the_calls_expected_are_right_in_every_form(write):
    expected = [A, B, C]
    for reference in (
        expected,
        tuple(expected),
        json.dumps(expected),
        openai(*expected)[0]["tool_calls"],
        [json.dumps(A), B, C],
    ):
        assert score(write(A, B, C), reference) == share(write(A, B, C), reference) == 1.0
        assert score(write(A, B), reference) == 0.0
        assert share(write(A, B), reference) == pytest.approx(2 * 2 / (2 + 3))
        assert share(write(A, B, C, A), reference) == pytest.approx(2 * 3 / (4 + 3))
        assert score(write(), reference) == share(write(), reference) == 0.0


def test_no_call_may_be_what_is_expected():
    for expected in ([], "[]", np.array([])):
        assert score("I do not need a tool.", expected) == share("No.", expected) == 1.0
        assert score(hermes(A), expected) == share(hermes(A), expected) == 0.0
        assert score("<tool_call>{</tool_call>", expected) == 0.0


def test_the_order_counts_where_it_is_strict():
    assert score(hermes(B, A), [A, B]) == 0.0
    assert score(hermes(B, A), [A, B], order="any") == 1.0
    assert share(hermes(B, A), [A, B]) == pytest.approx(2 * 1 / 4)
    assert share(hermes(C, A, B), [A, B, C]) == pytest.approx(2 * 2 / 6)
    assert share(hermes(C, A, B), [A, B, C], order="any") == 1.0


def test_names_and_arguments():
    assert score(hermes(call("b", x=1)), [A]) == 0.0
    assert score(hermes(call("a", x=2)), [A]) == 0.0
    assert score(hermes(call("a", x=2)), [A], arguments="ignore") == 1.0
    assert score(hermes(call("a", x=1, y=2)), [A]) == 0.0
    assert score(hermes(call("a")), [A]) == 0.0
    assert score(hermes(call("A", x=1)), [A]) == 0.0


def test_arguments_may_earn_their_share():
    expected = [call("a", x=1, y=2, z=3)]
    options = {"arguments": "share"}
    assert share(hermes(call("a", x=1, y=2, z=0)), expected, **options) == pytest.approx((1 + 2 / 3) / 2)
    assert share(hermes(call("a", x=1, w=2)), expected, **options) == pytest.approx((1 + 1 / 4) / 2)
    assert share(hermes(call("a")), expected, **options) == pytest.approx(1 / 2)
    assert share(hermes(C), [C], **options) == 1.0
    assert share(hermes(call("b", x=1, y=2, z=3)), expected, **options) == 0.0
    assert score(hermes(call("a", x=1, y=2, z=0)), expected, **options) == 0.0


def test_the_best_matching_is_taken():
    # Greedy would match the first call to the first expected one, and leave 1/2 + 1/2; the best is 1/2 + 1.
    expected = [call("a", x=1, y=1), call("a", x=1, y=2)]
    made = hermes(call("a", x=1, y=2), call("a", x=3, y=3))
    assert share(made, expected, arguments="share", order="any") == pytest.approx(2 * (1 + 1 / 2) / 4)
    assert share(made, expected, arguments="share") == pytest.approx(2 * (3 / 4 + 1 / 2) / 4)


@pytest.mark.parametrize(
    ("made", "expected", "equal"),
    [
        (1, 1.0, True), (1.0, 1, True), (True, 1, False), (1, True, False), (False, 0, False), (True, True, True),
        (None, None, True), (None, False, False), ("1", 1, False), ("a", "a", True), ("a", "A", False),
        ("a", "a ", False), ([1, 2], [1.0, 2], True), ([1, 2], [2, 1], False), ([1], [1, 1], False),
        ([True], [1], False), ([], {}, False), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False), ({"a": [0]}, {"a": [False]}, False),
        (10**30, 10**30 + 1, False), (0.1 + 0.2, 0.3, False),
    ],
    ids=range(22),
)  # fmt: skip
def test_values_are_equal_as_json(made, expected, equal):
    assert score(hermes(call("a", v=made)), [call("a", v=expected)]) == equal


def test_numbers_may_differ_by_a_tolerance():
    for made, equal in (
        (101, True),
        (99.0, True),
        (101.1, False),
        (-100, False),
        ("100", False),
        (True, False),
        (10**400, False),
    ):
        assert score(hermes(call("a", v=[made])), [call("a", v=[100])], tolerance=0.01) == equal
    assert score(hermes(call("a", v=1e-9)), [call("a", v=0)], tolerance=0.5) == 0.0
    assert score(hermes(call("a", v=1)), [call("a", v=True)], tolerance=0.5) == 0.0
    assert score(hermes(call("a", v=10**400)), [call("a", v=1.5)], tolerance=0.5) == 0.0
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="wants a tolerance"):
            tools.calls(tolerance=wrong)


@pytest.mark.parametrize(
    "written",
    [
        "<tool_call>", "<tool_call></tool_call>", "<tool_call>{</tool_call>", "<tool_call>a(x=1)</tool_call>",
        '<tool_call>{"name": "a", "arguments": {"x": 1}}', '<tool_call>{"arguments": {"x": 1}}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>', '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "a", "arguments": "x=1"}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": 2, "x": 1}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', '<tool_call>["a", {"x": 1}]</tool_call>',
        "<tool_call>" + "[" * 10_000 + "</tool_call>",
    ],
    ids=range(14),
)  # fmt: skip
def test_what_cannot_be_read_is_no_call_but_was_made(written):
    assert tools.calls().evaluate(written, [A]) == (0.0, {"made": 1, "matched": 0.0, "unreadable": 1})
    assert share(f"{hermes(A)}\n{written}", [A]) == pytest.approx(2 * 1 / (2 + 1))


@pytest.mark.parametrize(
    "function",
    [None, {}, {"name": "a", "arguments": "{"}, {"name": None, "arguments": "{}"}, {"name": "a", "arguments": 7}],
    ids=range(5),
)
def test_what_cannot_be_read_in_a_message(function):
    message = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    assert tools.calls().evaluate([message], [A])[1] == {"made": 1, "matched": 0.0, "unreadable": 1}


def test_a_call_without_arguments():
    for arguments in (None, "", "{}", {}):
        message = {"role": "assistant", "tool_calls": [{"function": {"name": "c", "arguments": arguments}}]}
        assert score([message], [C]) == 1.0
    assert score('<tool_call>{"name": "c"}</tool_call>', [C]) == 1.0


def test_what_is_thought_is_not_called():
    thought = f"<think>{hermes(B)}</think>"
    assert score(thought + hermes(A), [A]) == 1.0
    assert score(thought.removeprefix("<think>") + hermes(A), [A]) == 1.0
    assert score(f"{thought}{hermes(A)}{thought}{hermes(C)}", [A, C]) == 1.0
    assert score(f"{hermes(A)}<think>{hermes(C)}", [A]) == 1.0
    assert score(f"<think>{hermes(A)}", [A]) == 0.0


def test_several_turns_of_a_chat():
    chat = [
        *openai(A),
        {"role": "tool", "content": hermes(B)},
        {"role": "user", "content": hermes(B), "tool_calls": openai(B)[0]["tool_calls"]},
        {"role": "assistant", "content": f"<think>{hermes(B)}</think>Now:\n{hermes(C)}", "tool_calls": []},
        {"role": "assistant", "content": "Done."},
    ]
    assert score(chat, [A, C]) == 1.0
    with pytest.raises(TypeError):
        score(7, [A])


@pytest.mark.parametrize(
    "reference",
    [None, "", "a(x=1)", 7, A, "{}", [None], [7], [{"name": "a", "arguments": 7}], [A, {"arguments": {}}], ["a"]],
    ids=range(11),
)
def test_a_reference_that_is_no_list_of_calls_is_an_abstention(reference):
    with pytest.raises(Abstain, match="reference"):
        score(hermes(A), reference)


CALLS = st.builds(call, st.sampled_from("ab"), x=st.integers(0, 1), y=st.integers(0, 1))


def likeness(made, expected):
    if made["name"] != expected["name"]:
        return 0.0
    return (1 + sum(made["arguments"][key] == expected["arguments"][key] for key in "xy") / 2) / 2


@settings(max_examples=150, deadline=None)
@given(st.lists(CALLS, max_size=5), st.lists(CALLS, max_size=5))
def test_the_share_from_its_definition(made, expected):
    few, many = sorted((made, expected), key=len)
    matchings = [[likeness(a, b) for a, b in zip(few, chosen, strict=True)] for chosen in permutations(many, len(few))]
    crossing_none = [
        [likeness(made[i], expected[j]) for i, j in zip(rows, columns, strict=True)]
        for size in range(len(few) + 1)
        for rows in combinations(range(len(made)), size)
        for columns in combinations(range(len(expected)), size)
    ]
    total = len(made) + len(expected)
    for order, ways in (("any", matchings), ("strict", crossing_none)):
        best = max(map(sum, ways))
        found = share(hermes(*made), expected, arguments="share", order=order)
        assert found == pytest.approx(2 * best / total if total else 1.0)
    assert score(hermes(*made), expected) == (made == expected)
    key = json.dumps
    assert score(hermes(*made), expected, order="any") == (sorted(map(key, made)) == sorted(map(key, expected)))


@settings(max_examples=100, deadline=None)
@given(st.lists(CALLS, min_size=1, max_size=4), st.lists(CALLS, max_size=4))
def test_spraying_calls_does_not_pay(expected, more):
    plain = share(hermes(*expected), expected, order="any")
    sprayed = share(hermes(*expected, *more), expected, order="any")
    assert plain == 1.0
    assert sprayed < 1.0 or not more


def test_many_calls_are_matched():
    made = [call("a", x=i) for i in range(300)]
    assert share(hermes(*made), made[:20], order="any") == pytest.approx(2 * 20 / 320)
    assert share(hermes(*reversed(made)), made[:20]) == pytest.approx(2 * 1 / 320)
    assert share(hermes(*reversed(made[:20])), made[:20], order="any") == 1.0


PIECES = [
    "<tool_call>",
    "</tool_call>",
    '{"name": "a", "arguments": {"x": 1}}',
    "{",
    "}",
    '"name"',
    ":",
    "<think>",
    "</think>",
    "\n",
    "\ud800",
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.characters(codec=None), max_size=15).map("".join),
    st.lists(CALLS, max_size=2),
    st.sampled_from(["strict", "any"]),
)
def test_any_text_scores_in_the_range(text, expected, order):
    assert 0.0 <= share(text, expected, order=order, arguments="share") <= 1.0
    assert score([{"role": "assistant", "content": text, "tool_calls": None}], expected) in (0.0, 1.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "arguments", "function", "k"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_message_scores_in_the_range(value):
    assert score([{"role": "assistant", "content": "", "tool_calls": value}], [A]) == 0.0
    assert share(hermes({"name": "a", "arguments": {"x": value}}), [call("a", x=value)]) == 1.0


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_long_texts_are_read(piece):
    for order in ("strict", "any"):
        assert share(piece * (40_000 // len(piece)), [A, B], order=order) == 0.0


def test_specs_and_the_call_of_trl():
    leaf = tools.calls(arguments="share", order="any", credit="share", tolerance=1e-6)
    assert spec.load(spec.dump(leaf)) == leaf
    completions = [hermes(A), openai(A), "No.", hermes(A)]
    assert tools.calls()(prompts=["?"] * 4, completions=completions, tool_calls=[[A]] * 3 + [None]) == [
        1.0,
        1.0,
        0.0,
        None,
    ]
