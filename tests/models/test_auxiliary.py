"""The auxiliary heads of Lucy-SKG, on an encoder that they share with a policy."""

import math

import pytest
import torch
from torch import nn

from guerdon.models.auxiliary import RewardSign, StateCode, auxiliary_loss, reward_signs


def test_signs_are_three_classes():
    rewards = torch.tensor([[-3.0, -0.1], [0.0, 0.2]])
    assert reward_signs(rewards, still=0.1).tolist() == [[0, 1], [1, 2]]
    with pytest.raises(ValueError, match="negative"):
        reward_signs(rewards, still=-1)


def test_auxiliary_loss_by_hand():
    signs = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, math.log(2)]])
    found, observed = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    expected = 0.5 * (math.log(3) + math.log(4 / 2)) / 2 + 2.0 * (1 + 4) / 2
    loss = auxiliary_loss(signs, torch.tensor([-1.0, 1.0]), found, observed, weights=(0.5, 2.0))
    assert loss.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="weights"):
        auxiliary_loss(signs, torch.tensor([-1.0, 1.0]), found, observed, weights=(-1, 1))


def test_shapes_of_the_sheet():
    head, code = RewardSign(24), StateCode(24, 7)
    assert (head.reader.hidden_size, code.encode[-1].out_features) == (32, 16)
    assert head(torch.zeros(5, 4, 24)).shape == (5, 3)
    assert code(torch.zeros(5, 24)).shape == (5, 7)


def test_a_shared_encoder_learns_what_its_policy_was_not_told():
    """A point that moves: the sign of the coming reward is that of its velocity, which only a sequence shows."""
    torch.manual_seed(0)
    start, pace = torch.randn(48, 1, 1), torch.randint(-1, 2, (48, 1, 1)).float()
    observed = start + pace * torch.arange(4.0)[None, :, None]
    rewards = pace[:, 0, 0]
    encoder = nn.Sequential(nn.Linear(1, 24), nn.Tanh())
    head, code = RewardSign(24), StateCode(24, 1)
    modules = nn.ModuleList([encoder, head, code])
    optimizer = torch.optim.Adam(modules.parameters(), 2e-2)
    losses = []
    for _ in range(60):
        states = encoder(observed)
        loss = auxiliary_loss(head(states), rewards, code(states[:, -1]), observed[:, -1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert encoder[0].weight.grad.abs().sum() > 0
    assert losses[-1] < 0.2 * losses[0]
    assert (head(encoder(observed)).argmax(1) == reward_signs(rewards)).float().mean() > 0.9
