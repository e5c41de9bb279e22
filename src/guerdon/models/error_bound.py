"""A linear reward on learned features, and how wrong it can be on features unlike those it was fitted on."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FeatureReward(nn.Module):
    r"""r = wᵀz, z features of several embeddings that are read together, as of a picture and of what it was made from.

    One layer of a transformer, two linear maps, and a last one without bias: what it says is linear in z, so that
    `ErrorBound` holds. The embeddings come from an encoder of yours, joined to one vector.

    Args:
        width: of the joined embeddings.
        heads: of attention; divides the width.
        hidden: of the transformer's feed-forward layer; default: the width.
        features: of z.

    Source: the reward model of PrefPaint (arXiv 2410.21966): CLIP of the inpainted and of the masked picture, joined to
    1024; 512 and 256 features.
    """

    def __init__(self, width: int, *, heads: int = 16, hidden: int | None = None, features: int = 256) -> None:
        super().__init__()
        self.mix = nn.TransformerEncoderLayer(width, heads, hidden or width, batch_first=True)
        self.reduce = nn.Sequential(nn.Linear(width, 2 * features), nn.Dropout(0.2), nn.Linear(2 * features, features))
        self.score = nn.Linear(features, 1, bias=False)

    def features(self, joined: Float[Tensor, "n d"]) -> Float[Tensor, "n z"]:
        """z of each row, which reads that row alone."""
        z: Tensor = self.reduce(self.mix(joined[:, None])[:, 0])
        return z

    def forward(self, joined: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """The reward of each row."""
        rewards: Tensor = self.score(self.features(joined))[:, 0]
        return rewards


class ErrorBound(nn.Module):
    r"""How far a linear reward can be from the truth, from the features it was fitted on.

        |wᵀz − r*(z)| ≤ C ‖z‖_{V⁻¹}        ‖z‖_{V⁻¹} = √(zᵀ V⁻¹ z),  V = λ I + Σ z zᵀ over what it was fitted on

    The bound grows in directions that were seldom seen. As a weight in (0, 1] it is `shaping.trust`.

    Args:
        features: of z.
        ridge: λ > 0, as the last layer was fitted with.

    Raises:
        ValueError: unless λ > 0.

    Source: PrefPaint (arXiv 2410.21966); the confidence ellipsoid of linear bandits (Abbasi-Yadkori et al., 2011).

    >>> bound = ErrorBound(2, ridge=1.0).observe(torch.tensor([[1.0, 0.0]] * 3))
    >>> bound(torch.eye(2))
    tensor([0.5000, 1.0000])
    """

    moments: Tensor

    def __init__(self, features: int, *, ridge: float = 1.0) -> None:
        super().__init__()
        if not 0 < ridge < math.inf:
            raise ValueError(f"ridge must be positive, got {ridge}")
        self.register_buffer("moments", ridge * torch.eye(features, dtype=torch.float64))

    def observe(self, features: Float[Tensor, "n z"]) -> ErrorBound:
        """Add what the reward was fitted on, in one piece or many.

        Raises:
            ValueError: if there are not as many features, or one is not finite.
        """
        z = self._checked(features)
        self.moments += z.T @ z
        return self

    def forward(self, features: Float[Tensor, "n z"]) -> Float[Tensor, "n"]:
        """‖z‖_{V⁻¹} of each row, without gradient."""
        z = self._checked(features)
        root = torch.linalg.cholesky(self.moments)
        whitened = torch.linalg.solve_triangular(root, z.T, upper=False)
        norm: Tensor = whitened.norm(dim=0).to(torch.promote_types(features.dtype, torch.float32))
        return norm

    def _checked(self, features: Tensor) -> Tensor:
        if features.ndim != 2 or features.shape[1] != len(self.moments):
            raise ValueError(f"features must be (n, {len(self.moments)}), got {tuple(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("features must be finite")
        return features.detach().to(self.moments)
