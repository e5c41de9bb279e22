"""A run that is stopped on its way and gone on with, or divided over processes, and what says that it is the same."""

from contextlib import nullcontext

import pytest
import torch

from guerdon.train import checkpoint as checkpoints, loop
from guerdon.train.run import Run

CLOCKS = ("seconds", "tokens_per_second", "steps_per_second", "windows_per_second")


def stopped(monkeypatch, train, recipe, folder, *, after):
    """Train, stop when so many steps are done and kept, and go on."""
    own = loop._after

    def dies(conducted, job, record):
        own(conducted, job, record)
        if job.step == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_after", dies)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder)
    train(recipe, folder)


class Alone:
    """One of two processes, that sees only its share."""

    num_processes, device = 2, torch.device("cpu")

    def __init__(self, process_index):
        self.process_index = process_index

    def no_sync(self, model):
        return nullcontext()

    def backward(self, loss):
        loss.backward()


def metrics(folder):
    return [{k: v for k, v in record.items() if k not in CLOCKS} for record in Run(folder).metrics()]


def last(folder):
    return checkpoints.latest(folder / "checkpoints")[0]


def equal(one, other):
    """Whether two tables of weights are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
