"""Data whose flow is known: Gaussians and mixtures of them, with closed-form velocity, score, noise and tilted optimum.

Flow time: x_s = (1 − s) x₀ + s e, 1 is noise, v = e − x₀. Diffusion: x = √ᾱ x₀ + √(1 − ᾱ) e.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mixture:
    """Σₖ wₖ N(μₖ, σₖ²) along each of `d` dimensions of a sample (n d), component k the same in all of them.

    means: (k, d); variances: (k,); weights: (k,). One component is a Gaussian.
    """

    means: torch.Tensor
    variances: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def gaussian(cls, mean=1.0, variance=0.25, dimensions=1, dtype=torch.float64):
        return cls(
            torch.full((1, dimensions), mean, dtype=dtype),
            torch.full((1,), variance, dtype=dtype),
            torch.ones(1, dtype=dtype),
        )

    @classmethod
    def of(cls, means, variance=0.05, weights=None, dtype=torch.float64):
        means = torch.as_tensor(means, dtype=dtype)
        means = means[:, None] if means.ndim == 1 else means
        weights = torch.full((len(means),), 1 / len(means), dtype=dtype) if weights is None else weights
        return cls(means, torch.full((len(means),), variance, dtype=dtype), torch.as_tensor(weights, dtype=dtype))

    def draw(self, n, generator):
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[k] + self.variances[k].sqrt()[:, None] * noise

    def _joint(self, x, signal, noise):
        """log p(k, x), x − signal · μₖ and its variance, where x = signal · x₀ + noise · e; both scalars or (n,)."""
        variance = signal[:, None] ** 2 * self.variances + noise[:, None] ** 2  # (n, k)
        away = x[:, None] - signal[:, None, None] * self.means  # (n, k, d)
        logits = (
            self.weights.log() - 0.5 * (away**2).sum(2) / variance - 0.5 * x.shape[1] * (2 * math.pi * variance).log()
        )
        return logits, away, variance

    def log_density(self, x):
        """log p(x) of clean samples."""
        return self._joint(x, x.new_ones(len(x)), x.new_zeros(len(x)))[0].logsumexp(1)

    def _posterior(self, x, signal, noise):
        """E[x₀ | x], E[e | x] and the responsibilities, where x = signal · x₀ + noise · e; both scalars or (n,)."""
        signal, noise = (torch.as_tensor(y, dtype=x.dtype).expand(len(x)) for y in (signal, noise))
        logits, away, variance = self._joint(x, signal, noise)
        share = logits.softmax(1)
        clean = self.means + (signal[:, None] * self.variances / variance)[..., None] * away
        error = (noise[:, None] / variance)[..., None] * away
        return (share[..., None] * clean).sum(1), (share[..., None] * error).sum(1), share

    def velocity(self, x, s):
        """E[e − x₀ | x_s = x]."""
        s = torch.as_tensor(s, dtype=x.dtype)
        clean, error, _ = self._posterior(x, 1 - s, s)
        return error - clean

    def score(self, x, s):
        """∇ log p_s(x) of the flow's marginal at time s > 0."""
        s = torch.as_tensor(s, dtype=x.dtype).expand(len(x))
        return -self._posterior(x, 1 - s, s)[1] / s[:, None]

    def noise(self, x, alpha_bar):
        """E[e | x] of a diffusion at signal level ᾱ."""
        alpha_bar = torch.as_tensor(alpha_bar, dtype=x.dtype)
        return self._posterior(x, alpha_bar.sqrt(), (1 - alpha_bar).sqrt())[1]

    def clean(self, x, alpha_bar):
        """E[x₀ | x] of a diffusion at signal level ᾱ."""
        alpha_bar = torch.as_tensor(alpha_bar, dtype=x.dtype)
        return self._posterior(x, alpha_bar.sqrt(), (1 - alpha_bar).sqrt())[0]

    def tilted(self, slope, beta=1.0):
        """p(x) exp(⟨slope, x⟩ / β), normalised: the optimum of E r − β KL for the linear reward r = ⟨slope, x⟩."""
        slope = torch.as_tensor(slope, dtype=self.means.dtype).expand(self.means.shape[1]) / beta
        gain = self.means @ slope + 0.5 * self.variances * (slope**2).sum()
        return Mixture(
            self.means + self.variances[:, None] * slope, self.variances, (self.weights.log() + gain).softmax(0)
        )

    def responsibilities(self, x):
        """Which component a clean sample is of, (n, k)."""
        return self._posterior(x, 1.0, 0.0)[2]


def coefficients(step, level, following, policy, **options):
    """α, β, std of a step that is affine in a scalar x, read off at x = 0 and 1 in float64: x' = α x + β + std e."""
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = step(x, policy(x, level), level, following, **options)
    zero, one = found.mean[:, 0].tolist()
    return one - zero, zero, float(found.std[0])


def moments(steps, mean=0.0, variance=1.0):
    """Mean and variance at the end of a chain of affine steps, from those of its start."""
    for slope, offset, std in steps:
        mean, variance = slope * mean + offset, slope**2 * variance + std**2
    return mean, variance
