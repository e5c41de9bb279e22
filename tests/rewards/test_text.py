import numpy as np
import pytest

from guerdon.core import Rollouts
from guerdon.core.errors import MissingInput
from guerdon.core.rollouts import Tokens
from guerdon.rewards import text

COMPLETIONS = ["forty two", [{"role": "tool", "content": "six seven"}, {"role": "assistant", "content": "42"}], ""]


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
