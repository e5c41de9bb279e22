"""A field that knows how a good policy's hidden states move: what strays from it has been led elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class FlowField(nn.Module):
    """v(xₛ, s | c, layer): the velocity from noise to a hidden state, given the state of the token before.

    Residual MLP blocks whose normalisation is shifted, scaled and gated by the condition; the last layer starts at
    zero, so that the field does.

    Args:
        width: of the hidden states.
        depth: blocks; 4 for a policy of 3 B parameters, 6 for 7 B.
        hidden: width inside of the field.

    Raises:
        ValueError: if a size is below 1.

    Source: RLFR (Jinghaoleven/RLFR, flow_simple.py); adaptive normalisation as in DiT (arXiv 2212.09748).

    >>> FlowField(4, depth=1, hidden=8)(torch.ones(2, 4), torch.ones(2), torch.ones(2, 4), torch.zeros(2)).tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, width: int, *, depth: int = 4, hidden: int = 1024) -> None:
        super().__init__()
        if min(width, depth, hidden) < 1:
            raise ValueError(f"width, depth and hidden must be at least 1, got {width}, {depth} and {hidden}")
        self.enter, self.condition = nn.Linear(width, hidden), nn.Linear(width + 2, hidden)
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(depth))
        self.norm, self.leave = nn.LayerNorm(hidden, elementwise_affine=False), nn.Linear(hidden, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self,
        x: Float[Tensor, "*n d"],
        time: Float[Tensor, "*n"],
        condition: Float[Tensor, "*n d"],
        layer: Float[Tensor, "*n"],
    ) -> Float[Tensor, "*n d"]:
        """The velocity.

        Args:
            x: between noise (time 0) and a hidden state (time 1).
            time: s in [0, 1].
            condition: the hidden state of the token before.
            layer: of the hidden state, as a share of the policy's depth.
        """
        told = torch.nn.functional.silu(self.condition(torch.cat([condition, time[..., None], layer[..., None]], -1)))
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, told)
        velocity: Tensor = self.leave(self.norm(x))
        return velocity


class _Block(nn.Module):
    """x + gate · MLP(scale · norm(x) + shift), the three of the condition; the gate starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.modulate = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulate(condition).chunk(3, -1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)  # type: ignore[no-any-return]


def flow_error(
    field: nn.Module,
    latents: Float[Tensor, "l n t d"],
    mask: Bool[Tensor, "n t"],
    layers: Sequence[float],
    *,
    time: float | Float[Tensor, "l n t"],
    noise: Float[Tensor, "l n t d"],
) -> Float[Tensor, "l n t"]:
    r"""How far the field is from the straight path to each token's hidden state.

        x_s = s x₁ + (1 − s) ε        u = x₁ − ε        error = mean over d of (v(x_s, s | x₁ of the token before) − u)²

    Args:
        field: a `FlowField`, or any function of its arguments; gradients pass to it and not to the latents.
        latents: x₁, hidden states of some layers, tokens without gaps.
        mask: True where there is a token.
        layers: where each of the layers is, as a share of the policy's depth.
        time: s in [0, 1).
        noise: ε, standard normal.

    Returns:
        One error per layer and token; 0 where masked, and at the first token, which has none before it.

    Raises:
        ValueError: if the shapes do not fit.

    Source: flow matching (arXiv 2210.02747), conditioned on the token before: RLFR ("token_post", shift 1).
    """
    if latents.ndim != 4 or mask.shape != latents.shape[1:3] or noise.shape != latents.shape:
        raise ValueError(
            f"latents and noise (l, n, t, d) and mask (n, t) do not fit: {tuple(latents.shape)}, "
            f"{tuple(noise.shape)} and {tuple(mask.shape)}"
        )
    if len(layers) != len(latents):
        raise ValueError(f"{len(layers)} layers for latents of {len(latents)}")
    wide = torch.promote_types(latents.dtype, torch.float32)
    target = torch.where(mask[..., None], latents.detach().to(wide), 0.0)
    before = torch.cat([torch.zeros_like(target[:, :, :1]), target[:, :, :-1]], 2)[:, :, : target.shape[2]]
    s = torch.as_tensor(time, dtype=wide, device=target.device).expand(target.shape[:3])
    depth = torch.tensor(layers, dtype=wide, device=target.device)[:, None, None].expand(s.shape)
    noise = noise.to(wide)
    found = field(s[..., None] * target + (1 - s[..., None]) * noise, s, before, depth)
    error = ((found - (target - noise)) ** 2).mean(-1)
    counted = mask.clone()
    counted[:, :1] = False
    return torch.where(counted, error, 0.0)


def flow_loss(
    field: nn.Module,
    latents: Float[Tensor, "l n t d"],
    mask: Bool[Tensor, "n t"],
    layers: Sequence[float],
    *,
    weights: Float[Tensor, "n"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """What teaches the field: the mean error at random times, over the tokens that have one before them.

    Args:
        field, latents, layers: see `flow_error`.
        mask: True at the tokens to learn from: those of expert data, or of rollouts, perhaps of high entropy only.
        weights: one per rollout: 1 for those whose outcome is to be imitated, 0 (or a little) for the others.
        generator: of the times and the noise.

    Returns:
        The loss; 0 if no token counts.

    Source: RLFR (Jinghaoleven/RLFR): offline on expert data, then online on rollouts with a reward of at least 1.
    """
    noise = _normal(latents, generator)
    time = torch.rand(latents.shape[:3], generator=generator, device=latents.device)
    error = flow_error(field, latents, mask, layers, time=time, noise=noise)
    weight = (mask if weights is None else mask * weights[:, None]).to(error).clone()
    weight[:, :1] = 0
    return (error * weight).sum() / (weight.sum() * len(layers)).clamp(min=torch.finfo(error.dtype).tiny)


@torch.no_grad()
def flow_deviation(
    field: nn.Module,
    latents: Float[Tensor, "l n t d"],
    mask: Bool[Tensor, "n t"],
    layers: Sequence[float],
    *,
    times: Sequence[float] = (0.8,),
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n t"]:
    """How far each token strays from the field: the error weighed by s/(1 − s), over some times and the layers.

    Brought to [0, 1] by `credit.rescale` and taken from the reward, it keeps a policy's states where good ones go.

    Args:
        field, latents, mask, layers: see `flow_error`.
        times: s in (0, 1), late ones, where little noise is left. Each weighs its own error; the released code
            weighs all of them with the last.
        generator: of the noise.

    Returns:
        One score per token, at least 0; 0 where masked and at the first.

    Raises:
        ValueError: if there is no time, or one outside of (0, 1).

    Source: RLFR (Jinghaoleven/RLFR).
    """
    if not times or not all(0 < s < 1 for s in times):
        raise ValueError(f"times are in (0, 1), at least one, got {tuple(times)}")
    scores = [
        s / (1 - s) * flow_error(field, latents, mask, layers, time=s, noise=_normal(latents, generator)).mean(0)
        for s in times
    ]
    return torch.stack(scores).mean(0)


def _normal(latents: Tensor, generator: torch.Generator | None) -> Tensor:
    wide = torch.promote_types(latents.dtype, torch.float32)
    return torch.randn(latents.shape, generator=generator, dtype=wide, device=latents.device)
