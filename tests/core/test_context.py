from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from guerdon.core import Context, Rollouts


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_runs_from_0_to_1(progress):
    with pytest.raises(ValueError, match="progress"):
        Context(progress=progress)


def test_outside_training_schedules_stand_at_their_end():
    assert Context().progress == 1.0
    assert not Context().training


def test_with_changes_a_copy():
    context = Context(step=3)
    assert context.with_(progress=0.25).progress == 0.25
    assert context.with_(progress=0.25).step == 3
    assert context.progress == 1.0
    with pytest.raises(FrozenInstanceError):
        context.step = 4


def test_rollouts_that_were_not_given_are_an_error_that_says_so():
    batch = Rollouts(["?"], ["!"])
    assert Context(batch).require_rollouts() is batch
    with pytest.raises(ValueError, match="pass Context\\(rollouts"):
        Context().require_rollouts()
