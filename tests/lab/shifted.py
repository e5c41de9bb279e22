"""A policy with one weight per step, on data whose answer is known.

Most policies here are the exact velocity (noise, clean sample) of the data plus a shift θₜ per step. For the linear
reward r = x all of it is Gaussian: a shift of step t moves the sample by kₜ Πₜ θₜ and costs (kₜ θₜ)² / (2 σₜ²) nats,
where kₜ = ∂mean/∂output and Πₜ is the product of the slopes of later steps. So E r − β KL is largest at
θₜ = Πₜ σₜ² / (β kₜ), and the sample moves by Σ (Πₜ σₜ)² / β: the variance that the noise of the steps injects.
"""

import math

import torch
from flows import Mixture, coefficients, moments
from torch import nn

from guerdon.objectives.denoising import step

GAUSSIAN = Mixture.gaussian(1.0, 0.25)


def times(t, *, width=torch.float64):
    return torch.linspace(1, 0, t + 1, dtype=width)


class Shifted(nn.Module):
    """What is exact of the data, plus a shift for each step (and prompt)."""

    def __init__(self, data, chain, prompts=1):
        super().__init__()
        self.exact = {"ddim": data.noise, "consistency": data.clean}.get(chain.kind, data.velocity)
        self.levels = chain.levels
        self.shift = nn.Parameter(torch.zeros(prompts, len(chain), dtype=torch.float64))

    def forward(self, x, time, prompt=None):
        k = (self.levels[:-1] - time[:, None]).abs().argmin(1)
        prompt = torch.zeros_like(k) if prompt is None else prompt
        return self.exact(x, time) + self.shift[prompt, k][:, None]


def affine(chain, policy, rest=None):
    """α, β, σ and k of each step of a policy that is affine in a scalar; `rest`: of another kind, without noise."""
    found = []
    for level, following in zip(chain.levels[:-1].tolist(), chain.levels[1:].tolist(), strict=True):
        options = {"kind": rest or chain.kind, "a": 0.0 if rest else chain.a}
        with torch.no_grad():
            parts = coefficients(
                step, level, following, lambda x, s: policy(x, torch.full((len(x),), s, dtype=x.dtype)), **options
            )
            more = coefficients(
                step, level, following, lambda x, s: policy(x, torch.full((len(x),), s, dtype=x.dtype)) + 1, **options
            )
        found.append((*parts, more[1] - parts[1]))
    return found


def optimum(chain, policy, beta, *, rest=None):
    """θ* and how far it moves the mean of the sample; later steps have noise, or are those of the ODE."""
    steps, later = affine(chain, policy), affine(chain, policy, rest)
    onward = [math.prod(s[0] for s in later[k + 1 :]) for k in range(len(steps))]
    best = [onward[k] * std**2 / (beta * slope) if std > 0 else 0.0 for k, (_, _, std, slope) in enumerate(steps)]
    return torch.tensor(best, dtype=torch.float64)


def moved(chain, policy):
    return moments([s[:3] for s in affine(chain, policy)])[0]


def noise(n, generator, d=1):
    return torch.randn(n, d, generator=generator, dtype=torch.float64)
