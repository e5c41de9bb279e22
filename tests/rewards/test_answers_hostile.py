"""Whatever is replied and whatever the reference is: a number in range or an abstention."""

import asyncio
import contextlib
import math

import pytest
from hypothesis import given, settings, strategies as st

from guerdon.core.errors import Abstain
from guerdon.rewards import agreement, caption, format, pattern, recorded, text, tools, transit

TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "</tool_call>", "<", ">"]
WORDS = ["user: ", "wait ", "Route Name: L1\n", "Departure Stop: A\n", "Arrival Stop: B\n", "--\n", "\\boxed{", "}"]
SIGNS = ["42", "−", "%", "NaN", "1e999", "9" * 400, "\x00", "ı", "e\u0301", ":", "_", "\n", " ", "(", ")"]
PIECES = [*TAGS, *WORDS, *SIGNS, '{"name": "f", "arguments": {"a": 1}}']
replies = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
contents = replies | st.none() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": replies}), max_size=2)
roles = st.sampled_from(["assistant", "tool", "user"])
called = st.lists(st.none() | replies | st.just({}), max_size=2)
messages = st.lists(
    st.fixed_dictionaries({"role": roles, "content": contents})
    | st.fixed_dictionaries({"role": st.just("assistant"), "tool_calls": called}),
    max_size=3,
)
completions = replies | messages
references = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | replies | st.sampled_from(["A", "L1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["L1", "name", "arguments"]), inner),
    max_leaves=5,
)

ONE = [
    format.value(),
    format.thinking(),
    pattern.phrases(),
    text.specific(),
    tools.count(),
    tools.layout(),
    tools.settled(),
]
BESIDE = [
    text.contained(),
    text.relaxed(within="reply"),
    text.proportion(),
    text.bleu(smooth="add-one", brevity="shortest"),
    text.bleu(brevity="shortest"),
    format.label(),
    tools.parameters(),
    transit.stops(),
]


def score_of(leaf, *given_):
    try:
        outcome = leaf.evaluate(*given_)
    except Abstain:
        return None
    score = outcome[0] if isinstance(outcome, tuple) else outcome
    low, high = leaf.range
    assert math.isfinite(score)
    assert low <= score <= high
    return score


@pytest.mark.parametrize("leaf", ONE, ids=repr)
@settings(max_examples=40, deadline=None)
@given(completion=completions)
def test_replies_of_any_kind(leaf, completion):
    assert score_of(leaf, completion) is not None


@pytest.mark.parametrize("leaf", BESIDE, ids=repr)
@settings(max_examples=40, deadline=None)
@given(completion=completions, reference=references)
def test_replies_and_references_of_any_kind(leaf, completion, reference):
    score_of(leaf, completion, reference)


@settings(max_examples=60, deadline=None)
@given(completions, references, references, references, references)
def test_plans_and_maps_of_any_kind(completion, lines, origin, destination, transfers):
    score_of(transit.plan(), completion, lines, origin, destination)
    score_of(transit.detail(), completion, lines, origin, destination, transfers)
    city = {"L1": ["A", "B"]}
    assert score_of(transit.plan(), completion, city, "A", "B") is not None
    assert score_of(transit.detail(), completion, city, "A", "B", 0) is not None


@settings(max_examples=60, deadline=None)
@given(completions, references, references)
def test_what_a_judge_says_of_any_kind(completion, said, reference):
    for coroutine in (
        text.verdict(judge=lambda question: said, within="reply").evaluate("?", completion, reference),
        caption.precision(judge=lambda *asked: said).evaluate("?", completion),
        caption.recall(judge=lambda *asked: said).evaluate(completion, reference),
    ):
        try:
            score, _ = asyncio.run(coroutine)
        except Abstain:
            continue
        assert 0.0 <= score <= 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(completions, min_size=1, max_size=4))
def test_votes_of_any_kind(group):
    view = ["x"] * len(group) + ["y"] * len(group)
    both = agreement.contrastive(compare="text").evaluate([*group, *group], ["a"] * len(view), view)
    for outcomes in (agreement.majority(compare="text").evaluate(group), both):
        assert all(isinstance(one, Abstain) or one[0] in (0.0, 1.0) for one in outcomes)


@settings(max_examples=60, deadline=None)
@given(references)
def test_recorded_entries_of_any_kind(entry):
    with contextlib.suppress(Abstain, OverflowError):
        assert math.isfinite(recorded.value(column="c").evaluate(entry))
