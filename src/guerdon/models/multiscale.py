"""A planner that writes a trajectory from coarse to fine: residual codes at several scales, and what to do first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of a folder that `save_pretrained` writes


class Codes(NamedTuple):
    """A signal as codes at several scales.

    Args:
        ids: for each scale the numbers of its codes, "n l".
        total: Σₖ zₖ, what the codes say of the signal; gradients pass to the signal as if nothing were quantised.
        loss: of the codebook and of the signal's commitment to it.
    """

    ids: list[Int[Tensor, "n l"]]
    total: Float[Tensor, "n t d"]
    loss: Float[Tensor, ""]


def pool(signal: Float[Tensor, "n t d"], length: int) -> Float[Tensor, "n l d"]:
    """Means of equal stretches, `length` of them.

    Source: the down-sampling of multi-scale quantisation, VAR (arXiv 2404.02905).

    >>> pool(torch.tensor([[[1.0], [3.0], [5.0], [7.0]]]), 2)[0, :, 0]
    tensor([2., 6.])
    """
    n, t, d = signal.shape
    return signal.reshape(n, length, t // length, d).mean(2)


def stretch(signal: Float[Tensor, "n l d"], length: int) -> Float[Tensor, "n t d"]:
    """Each entry repeated, up to `length`; after `pool` this is an orthogonal projection.

    Source: the up-sampling of multi-scale quantisation, VAR (arXiv 2404.02905), without its convolution.

    >>> stretch(torch.tensor([[[2.0], [6.0]]]), 4)[0, :, 0]
    tensor([2., 2., 6., 6.])
    """
    return signal.repeat_interleave(length // signal.shape[1], 1)


def residual_scales(signal: Float[Tensor, "n t d"], scales: Sequence[int]) -> list[Float[Tensor, "n t d"]]:
    r"""What each scale adds to a signal: zₖ = stretch(pool(f, lₖ)), f ← f − zₖ.

    The remaining energy never rises, and with a last scale of the full length Σₖ zₖ is the signal.

    Args:
        signal: f.
        scales: l₁ < … < l_K; each divides the length.

    Raises:
        ValueError: if the scales do not rise or do not divide the length.

    Source: MAGE ("Multi-scale Autoregressive Generation for Offline Reinforcement Learning", ICLR 2026).

    >>> first, second = residual_scales(torch.tensor([[[1.0], [3.0]]]), (1, 2))
    >>> first[0, :, 0], second[0, :, 0]
    (tensor([2., 2.]), tensor([-1.,  1.]))
    """
    _check_scales(scales, signal.shape[1])
    parts = []
    for length in scales:
        parts.append(stretch(pool(signal, length), signal.shape[1]))
        signal = signal - parts[-1]
    return parts


class Codebook(nn.Module):
    """One codebook for all scales.

    Args:
        size: how many codes.
        width: d of the signal.
        commitment: weight of the signal's own distance to its codes.

    Source: VQ-VAE (arXiv 1711.00937), commitment 0.25; one codebook over residual scales: VAR (2404.02905), MAGE.

    >>> codes = Codebook(4, 2)(torch.zeros(1, 4, 2), (1, 2, 4))
    >>> [x.shape[1] for x in codes.ids], codes.total.shape
    ([1, 2, 4], torch.Size([1, 4, 2]))
    """

    def __init__(self, size: int, width: int, *, commitment: float = 0.25) -> None:
        super().__init__()
        self.commitment = commitment
        self.codes = nn.Parameter(torch.randn(size, width) / width**0.5)

    def nearest(self, signal: Float[Tensor, "n l d"]) -> Int[Tensor, "n l"]:
        """The number of the code nearest to each entry."""
        return torch.cdist(signal, self.codes.expand(len(signal), -1, -1)).argmin(-1)

    def forward(self, signal: Float[Tensor, "n t d"], scales: Sequence[int]) -> Codes:
        """The signal's residuals, quantised from the coarsest scale to the finest.

        Raises:
            ValueError: if the scales do not rise or do not divide the length.
        """
        t = signal.shape[1]
        _check_scales(scales, t)
        rest, total, loss, ids = signal, torch.zeros_like(signal), signal.new_zeros(()), []
        for length in scales:
            pooled = pool(rest, length)
            ids.append(self.nearest(pooled.detach()))
            # Not by indexing, whose gradients are added in whatever order threads come.
            code = nn.functional.embedding(ids[-1], self.codes)
            loss = loss + (code - pooled.detach()).square().mean()
            loss = loss + self.commitment * (code.detach() - pooled).square().mean()
            part = stretch(code.detach(), t)
            rest, total = rest - part, total + part
        return Codes(ids, signal + (total - signal).detach(), loss / len(scales))

    def sums(self, ids: Sequence[Int[Tensor, "n l"]], length: int) -> list[Float[Tensor, "n t d"]]:
        """Σ of the first 1, 2, … scales' codes, at full length, without gradient."""
        total = self.codes.new_zeros(len(ids[0]), length, self.codes.shape[1])
        found = []
        for part in ids:
            total = total + stretch(self.codes[part].detach(), length)
            found.append(total)
        return found


class Units(nn.Module):
    """The mean and the deviation of some quantities, in which a network has them; 0 and 1 until they are known."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, values: Float[Tensor, "m d"]) -> None:
        """Take these for all there are; a quantity that never changes keeps its unit."""
        self.mean.copy_(values.mean(0))
        deviation = values.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def inward(self, values: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """As the network has them."""
        return (values - self.mean) / self.scale

    def outward(self, values: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """As they are."""
        return values * self.scale + self.mean


class MultiScalePlanner(nn.Module):
    r"""Return-conditioned planning: a trajectory's codes from coarse to fine, then the action that begins it.

        encode     f = Enc(R, s);  m₁ … m_K the codes of its residuals;  (R, s) ≈ Dec(Σ z)
        predict    p(m₁ … m_K | s₀, R₀) = Πₖ p(mₖ | m_{<k}, s₀, R₀), all positions of a scale at once
        act        a₀ = I(Σ z, s₀)
        adapt      D'(Σ z, R₀) ≈ (s₀, R₀): what the decoder says of the first step is held to what was asked for

    A trajectory is written as returns-to-go and states, without actions: these follow from the states, and are harder
    to predict. To act, ask for a return, take the first action, and plan again from where it leads.

    All that goes in and comes out is in the units of the data; networks and losses have them as `standardize` says.

    Args:
        state: width of a state.
        action: width of an action.
        length: steps of a trajectory.
        scales: l₁ < … < l_K, each a divisor of `length`, the last one `length` itself.
        codes: size of the codebook.
        width: of all layers.
        layers, heads: of the transformer over scales.

    Raises:
        ValueError: if the scales do not fit the length.

    Source: MAGE ("Multi-scale Autoregressive Generation for Offline Reinforcement Learning", ICLR 2026), from a
    description: its code is not public; the weights of the losses are not stated, ours are 1.

    >>> planner = MultiScalePlanner(state=2, action=1, length=4, scales=(1, 4), width=8, heads=2)
    >>> planner.act(torch.zeros(3, 2), torch.ones(3)).shape
    torch.Size([3, 1])
    """

    def __init__(
        self,
        *,
        state: int,
        action: int,
        length: int = 8,
        scales: Sequence[int] = (1, 2, 4, 8),
        codes: int = 64,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.options = {
            "state": state, "action": action, "length": length, "scales": list(scales), "codes": codes, "width": width,
            "layers": layers, "heads": heads,
        }  # fmt: skip
        _check_scales(scales, length)
        if scales[-1] != length:
            raise ValueError(
                f"the last scale must be the length, {length}, or the end of a trajectory is lost: {scales}"
            )
        self.length, self.scales, self.width = length, tuple(scales), width
        step = 1 + state
        self.encoder = _mlp(length * step, width, length * width)
        self.decoder = _mlp(length * width, width, length * step)
        self.codebook = Codebook(codes, width)
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.condition = _mlp(step, width, width)
        self.before = nn.Linear(width, width)
        self.place = nn.Parameter(0.02 * torch.randn(sum(scales), width))
        self.head = nn.Linear(width, codes)
        self.inverse = _mlp(length * width + state, width, action)
        self.adapter = _mlp(length * width + 1, width, step)
        self.steps, self.actions = Units(step), Units(action)

    @torch.no_grad()
    def standardize(self, steps: Float[Tensor, "m 1+s"], actions: Float[Tensor, "m a"]) -> None:
        """Measure everything from now on in the deviations of these returns-to-go and states, and of these actions."""
        self.steps.fit(steps)
        self.actions.fit(actions)

    def encode(self, trajectories: Float[Tensor, "n t 1+s"]) -> Codes:
        """The codes of trajectories, each step its return-to-go and its state."""
        return self._coded(self.steps.inward(trajectories))

    def decode(self, total: Float[Tensor, "n t d"]) -> Float[Tensor, "n t 1+s"]:
        """The trajectories that codes stand for."""
        return self.steps.outward(self._decoded(total))

    def autoencoder_loss(self, trajectories: Float[Tensor, "n t 1+s"]) -> Float[Tensor, ""]:
        """Reconstruction, codebook and commitment: the first stage of training."""
        inner = self.steps.inward(trajectories)
        codes = self._coded(inner)
        return (self._decoded(codes.total) - inner).square().mean() + codes.loss

    def planner_loss(self, trajectories: Float[Tensor, "n t 1+s"], actions: Float[Tensor, "n a"]) -> Float[Tensor, ""]:
        """Cross-entropy of the codes, of the first action and of the condition: the second stage.

        Args:
            trajectories: returns-to-go and states.
            actions: the first action of each.
        """
        inner = self.steps.inward(trajectories)
        with torch.no_grad():
            ids = self._coded(inner).ids
            sums = self.codebook.sums(ids, self.length)
        first = inner[:, 0]
        logits = torch.cat(self._logits(first, sums[:-1]), 1)
        loss: Tensor = nn.functional.cross_entropy(logits.flatten(0, 1), torch.cat(ids, 1).flatten())
        acted = self._inverse(sums[-1], first[:, 1:])
        asked = self.adapter(torch.cat([sums[-1].flatten(1), first[:, :1]], 1))
        wanted = self.actions.inward(actions)
        loss = loss + (acted - wanted).square().mean() + (asked - first).square().mean()
        return loss

    @torch.no_grad()
    def plan(
        self,
        state: Float[Tensor, "n s"],
        target: Float[Tensor, "n"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n t d"]:
        """Σₖ zₖ of a trajectory that begins in a state and is to bring a return.

        Args:
            state: s₀.
            target: R₀, the return that is asked for.
            generator: draw each code from its distribution; None: the likeliest.
        """
        first = self.steps.inward(torch.cat([target[:, None], state], 1))
        ids: list[Tensor] = []
        for _ in self.scales:
            sums = self.codebook.sums(ids, self.length) if ids else []
            logits = self._logits(first, sums)[-1]
            if generator is None:
                ids.append(logits.argmax(-1))
            else:
                drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator)
                ids.append(drawn.reshape(logits.shape[:2]))
        return self.codebook.sums(ids, self.length)[-1]

    @torch.no_grad()
    def act(
        self,
        state: Float[Tensor, "n s"],
        target: Float[Tensor, "n"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n a"]:
        """The first action of a plan; arguments as for `plan`."""
        first = self.steps.inward(torch.cat([target[:, None], state], 1))
        return self.actions.outward(self._inverse(self.plan(state, target, generator=generator), first[:, 1:]))

    @torch.no_grad()
    def imagine(self, total: Float[Tensor, "n t d"], target: Float[Tensor, "n"]) -> Float[Tensor, "n t 1+s"]:
        """The planned trajectory, its first step from the condition adapter."""
        asked = (target - self.steps.mean[0]) / self.steps.scale[0]
        first: Tensor = self.adapter(torch.cat([total.flatten(1), asked[:, None]], 1))
        return self.steps.outward(torch.cat([first[:, None], self._decoded(total)[:, 1:]], 1))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the options and the weights to a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.options, indent=2) + "\n", encoding="utf-8")
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MultiScalePlanner:
        """What `save_pretrained` wrote, in evaluation mode.

        Raises:
            OSError: if it is not there.
        """
        planner = cls(**json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")))
        planner.load_state_dict(load_file(Path(folder) / WEIGHTS))
        return planner.eval()

    def _coded(self, inner: Tensor) -> Codes:
        features: Tensor = self.encoder(inner.flatten(1))
        return self.codebook(features.reshape(len(inner), self.length, self.width), self.scales)  # type: ignore[no-any-return]

    def _decoded(self, total: Tensor) -> Tensor:
        steps: Tensor = self.decoder(total.flatten(1))
        return steps.reshape(len(total), self.length, -1)

    def _inverse(self, total: Tensor, state: Tensor) -> Tensor:
        action: Tensor = self.inverse(torch.cat([total.flatten(1), state], 1))
        return action

    def _logits(self, first: Tensor, sums: Sequence[Tensor]) -> list[Tensor]:
        """Logits of the codes of scales 1 … len(sums) + 1; a scale sees itself, the coarser ones and the condition."""
        lengths = self.scales[: len(sums) + 1]
        condition = self.condition(first)[:, None]
        inputs = [condition.expand(-1, lengths[0], -1)]
        inputs += [condition + self.before(pool(x, length)) for x, length in zip(sums, lengths[1:], strict=True)]
        scale = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(first.device)
        hidden = torch.cat(inputs, 1) + self.place[: len(scale)]
        hidden = self.transformer(hidden, mask=scale[None, :] > scale[:, None])
        return list(self.head(hidden).split(list(lengths), 1))


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


def _check_scales(scales: Sequence[int], length: int) -> None:
    if not scales or list(scales) != sorted(set(scales)) or any(x < 1 or length % x for x in scales):
        raise ValueError(f"scales must rise and each divide the length, {length}, got {tuple(scales)}")
