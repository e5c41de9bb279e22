"""What holds for every shaper, whatever the scores, lengths, groups, abstentions and padding."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st

import guerdon.shaping
from guerdon import Context, Rollouts, Scores, reduce
from guerdon.algebra import spec
from guerdon.core import Spans
from guerdon.core.errors import LevelMismatch
from guerdon.rewards import math as maths
from guerdon.shaping import (
    Shaper,
    anneal,
    bound,
    brevity,
    center,
    clip,
    curiosity,
    delta,
    flip,
    gain,
    group_length,
    history_length,
    monitored_length,
    needed,
    normalize,
    onto,
    overlong,
    pin_last,
    pool,
    quantize,
    relative,
    target_length,
    team_spirit,
    threshold,
    tilt,
    top_groups,
    trust,
)

EITHER = [
    clip(low=0.5, high=2),
    bound("arctan", 2),
    bound("polynomial"),
    bound("log-sigmoid", 3),
    center("group"),
    threshold(at=1.5, slope=0.01),
    threshold(at=-1),
    threshold(at=0.5, full=0.75),
    quantize(bins=3),
    quantize(at=(-0.5, 0.1, 0.5, 2.0)),
    relative("refs", shift=1),
    relative("refs", kind="linear"),
    relative("refs", kind="log-sigmoid", quantile=0.85),
    relative("refs", kind="tanh", quantile=0.5, fit="empirical"),
    normalize(),
    normalize("range", over="group"),
    normalize("band", over="running", width=0.5),
    normalize("z-score", over="running"),
    normalize("range", over="running"),
    onto("2", by="goal"),
    onto("1", by="goal", over="batch"),
    pool(),
    pool("batch"),
    curiosity(),
    curiosity(target=1.0, kind="ratio"),
    flip(rate=0.5),
    flip(rate=1.0, low=-1.0, redraw="never"),
    top_groups(share=0.5),
    anneal(start=2, end=-1, shape="cosine", begin=0.25, until=0.5),
    anneal(shape="exponential"),
    anneal(shape="step", until=0.5),
    trust(),
    trust("exponential", 3),
    team_spirit(),
    team_spirit(share=1.0, by="refs"),
]
ROLLOUT = [
    brevity(0.3, 4, 2, "words"),
    overlong(8, 3, "words"),
    tilt(2.0),
    tilt(1.0, over="batch", above=1),
    target_length(target=4, unit="words"),
    target_length(target=4, unit="words", wrong="explore", apply="alone"),
    target_length(target=(6, 3), bands=(0.5,), curve="cut", weight=1, apply="multiply", unit="words"),
    target_length(target="goal", curve="deviation", wrong="same", unit="words"),
    target_length(target=3, curve="peak", width=2, wrong="penalty", floor=-9, wrong_floor=-5, unit="words"),
    monitored_length(target=5, grid=(2, 12, 2), unit="words"),
    group_length(unit="words"),
    group_length(curve="deviation", statistic="mean", wrong="same", apply="add", tolerance=0.2, unit="words"),
    group_length(curve="linear", statistic="range", of="all", wrong="penalty", apply="add", unit="words"),
    group_length(curve="inverse", statistic="mean", of="all", wrong="same", apply="alone", unit="words"),
    history_length(unit="words"),
    history_length(curve="linear", tolerance=0.1, statistic="mean", apply="alone", unit="words"),
]
STEP = [delta(), gain(), gain(gamma=0.5, losses=2), pin_last(0.5), needed(limit=10, unit="words")]
ALL = [*EITHER, *ROLLOUT, *STEP]
SCORE = st.none() | st.floats(0, 1e4) | st.sampled_from([0.0, 1.0])


def context(n, lengths, progress=0.3):
    """Rollouts in pairs, with references and target lengths."""
    columns = {"refs": [[0.5 * i, 1.0] for i in range(n)], "goal": [1 + i for i in range(n)]}
    columns["team"] = ["red" if i % 2 else "blue" for i in range(n)]
    groups, ids = [i // 2 for i in range(n)], [str(i // 2) for i in range(n)]
    finished = [length != 7 for length in lengths]
    batch = Rollouts(["?"] * n, ["w " * length for length in lengths], columns, ids, groups, finished)
    return Context(batch, progress=progress, training=True)


def remembering(shaper):
    """The shaper, having seen a batch; state is not shared between examples."""
    fresh = dataclasses.replace(shaper)
    if fresh.level != "step":
        fresh.observe(Scores.of([1.0, 0.0, 3.0]), context(3, [2, 9, 5]))
    return fresh


def columns(values, tensor=None):
    """Scores of a list (None abstains) or of a list of lists, as NumPy or as tensors that ask for gradients."""
    steps = bool(values) and isinstance(values[0], list)
    if steps:
        width = max(map(len, values))
        table = [[*row, *[None] * (width - len(row))] for row in values]
        mask = np.array([[j < len(row) for j in range(width)] for row in values], bool).reshape(len(values), width)
    else:
        table, mask = values, np.ones(len(values), bool)
    numbers = np.array(
        [[np.nan if x is None else x for x in row] if steps else (np.nan if row is None else row) for row in table],
        np.float64,
    ).reshape(mask.shape)
    held = numbers if tensor is None else torch.tensor(numbers, dtype=tensor, requires_grad=True)
    reasons = dict.fromkeys(range(len(values)), "no score")
    return Scores(held, mask=mask, valid=mask & np.isfinite(numbers), reasons=reasons)


def check(shaper, values, here):
    scores = columns(values)
    result = shaper(scores, here)
    valid, numbers = np.asarray(result.valid), result.read(0.0)
    there = scores.read(0.0)[np.asarray(scores.valid)]
    assert np.isfinite(numbers).all()
    assert not (valid & ~np.asarray(scores.valid)).any(), "no abstention becomes a score"
    assert (np.asarray(result.mask) == np.asarray(scores.mask)).all()
    if valid.any():
        # What was remembered (0, 1 and 3) is within the range of the reward as well.
        low, high = shaper.range((min(0.0, float(there.min())), max(3.0, float(there.max()))))
        slack = 1e-9 * (1 + float(np.abs(there).max()))
        assert low - slack <= numbers[valid].min()
        assert numbers[valid].max() <= high + slack
    assert shaper(scores, here).to_columns() == result.to_columns(), "calling is pure"
    # The same on tensors, with finite gradients that nothing masked takes part in.
    tensor = columns(values, torch.float64)
    on_tensor = shaper(tensor, here)
    np.testing.assert_allclose(on_tensor.read(0.0).detach().numpy(), numbers, rtol=1e-9, atol=1e-9)
    assert on_tensor.reasons == result.reasons
    if on_tensor.read(0.0).requires_grad:
        tensor._values.grad = None
        (gradient,) = torch.autograd.grad(on_tensor.read(0.0).sum(), tensor._values)
        assert torch.isfinite(gradient).all()
        assert (gradient[~torch.as_tensor(scores.valid)] == 0).all()
    single = shaper(columns(values, torch.float32), here).read(0.0).detach().numpy()
    assert np.isfinite(single).all()
    return result


@pytest.mark.parametrize("shaper", [*EITHER, *ROLLOUT], ids=repr)
@given(values=st.lists(SCORE, min_size=1, max_size=6), lengths=st.lists(st.integers(0, 12), min_size=6, max_size=6))
@settings(max_examples=15, deadline=None)
def test_laws_of_scores_of_rollouts(shaper, values, lengths):
    check(remembering(shaper), values, context(len(values), lengths[: len(values)]))


@pytest.mark.parametrize("shaper", [*EITHER, *STEP], ids=repr)
@given(
    values=st.lists(st.lists(SCORE, max_size=4), min_size=1, max_size=4),
    lengths=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    padding=st.integers(1, 3),
)
@settings(max_examples=15, deadline=None)
def test_laws_of_scores_of_steps(shaper, values, lengths, padding):
    shaper, here = remembering(shaper), context(len(values), lengths[: len(values)])
    result = check(shaper, values, here)
    scores = columns(values)
    wider = Scores(
        np.pad(scores.read(0.0), ((0, 0), (0, padding)), constant_values=99.0),
        mask=np.pad(np.asarray(scores.mask), ((0, 0), (0, padding))),
        valid=np.pad(np.asarray(scores.valid), ((0, 0), (0, padding))),
        reasons=scores.reasons,
    )
    for have, want in zip(shaper(wider, here).to_columns()["score"], result.to_columns()["score"], strict=True):
        assert have == [x if x is None else pytest.approx(x, rel=1e-12, abs=1e-12) for x in want], "padding tells"


@pytest.mark.parametrize("shaper", ALL, ids=repr)
def test_batches_that_are_empty_or_abstain_whole(shaper):
    for fresh in (dataclasses.replace(shaper), remembering(shaper)):
        if fresh.level != "step":
            assert len(fresh(Scores.of([]), context(0, []))) == 0
            nothing = fresh(Scores.abstain(2, "no"), context(2, [1, 2]))
            assert nothing.reasons == {0: "no", 1: "no"}
            fresh.observe(Scores.abstain(2, "no"), context(2, [1, 2]))
        if fresh.level != "rollout":
            nothing = Scores(np.zeros((2, 0)), spans=Spans.of([[], []]))
            assert fresh(nothing, context(2, [1, 2])).to_columns()["score"] == [[], []]
            fresh.observe(nothing, context(2, [1, 2]))


@pytest.mark.parametrize("shaper", ALL, ids=repr)
def test_a_shaper_is_data_and_back(shaper):
    """In a spec, in a pickle, under its one name."""
    assert shaper.name == f"shaping.{type(shaper).__name__}"
    assert pickle.loads(pickle.dumps(shaper)) == shaper
    assert hash(dataclasses.replace(shaper)) == hash(shaper)
    if shaper.level != "step":
        meant = maths.answer() >> shaper
        assert spec.load(yaml.safe_load(yaml.safe_dump(spec.dump(meant)))) == meant
    else:
        with pytest.raises(LevelMismatch, match="shapes one score per step"):
            maths.answer() >> shaper
        data = spec._configured(shaper)
        assert spec._Loader(False).shaper(yaml.safe_load(yaml.safe_dump(data)), "shape") == shaper


@pytest.mark.parametrize("shaper", [s for s in ROLLOUT if not isinstance(s, tilt)], ids=repr)
def test_length_and_its_levels(shaper):
    assert shaper.level == "rollout"
    assert "tokens" in dataclasses.replace(shaper, unit="tokens").requires
    assert "tokens" not in shaper.requires


def test_every_shaper_is_here():
    shown = {value for name in guerdon.shaping.__all__ if isinstance(value := getattr(guerdon.shaping, name), type)}
    assert {type(shaper) for shaper in ALL} == shown - {Shaper}


@pytest.mark.parametrize("shaper", [s for s in ALL if s.state_dict() or hasattr(s, "state")], ids=repr)
def test_state_is_not_part_of_what_a_shaper_is(shaper):
    fresh = remembering(shaper)
    assert fresh == shaper
    assert "state" not in repr(fresh)
    copy = dataclasses.replace(fresh)
    copy.load_state_dict(fresh.state_dict())
    assert copy.state_dict() == fresh.state_dict()


@pytest.mark.parametrize("shaper", [s for s in ALL if not hasattr(s, "state")], ids=repr)
def test_what_has_no_state_takes_none(shaper):
    with pytest.raises(ValueError, match="has no state"):
        shaper.load_state_dict({"mean": 1.0})


def test_the_state_of_an_expression_survives_a_checkpoint_bit_for_bit(recorded):
    """A run that is stopped after each step and goes on with a new expression shapes as one that was not."""

    def build():
        correct, judge = recorded("correct"), recorded("judge")
        history, monitored = history_length(unit="words"), monitored_length(grid=(2, 12, 2), unit="words")
        return (correct >> history) + (correct >> monitored) + (judge >> normalize(over="running")) + (
            reduce(recorded("answered", steps=True) >> needed(limit=10, unit="words"), "mean")
        )  # fmt: skip

    rng = np.random.default_rng(3)
    whole, stopped = build(), build()
    for step in range(4):
        columns = {
            "correct": rng.integers(0, 2, 6).astype(float).tolist(),
            "judge": rng.normal(size=6).tolist(),
            "answered": rng.integers(0, 2, (6, 3)).astype(float).tolist(),
        }
        texts = ["w " * n for n in rng.integers(1, 13, 6)]
        batch = Rollouts(["?"] * 6, texts, columns, ids=list("aabbcc"), groups=[0, 0, 1, 1, 2, 2])
        here = Context(batch, training=True, step=step)
        results = []
        for reward in (whole, stopped):
            measured = {leaf: leaf.measure(batch, here) for leaf in reward.leaves()}
            results.append(reward.combine(measured, here).read(0.0).tolist())
            reward.observe(measured, here)
        assert results[0] == results[1]
        state, stopped = stopped.state_dict(), build()
        stopped.load_state_dict(json.loads(json.dumps(state)))
    assert len(whole.state_dict()) == 4
