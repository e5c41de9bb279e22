"""Has a policy collapsed onto one picture? How various its samples are, from features, boxes and colours.

Rewards say what is better and not what is left out: these are looked at beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from guerdon.rewards.geometry import Sets, pair_up

Features = Float[np.ndarray[Any, Any], "m d"]


def identity_similarity(features: Features, groups: Int[np.ndarray[Any, Any], "m"] | None = None) -> float:
    """Mean cosine between different samples, in [−1, 1]; of faces, how much everybody is the same person.

    Args:
        features: one row per sample, of a recogniser of faces, say; not all 0.
        groups: only samples with equal numbers are compared, and groups of one are left out; the mean over groups.

    Raises:
        ValueError: if there are no two samples to compare, or a row is 0 or not finite.

    Source: Identity Divergence Score of DivGenBench (arXiv 2512.24146); low is various.

    >>> identity_similarity(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])).__round__(4)
    0.3333
    """
    units = _units(features)
    index = np.zeros(len(units), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    if len(index) != len(units):
        raise ValueError(f"{len(index)} groups for {len(units)} samples")
    count = np.bincount(index)
    sums = np.zeros((len(count), units.shape[1]))
    np.add.at(sums, index, units)
    # Σ over pairs i ≠ j of uᵢ·uⱼ = ‖Σ u‖² − Σ ‖u‖²
    several = count > 1
    if not several.any():
        raise ValueError("similarity is of two samples at least, and no group has two")
    pairs = (sums**2).sum(1) - count
    return float((pairs[several] / (count * (count - 1))[several]).mean())


def support(distinct: int, draws: int, *, most: int) -> int:
    r"""How many items there are, equally likely, if `draws` of them showed `distinct` different ones: the likeliest s.

        s* = argmax over s of ln s! − ln (s − L)! − N ln s        L ≤ s ≤ most

    Args:
        distinct: L, in 1 … N.
        draws: N.
        most: how many there can be: where no draw repeats, the likelihood has no other end.

    Raises:
        ValueError: if the numbers cannot be.

    Source: the Image Retrieval Score (IRS) in DivGenBench (arXiv 2512.24146), a maximum likelihood estimate.

    >>> support(63, 100, most=1000), support(50, 100, most=1000), support(20, 100, most=1000)
    (98, 62, 20)
    """
    if not 1 <= distinct <= min(draws, most):
        raise ValueError(f"{distinct} different ones cannot show in {draws} draws of at most {most}")
    s = np.arange(distinct, most + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    return distinct + int(np.argmax(log_factorial[s] - log_factorial[s - distinct] - draws * np.log(s)))


def retrieval_score(queries: Features, library: Features) -> float:
    """Which share of a library the queries are spread over: `support` of their nearest neighbours, over its size.

    Args:
        queries: features of samples; of style, say.
        library: of real pictures.

    Returns:
        In (0, 1]. Divided by that of as many real queries it is a coverage in which 1 is as various as real pictures.

    Raises:
        ValueError: if either is empty, a row is 0 or not finite, or the features differ in width.

    Source: IRS, and the Artistic Style Coverage of DivGenBench made of it (arXiv 2512.24146).
    """
    found, known = _units(queries), _units(library)
    if not len(found) or not len(known) or found.shape[1] != known.shape[1]:
        raise ValueError(f"queries {found.shape} and library {known.shape} must have rows, and one width")
    nearest = (found @ known.T).argmax(1)
    return support(len(np.unique(nearest)), len(found), most=len(known)) / len(known)


def style_coverage(samples: Features, real: Features, library: Features) -> float:
    """`retrieval_score` of the samples over that of real pictures; 1: as various as they.

    Args:
        samples: features of what the policy made.
        real: of held-out real pictures, as many.
        library: of other real pictures.

    Raises:
        ValueError: if samples and real ones are not as many, or as `retrieval_score`.

    Source: Artistic Style Coverage of DivGenBench (arXiv 2512.24146).
    """
    if len(samples) != len(real):
        raise ValueError(f"{len(samples)} samples are not compared with {len(real)} real ones: more draws find more")
    return retrieval_score(samples, library) / retrieval_score(real, library)


def layout_diversity(layouts: Sequence[Sequence[Sequence[Sequence[float]]]]) -> float:
    r"""How differently the samples of a prompt place their objects.

        1 − mean over pairs of samples of Σ matched IoU / max(|Lᵢ|, |Lⱼ|)

    Args:
        layouts: for each prompt, for each of its samples, its boxes (low corner, high corner), from a detector. Two
            samples without any box are placed alike.

    Returns:
        In [0, 1], the mean over prompts; 0 where all samples of every prompt have the same boxes.

    Raises:
        ValueError: without prompts, or with fewer than two samples of one.

    Source: Spatial Dispersion Index of DivGenBench (arXiv 2512.24146).

    >>> box, other = [0, 0, 1, 1], [5, 5, 6, 6]
    >>> layout_diversity([[[box], [box]]]), layout_diversity([[[box], [other]]])
    (0.0, 1.0)
    """
    if not layouts or min(map(len, layouts)) < 2:
        raise ValueError("a layout is compared with another one of its prompt: two samples of each at least")
    pairs = [(i, a, b) for i, samples in enumerate(layouts) for a, b in combinations(samples, 2)]
    first, second = Sets.of([a for _, a, _ in pairs]), Sets.of([b for _, _, b in pairs])
    quality = np.bincount(first.rows, pair_up(first, second).quality, minlength=len(pairs))
    most = np.maximum(first.counts, second.counts)
    alike = np.where(most > 0, quality / np.maximum(most, 1), 1.0)
    prompts = np.array([i for i, _, _ in pairs])
    each = np.bincount(prompts, alike) / np.bincount(prompts)
    return float(1 - each.mean())


def tonal_variation(images: Float[np.ndarray[Any, Any], "m 3 h w"]) -> float:
    r"""How various the samples are in colour and light: std of mean saturation + std of mean value + std of contrast.

    Each std is over samples, with divisor m; contrast is the std of a sample's grey values (0.299, 0.587, 0.114).

    Args:
        images: red, green and blue in [0, 1].

    Raises:
        ValueError: without images, or for other shapes or values.

    Source: Photographic Variance Score of DivGenBench (arXiv 2512.24146); S and V of HSV (Smith 1978).

    >>> tonal_variation(np.stack([np.zeros((3, 2, 2)), np.ones((3, 2, 2))]))
    0.5
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or images.shape[1] != 3 or not images.size:
        raise ValueError(f"images are (m, 3, h, w) with at least one of them, got {images.shape}")
    if not (images.min() >= 0 and images.max() <= 1):  # NaN fails too
        raise ValueError("red, green and blue lie in [0, 1]")
    value, low = images.max(1), images.min(1)
    saturation = np.where(value > 0, (value - low) / np.where(value > 0, value, 1.0), 0.0)
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), images, (0, 1))
    means = (saturation.mean((1, 2)), value.mean((1, 2)), grey.std((1, 2)))
    return float(sum(x.std() for x in means))


def _units(features: Features) -> Features:
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"features are finite rows (m, d), got {rows.shape}")
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    if (norm == 0).any():
        raise ValueError(f"the features of sample {int(np.argmin(norm))} are all 0: they have no direction")
    return np.asarray(rows / norm)
