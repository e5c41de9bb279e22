"""The reasoning-pattern reward of the study of noisy rewards."""

import pytest

from guerdon.algebra import gate
from guerdon.rewards import format, pattern
from guerdon.rewards.pattern import PHRASES

TEN = "I need to think. We need to wait. Alternatively, let me check: first, next, finally, therefore thus it is so."


def test_noisy_rewards_pattern_worked_numbers():
    assert len(PHRASES) == len(set(PHRASES)) == 40
    score, details = pattern.phrases().evaluate(TEN)
    assert (score, details["phrases"]) == (0.5, 10)
    assert pattern.phrases().evaluate(" ".join([TEN.lower(), *PHRASES]))[1]["phrases"] == 40
    assert pattern.phrases(repetition="none").evaluate("; ".join(PHRASES))[0] == 1.0


def test_noisy_rewards_a_block_said_ten_times():
    block = " ".join(f"w{i}" for i in range(30))
    loop = " ".join([block] * 10)
    seen, unique = (pattern.phrases(repetition=r).evaluate(loop)[1]["repetition"] for r in ("seen-twice", "not-unique"))
    assert seen == pytest.approx(30 / 281)
    assert unique == pytest.approx(1 - 30 / 281)
    twice = pattern.phrases(size=2, repetition="seen-twice").evaluate("a b c a b d")[1]["repetition"]
    assert twice == pytest.approx(1 / 5)


def test_presence_counts_and_not_frequency():
    assert pattern.phrases().evaluate("wait " * 5)[0] == pytest.approx(1 / 20)
    assert pattern.phrases().evaluate("wait " * 50)[0] == 0.0


def test_a_loop_of_set_phrases_does_not_pay():
    every = "; ".join(PHRASES)
    assert pattern.phrases().evaluate("; ".join([every] * 20))[0] < 0.1
    assert pattern.phrases(repetition="seen-twice").evaluate("; ".join([every] * 20))[0] > 0.9  # the source's hole


def test_turns_of_another_speaker_are_charged_and_the_floor_is_0():
    assert pattern.phrases().evaluate(TEN + " User: and 2+2?")[0] == 0.0
    assert pattern.phrases(turns=()).evaluate(TEN + " User: and 2+2?")[0] == 0.5
    assert pattern.phrases().evaluate("")[0] == 0.0


def test_without_an_answer_it_is_0():
    reward = gate(format.value(), then=pattern.phrases())
    assert reward(["?"] * 2, [TEN + " \\boxed{4}", TEN]) == [0.5, 0.0]


@pytest.mark.parametrize("options", [{"phrases": ()}, {"enough": 0}, {"size": 0}])
def test_pattern_refuses(options):
    with pytest.raises(ValueError, match="phrases wants"):
        pattern.phrases(**options)
