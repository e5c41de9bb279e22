import itertools
import math

import numpy as np
import pytest

from guerdon.audit import diversity
from guerdon.audit.diversity import (
    identity_similarity,
    layout_diversity,
    retrieval_score,
    style_coverage,
    support,
    tonal_variation,
)


def test_divgenbench_identity_is_the_mean_cosine_of_pairs():
    features = np.random.default_rng(0).normal(size=(7, 4))
    groups = np.array([0, 0, 0, 1, 1, 2, 1])

    def cosines(rows):
        return np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(rows, 2)])

    assert identity_similarity(features) == pytest.approx(cosines(features))
    expected = (cosines(features[:3]) + cosines(features[[3, 4, 6]])) / 2
    assert identity_similarity(features, groups) == pytest.approx(expected)
    assert identity_similarity(np.ones((3, 2)) * [[1.0], [2.0], [5.0]]) == pytest.approx(1.0)


@pytest.mark.parametrize(("distinct", "expected"), [(63, 98), (50, 62), (20, 20)])
def test_divgenbench_worked_retrieval(distinct, expected):
    assert support(distinct, 100, most=100) == expected


def test_divgenbench_support_by_its_equation():
    for distinct, draws, most in ((1, 1, 5), (3, 4, 9), (5, 5, 8), (7, 12, 40)):
        likelihood = {
            s: math.lgamma(s + 1) - math.lgamma(s - distinct + 1) - draws * math.log(s)
            for s in range(distinct, most + 1)
        }
        assert support(distinct, draws, most=most) == max(likelihood, key=likelihood.get)
    with pytest.raises(ValueError, match="cannot show"):
        support(5, 4, most=10)


def test_divgenbench_style_coverage_of_a_collapsed_policy():
    rng = np.random.default_rng(1)
    library, real = rng.normal(size=(100, 8)), rng.normal(size=(100, 8))
    collapsed = real[:1] + 0.01 * rng.normal(size=(100, 8))
    assert retrieval_score(collapsed, library) == 0.01
    assert style_coverage(real, real, library) == 1.0
    assert style_coverage(collapsed, real, library) < 0.05
    nearest = (library / np.linalg.norm(library, axis=1)[:, None]) @ (real / np.linalg.norm(real, axis=1)[:, None]).T
    distinct = len(set(nearest.argmax(0).tolist()))
    assert retrieval_score(real, library) == support(distinct, 100, most=100) / 100
    with pytest.raises(ValueError, match="more draws"):
        style_coverage(real[:5], real, library)


def test_divgenbench_layouts():
    box, other, half = [0, 0, 2, 2], [5, 5, 6, 6], [0, 0, 2, 1]
    assert layout_diversity([[[box, other], [other, box]]]) == 0.0
    assert layout_diversity([[[box], [other]]]) == 1.0
    assert layout_diversity([[[box], [half]]]) == 0.5
    assert layout_diversity([[[box], [box, other]]]) == 0.5
    assert layout_diversity([[[], []], [[box], []]]) == 0.5  # alike, and not
    assert layout_diversity([[[box], [box], [other]]]) == pytest.approx(2 / 3)
    # The best matching and not the first: 0.5 + 0.5 instead of 1 + 0
    assert layout_diversity([[[box, half], [half, half]]]) == pytest.approx(1 - (0.5 + 1) / 2)
    with pytest.raises(ValueError, match="two samples"):
        layout_diversity([[[box]]])


def test_divgenbench_tones():
    rng = np.random.default_rng(2)
    images = rng.random((3, 3, 4, 5))
    same = np.repeat(images[:1], 4, 0)
    assert tonal_variation(same) == pytest.approx(0.0, abs=1e-12)
    import colorsys

    saturation, value, contrast = [], [], []
    for image in images:
        pixels = image.reshape(3, -1).T
        hsv = np.array([colorsys.rgb_to_hsv(*p) for p in pixels])
        saturation.append(hsv[:, 1].mean())
        value.append(hsv[:, 2].mean())
        contrast.append((pixels @ [0.299, 0.587, 0.114]).std())
    assert tonal_variation(images) == pytest.approx(np.std(saturation) + np.std(value) + np.std(contrast))
    for wrong in (images + 1, images[:, :2], images[:0], np.full((1, 3, 2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"images|red"):
            tonal_variation(wrong)


def test_features_without_a_direction_are_refused():
    with pytest.raises(ValueError, match="sample 1"):
        identity_similarity(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="two"):
        identity_similarity(np.ones((2, 2)), np.array([0, 1]))
    with pytest.raises(ValueError, match="groups"):
        identity_similarity(np.ones((2, 2)), np.array([0]))
    with pytest.raises(ValueError, match="width"):
        retrieval_score(np.ones((2, 2)), np.ones((2, 3)))
    assert "support" in dir(diversity)
