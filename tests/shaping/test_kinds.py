"""Scores of one kind of rows on the scale of another's, and R³ whole; lengths of a part of the completion."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon import Context, Rollouts, Scores, product, route
from guerdon.credit import group_relative
from guerdon.rewards import format, relevance, text
from guerdon.rewards.relevance import tfidf
from guerdon.shaping import onto, target_length


def kinds(*names):
    return Context(Rollouts(["?"] * len(names), [""] * len(names), {"type": list(names)}), training=True)


def shaped(shaper, values, *names):
    reasons = {i: "no" for i, value in enumerate(values) if value is None}
    return shaper(Scores.of(values, reasons=reasons), kinds(*names)).to_columns()["score"]


def test_a_kind_goes_linearly_from_its_range_to_the_targets():
    names = ["open", "open", "closed", "closed", "closed"]
    assert shaped(onto("open"), [2.0, 10.0, -1.0, 1.0, 0.5], *names) == [2.0, 10.0, 2.0, 10.0, 8.0]
    assert shaped(onto("closed"), [2.0, 10.0, -1.0, 1.0, 0.5], *names) == [-1.0, 1.0, -1.0, 1.0, 0.5]
    assert shaped(onto("open"), [2.0, 10.0, None, 1.0, 0.5], *names) == [2.0, 10.0, None, 10.0, 2.0]


def test_without_a_range_on_either_side():
    assert shaped(onto("open"), [3.0, 4.0], "closed", "closed") == [3.0, 4.0], "there is no target yet"
    assert shaped(onto("open"), [2.0, 10.0, 7.0], "open", "open", "closed") == [2.0, 10.0, 6.0], "in the middle"
    assert shaped(onto("open"), [5.0, 0.0, 1.0], "open", "closed", "closed") == [5.0, 5.0, 5.0]


def test_running_ranges_are_remembered_by_kind_and_outlive_a_checkpoint():
    shaper = onto("open")
    shaper.observe(Scores.of([0.0, 8.0, 0.0, 1.0]), kinds("open", "open", "closed", "closed"))
    assert shaped(shaper, [0.25, 0.5], "closed", "closed") == [2.0, 4.0]
    assert shaped(shaper, [0.25, 2.0], "closed", "closed") == [1.0, 8.0], "what is at hand counts at once"
    other = onto("open")
    other.load_state_dict(json.loads(json.dumps(shaper.state_dict())))
    assert other.state_dict() == shaper.state_dict() == {"open": [0.0, 8.0], "closed": [0.0, 1.0]}
    assert shaped(other, [0.25, 0.5], "closed", "closed") == [2.0, 4.0]
    batch = onto("open", over="batch")
    batch.observe(Scores.of([0.0, 8.0]), kinds("open", "open"))
    assert batch.state_dict() == {}
    with pytest.raises(ValueError, match="keeps the lowest and highest"):
        other.load_state_dict({"open": [2.0, 1.0]})
    with pytest.raises(ValueError, match="over is 'batch' or 'running'"):
        onto("open", over="group")


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(-1e6, 1e6)), min_size=1, max_size=8))
def test_the_target_keeps_its_scores_and_the_others_stay_in_its_range(rows):
    names, values = zip(*rows, strict=True)
    got = shaped(onto("a", over="batch"), list(values), *names)
    own = [value for name, value in rows if name == "a"]
    assert [g for g, name in zip(got, names, strict=True) if name == "a"] == own
    if own:
        assert min(own) - 1e-6 <= min(got) <= max(got) <= max(own) + 1e-6


# R³ whole


def r3(encoder):
    """R³ = r_x · words/100 · RP of open questions, F(r_y) · RP of closed ones, where F goes to the open ones' range."""
    similar = {"encoder": encoder, "similarity": "dot"}
    by_type = route(
        "type",
        open=product(relevance.query(**similar), 0.01 * text.length(unit="words")),
        closed=relevance.reference(**similar),
    )
    return product(by_type >> onto("open"), 1 + format.repetition())


def counted(replies):
    """An encoder of two numbers: of x and of y words, the question's and the reference's."""
    return np.array([[reply.split().count("x") / 10, reply.split().count("y") / 10] for reply in replies])


def unique(reply):
    words = reply.split()
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def test_r3_from_texts_and_query_types_to_advantages():
    """Against the formula, term by term; the answers to closed questions count by their place in their own range."""
    rng = np.random.default_rng(0)
    filler = [f"w{i}" for i in range(200)]
    replies = [
        " ".join(rng.permutation(["x"] * a + ["y"] * b + filler[:c])) for a, b, c in
        [(9, 0, 100), (3, 2, 40), (6, 0, 7), (0, 1, 2), (4, 9, 30), (1, 5, 80)]
    ]  # fmt: skip
    batch = Rollouts(
        ["x " * 10] * 3 + ["? ?"] * 3, replies, {"type": ["open"] * 3 + ["closed"] * 3, "answer": ["y " * 10] * 6}
    )
    got = r3(counted).score(batch).read(math.nan)
    opened = [reply.split().count("x") / 10 * len(reply.split()) / 100 for reply in replies[:3]]
    closed = [reply.split().count("y") / 10 for reply in replies[3:]]
    mapped = [
        min(opened) + (r - min(closed)) / (max(closed) - min(closed)) * (max(opened) - min(opened)) for r in closed
    ]
    expected = [r * unique(reply) for r, reply in zip(opened + mapped, replies, strict=True)]
    assert got.tolist() == pytest.approx(expected)
    advantages = group_relative(torch.as_tensor(got), torch.as_tensor(batch.groups))
    assert advantages[:3].argmax() == np.argmax(expected[:3])
    assert advantages[3:].argmax() == np.argmax(expected[3:])


def test_r3_worked_number_from_texts():
    """r_x = .8, 150 words, RP = .9: .8 · 1.5 · .9 = 1.08, with a text that has these: of 148 trigrams, 133 unique."""
    words = [f"w{i}" for i in range(126)] + ["x"] * 8
    reply = " ".join([*words[:126], *words[:16], *words[126:]])
    share = unique(reply)
    assert len(reply.split()) == 150
    batch = Rollouts(["x " * 10], [reply], {"type": ["open"], "answer": [""]})
    assert r3(counted).score(batch).read(math.nan)[0] == pytest.approx(0.8 * 1.5 * share)
    assert share == pytest.approx(0.9, abs=0.03)


def test_r3_neither_repeating_nor_copying_pays_and_closed_answers_are_free_of_length():
    once, question = " ".join(f"w{i}" for i in range(50)), "how do I cook rice well in a small pot"
    encoder = tfidf([once, question, "yes it is"])

    def cosine(texts):
        rows = encoder(texts)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    replies = [once, " ".join([once] * 4), question, "yes it is", "no", "yes it is " + once]
    batch = Rollouts(
        [once, once, question, "?", "?", "?"], replies,
        {"type": ["open"] * 3 + ["closed"] * 3, "answer": ["yes it is"] * 6},
    )  # fmt: skip
    single, repeated, copied, right, wrong, padded = r3(cosine).score(batch).read(math.nan)
    assert single == pytest.approx(0.5)
    assert repeated == pytest.approx(2.0 * 50 / 198, rel=1e-3)
    assert copied == pytest.approx(0.1)
    assert right > padded > wrong, "a closed answer is paid for the answer, not for fifty words more"


# The length of the answer alone


def test_dro_length_term_is_of_the_answer_and_not_of_the_reasoning():
    """1 − b · ||y| − |ŷ|| / |y| − 1, whatever was thought; an answer that never came has length 0."""
    texts = ["<think>a b c d e f</think>x y", "<think>a</think>x y", "<think>a</think>x", "<think>never ends"]
    batch = Context(Rollouts(["?"] * 4, texts, {"words": [2] * 4}))
    shaper = target_length(
        target="words", curve="deviation", weight=0.5, wrong="same", apply="alone", unit="words", within="reply"
    )
    assert shaper(Scores.of([1.0] * 4), batch).read(math.nan).tolist() == [0.0, 0.0, -0.25, -0.5]
    with pytest.raises(ValueError, match="within 'reply' is counted in 'characters' or 'words'"):
        target_length(target="words", curve="deviation", within="reply")
    with pytest.raises(ValueError, match="within is one of"):
        target_length(target="words", curve="deviation", within="answer", unit="words")
