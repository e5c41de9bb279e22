"""A policy with one weight on data of two modes: how likely the right one is. Its log-odds after training are known."""

import torch
from torch import nn


class TwoModes(nn.Module):
    """The exact denoiser of σ(−o) N(−1, v) + σ(o) N(1, v): the only thing to learn is o, one for all or one per row."""

    def __init__(self, variance=0.05, odds=0.0):
        super().__init__()
        self.variance = variance
        self.odds = nn.Parameter(torch.tensor(odds, dtype=torch.float64))

    def clean(self, x, signal, noise, odds):
        """E[x₀ | x] where x = signal · x₀ + noise · e."""
        total = signal**2 * self.variance + noise**2
        right = torch.sigmoid(odds + 2 * signal * x / total)
        pull = signal * self.variance / total
        return right * (1 + pull * (x - signal)) - (1 - right) * (1 - pull * (x + signal))

    def of_rows(self, **condition):
        return self.odds

    def velocity(self, x, s, **condition):
        odds, level = self.of_rows(**condition).reshape(-1, 1), s[:, None]
        return (x - self.clean(x, 1 - level, level, odds)) / level

    def noise(self, x, alpha_bar, **condition):
        odds, level = self.of_rows(**condition).reshape(-1, 1), alpha_bar[:, None]
        a, b = level.sqrt(), (1 - level).sqrt()
        return (x - a * self.clean(x, a, b, odds)) / b

    def mass(self):
        return torch.sigmoid(self.odds).item()


def drawn(n, generator, variance=0.05):
    """Half of either mode, n "n 1"."""
    side = torch.arange(n, dtype=torch.float64)[:, None] % 2 * 2 - 1
    return side + variance**0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)


def maximise(weights, loss, steps=40):
    """Newton-like descent of a smooth loss of few weights, to its minimum."""
    optimizer = torch.optim.LBFGS(list(weights), max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
