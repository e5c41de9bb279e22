"""Importance by attention, where it is known which step decides: what it changes about the update of a policy."""

import pytest
import torch
from torch import nn

from guerdon.credit import redistribute

STEPS, DECISIVE = 12, 3


class Returns(nn.Module):
    """Predicts a return from what was chosen at the steps, each as much as it is attended to by its kind."""

    def __init__(self):
        super().__init__()
        self.score, self.value = nn.Embedding(STEPS, 1), nn.Embedding(2, 1)

    def attention(self, kinds):
        return self.score(kinds)[..., 0].log_softmax(1)

    def forward(self, kinds, actions):
        return (self.attention(kinds).exp() * self.value(actions)[..., 0]).sum(1)


def episodes(n, generator):
    """Steps of twelve kinds in any order, a binary choice at each; the return is the choice at the decisive kind."""
    kinds = torch.stack([torch.randperm(STEPS, generator=generator) for _ in range(n)])
    actions = torch.randint(0, 2, (n, STEPS), generator=generator)
    return kinds, actions, (actions * (kinds == DECISIVE)).sum(1).float()


@pytest.fixture(scope="module")
def attention():
    """Learned from returns alone."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Returns()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    kinds, actions, returns = episodes(300, generator)
    for _ in range(300):
        loss = ((model(kinds, actions) - returns) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.attention


def updates(kinds, actions, returns, importance, *, scale):
    """What each episode adds to the logit of each kind's choice: REINFORCE at even odds, on rewards of steps."""
    rewards = scale * redistribute(returns - 0.5, importance, torch.ones_like(kinds, dtype=torch.bool))
    return torch.zeros(kinds.shape).scatter(1, kinds, rewards * (actions - 0.5))


@torch.no_grad()
def test_revibranch_attention_pays_the_step_that_decides_and_takes_the_others_noise_out(attention):
    """Uniform shares times the number of steps have the same mean update, and all steps' variance instead of one's.

    E: 1/4 at the decisive kind and 0 elsewhere. E‖·‖²: the return less 1/2 and a choice less 1/2 are ±1/2, so that each
    kind that is paid in full adds 1/16: twelve of them with uniform shares, one with the attention.
    """
    kinds, actions, returns = episodes(4000, torch.Generator().manual_seed(1))
    weights = attention(torch.arange(STEPS)[None])[0].exp()
    assert weights[DECISIVE] > 0.95
    revived = updates(kinds, actions, returns, attention(kinds), scale=1.0)
    uniform = updates(kinds, actions, returns, torch.zeros(kinds.shape), scale=float(STEPS))
    expected = torch.zeros(STEPS)
    expected[DECISIVE] = 0.25
    for found in (revived, uniform):
        torch.testing.assert_close(found.mean(0), expected, rtol=0.06, atol=0.02)
    assert float((uniform**2).sum(1).mean()) == pytest.approx(STEPS / 16, rel=0.01)
    assert float((revived**2).sum(1).mean()) == pytest.approx(1 / 16, rel=0.1)
    alone = revived.var(0).sum() / uniform.var(0).sum()
    assert alone < 0.02
