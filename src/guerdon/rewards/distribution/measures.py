"""How far two sets of vectors are apart, and how varied one is.

Sets are "*n m d": m vectors of d numbers each, many sets at once. NumPy or torch; gradients pass; in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.core.arrays import Array
from guerdon.rewards.distribution.transport import sinkhorn

Kernel = Literal["gaussian", "polynomial", "cosine"]


class Gaussian(NamedTuple):
    """A mean and a factor of the covariance, Σ = AᵀA, which is thin where there are few vectors.

    Args:
        mean: Float["*n d"].
        factor: A, Float["*n k d"].
    """

    mean: Float[Tensor, "*n d"]
    factor: Float[Tensor, "*n k d"]


def fitted(vectors: Float[Array, "*n m d"], *, ddof: int = 1) -> Gaussian:
    """The Gaussian of each set: its mean and a factor of Σ = Σᵢ (xᵢ − μ)(xᵢ − μ)ᵀ / (m − ddof).

    Args:
        vectors: sets of more than `ddof` vectors.
        ddof: 1, as `np.cov` and with it all published Fréchet distances have it.

    Raises:
        ValueError: if a set is too small, or a number is not finite.

    >>> found = fitted(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    >>> found.mean, (found.factor.mT @ found.factor).diagonal().round(decimals=9)
    (tensor([1., 0.], dtype=torch.float64), tensor([2., 0.], dtype=torch.float64))

    Source: FID (arXiv 1706.08500).
    """
    x = checked("vectors", vectors)
    if x.shape[-2] <= ddof:
        raise ValueError(f"a set of {x.shape[-2]} has no covariance with ddof {ddof}")
    mean = x.mean(-2)
    factor = (x - mean[..., None, :]) / math.sqrt(x.shape[-2] - ddof)
    if factor.shape[-2] > factor.shape[-1]:
        factor = torch.linalg.qr(factor, mode="r").R
    return Gaussian(mean, factor)


def gaussian(mean: Float[Array, "*n d"], covariance: Float[Array, "*n d d"]) -> Gaussian:
    """A Gaussian of recorded statistics, as files of reference statistics hold them.

    Raises:
        ValueError: if the shapes do not fit, or the covariance has an eigenvalue below 0 that is no rounding.

    >>> gaussian([0.0], [[4.0]]).factor
    tensor([[2.]], dtype=torch.float64)

    Source: the `.npz` statistics of FID (arXiv 1706.08500).
    """
    centre, spread = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, covariance))
    if spread.shape != (*centre.shape, centre.shape[-1]):
        raise ValueError(f"a covariance (d, d) goes with a mean (d,), got {tuple(spread.shape)}, {tuple(centre.shape)}")
    values, axes = torch.linalg.eigh(spread)
    if bool((values[..., 0] < -1e-6 * values[..., -1].abs() - 1e-12).any()):
        raise ValueError(f"a covariance has no eigenvalue below 0, got {float(values.min()):.3g}")
    return Gaussian(centre, values.clamp(min=0).sqrt()[..., :, None] * axes.mT)


def frechet_distance(
    x: Float[Array, "*n m d"] | Gaussian, y: Float[Array, "*n k d"] | Gaussian, *, ddof: int = 1
) -> Float[Tensor, "*n"]:
    """The Fréchet distance of the Gaussians of two sets (FID, FAD, FVD): their 2-Wasserstein distance squared.

        D = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)

    With Σ = AᵀA the last trace is the sum of the singular values of A₁A₂ᵀ: no root of a matrix, whose rounding makes
    the usual code complex, and a set of a few vectors in a space of thousands of dimensions costs only what it is.
    A single vector with ddof=0 is a point, from which any Gaussian still has a distance.

    Args:
        x: sets, or what `fitted` or `gaussian` made of them.
        y: sets that broadcast against them.
        ddof: see `fitted`.

    Returns:
        At least 0, in the squared unit of the vectors.

    Raises:
        ValueError: as `fitted`, or if vectors have different lengths.

    >>> frechet_distance(gaussian([0.0], [[1.0]]), gaussian([1.0], [[4.0]]))
    tensor(2., dtype=torch.float64)

    Source: Dowson and Landau (1982); FID (arXiv 1706.08500); FAD (1812.08466), per song in DRAGON (2504.15217).
    """
    first, second = (z if isinstance(z, Gaussian) else fitted(z, ddof=ddof) for z in (x, y))
    same_width(first.mean, second.mean)
    apart = ((first.mean - second.mean) ** 2).sum(-1)
    spread = (first.factor**2).sum((-1, -2)) + (second.factor**2).sum((-1, -2))
    shared = torch.linalg.svdvals(first.factor @ second.factor.mT).sum(-1)
    found: Tensor = apart + spread - 2 * shared
    return found.clamp(min=0)


def vendi_score(vectors: Float[Array, "*n m d"], *, order: float = 1.0) -> Float[Tensor, "*n"]:
    """The effective number of different vectors in a set.

        V = exp(−Σ λᵢ log λᵢ)        λ the eigenvalues of K/m, K the cosines of all pairs

    and, of order q ≠ 1, (Σ λᵢ^q)^{1/(1−q)}. m copies of one vector have 1, m orthogonal ones m.

    Args:
        vectors: sets of at least one vector, none of them zero.
        order: q > 0; small ones count rare kinds like frequent ones, infinity only the most frequent.

    Returns:
        In [1, m].

    Raises:
        ValueError: if a set is empty, a vector is zero or not finite, or q ≤ 0.

    >>> round(float(vendi_score(torch.eye(3))), 9), round(float(vendi_score(torch.ones(3, 2))), 9)
    (3.0, 1.0)

    Source: the Vendi Score (arXiv 2210.02410); orders: 2310.12952.
    """
    if not order > 0:
        raise ValueError(f"order must be positive, got {order}")
    x = unit(checked("vectors", vectors))
    shares = torch.linalg.svdvals(x / math.sqrt(x.shape[-2])) ** 2
    shares = shares / shares.sum(-1, keepdim=True)
    if math.isinf(order):
        found = 1 / shares.amax(-1)
    elif order == 1:
        found = torch.special.entr(shares).sum(-1).exp()
    else:
        kept = shares > 1e-15  # a root of rounding is no longer rounding
        found = torch.where(kept, shares.clamp(min=1e-300), 0.0).pow(order).sum(-1) ** (1 / (1 - order))
    counted: Tensor = found.clamp(1.0, float(x.shape[-2]))
    return counted


def kernel_distance(
    x: Float[Array, "*n m d"],
    y: Float[Array, "*n k d"],
    *,
    kernel: Kernel = "gaussian",
    bandwidth: float | None = None,
    unbiased: bool = False,
) -> Float[Tensor, "*n"]:
    """The squared maximum mean discrepancy: E k(x, x') + E k(y, y') − 2 E k(x, y).

        gaussian  exp(−‖x − y‖² / (2 h²))        polynomial  (⟨x, y⟩/d + 1)³        cosine  cos(x, y)

    gaussian tells any two distributions apart, polynomial (KID, KD) their first three moments, cosine their mean
    directions.

    Args:
        x: sets.
        y: sets that broadcast against them.
        kernel: which of the three.
        bandwidth: h of the Gaussian. Default: the median distance between x and y together, of each pair of sets, a
            constant.
        unbiased: without the pairs of a vector with itself, which needs two vectors per set; it can fall below 0.

    Returns:
        At least 0 unless unbiased.

    Raises:
        ValueError: if a set is empty, or of one vector and unbiased, or an option is not defined.

    >>> kernel_distance([[0.0], [0.0]], [[1.0], [1.0]], bandwidth=1.0).round(decimals=4)
    tensor(0.7869, dtype=torch.float64)

    Source: MMD, Gretton et al. (2012); KID (arXiv 1801.01401), the kernel distance of MME-3DR (2512.10949); the
    median: Garreau et al. (1707.07269).
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel is one of {', '.join(get_args(Kernel))}, got {kernel!r}")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")
    first, second = checked("x", x), checked("y", y)
    same_width(first, second)
    if unbiased and min(first.shape[-2], second.shape[-2]) < 2:
        raise ValueError("without pairs of a vector with itself a set needs two vectors")
    if kernel == "gaussian":
        wide = _median(first, second) if bandwidth is None else bandwidth
        first, second = first / wide, second / wide

    def compared(a: Tensor, b: Tensor) -> Tensor:
        if kernel == "gaussian":
            return torch.exp(-0.5 * squared_distances(a, b))
        if kernel == "cosine":
            return unit(a) @ unit(b).mT
        return (a @ b.mT / a.shape[-1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        pairs, m = compared(a, a), a.shape[-2]
        own = pairs.diagonal(dim1=-2, dim2=-1).sum(-1) if unbiased else torch.zeros(())
        return (pairs.sum((-1, -2)) - own) / (m * (m - 1) if unbiased else m * m)

    found = within(first) + within(second) - 2 * compared(first, second).mean((-1, -2))
    return found if unbiased else found.clamp(min=0)


def transport_distance(
    x: Float[Array, "*n m d"], y: Float[Array, "*n k d"], *, eps: float = 0.05, debias: bool = True, steps: int = 200
) -> Float[Tensor, "*n"]:
    """What it costs to move one set onto the other, by squared distance, with entropic smoothing.

        W(x, y) = ⟨P, C⟩, P the plan of `sinkhorn`        S(x, y) = W(x, y) − ½ W(x, x) − ½ W(y, y)

    Unlike the Fréchet distance it knows no Gaussian: two sets of one mean and covariance are still told apart.

    Args:
        x: sets of at least one vector.
        y: sets that broadcast against them.
        eps: of `sinkhorn`, as a share of the greatest cost between the two sets.
        debias: S, which is about 0 for equal sets; else W, which smoothing keeps above it.
        steps: of `sinkhorn`.

    Returns:
        In the squared unit of the vectors; at least 0 without debias.

    Raises:
        ValueError: if a set is empty, or an option is out of range.

    >>> transport_distance([[0.0], [1.0]], [[3.0], [4.0]]).round(decimals=3)
    tensor(9., dtype=torch.float64)

    Source: Cuturi (arXiv 1306.0895), whose plans are not charged for entropy; debiased: Genevay et al. (1706.00292).
    """
    first, second = checked("x", x), checked("y", y)
    same_width(first, second)
    unit_ = squared_distances(first, second).detach().amax((-1, -2)).clamp(min=1e-300)

    def cost(a: Tensor, b: Tensor) -> Tensor:
        table = squared_distances(a, b)
        relative = table / unit_[..., None, None]
        plan = sinkhorn(relative, eps=eps, mass=1.0, steps=steps)
        return (plan.detach() * table).sum((-1, -2))

    found = cost(first, second)
    return found - 0.5 * cost(first, first) - 0.5 * cost(second, second) if debias else found


def likeness(
    vectors: Float[Array, "*n d"],
    exemplars: Float[Array, "*n m d"],
    *,
    how: Literal["max", "mean"] = "max",
) -> Float[Tensor, "*n"]:
    """The cosine of a vector with the nearest of some exemplars, or its mean over them.

    Args:
        vectors: one each, none of them zero.
        exemplars: at least one; they may be of another kind, such as texts in one space with sounds.
        how: 'max' is content with looking like one of them; 'mean' asks for what they have in common.

    Returns:
        In [−1, 1].

    Raises:
        ValueError: if there is no exemplar, a vector is zero, or they have different lengths.

    >>> likeness([[2.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]], how="mean")
    tensor([0.5000], dtype=torch.float64)

    Source: the similarity reward that Adv-GRPO compares with (arXiv 2511.20556); exemplar sets: DRAGON (2504.15217).
    """
    if how not in ("max", "mean"):
        raise ValueError(f"how is 'max' or 'mean', got {how!r}")
    x, y = torch.as_tensor(vectors).double(), checked("exemplars", exemplars)
    same_width(x, y)
    cosines = (unit(y) @ unit(checked("vectors", x[..., None, :])).mT)[..., 0].clamp(-1, 1)
    return cosines.amax(-1) if how == "max" else cosines.mean(-1)


def checked(name: str, vectors: Any) -> Float[Tensor, "*n m d"]:
    """Sets as float64, none of them empty and all of them finite."""
    x = torch.as_tensor(vectors).double() if not isinstance(vectors, Sequence) else torch.tensor(vectors).double()
    if x.ndim < 2 or not min(x.shape[-2:], default=0):
        raise ValueError(f"{name} must be sets (m, d) of at least one vector, got {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} must be finite")
    return x


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1.

    Raises:
        ValueError: for a vector of zeros, which has no direction.
    """
    peak = x.detach().abs().amax(-1, keepdim=True)
    if bool((peak == 0).any()):
        raise ValueError("a vector is zero: it has no direction")
    x = x / peak
    found: Tensor = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return found


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖², of differences, so that near ones keep their digits."""
    apart: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return apart**2


def same_width(a: Tensor, b: Tensor) -> None:
    """Refuse vectors of different lengths."""
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"vectors of one space have one length, these have {a.shape[-1]} and {b.shape[-1]}")


def _median(a: Tensor, b: Tensor) -> Tensor:
    """The median distance of pairs of different places in both sets together; 1 where all are the same."""
    leading = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    both = torch.cat([z.detach().expand(*leading, *z.shape[-2:]) for z in (a, b)], -2)
    row, column = torch.triu_indices(both.shape[-2], both.shape[-2], offset=1)
    found = torch.cdist(both, both)[..., row, column].median(-1).values
    return torch.where(found > 0, found, 1.0)[..., None, None]
