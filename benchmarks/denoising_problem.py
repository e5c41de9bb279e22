"""One problem for every way to train a denoiser, whose best answer is known, and what a policy is measured by.

The data are p = ½ N((−1, 0), 0.2 I) + ½ N((1, 0), 0.2 I), and the reward is r(x) = x₁ + x₂. What is best by
E r − β KL(q ‖ p), with β = 1, is p*(x) ∝ p(x) e^{r(x)/β}: a mixture again, with 12 % left of the mode that is worth
less. And how far a policy q is from the best that can be had is one number:

    max (E r − β KL) − (E_q r − β KL(q ‖ p)) = β KL(q ‖ p*)

A policy is the exact velocity of the data and a small network that adds to it, 0 at first; all are sampled by the ODE
in ten steps. That map G from noise to samples has a density, log q(G(e)) = log N(e) − log |det ∂G/∂e|, so that no
divergence here is guessed from samples: they are means over one even set of noise (Sobol's), with a Jacobian of
differences.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from guerdon.objectives.denoising import Chain, sample

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "lab"))
from flows import Mixture

STEPS, BETA = 10, 1.0
WIDTH = 0.9  # of the times that denoising errors are drawn at
LEVELS = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)
ODE = Chain(LEVELS, "ode")
SLOPE = torch.tensor([1.0, 1.0], dtype=torch.float64)
DATA = Mixture.of([[-1.0, 0.0], [1.0, 0.0]], 0.2)
BEST = DATA.tilted(SLOPE, BETA)
TARGET = float(BEST.weights @ BEST.means @ SLOPE)


@dataclass
class Spent:
    """Evaluations, one for each row: of a model, forwards and backwards, and of the reward."""

    forwards: int = 0
    backwards: int = 0
    rewards: int = 0

    @property
    def of_models(self) -> int:
        return self.forwards + self.backwards


class Policy(nn.Module):
    """The velocity of the data, and what is learned beside it."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.added = nn.Sequential(
            nn.Linear(5, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        ).double()
        nn.init.zeros_(self.added[-1].weight)
        nn.init.zeros_(self.added[-1].bias)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        time = s[:, None]
        features = torch.cat([x, time, torch.sin(math.pi * time), torch.cos(math.pi * time)], 1)
        found: Tensor = DATA.velocity(x, s) + self.added(features)
        return found


class Counted(nn.Module):
    """A model that counts the rows that go through it and the rows whose gradient comes back."""

    def __init__(self, model: nn.Module, spent: Spent) -> None:
        super().__init__()
        self.model, self.spent = model, spent

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        self.spent.forwards += len(x)
        found: Tensor = self.model(x, s)
        if found.requires_grad:
            found.register_hook(self._came_back)
        return found

    def _came_back(self, gradient: Tensor) -> None:
        self.spent.backwards += len(gradient)


class Reward:
    """r(x) = x₁ + x₂, counted."""

    differentiable, name = True, "slope"

    def __init__(self, spent: Spent) -> None:
        self.spent = spent

    def __call__(self, x: Tensor) -> Tensor:
        self.spent.rewards += len(x)
        return x @ SLOPE


@dataclass
class Lab:
    """What a method is given: the policy, the data's own model, the reward, and a budget of evaluations."""

    seed: int
    rate: float
    budget: int
    spent: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)  # of the network's first weights
        self.generator = torch.Generator().manual_seed(self.seed)
        self.policy = Counted(Policy(), self.spent)
        self.reference = self.copy()
        self.reward = Reward(self.spent)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.rate)
        self.sampler: Callable[[Tensor, Tensor], Tensor] = self.policy  # what is measured in the end
        self.enough = TARGET  # the reward at which training stops

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, below 1."""
        return min(self.spent.of_models / self.budget, 1 - 1e-9)

    def copy(self, *, learned: bool = False) -> Counted:
        """The policy of now, counted with it; learned by the same optimiser, or frozen."""
        made = Counted(copy.deepcopy(self.policy.model), self.spent)
        made.requires_grad_(learned)
        if learned:
            self.optimizer.add_param_group({"params": list(made.parameters())})
        return made

    def noise(self, n: int) -> Tensor:
        return torch.randn(n, 2, generator=self.generator, dtype=torch.float64)

    def levels(self, n: int) -> Tensor:
        """Times between noise and data, away from both ends."""
        return 0.05 + WIDTH * torch.rand(n, generator=self.generator, dtype=torch.float64)

    def made(self, policy: nn.Module, n: int) -> Tensor:
        """Samples of a policy, by the ODE."""
        return sample(policy, self.noise(n), ODE).states[:, -1]


def even_noise(n: int) -> Tensor:
    """Normal numbers that lie evenly, the same each time."""
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(n, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))


def mean_reward(policy: Callable[[Tensor, Tensor], Tensor], n: int = 512) -> float:
    """What the policy's samples are worth."""
    return float((sample(policy, even_noise(n), ODE).states[:, -1] @ SLOPE).mean())


def measured(policy: Callable[[Tensor, Tensor], Tensor], n: int = 4096, h: float = 1e-4) -> dict[str, float]:
    """Reward, divergences in nats, entropy, and the share of samples on the side of the mode that is worth less."""
    noise = even_noise(n)
    shifts = h * torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    ends = sample(policy, (noise + shifts[:, None]).flatten(0, 1), ODE).states[:, -1].reshape(5, n, 2)
    x, (a, b) = ends[0], ((ends[1] - ends[2]) / (2 * h), (ends[3] - ends[4]) / (2 * h))
    stretch = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs().log()
    log_q = -0.5 * (noise**2).sum(1) - math.log(2 * math.pi) - stretch
    return {
        "reward": float((x @ SLOPE).mean()),
        "kl": float((log_q - DATA.log_density(x)).mean()),
        "to_best": float((log_q - BEST.log_density(x)).mean()),
        "entropy": float(-log_q.mean()),
        "lesser": float((x[:, 0] < 0).double().mean()),
    }
