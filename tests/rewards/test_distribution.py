"""Rewards of sets against their definitions and an installed peer; leaves; transport between tokens."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Rollouts
from guerdon.core.errors import GuerdonError
from guerdon.rewards import distribution
from guerdon.rewards.distribution import (
    fitted,
    frechet_distance,
    gaussian,
    kernel_distance,
    likeness,
    set_value,
    sinkhorn,
    token_cost,
    transport_distance,
    transported_attention,
    transported_match,
    vendi_score,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def frechet_by_roots(x, y):
    from scipy.linalg import sqrtm

    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)


def test_dragon_worked_frechet_distances():
    assert frechet_distance(gaussian([0.0], [[1.0]]), gaussian([1.0], [[4.0]])).item() == pytest.approx(2.0)
    x = normal(20, 3)
    assert frechet_distance(x, x).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("m", "d"), [(40, 5), (9, 4)])
def test_frechet_distance_is_that_of_the_matrix_root(m, d):
    x, y = normal(m, d), 1.5 * normal(m + 3, d, seed=1) + 0.3
    assert frechet_distance(x, y).item() == pytest.approx(frechet_by_roots(x, y), rel=1e-6)
    given_ = gaussian(y.mean(0), np.cov(y, rowvar=False))
    assert frechet_distance(x, given_).item() == pytest.approx(frechet_by_roots(x, y), rel=1e-6)
    both = frechet_distance(np.stack([x, x + 1]), y)
    assert both.tolist() == pytest.approx([frechet_by_roots(x, y), frechet_by_roots(x + 1, y)], rel=1e-6)


def test_frechet_distance_agrees_with_pot_where_sets_are_thin():
    """Five vectors in twelve dimensions, where roots of the singular product are nothing but rounding."""
    ot = pytest.importorskip("ot")
    x, y = normal(5, 12), normal(40, 12, seed=2)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    peer = ot.gaussian.bures_wasserstein_distance(x.mean(0), y.mean(0), a + 1e-13 * np.eye(12), b) ** 2
    assert frechet_distance(x, y).item() == pytest.approx(float(peer), rel=1e-4)


def test_frechet_distance_has_a_gradient_where_a_set_is_thin():
    x = torch.tensor(normal(3, 6), requires_grad=True)
    reference = fitted(normal(50, 6, seed=3))
    assert torch.autograd.gradcheck(lambda z: frechet_distance(z, reference), (x,))


def test_dragon_vendi_counts_what_differs():
    assert vendi_score(np.eye(5)).item() == pytest.approx(5)
    assert vendi_score(np.ones((5, 3))).item() == pytest.approx(1)
    assert vendi_score([[1.0, 0.0]]).item() == 1
    x = normal(7, 3)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    values = np.clip(np.linalg.eigvalsh(unit @ unit.T / 7), 1e-300, None)
    assert vendi_score(x).item() == pytest.approx(math.exp(-(values * np.log(values)).sum()))
    assert vendi_score(x, order=2).item() == pytest.approx(1 / (values**2).sum())
    assert vendi_score(x, order=math.inf).item() == pytest.approx(1 / values.max())
    assert vendi_score(x, order=0.5).item() == pytest.approx((values[values > 1e-12] ** 0.5).sum() ** 2, rel=1e-5)


def test_kernel_distances_by_their_definition():
    x, y = normal(6, 3), normal(4, 3, seed=1) + 1

    def mean(kernel, a, b, skip=False):
        pairs = [kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (skip and i == j)]
        return sum(pairs) / len(pairs)

    kernels = {
        "gaussian": lambda p, q: math.exp(-((p - q) ** 2).sum() / (2 * 0.7**2)),
        "polynomial": lambda p, q: (p @ q / 3 + 1) ** 3,
        "cosine": lambda p, q: p @ q / np.linalg.norm(p) / np.linalg.norm(q),
    }
    for name, kernel in kernels.items():
        for unbiased in (False, True):
            expected = mean(kernel, x, x, unbiased) + mean(kernel, y, y, unbiased) - 2 * mean(kernel, x, y)
            found = kernel_distance(x, y, kernel=name, bandwidth=0.7, unbiased=unbiased)
            assert found.item() == pytest.approx(expected)
    everything = np.concatenate([x, y])
    apart = [np.linalg.norm(p - q) for i, p in enumerate(everything) for q in everything[i + 1 :]]
    width = sorted(apart)[(len(apart) - 1) // 2]
    assert kernel_distance(x, y).item() == pytest.approx(kernel_distance(x, y, bandwidth=width).item())


def test_transport_tells_sets_of_one_gaussian_apart():
    far, near = np.array([[-1.0], [1.0]] * 8), np.array([[-math.sqrt(2)], [0.0], [0.0], [math.sqrt(2)]] * 4)
    assert frechet_distance(far, near, ddof=0).item() == pytest.approx(0, abs=1e-9)
    assert transport_distance(far, near, eps=0.01).item() > 0.1
    assert transport_distance(far, far).item() == pytest.approx(0, abs=1e-9)
    x, y = np.sort(normal(8, 1), 0), np.sort(normal(8, 1, seed=4), 0) + 5
    exact = ((x - y) ** 2).mean()  # in one dimension the sorted are paired
    assert transport_distance(x, y, eps=0.005, debias=False, steps=500).item() == pytest.approx(exact, rel=0.01)


def test_transport_debiased_is_the_same_both_ways():
    x, y = [[0.0], [1.0]], [[0.0], [5.0], [9.0]]
    assert transport_distance(x, y).item() == pytest.approx(transport_distance(y, x).item(), rel=1e-6)


def test_the_gradient_of_transport_is_that_of_the_cost_under_a_plan_that_stands():
    """∂⟨P, C⟩/∂xᵢ = 2 Σⱼ Pᵢⱼ (xᵢ − yⱼ), P by the plain iteration of Sinkhorn and Knopp."""
    x, y = normal(3, 2), normal(4, 2, seed=1)
    cost = ((x[:, None] - y) ** 2).sum(-1)
    kernel = np.exp(-cost / cost.max() / 0.1)
    v = np.ones(4)
    for _ in range(500):
        u = 1 / 3 / (kernel @ v)
        v = 1 / 4 / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    points = torch.tensor(x, requires_grad=True)
    transport_distance(points, torch.tensor(y), eps=0.1, debias=False, steps=500).backward()
    expected = 2 * (plan[..., None] * (x[:, None] - y)).sum(1)
    np.testing.assert_allclose(points.grad, expected, atol=1e-9)


def test_pisces_cost_weighs_when_and_where_a_word_looks_by_weights_of_their_own():
    """One word that looks at two patches as 3 to 1, of which the meaning is the same: when and where remain."""
    texts, patches = torch.ones(1, 2), torch.ones(3, 2)
    attention = torch.tensor([[3.0, 1.0, 0.0]])
    times, places = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.0], [4.0], [0.0]])
    later = (0.25 - times) ** 2  # τ = (3·0 + 1·1)/4
    aside = (1.0 - places[:, 0]) ** 2

    def unit_of(x):
        return (x - x.min()) / (x.max() - x.min())

    for temporal, spatial in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.6)):
        found = token_cost(texts, patches, attention, times, places, temporal=temporal, spatial=spatial)
        torch.testing.assert_close(found[0], unit_of(temporal * unit_of(later) + spatial * unit_of(aside)))


def test_pisces_attention_has_no_gradient_to_the_plan():
    attention, plan = (torch.tensor([x], requires_grad=True) for x in ([0.5, 0.5], [0.3, 0.1]))
    transported_attention(attention, plan)[0, 0].backward()
    assert attention.grad.abs().min() > 0
    assert plan.grad is None


def test_dragon_one_set_that_cannot_be_measured_leaves_the_others():
    part = distribution.own(measure="vendi", column="chunks")
    assert part(["?"] * 2, [""] * 2, chunks=[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]]) == [
        pytest.approx(2.0),
        None,
    ]


def test_dragon_the_only_rollout_of_a_group_says_so():
    part = distribution.group(column="seen")
    scores = part.score(Rollouts(["?"], [""], {"seen": [[1.0, 0.0]]}))
    assert scores.reasons == {0: "the only rollout of its set: nothing is left without it"}


def test_exemplars_of_another_space_are_mapped():
    part = distribution.exemplar(exemplars=[[0.0, 1.0]], mapping=lambda texts: texts.flip(-1), column="seen")
    assert part(["?"] * 2, [""] * 2, seen=[[2.0, 0.0], [0.0, 1.0]]) == pytest.approx([1.0, 0.0])


def test_exemplars_nearest_and_mean():
    x, examples = np.array([[3.0, 0.0]]), np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert likeness(x, examples).item() == pytest.approx(1.0)
    assert likeness(x, examples, how="mean").item() == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99), st.floats(1e-3, 1e3))
def test_distances_are_finite_not_negative_and_know_no_order(m, d, seed, scale):
    x, y = scale * normal(m, d, seed=seed), scale * normal(m + 1, d, seed=seed + 1)
    order = np.random.default_rng(seed).permutation(m)
    for distance in (kernel_distance, lambda a, b: transport_distance(a, b, debias=False, steps=20)):
        assert 0 <= distance(x, y).item() < math.inf
        assert distance(x[order], y).item() == pytest.approx(distance(x, y).item(), rel=1e-6, abs=1e-9)
    assert 1 <= vendi_score(x).item() <= m
    if m > 1:
        assert 0 <= frechet_distance(x, y).item() < math.inf
        assert frechet_distance(y, x).item() == pytest.approx(frechet_distance(x, y).item(), rel=1e-6, abs=1e-9)


def test_what_is_no_set_is_refused():
    for wrong in (np.zeros((0, 2)), np.zeros(3), [[math.nan, 1.0]]):
        for measure in (vendi_score, fitted, lambda z: kernel_distance(z, [[1.0, 1.0]])):
            with pytest.raises(ValueError, match=r"sets|finite"):
                measure(wrong)
    with pytest.raises(ValueError, match="covariance"):
        fitted([[1.0, 2.0]])
    with pytest.raises(ValueError, match="direction"):
        vendi_score([[0.0, 0.0]])
    with pytest.raises(ValueError, match="one length"):
        frechet_distance(normal(3, 2), normal(3, 3))
    with pytest.raises(ValueError, match="eigenvalue"):
        gaussian([0.0], [[-1.0]])
    with pytest.raises(ValueError, match="two vectors"):
        kernel_distance([[1.0]], [[1.0]], unbiased=True)


def test_dragon_per_song_distance_and_statistics_in_files(tmp_path):
    reference = normal(30, 2, seed=9)
    songs = [normal(6, 2, seed=i) + i for i in range(3)]
    expected = [-frechet_by_roots(song, reference) for song in songs]
    np.savez(tmp_path / "stats.npz", mu=reference.mean(0), sigma=np.cov(reference, rowvar=False))
    blank = (["?"] * 5, [""] * 5)
    for known in (reference, str(tmp_path / "stats.npz")):
        part = distribution.own(reference=known, column="song")
        scores = part.score(Rollouts(*blank, {"song": [*songs, [[1.0, 2.0]], "noise"]}))
        assert scores.read(0.0)[:3] == pytest.approx(expected)
        assert scores.valid.tolist() == [True] * 3 + [False] * 2
        assert "no covariance" in scores.reasons[3]
    lengths = distribution.own(reference=reference, encoder=lambda names: [songs[int(name)] for name in names])
    assert lengths(["?"] * 2, ["2", "0"]) == pytest.approx([expected[2], expected[0]])
    with pytest.raises(GuerdonError, match="cannot be read"):
        set_value("frechet", str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match="compares with a reference"):
        distribution.own()
    with pytest.raises(ValueError, match="of the set alone"):
        distribution.own(measure="vendi", reference=reference)


def test_dragon_what_a_rollout_adds_to_its_set():
    seen = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], None]
    prompts = ["a", "a", "a", "b", "b"]
    part = distribution.group(column="seen")
    scores = part.score(Rollouts(prompts, [""] * 5, {"seen": seen}))
    whole = vendi_score(seen[:3]).item()
    rest = [vendi_score([seen[1], seen[2]]).item(), vendi_score([seen[0], seen[2]]).item(), 1.0]
    assert scores.read(0.0)[:3] == pytest.approx([whole - one for one in rest])
    assert scores.valid.tolist() == [True, True, True, False, False]
    assert part.scope == "group"
    together = distribution.batch(measure="kernel", reference=normal(9, 2), share="whole", column="seen")
    assert together.scope == "batch"
    found = together(prompts, [""] * 5, seen=seen)
    assert found[:4] == pytest.approx([-kernel_distance(np.array(seen[:4], float), normal(9, 2)).item()] * 4)
    assert found[4] is None


def test_left_out_shares_of_an_additive_reward_are_its_distances_from_the_others():
    """v = −‖mean − 0‖ in one dimension with one sign is a mean of single rewards."""
    x = np.array([[1.0], [2.0], [6.0]])
    part = distribution.group(measure="kernel", reference=[[1.0]], options={"kernel": "polynomial"}, column="seen")
    found = part(["a"] * 3, [""] * 3, seen=list(x))
    one = np.array([[1.0]])
    expected = [
        -kernel_distance(x, one, kernel="polynomial").item()
        + kernel_distance(np.delete(x, i, 0), one, kernel="polynomial").item()
        for i in range(3)
    ]
    assert found == pytest.approx(expected)
    assert found[2] == min(found)


def test_adv_grpo_nearest_reference():
    part = distribution.exemplar(references="liked", column="seen")
    liked = [[[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.0]], None]
    assert part(["?"] * 3, [""] * 3, seen=[[0.0, 2.0]] * 3, liked=liked) == [pytest.approx(0.8), 0.0, None]
    shared = distribution.exemplar(
        exemplars=[[1.0, 0.0]], column="seen", encoder=lambda xs: [[1.0, len(x)] for x in xs]
    )
    assert shared(["?"], [""], seen=["ab"]) == pytest.approx([1 / math.sqrt(5)])
    with pytest.raises(ValueError, match="name one"):
        distribution.exemplar()


def costs():
    table = 0.3 * torch.tensor(np.random.default_rng(0).random((4, 6)))
    table[3] = 1.0
    return table


def test_pisces_partial_transport_leaves_out_what_is_dear():
    assert sinkhorn(costs(), mass=1.0).sum(1).tolist() == pytest.approx([0.25] * 4)
    partial = sinkhorn(costs(), mass=0.9)
    assert partial.sum(1)[:3].min() > 0.25
    assert partial.sum(1)[3].item() == pytest.approx(0.05, abs=0.01)
    assert partial.sum().item() == pytest.approx(0.9, abs=0.04)


@pytest.mark.filterwarnings("ignore:If reg_type")
def test_pisces_partial_transport_is_that_of_pot():
    ot = pytest.importorskip("ot")
    eps, mass = 0.05, 0.9
    rho = eps * mass / (1 - mass)
    assert rho / (rho + eps) == pytest.approx(mass)  # the power of the iteration
    peer = ot.unbalanced.sinkhorn_unbalanced(
        np.full(4, 1 / 4), np.full(6, 1 / 6), costs().numpy(), eps, rho, reg_type="entropy", numItermax=5000,
        stopThr=1e-12,
    )  # fmt: skip
    assert sinkhorn(costs(), eps=eps, mass=mass).numpy() == pytest.approx(peer, abs=1e-6)


def words(seed=0):
    generator = torch.Generator().manual_seed(seed)
    texts, patches = torch.randn(3, 4, generator=generator), torch.randn(6, 4, generator=generator)
    attention = torch.rand(2, 3, 6, generator=generator).softmax(-1)
    times, places = torch.tensor([0.0, 0, 1, 1, 2, 2]), torch.rand(6, 2, generator=generator)
    return texts, patches, attention, times, places


def test_pisces_cost_by_its_definition():
    texts, patches, attention, times, places = words()
    found = token_cost(texts, patches, attention, times, places)

    def to_unit(table):
        return (table - table.min()) / (table.max() - table.min())

    for head in range(2):
        terms = np.zeros((3, 3, 6))
        for i in range(3):
            when = sum(attention[head, i, k] * times[k] for k in range(6))
            where = sum(attention[head, i, k] * places[k] for k in range(6))
            for j in range(6):
                terms[0, i, j] = 1 - torch.cosine_similarity(texts[i], patches[j], dim=0)
                terms[1, i, j] = (when - times[j]) ** 2
                terms[2, i, j] = ((where - places[j]) ** 2).sum()
        expected = to_unit(to_unit(terms[0]) + 0.2 * to_unit(terms[1]) + 0.2 * to_unit(terms[2]))
        assert found[head].numpy() == pytest.approx(expected, abs=1e-5)
    still = token_cost(texts, patches, attention, torch.zeros(6), torch.zeros(6, 2))
    assert still.min() == 0
    assert torch.isfinite(still).all()


def test_pisces_semantic_reward_follows_the_transport():
    """Attention spread evenly over patches is turned to the patch that each word is, and the match with it."""
    texts = patches = torch.eye(3)
    even = torch.full((3, 3), 1 / 3)
    times, places = torch.zeros(3), torch.zeros(3, 2)

    def matching(seen):
        right = seen.diagonal().mean()
        return torch.stack([1 - right, right]) * 4

    plan = sinkhorn(token_cost(texts, patches, even, times, places))
    turned = transported_attention(even, plan)
    assert turned.diagonal().min() > 0.99
    assert turned.sum(-1).tolist() == pytest.approx([1.0] * 3)
    options = {"matching": matching}
    found = transported_match(texts, patches, even, times, places, **options)
    assert found.item() == pytest.approx(1 / (1 + math.exp(-4)), abs=1e-3)
    other = patches.roll(1, 0) * torch.tensor([[1.0], [1.0], [-1.0]])
    assert transported_match(texts, other, even, times, places, **options).item() < found.item()
    moved = patches.clone().requires_grad_()
    attention = even.clone().requires_grad_()
    transported_match(texts, moved, attention, times, places, **options).backward()
    assert moved.grad.abs().sum() > 0
    assert attention.grad.abs().sum() > 0


def test_transport_refuses_what_it_cannot_move():
    for options in ({"eps": 0.0}, {"mass": 1.1}, {"steps": 0}):
        with pytest.raises(ValueError, match="eps"):
            sinkhorn(costs(), **options)
    with pytest.raises(ValueError, match="finite"):
        sinkhorn(torch.tensor([[math.nan]]))
    texts, patches, attention, times, places = words()
    with pytest.raises(ValueError, match="places"):
        token_cost(texts, patches, attention, times[:2], places)
    with pytest.raises(ValueError, match="negative"):
        token_cost(texts, patches, -attention, times, places)
