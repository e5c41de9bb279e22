"""A map between two spaces that is learned without pairs: from where texts are to where films are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TransportMap(nn.Module):
    """T: three layers with ReLU and layer normalisation, from vectors of one space to vectors of another.

    Args:
        width: of both.
        hidden: width inside.
        outputs: of T; 1 for the potential that it is trained against. Default: `width`.

    Source: PISCES (arXiv 2602.01624); its widths are not stated.
    """

    def __init__(self, width: int, *, hidden: int = 512, outputs: int | None = None) -> None:
        super().__init__()
        if min(width, hidden, outputs or 1) < 1:
            raise ValueError(f"width, hidden and outputs must be at least 1, got {width}, {hidden} and {outputs}")
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden),
            nn.ReLU(), nn.Linear(hidden, outputs or width),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n e"]:
        """Where x is sent."""
        found: Tensor = self.layers(x)
        return found


def map_loss(mapping: nn.Module, potential: nn.Module, sources: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """What T descends: E ‖y − T(y)‖² − f(T(y)), to go where f is high, and no further than need be.

    Source: neural optimal transport (arXiv 2201.12220), as in PISCES (2602.01624).
    """
    sent = mapping(sources)
    found: Tensor = ((sources - sent) ** 2).sum(-1).mean() - potential(sent).mean()
    return found


def potential_loss(
    mapping: nn.Module, potential: nn.Module, sources: Float[Tensor, "n d"], targets: Float[Tensor, "m d"]
) -> Float[Tensor, ""]:
    """What f descends: E f(T(y)) − E f(x), to be high on targets and low where T sends sources. T is held fixed.

    Source: neural optimal transport (arXiv 2201.12220), as in PISCES (2602.01624).
    """
    with torch.no_grad():
        sent = mapping(sources)
    found: Tensor = potential(sent).mean() - potential(targets).mean()
    return found


def fit_transport(
    mapping: nn.Module,
    potential: nn.Module,
    batches: Iterator[tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]],
    *,
    steps: int,
    map_steps: int = 10,
    learning_rate: float = 1e-4,
    betas: tuple[float, float] = (0.0, 0.9),
) -> Mapping[str, float]:
    r"""Learn, in place, the map that takes the sources to where the targets are at the least squared distance.

        sup_f inf_T E_x f(x) + E_y [‖y − T(y)‖² − f(T(y))]

    `map_steps` of T for each of f, so that f is judged by a map that has followed it.

    Args:
        mapping: T, such as a `TransportMap`.
        potential: f, one number for each vector.
        batches: of sources and targets, which are not paired.
        steps: of f.
        map_steps: of T for each of them.
        learning_rate: of both Adams.
        betas: of both; without momentum the two do not swing about each other.

    Returns:
        The last losses of both, and `cost`, the mean squared distance of the last batch from where it was sent.

    Raises:
        ValueError: if a number is out of range, or a loss is not finite.

    Source: PISCES (arXiv 2602.01624) after neural optimal transport (2201.12220); the numbers are ours.
    """
    if min(steps, map_steps) < 1 or not learning_rate > 0:
        raise ValueError(f"steps, map_steps and learning_rate are positive: {steps}, {map_steps}, {learning_rate}")
    follow = torch.optim.Adam(mapping.parameters(), lr=learning_rate, betas=betas)
    lead = torch.optim.Adam(potential.parameters(), lr=learning_rate, betas=betas)
    lost = raised = sources = torch.zeros(())
    for _ in range(steps):
        for _ in range(map_steps):
            sources, _ = next(batches)
            lost = _stepped(follow, map_loss(mapping, potential, sources))
        sources, targets = next(batches)
        raised = _stepped(lead, potential_loss(mapping, potential, sources, targets))
    with torch.no_grad():
        cost = ((sources - mapping(sources)) ** 2).sum(-1).mean()
    return {"map": float(lost), "potential": float(raised), "cost": float(cost)}


def _stepped(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    if not math.isfinite(loss.item()):
        raise ValueError(f"the loss is {loss.item()}: lower learning_rate")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()
