import re
import threading
import time

import numpy as np
import pytest
import torch

from guerdon.core import Scores, Spans
from guerdon.engine.batch import spread


@pytest.fixture(scope="module")
def bleaf(leaf):
    return lambda function, **fields: leaf(function, lane="batch", **fields)


def numbers(rollouts, context):
    return Scores(np.array(rollouts.column("number"), float))


def test_a_batch_leaf_gets_its_rows_and_a_context_about_them(bleaf, batch, engine):
    seen = []

    def measure(rollouts, context):
        seen.append((len(rollouts), context.rollouts is rollouts, threading.current_thread().name, context.step))
        return numbers(rollouts, context)

    leaf = bleaf(measure)
    scores = engine.measure({leaf: np.array([True, False, True, False])}, batch(4))[leaf]
    assert seen == [(2, True, "MainThread", 0)]
    assert scores.mask.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(scores.read(fill=-1), [0, -1, 2, -1])


def test_a_batch_leaf_that_raises_abstains_as_a_whole(bleaf, batch, run):
    def measure(rollouts, context):
        raise RuntimeError("CUDA out of memory")

    scores = run(bleaf(measure), batch(3))
    assert re.fullmatch(r"RuntimeError: CUDA out of memory \(test_batch.py:\d+\)", scores.reasons[2])
    assert scores.abstained.all()


def test_ctrl_c_is_not_an_abstention(bleaf, batch, run):
    def measure(rollouts, context):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(bleaf(measure), batch(3))


def test_past_a_stated_deadline_all_rows_abstain_and_the_thread_is_named(bleaf, batch, engine):
    release = threading.Event()

    def measure(rollouts, context):
        release.wait(20)
        return numbers(rollouts, context)

    every = np.ones(3, bool)
    one, other = bleaf(measure, name="one", deadline=0.2), bleaf(measure, name="other", deadline=0.2)
    start = time.monotonic()
    measured = engine.measure({one: every, other: every}, batch(3))
    assert time.monotonic() - start < 5
    release.set()
    assert set(measured[one].reasons.values()) == {
        "deadline 0.2 s: its thread 'guerdon-batch-one' still runs, 1 left behind so far"
    }
    assert "'guerdon-batch-other' still runs, 2 left behind" in measured[other].reasons[0]


def test_within_a_stated_deadline_nothing_is_different(bleaf, batch, run):
    np.testing.assert_array_equal(run(bleaf(numbers, deadline=5.0), batch(4)).read(fill=-1), range(4))


def test_a_thread_that_ends_without_scores_was_not_late(bleaf, batch, run):
    def measure(rollouts, context):
        raise KeyboardInterrupt("not from the keyboard")

    assert run(bleaf(measure, deadline=5.0), batch(1)).reasons[0].startswith("KeyboardInterrupt: not from the keyboard")


@pytest.mark.parametrize("deadline", [None, 5.0])
def test_gradients_and_the_callers_gradient_mode_are_kept(deadline, bleaf, batch, engine):
    weight, modes = torch.ones(2, requires_grad=True), []

    def measure(rollouts, context):
        modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return Scores(weight * torch.tensor(rollouts.column("number")))

    leaf = bleaf(measure, deadline=deadline, differentiable=True)
    asked = np.array([False, True, True])
    engine.measure({leaf: asked}, batch(3))[leaf].read(fill=0.0).sum().backward()
    assert weight.grad.tolist() == [1.0, 2.0]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            engine.measure({leaf: asked}, batch(3))
    assert modes == [(True, False), (False, False), (False, True)]


def test_a_differentiable_leaf_runs_in_this_process_whatever_its_lane(leaf, batch, run):
    here = []
    run(leaf(lambda rollouts, context: here.append(1) or numbers(rollouts, context), differentiable=True), batch(2))
    assert here == [1]


def test_spread_puts_scores_where_their_rows_are():
    part = Scores.of([1.0], details={"why": ["a"]})
    scores = Scores(
        np.array([[1.0, 0.0], [2.0, 3.0]]),
        spans=Spans.of([[(0, 2)], [(0, 1), (1, 5)]]),
        valid=np.array([[True, False], [True, False]]),
        reasons={1: "torn"},
        details={"seen": ["x", "y"]},
    )
    wide = spread(scores, np.array([1, 3]), 4)
    assert wide.spans.rows() == [[], [(0, 2)], [], [(0, 1), (1, 5)]]
    assert wide.mask.tolist() == [[False, False], [True, False], [False, False], [True, True]]
    np.testing.assert_array_equal(wide.read(fill=-1), [[-1, -1], [1, -1], [-1, -1], [2, -1]])
    assert wide.reasons == {3: "torn"}
    assert wide.details == {"seen": [None, "x", None, "y"]}
    nested = spread(Scores(np.ones(1), parts={"part": part}), np.array([2]), 3)
    assert nested.parts["part"].details == {"why": [None, None, "a"]}
    assert nested.parts["part"].mask.tolist() == [False, False, True]
