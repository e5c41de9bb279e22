"""What an encoder of states is taught beside its policy: which reward comes next, and what the state was."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss


class RewardSign(nn.Module):
    """Which sign the coming reward has, from the states that lead to it: three log-odds, negative, none, positive.

    Args:
        width: of the encoder's states.
        hidden: of the LSTM that reads them.

    Source: reward prediction of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801), after UNREAL (1611.05397).
    """

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.reader = nn.LSTM(width, hidden, batch_first=True)
        self.sign = nn.Linear(hidden, 3)

    def forward(self, states: Float[Tensor, "n t d"]) -> Float[Tensor, "n 3"]:
        """Log-odds, from the state behind the last one read."""
        _, (last, _) = self.reader(states)
        found: Tensor = self.sign(last[-1])
        return found


class StateCode(nn.Module):
    """What was observed, from a narrow code of the encoder's state.

    Args:
        width: of the encoder's states.
        observed: of what is to be found again.
        code: of the bottleneck.
        hidden: of the layers around it, from the state inwards.

    Source: state representation of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801), whose output layer cannot be
    negative and so loses half of a signed observation: ours is linear.
    """

    def __init__(self, width: int, observed: int, *, code: int = 16, hidden: tuple[int, ...] = (128, 32)) -> None:
        super().__init__()
        self.encode = _layers(width, *hidden, code)
        self.decode = nn.Sequential(nn.ReLU(), _layers(code, *reversed(hidden), observed))

    def forward(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n o"]:
        """The observation."""
        found: Tensor = self.decode(self.encode(states))
        return found


def reward_signs(rewards: Float[Tensor, "*n"], *, still: float = 0.0) -> Int[Tensor, "*n"]:
    """The class of each reward: 0 negative, 1 none, 2 positive.

    Args:
        rewards: of any unit.
        still: at least 0; what is no larger counts as none.

    Raises:
        ValueError: if `still` is negative.

    >>> reward_signs(torch.tensor([-0.5, 0.0, 0.01, 2.0]), still=0.1)
    tensor([0, 1, 1, 2])

    Source: Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801).
    """
    if still < 0:
        raise ValueError(f"still must not be negative, got {still}")
    return torch.where(rewards.abs() <= still, 0, rewards.sign()).long() + 1


def auxiliary_loss(
    signs: Float[Tensor, "n 3"],
    rewards: Float[Tensor, "n"],
    found: Float[Tensor, "m o"],
    observed: Float[Tensor, "m o"],
    *,
    weights: tuple[float, float] = (1.0, 1.0),
    still: float = 0.0,
) -> Float[Tensor, ""]:
    r"""What the two heads add to the loss of the policy, whose encoder they share:

        w₁ · mean −log p(sign of the reward) + w₂ · mean (o − ô)²

    Args:
        signs: of `RewardSign`.
        rewards: that came.
        found: of `StateCode`.
        observed: what was; no gradient passes to it.
        weights: w₁ and w₂, at least 0.
        still: see `reward_signs`.

    Raises:
        ValueError: if a weight is negative.

    Source: the on-policy auxiliary tasks of Lucy-SKG (Enkhai/lucy-utils; arXiv 2305.15801); it does not state weights.
    """
    if min(weights) < 0:
        raise ValueError(f"weights are at least 0, got {weights}")
    classes = reward_signs(rewards, still=still)
    return weights[0] * cross_entropy(signs, classes) + weights[1] * mse_loss(found, observed.detach())


def _layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.ReLU()] * bool(layers) + [nn.Linear(width, following)]
    return nn.Sequential(*layers)
