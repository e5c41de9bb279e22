"""What keeps a video moving while it is made more consistent."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, where
from torch.nn.functional import relu


def stillness(video: Float[Tensor, "m t *shape"], reference: Float[Tensor, "m t *shape"]) -> Float[Tensor, ""]:
    r"""What a video loses that moves less than another: the mean of max(0, 1 − M/M_ref).

        M = mean |xₜ₊₁ − xₜ|

    Standing still is the easiest way to be consistent; added to `pair_loss`, this keeps the better sample's motion.

    Args:
        video: frames, or their latents, that the model predicts.
        reference: those of the sample itself. One that does not move asks for nothing.

    Returns:
        In [0, 1].

    Raises:
        ValueError: if the shapes differ, or there are fewer than two frames.

    >>> import torch
    >>> there = torch.tensor([[0.0, 1.0, 2.0]])
    >>> stillness(0.25 * there, there), stillness(2 * there, there)
    (tensor(0.7500), tensor(0.))

    Source: the term against static motion of VIGOR (arXiv 2603.16271), whose form is not stated there.
    """
    if video.shape != reference.shape or video.ndim < 2 or video.shape[1] < 2:
        raise ValueError(f"two videos of one shape are wanted, got {tuple(video.shape)} and {tuple(reference.shape)}")
    motion, wanted = (x.diff(dim=1).abs().flatten(1).mean(1) for x in (video, reference))
    moves = wanted > 0
    return (relu(1 - motion / where(moves, wanted, 1.0)) * moves).mean()
