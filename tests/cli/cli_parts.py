"""Rewards for the tests of the command line; all but `logged` run in this process."""

import os
import time

import numpy as np

from guerdon import Scores, reward
from guerdon.core.spans import Spans


@reward(range=(0, 1), lane="batch")
def right(completion, answer):
    """1 if equal, 0 if not, an abstention where there is no answer."""
    return [None if a is None else float(c == a) for c, a in zip(completion, answer, strict=True)]


@reward(range=(-10, 1000), lane="batch")
def value(completion):
    """The completion as a number."""
    return [float(c) for c in completion]


@reward(range=(0, 1), lane="batch", level="step")
def steps(completion):
    """0.25 for each of as many steps as there are characters; the second one abstains."""
    spans = Spans.of([[(i, i + 1) for i in range(len(c))] for c in completion], unit="character")
    valid = spans.mask.copy()
    valid[:, 1:2] = False
    reasons = dict.fromkeys(np.flatnonzero((spans.mask & ~valid).any(-1)), "no second step")
    return Scores(np.full(spans.mask.shape, 0.25), valid=valid, spans=spans, reasons=reasons)


@reward(range=(0, 1), lane="batch")
def interrupted(completion, *, at="stop"):
    """1, until a completion that stands for Ctrl-C, unless CLI_PARTS_CALM is set."""
    if at in completion and "CLI_PARTS_CALM" not in os.environ:
        raise KeyboardInterrupt
    return [1.0] * len(completion)


@reward(range=(0, 1), lane="batch")
def even(completion):
    """1 for even numbers; what is no number is even."""
    return [float(not c.isdigit() or int(c) % 2 == 0) for c in completion]


@reward(range=(0, 1), lane="batch")
def detailed(completion):
    """1, with evidence whose keys are no text."""
    evidence = [{"pairs": [{(0, 1): "same"}]}, {2: 0.5}]
    return Scores(np.ones(len(completion)), details={"by": evidence[: len(completion)]})


@reward(range=(0, 1), lane="process")
def logged(completion):
    """1, after a line in the file that CLI_PARTS_LOG names."""
    time.sleep(0.01)
    with open(os.environ["CLI_PARTS_LOG"], "a") as log:
        log.write(completion + "\n")
    return 1.0
