"""What denoisers learn from their errors, on data of two modes, against closed forms."""

import math

import numpy as np
import pytest
import torch
from flows import Mixture
from two_modes import TwoModes, drawn, maximise

from guerdon import product
from guerdon.credit import group_relative
from guerdon.data import rank_weights
from guerdon.models import UserAttention, drop_users
from guerdon.objectives import group_margins, pair_loss, pair_terms, ranked_loss, unpaired_loss
from guerdon.objectives.denoising import follow
from guerdon.objectives.denoising_errors import errors, implicit_scores, invert, shared, weighted_regression
from guerdon.rewards import recorded

GAP = 0.8  # how much more the right mode earns


def averaged(policy, reference, clean, *, reach=9.0, levels=36, nodes=12):
    """½ ∫ E_e[E_ref − E_θ] dλ of each sample, e by Gauss's rule and λ by the midpoints': log p_θ/p_ref."""
    points, weights = (torch.tensor(x) for x in np.polynomial.hermite_e.hermegauss(nodes))
    step = 2 * reach / levels
    signal = torch.sigmoid(-reach + step * (torch.arange(levels, dtype=torch.float64) + 0.5))
    n = len(clean)
    rows = clean.repeat_interleave(levels * nodes, 0)
    noise, level = points.repeat(n * levels)[:, None], signal.repeat_interleave(nodes).repeat(n)
    both = errors(policy, reference, rows, noise, level, predict="noise", reduce="sum")
    scores = implicit_scores(both, beta=0.5 * step * (weights / weights.sum()).repeat(n * levels))
    return scores.reshape(n, -1).sum(1)


def test_the_lab_is_the_mixture():
    policy, world = (
        TwoModes(odds=0.7),
        Mixture.of([-1.0, 1.0], weights=torch.sigmoid(torch.tensor([-0.7, 0.7])).double()),
    )
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    for level in (0.1, 0.5, 0.95):
        at = torch.full((7,), level, dtype=torch.float64)
        assert torch.allclose(policy.velocity(x, at), world.velocity(x, at), atol=1e-9)
        assert torch.allclose(policy.noise(x, at), world.noise(x, at), atol=1e-9)


def test_error_differences_integrate_to_the_log_ratio():
    """log p_θ(x₀)/p_ref(x₀) of two mixtures, at points of either mode and between them."""
    odds, x = 1.3, torch.tensor([[-1.2], [-0.8], [-0.05], [0.9], [1.1]], dtype=torch.float64)
    found = averaged(TwoModes(odds=odds).noise, TwoModes().noise, x, levels=60, nodes=100)
    near, far = (torch.exp(-((x[:, 0] - m) ** 2) / 0.1) for m in (-1.0, 1.0))
    right = 1 / (1 + math.exp(-odds))
    ratio = ((1 - right) * near + right * far).log() - (0.5 * near + 0.5 * far).log()
    assert torch.allclose(found, ratio, atol=0.015)  # between the modes the integrand is a step in e


def rewarded(n=16):
    clean = drawn(n, torch.Generator().manual_seed(0))
    return clean, torch.where(clean[:, 0] > 0, GAP, 0.0).double()


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_diffusion_dpo_with_soft_labels_finds_the_tilted_mixture(beta):
    """Bradley and Terry's labels of a reward: the log-odds move by gap / β."""
    clean, r = rewarded()
    policy, reference = TwoModes(), TwoModes()

    def loss():
        s = beta * averaged(policy.noise, reference.noise, clean)
        return pair_loss(s[:, None] - s, labels=torch.sigmoid(r[:, None] - r))[0]

    maximise(policy.parameters(), loss)
    assert policy.odds.item() == pytest.approx(GAP / beta, rel=0.02)


def test_ties_say_how_far_apart_the_modes_are():
    """With ties at θ = 2 drawn from a gap, the log-odds are that gap again."""
    clean, r = rewarded()
    policy, reference, theta = TwoModes(), TwoModes(), 2.0
    gaps = r[:, None] - r
    first, second = (1 / (1 + theta * torch.exp(-sign * gaps)) for sign in (1, -1))
    tie = 1 - first - second

    tied = torch.ones_like(gaps, dtype=torch.bool)

    def loss():
        s = averaged(policy.noise, reference.noise, clean)
        d = s[:, None] - s
        strict = (first + second) * pair_terms(d, labels=first / (first + second), theta=theta)
        return (strict + tie * pair_terms(d, tied=tied, theta=theta)).mean()

    maximise(policy.parameters(), loss)
    assert policy.odds.item() == pytest.approx(GAP, rel=0.03)


@pytest.mark.parametrize("places", [None, 1])
def test_gdro_finds_the_tilted_mixture(places):
    """Soft targets softmax(r/τ) of scores β log p_θ/p_ref: the log-odds move by gap / (τ β)."""
    clean, r = rewarded()
    policy, reference, tau, beta = TwoModes(), TwoModes(), 0.8, 2.0
    groups = torch.arange(16) // 8

    def loss():
        s = beta * averaged(policy.noise, reference.noise, clean)
        return ranked_loss(s, r, groups, temperature=tau, places=places)[0]

    maximise(policy.parameters(), loss)
    assert policy.odds.item() == pytest.approx(GAP / tau / beta, rel=0.05)


def test_gdro_goes_on_from_a_reference_that_follows():
    """Each fit adds gap / (τ β) to the reference's log-odds, of which it takes on 1 − d, d = min(.001 i, .5)."""
    clean, r = rewarded()
    policy, reference, tau, beta = TwoModes(), TwoModes(), 0.8, 2.0
    groups, before = torch.arange(16) // 8, 0.0

    def loss():
        s = beta * averaged(policy.noise, reference.noise, clean)
        return ranked_loss(s, r, groups, temperature=tau)[0]

    for i in (1, 200, 10_000):
        maximise(policy.parameters(), loss)
        assert policy.odds.item() == pytest.approx(before + GAP / tau / beta, rel=0.05)
        follow(reference, policy, i - 1, most=0.5)
        before += (1 - min(0.001 * i, 0.5)) * (policy.odds.item() - before)
        assert reference.odds.item() == pytest.approx(before)
    assert policy.odds.item() > 2.5 * GAP / tau / beta


@pytest.mark.parametrize("following", [False, True])
def test_gdro_regularised_by_its_best_sample(following):
    """L + γ · the error of each group's best, one shared draw per group, on a fixed reference or one that follows."""
    generator = torch.Generator().manual_seed(0)
    clean, r = rewarded()
    groups = torch.arange(16) // 8
    best = torch.as_tensor(rank_weights(r.numpy(), groups.numpy(), weights="best"))
    policy, reference = TwoModes(), TwoModes()
    optimizer = torch.optim.Adam(policy.parameters(), 0.1)
    for update in range(60):
        level = shared(0.02 + 0.96 * torch.rand(16, generator=generator, dtype=torch.float64), groups)
        noise = shared(torch.randn(16, 1, generator=generator, dtype=torch.float64), groups)
        both = errors(policy.velocity, reference.velocity, clean, noise, level)
        loss = ranked_loss(implicit_scores(both, beta=0.5), r, groups, temperature=0.05)[0]
        loss = loss + 0.5 * weighted_regression(both.policy, weight=best, denominator=2)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if following:
            follow(reference, policy, update, most=0.5)
    assert policy.mass() > 0.8
    # It lags behind by less than one update of 0.1.
    assert reference.odds.item() == (pytest.approx(policy.odds.item(), abs=0.05) if following else 0.0)


def test_flow_rwr_finds_the_tilted_mixture():
    """Weights e^{r/τ} on half of either mode: the log-odds are gap / τ."""
    clean, r = rewarded(256)
    policy, generator = TwoModes(), torch.Generator().manual_seed(1)
    level = 0.02 + 0.96 * torch.rand(256, 16, generator=generator, dtype=torch.float64).flatten()
    noise = torch.randn(4096, 1, generator=generator, dtype=torch.float64)
    rows, rewards = clean.repeat_interleave(16, 0), r.repeat_interleave(16)

    def loss():
        return weighted_regression(errors(policy.velocity, None, rows, noise, level).policy, rewards, temperature=0.5)[
            0
        ]

    maximise(policy.parameters(), loss)
    assert policy.odds.item() == pytest.approx(GAP / 0.5, abs=0.25)


@pytest.mark.parametrize("head", ["dpo", "kto", "dgpo"])
@pytest.mark.parametrize("predict", ["velocity", "noise"])
def test_one_level_and_noise_per_update_moves_mass_to_the_preferred_mode(head, predict):
    """Flow-DPO, Diffusion-KTO and DGPO as they are trained: one shared draw per pair."""
    generator = torch.Generator().manual_seed(0)
    policy, reference = TwoModes(), TwoModes()
    clean = drawn(32, generator)
    groups, desired = torch.arange(32) // 2, torch.arange(32) % 2 == 1
    advantages = group_relative(desired.double(), groups)
    optimizer = torch.optim.Adam(policy.parameters(), 0.1)
    for _ in range(60):
        level = shared(0.02 + 0.96 * torch.rand(32, generator=generator, dtype=torch.float64), groups)
        noise = shared(torch.randn(32, 1, generator=generator, dtype=torch.float64), groups)
        both = errors(
            getattr(policy, predict), getattr(reference, predict), clean, noise, level, predict=predict, reduce="sum"
        )
        s = implicit_scores(both, beta=5.0)
        if head == "kto":
            loss = unpaired_loss(s, desired)[0]
        else:
            loss = pair_loss(s[1::2] - s[::2] if head == "dpo" else group_margins(s, advantages, groups))[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert policy.mass() > 0.7
    assert reference.mass() == 0.5


def test_inpo_learns_on_latents_inverted_with_the_policy_of_the_moment():
    """10 steps of inversion, then the pair's loss on the noise they imply; the preferred mode gains."""
    generator = torch.Generator().manual_seed(0)
    table = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    policy, reference = TwoModes(), TwoModes()

    def at_step(model):
        return lambda x, t: model.noise(x, table[t])

    clean, groups = drawn(16, generator), torch.arange(16) // 2
    optimizer = torch.optim.Adam(policy.parameters(), 0.1)
    rights = []
    for _ in range(60):
        times = shared(torch.randint(0, 1000, (16,), generator=generator), groups)
        found = invert(at_step(policy), clean, times, table, generator=generator)
        both = errors(
            at_step(policy), at_step(reference), clean, found.noise, table[times], predict="noise", times=times
        )
        s = implicit_scores(both, beta=20 / 2)  # 2000 is for latents of 16384 numbers
        loss, sums = pair_loss(s[1::2] - s[::2], mask=found.mask[1::2])
        if not rights:
            assert loss.item() == pytest.approx(math.log(2))
            assert sums["right"] == 0
        rights.append((sums["right"] / sums["pairs"]).item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert policy.mass() > 0.75
    assert np.mean(rights[-20:]) > 0.6


class Personal(TwoModes):
    """The log-odds are what attention to the user adds to a query: 0 for nobody, and for all before learning."""

    def __init__(self):
        super().__init__()
        self.odds.requires_grad_(False)
        self.attention = UserAttention(2, 1).double()

    def of_rows(self, user):
        return self.attention(torch.ones(len(user), 1, 1, dtype=torch.float64), user)[:, 0, 0]


def test_ppd_one_model_pleases_two_users_and_those_between():
    """Users who prefer opposite modes, the reference knowing neither: log 2, then ±; nobody and the mean between."""
    generator = torch.Generator().manual_seed(0)
    policy, reference, plain = Personal(), TwoModes(), TwoModes()
    n = 32
    groups, who = torch.arange(n) // 2, torch.arange(n) // 2 % 2
    clean = drawn(n, generator)
    clean = torch.where((who == 1)[:, None], -clean, clean)  # the second of each pair is preferred: user 1 likes −1
    states = torch.eye(2, dtype=torch.float64)[who][:, None]
    optimizer = torch.optim.Adam([*policy.attention.parameters(), plain.odds], 0.1)
    for update in range(60):
        level = shared(0.02 + 0.96 * torch.rand(n, generator=generator, dtype=torch.float64), groups)
        noise = shared(torch.randn(n, 1, generator=generator, dtype=torch.float64), groups)
        users, _ = drop_users(states[::2], generator=generator)
        users = users.repeat_interleave(2, 0)
        loss = 0.0
        for model, condition in ((policy, {"user": users}), (plain, {})):
            both = errors(
                model.noise, reference.noise, clean, noise, level, predict="noise", condition=condition,
                ref_condition={},
            )  # fmt: skip
            s = implicit_scores(both, beta=5.0)
            own = pair_loss(s[1::2] - s[::2])[0]
            assert update or own.item() == pytest.approx(math.log(2))
            loss = loss + own
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    asked = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]], dtype=torch.float64)[:, None]
    first, second, between, nobody = policy.of_rows(user=asked).tolist()
    assert first > 1
    assert second < -1
    assert second + 0.5 < between < first - 0.5
    assert nobody == 0.0
    assert abs(plain.odds.item()) < 0.5


def test_gdro_corrected_score_against_hacking():
    """r (u − 3) + .2 as an expression: r = .87 and u = 3.43 give .574."""
    read = recorded.value(column="ocr").named("ocr")
    fair = recorded.value(column="unified", low=1.0, high=5.0).named("unified")
    corrected = product(read, fair - 3.0) + 0.2
    assert corrected(["?"], [""], ocr=[0.87], unified=[3.43])[0] == pytest.approx(0.5741)
