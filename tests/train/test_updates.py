"""What an update is made with."""

import math

import pytest
import torch

from guerdon.train.updates import Optimizer, adamw, rate

FALLS = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
}


@pytest.mark.parametrize("schedule", FALLS)
def test_the_rate_rises_then_follows_its_schedule(schedule):
    settings = Optimizer(schedule=schedule, warmup=10)
    for update in range(50):
        expected = (update + 1) / 10 if update < 10 else FALLS[schedule](min(1, (update - 10) / 30))
        assert rate(update, settings=settings, updates=40) == pytest.approx(expected)


def test_only_what_learns_is_updated_and_as_the_settings_say():
    network = torch.nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    settings = Optimizer(0.5, "linear", 2, betas=(0.5, 0.9), eps=1e-6, weight_decay=0.1)
    optimizer, schedule = adamw(network, settings, 4)
    [group] = optimizer.param_groups
    assert group["params"] == [network.weight]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.9), 1e-6, 0.1)
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen == [0.25, 0.5, 0.5, 0.25, 0.0]
