from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from guerdon import Context, GuerdonError, Rollouts, Scores
from guerdon.core import Spans, Tokens
from guerdon.core.errors import LevelMismatch
from guerdon.rewards import math as maths
from guerdon.shaping import brevity, overlong


def words(*lengths):
    return Context(Rollouts(["?"] * len(lengths), [" ".join(["w"] * n) for n in lengths]))


def sigma(x):
    return 1 / (1 + math.exp(-x))


def shaped(shaper, context, *values):
    reasons = {i: "no score" for i, v in enumerate(values) if v is None}
    return shaper(Scores.of(list(values), reasons=reasons), context).to_columns()["score"]


def test_brevity_by_hand():
    shaper = brevity(weight=0.3, target=12, width=6, unit="words")
    expected = [1 - 0.3 * sigma((n - 12) / 6) for n in (0, 6, 12, 24)]
    assert expected[2] == 0.85
    assert shaped(shaper, words(0, 6, 12, 24), 1, 1, 1, 1) == pytest.approx(expected)
    assert shaped(shaper, words(0, 6, 12, 24), 2, 0, 0.5, None) == pytest.approx(
        [2 * expected[0], 0.0, 0.5 * expected[2], None]
    ), "wrong and brief gains nothing"


def test_brevity_limits():
    assert shaped(brevity(weight=0, unit="words"), words(1, 900), 1, 1) == [1.0, 1.0]
    assert shaped(brevity(weight=1, target=5, width=1e-3, unit="words"), words(4, 6), 1, 1) == pytest.approx([1.0, 0.0])
    assert shaped(brevity(weight=0.4, target=5, width=1e9, unit="words"), words(4, 600), 1, 1) == pytest.approx(
        [0.8] * 2
    )
    # A long right answer beats any wrong one as long as w < 1.
    assert shaped(brevity(weight=0.99, target=1, width=1, unit="words"), words(10_000), 1)[0] == pytest.approx(0.01)


def test_brevity_units():
    tokens = Tokens(
        np.zeros((1, 4), int), written=np.array([[True, True, False, False]]), attended=np.array([[True] * 3 + [False]])
    )
    context = Context(Rollouts(["?"], ["ab cd e"], tokens=tokens))
    for unit, length in [("tokens", 2), ("characters", 7), ("words", 3)]:
        assert shaped(brevity(1.0, 4, 1, unit), context, 1) == pytest.approx([1 - sigma(length - 4)])
        assert shaped(overlong(limit=10, buffer=10, unit=unit), context, 0) == pytest.approx([-length / 10])
    assert brevity().requires == overlong().requires == {"tokens"}
    assert brevity(unit="words").requires == frozenset()
    with pytest.raises(GuerdonError, match="lengths in tokens need 'tokens'"):
        shaped(brevity(), words(1), 1)


def test_brevity_is_for_rewards_that_are_never_negative():
    assert brevity(weight=0.25).range((2, 4)) == (1.5, 4)
    assert brevity(weight=1).range((0, math.inf)) == (0, math.inf)
    with pytest.raises(ValueError, match="this one reaches -1: shift it first"):
        (2 * maths.answer() - 1) >> brevity()
    with pytest.raises(ValueError, match="pays for length"):
        shaped(brevity(unit="words"), words(1, 2), 0.5, -0.5)
    # An abstention has no sign.
    held = Scores([-5.0, 1.0], valid=[False, True], reasons={0: "no"})
    assert brevity(weight=0, unit="words")(held, words(1, 2)).to_columns()["score"] == [None, 1.0]


def test_overlong_by_hand():
    """DAPO's own numbers: 16 384 expected, 4 096 of buffer."""
    shaper = overlong(limit=20, buffer=4, unit="words")
    lengths, expected = (0, 15, 16, 17, 18, 20, 21, 99), [0, 0, 0, -0.25, -0.5, -1, -1, -1]
    assert shaped(shaper, words(*lengths), *[0] * 8) == pytest.approx(expected)
    assert shaped(shaper, words(*lengths), *[1] * 8) == pytest.approx([1 + p for p in expected])
    assert (overlong().limit - overlong().buffer, overlong().buffer) == (16384, 4096)
    assert shaper.range((0, 1)) == (-1, 1)


def test_length_shapers_are_for_rewards_of_rollouts():
    steps = Scores(np.ones((1, 2)), spans=Spans.of([[(0, 1), (1, 2)]]))
    assert steps.level == "step"
    assert brevity().level == overlong().level == "rollout"
    from guerdon import Leaf

    class Steps(Leaf):
        name, range, level = "steps", (0.0, 1.0), "step"

    for shaper in (brevity(), overlong()):
        with pytest.raises(LevelMismatch, match="one score per rollout"):
            Steps() >> shaper


def test_on_tensors_with_gradients():
    x = torch.tensor([1.0, 0.5], requires_grad=True)
    brevity(weight=0.5, target=2, width=1, unit="words")(Scores(x), words(2, 4)).read(0.0).sum().backward()
    assert x.grad.tolist() == pytest.approx([0.75, 1 - 0.5 * sigma(2)])


def test_an_empty_batch():
    for shaper in (brevity(unit="words"), overlong(unit="words")):
        assert len(shaper(Scores.of([]), words())) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: brevity(weight=1.1), "weight is a share between 0 and 1, got 1.1"),
        (lambda: brevity(weight=math.nan), "weight is a share"),
        (lambda: brevity(width=0), "width must be positive"),
        (lambda: brevity(width=math.nan), "width must be positive"),
        (lambda: brevity(target=math.inf), "target finite"),
        (lambda: brevity(unit="letters"), "unit is 'tokens', 'characters' or 'words', got 'letters'"),
        (lambda: overlong(limit=4, buffer=0), r"buffer must be in \(0, limit\], got 0 of 4"),
        (lambda: overlong(limit=4, buffer=5), "buffer must be in"),
        (lambda: overlong(unit="letters"), "unit is"),
    ],
)
def test_options_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
