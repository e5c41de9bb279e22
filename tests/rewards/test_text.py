import math
import string
from collections import Counter
from contextlib import nullcontext, suppress
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from guerdon.algebra import spec
from guerdon.core import Rollouts
from guerdon.core.errors import Abstain, MissingInput
from guerdon.core.rollouts import Tokens
from guerdon.rewards import text
from guerdon.rewards.text.sides import normalize

COMPLETIONS = ["forty two", [{"role": "tool", "content": "six seven"}, {"role": "assistant", "content": "42"}], ""]
REFERENCED = [text.exact, text.f1, text.bleu, text.chrf, text.rouge, text.edit, text.wer, text.cer]


def rollouts(tokens=None):
    return Rollouts(["?"] * 3, COMPLETIONS, tokens=tokens)


@pytest.mark.parametrize(("unit", "expected"), [("characters", [9, 2, 0]), ("words", [2, 1, 0])])
def test_characters_and_words_are_those_of_the_model(unit, expected):
    assert text.length(unit=unit)(prompts=["?"] * 3, completions=COMPLETIONS) == expected


def test_tokens_are_those_the_policy_wrote():
    written = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
    scores = text.length().score(rollouts(Tokens(np.zeros((3, 3), int), written, np.ones((3, 3), bool))))
    assert scores.read(-1.0).tolist() == [2, 2, 0]


def test_tokens_that_are_not_there_are_missed_before_any_work():
    with pytest.raises(MissingInput, match=r"'tokens' is missing: text\.length reads it"):
        text.length().score(rollouts())
    assert text.length(unit="words").requires == frozenset()


def test_its_range_has_no_end():
    assert text.length().range == (0.0, np.inf)


# Against references


def score(part, said, answer, **options):
    return part(**options).evaluate(said, answer)


@pytest.mark.parametrize("part", REFERENCED, ids=lambda part: part.__name__)
@pytest.mark.parametrize(
    "answer", [None, "", "  ", [], ["", " "], [None], ["a", None], True, {"a": 1}, float("nan"), b"a"], ids=repr
)
def test_a_reference_that_says_nothing_is_an_abstention(part, answer):
    with pytest.raises(Abstain, match="reference"):
        score(part, "a", answer)


@pytest.mark.parametrize("part", REFERENCED, ids=lambda part: part.__name__)
def test_the_reference_itself_is_right_and_silence_is_not(part):
    reference = "The cat sat on the mat."
    for answer in (reference, ["a dog", reference], ("a dog", reference), np.array(["a dog", reference])):
        assert score(part, reference, answer) == pytest.approx(1.0)
        assert score(part, [{"role": "assistant", "content": reference}], answer) == pytest.approx(1.0)
        assert score(part, "", answer) == 0.0
        assert score(part, f"<think>{reference}", answer) == 0.0
    assert score(part, f"<think>No.</think>{reference}", reference) == pytest.approx(1.0)
    assert score(part, f"Sure! <answer>{reference}</answer> Bye.", reference, within="answer_tag") == pytest.approx(1.0)
    assert score(part, reference, reference, within="answer_tag") == 0.0


@pytest.mark.parametrize("part", REFERENCED, ids=lambda part: part.__name__)
def test_specs_hold_them(part):
    for leaf in (part(), part(ignore=("case", "punctuation"), within="boxed"), part(ignore="squad")):
        assert spec.load(spec.dump(leaf)) == leaf
        assert leaf.range == (0.0, 1.0)
        assert leaf.requires == {"completion", "answer"}


WORDS = st.lists(st.sampled_from(["the", "cat", "Cat", "sat", "sat.", "a", "mat", "因此", "\ud800"]), max_size=8).map(
    " ".join
)


@pytest.mark.parametrize("part", REFERENCED, ids=lambda part: part.__name__)
@settings(max_examples=60, deadline=None)
@given(said=WORDS | st.text(max_size=30), answer=WORDS | st.text(max_size=30), ignore=st.sampled_from([(), "squad"]))
def test_any_text_scores_in_the_range_or_the_reference_is_at_fault(part, said, answer, ignore):
    says_something = ignore == () and any(character.isascii() and character.isalnum() for character in answer)
    with nullcontext() if says_something else suppress(Abstain):
        assert 0.0 <= score(part, said, answer, ignore=ignore) <= 1.0


@pytest.mark.parametrize("part", REFERENCED, ids=lambda part: part.__name__)
@settings(max_examples=25, deadline=None)
@given(said=WORDS, answers=st.lists(WORDS.map("cat {}".format), min_size=1, max_size=3))
def test_of_several_references_the_best_counts(part, said, answers):
    alone = [score(part, said, answer) for answer in answers]
    together = score(part, said, answers)
    if part is text.bleu:  # BLEU uses its references together: it may only gain
        assert together >= max(alone) - 1e-9 or len({len(answer.split()) for answer in answers}) > 1
    else:
        assert together == max(alone)


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ((), " The  cat's\tna\u00efve, \u201cO\u2019Hara\u201d! "),
        (("whitespace",), "The cat's na\u00efve, \u201cO\u2019Hara\u201d!"),
        (("case",), " the  cat's\tna\u00efve, \u201co\u2019hara\u201d! "),
        (("punctuation",), " The  cats\tna\u00efve OHara "),
        (("articles", "whitespace"), "cat's na\u00efve, \u201cO\u2019Hara\u201d!"),
        ("squad", "cats na\u00efve ohara"),
    ],
    ids=["nothing", "whitespace", "case", "punctuation", "articles", "squad"],
)
def test_what_is_ignored(ignore, left):
    assert normalize(" The  cat's\tna\u00efve, \u201cO\u2019Hara\u201d! ", ignore) == left


def test_a_part_of_a_word_is_no_article():
    assert normalize("theatre an apple banana A", ("articles", "whitespace")) == "theatre apple banana"


def squad(text):
    """SQuAD 1.1's evaluate-v1.1.py, line by line."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    words = text.split()
    return [word for word in words if word not in ("a", "an", "the")]


@settings(max_examples=200, deadline=None)
@given(said=st.text("aAnt Theb.,'!$ \n", max_size=25), answer=st.text("aAnt Theb.,'!$ \n", max_size=25))
def test_exact_and_f1_are_squads(said, answer):
    ours, theirs = squad(said), squad(answer)
    if not theirs:
        with pytest.raises(Abstain, match=r"reference (empty|has nothing but what squad ignores): "):
            score(text.f1, said, answer)
        return
    common = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    precision, recall = common / max(len(ours), 1), common / len(theirs)
    f1 = 2 * precision * recall / (precision + recall) if common else 0.0
    assert score(text.f1, said, answer) == pytest.approx(f1)
    assert score(text.exact, said, answer, ignore="squad") == float(ours == theirs)


def test_exact_forgives_white_space_only():
    assert score(text.exact, " 4 2\n", "4  2") == 1.0
    assert score(text.exact, " 4 2\n", "4 2", ignore=()) == 0.0
    assert score(text.exact, "Paris.", "Paris") == 0.0
    assert score(text.exact, "Paris", "paris") == 0.0
    assert score(text.exact, "42", 42) == 1.0
    assert score(text.exact, "-5", "5") == 0.0
    assert score(text.exact, "-5", "5", ignore="squad") == 1.0


def test_f1_by_hand():
    assert score(text.f1, "cat cat cat cat", "cat dog") == pytest.approx(2 * (1 / 4) * (1 / 2) / (1 / 4 + 1 / 2))
    assert score(text.f1, "sat cat", "cat sat") == 1.0
    assert score(text.f1, "北京市", "北京") == 0.0
    assert score(text.f1, "北京市", "北京", unit="characters") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))


def test_bleu_by_hand():
    said, reference = "the cat sat on a mat", "the cat sat on the mat"
    # 1-grams 5/6, 2-grams 3/5, 3-grams 2/4, 4-grams 1/3; as long as the reference
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert score(text.bleu, said, reference) == pytest.approx(expected)
    assert score(text.bleu, said, reference, order=2) == pytest.approx((5 / 6 * 3 / 5) ** (1 / 2))
    # Shorter by two tokens: e^(1 − 6/4)
    assert score(text.bleu, "the cat sat on", reference) == pytest.approx(math.exp(1 - 6 / 4))


def test_bleu_clips_what_is_said_too_often():
    # Papineni et al.: 'the' stands twice in one reference, so 2 of 7 count.
    references = ["the cat is on the mat", "there is a cat on the mat"]
    assert score(text.bleu, "the the the the the the the", references, order=1) == pytest.approx(2 / 7)


def test_bleu_uses_its_references_together():
    references = ["the cat sat", "a dog ran off"]
    assert score(text.bleu, "the cat ran off", references, order=1) == pytest.approx(1.0)
    assert max(score(text.bleu, "the cat ran off", one, order=1) for one in references) < 1.0


def test_options_of_bleu():
    # No 2-gram matches: p₁ = 2/3, p₂ = 0 of 2, smoothed to (1/2)/2 by 'exp', (0.1)/2 by 'floor', 1/3 by 'add-k'.
    said, reference = "cat the mat", "the cat dog"
    assert score(text.bleu, said, reference, order=2) == pytest.approx((2 / 3 * 1 / 4) ** 0.5)
    assert score(text.bleu, said, reference, order=2, smooth="floor") == pytest.approx((2 / 3 * 0.1 / 2) ** 0.5)
    assert score(text.bleu, said, reference, order=2, smooth="add-k") == pytest.approx((2 / 3 * 1 / 3) ** 0.5)
    assert score(text.bleu, said, reference, order=2, smooth="none") == 0.0
    assert score(text.bleu, "the cat sat", "the cat sat") == pytest.approx(1.0)
    assert score(text.bleu, "the cat sat", "the cat sat", effective_order=False) < 0.9
    assert score(text.bleu, "mat.", "mat", order=1) == pytest.approx(1 / 2)
    assert score(text.bleu, "mat.", "mat", order=1, tokenize="none") == 0.0
    assert score(text.bleu, "猫坐", "猫站", order=1) == 0.0
    assert score(text.bleu, "猫坐", "猫站", order=1, tokenize="zh") == pytest.approx(1 / 2)


def ngrams(said, size):
    return Counter(said[start : start + size] for start in range(len(said) - size + 1))


@settings(max_examples=60, deadline=None)
@given(st.text("abc d", min_size=6, max_size=20), st.text("abc d", min_size=6, max_size=20), st.integers(1, 3))
def test_chrf_is_the_mean_of_precisions_and_recalls(said, reference, beta):
    said, reference = "abc" + said, "bca" + reference
    ours, theirs = said.replace(" ", ""), reference.replace(" ", "")
    precision, recall = 0.0, 0.0
    for size in (1, 2, 3):
        shared = (ngrams(ours, size) & ngrams(theirs, size)).total()
        precision += shared / ngrams(ours, size).total() / 3
        recall += shared / ngrams(theirs, size).total() / 3
    expected = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    assert score(text.chrf, said, reference, characters=3, beta=beta) == pytest.approx(expected)


def test_chrf_may_count_words_too():
    # 1-grams of characters 6/7 (c a t s a t against c a t s a t s: P = 1), of words 1/2.
    precision, recall = (1 + 1 / 2) / 2, (6 / 7 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    assert score(text.chrf, "cat sat", "cat sats", characters=1, words=1) == pytest.approx(expected)


def test_orders_that_make_no_sense():
    for wrong in ({"characters": 0}, {"words": -1}, {"beta": 0}):
        with pytest.raises(ValueError, match="chrf wants"):
            text.chrf(**wrong)


def lcs(a, b):
    @cache
    def longest(i, j):
        if i == len(a) or j == len(b):
            return 0
        return longest(i + 1, j + 1) + 1 if a[i] == b[j] else max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


TOKENS = st.lists(st.sampled_from("abcd"), max_size=9)


@settings(max_examples=100, deadline=None)
@given(TOKENS, TOKENS.filter(lambda tokens: len(tokens) > 1))
def test_rouge_from_its_definition(said, reference):
    for variant, size in (("rouge1", 1), ("rouge2", 2), ("rougeL", 0)):
        if size:
            ours, theirs = ngrams(tuple(said), size), ngrams(tuple(reference), size)
            shared, own, other = (ours & theirs).total(), ours.total(), theirs.total()
        else:
            shared, own, other = lcs(tuple(said), tuple(reference)), len(said), len(reference)
        precision, recall = shared / own if own else 0.0, shared / other
        f = 2 * precision * recall / (precision + recall) if shared else 0.0
        for measure, expected in (("precision", precision), ("recall", recall), ("f", f)):
            found = score(text.rouge, " ".join(said), " ".join(reference), variant=variant, measure=measure)
            assert found == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(WORDS.map("runs {}".format), WORDS.map("running cats {}".format), st.booleans())
def test_rouge_is_at_parity_with_rouge_score(said, reference, stem):
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem).score(reference, said)
    for variant, expected in theirs.items():
        for measure, number in zip(("precision", "recall", "f"), expected, strict=True):
            found = score(text.rouge, said, reference, variant=variant, measure=measure, stem=stem)
            assert found == pytest.approx(number)


def test_stems_and_the_text_that_rouge_does_not_read():
    assert score(text.rouge, "running cats", "run cat") == 0.0
    assert score(text.rouge, "running cats", "runs cats", stem=True) == 1.0
    with pytest.raises(Abstain, match=r"reference has nothing that rougeL counts: '北京'"):
        score(text.rouge, "北京", "北京")
    with pytest.raises(Abstain, match="rouge2 counts: 'cat'"):
        score(text.rouge, "cat", "cat", variant="rouge2")


def levenshtein(a, b):
    @cache
    def edits(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(edits(i - 1, j) + 1, edits(i, j - 1) + 1, edits(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return edits(len(a), len(b))


@settings(max_examples=100, deadline=None)
@given(st.text("ab c", max_size=9).map(str.split).map(" ".join), st.text("ab c", max_size=9).map("c{}".format))
def test_edits_from_their_definition(said, reference):
    reference = " ".join(reference.split())
    words, others = said.split(), reference.split()
    characters, by_word = levenshtein(said, reference), levenshtein(tuple(words), tuple(others))
    longest = max(len(said), len(reference))
    assert score(text.edit, said, reference) == pytest.approx(1 - characters / longest)
    assert score(text.edit, said, reference, unit="words") == pytest.approx(1 - by_word / max(len(words), len(others)))
    assert score(text.wer, said, reference, measure="rate") == pytest.approx(by_word / len(others))
    assert score(text.cer, said, reference, measure="rate") == pytest.approx(characters / len(reference))
    assert score(text.wer, said, reference) == pytest.approx(max(0.0, 1 - by_word / len(others)))
    assert score(text.cer, said, reference) == pytest.approx(max(0.0, 1 - characters / len(reference)))


def test_error_rates_by_hand():
    assert score(text.edit, "kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert score(text.wer, "the\ncat  sat", "the cat sat down", ignore=()) == pytest.approx(3 / 4)
    assert score(text.wer, "a b c d e f", "x y") == 0.0
    assert score(text.wer, "a b c d e f", "x y", measure="rate") == 3.0
    assert score(text.wer, "", "x y", measure="rate") == 1.0
    assert score(text.cer, "x yz", "x y", measure="rate") == pytest.approx(1 / 3)


def test_a_rate_has_no_end_and_says_so():
    for part in (text.wer, text.cer):
        assert part(measure="rate").range == (0.0, math.inf)
        assert part().range == (0.0, 1.0)
        assert score(part, "a b c d", ["x", "a b"], measure="rate") <= 2.0


def test_called_as_trl_calls_a_reward_function():
    found = text.f1()(prompts=["?"] * 3, completions=["the deep sea", "sea", ""], answer=["sea", ["sky", "sea"], None])
    assert found == [pytest.approx(2 / 3), 1.0, None]


def test_a_long_reply_is_scored_and_no_way_out():
    reply = "the cat sat on the mat " * 8_000
    assert 0.0 < score(text.rouge, reply, "the cat sat on a chair " * 30) < 1.0
