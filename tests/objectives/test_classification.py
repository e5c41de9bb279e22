import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import decoupled_reward, kl_hinge, rewards_as_labels


def of_scores(scores, labels, groups=None, **chosen):
    """The loss of rows of one token whose log-ratios are the scores, and its gradient by them."""
    scores = torch.tensor(scores, dtype=torch.float64)[:, None].requires_grad_()
    here = torch.ones_like(scores, dtype=torch.bool)
    groups = torch.zeros(len(scores), dtype=torch.long) if groups is None else torch.tensor(groups)
    loss, sums = rewards_as_labels(
        scores, torch.zeros_like(scores), torch.tensor(labels, dtype=torch.bool), here, groups=groups, **chosen
    )
    (gradient,) = torch.autograd.grad(loss, scores)
    return float(loss.detach()), gradient[:, 0], sums


def test_real_worked_example():
    loss, gradient, _ = of_scores([0.1, -0.2, 0.3], [1, 0, 0])
    assert loss == pytest.approx(0.5981 + 1.2506, abs=1e-4)
    torch.testing.assert_close(
        gradient, torch.tensor([-0.9003, 0.3839, 1.0435], dtype=torch.float64), atol=1e-4, rtol=0
    )
    assert of_scores([0.0] * 4, [1, 1, 0, 0])[0] == pytest.approx(2 * math.log(3))


def test_real_stays_finite_and_bounded_far_out():
    loss, gradient, _ = of_scores([1e3, -1e3, 1e3, -1e3], [1, 1, 0, 0])
    assert loss == pytest.approx(2 * 2e3)
    torch.testing.assert_close(gradient, torch.tensor([0.0, -2.0, 2.0, 0.0], dtype=torch.float64))


def test_real_pulls_less_the_better_a_rollout_is_classified():
    """The weight of GRPO's token grows with its ratio; here it falls for the right and rises for the wrong."""
    right = [abs(float(of_scores([s, 0.0], [1, 0])[1][0])) for s in (-1.0, 0.0, 1.0)]
    wrong = [abs(float(of_scores([0.0, s], [1, 0])[1][1])) for s in (-1.0, 0.0, 1.0)]
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    # 1/τ · 1/(1 + C e^{s/τ}) with C = 1, the anchor alone
    assert right == pytest.approx([2 / (1 + math.exp(s / 0.5)) for s in (-1.0, 0.0, 1.0)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.booleans(), st.integers(-1, 1)), min_size=1, max_size=7),
    st.sampled_from(["anchored", "circle", "bce"]),
    st.sampled_from([0.25, 1.0]),
)
def test_real_is_its_definition(rows, form, temperature):
    expected, groups = 0.0, {group for *_, group in rows}
    for group in groups:
        right = [s / temperature for s, label, g in rows if g == group and label]
        wrong = [s / temperature for s, label, g in rows if g == group and not label]
        if not right or not wrong:
            continue
        pushed, pulled = sum(math.exp(-s) for s in right), sum(math.exp(s) for s in wrong)
        expected += {
            "anchored": math.log(1 + pushed) + math.log(1 + pulled),
            "circle": math.log(1 + pushed * pulled),
            "bce": (sum(math.log(1 + math.exp(-s)) for s in right) + sum(math.log(1 + math.exp(s)) for s in wrong))
            / len(right + wrong),
        }[form]
    scores, labels, numbers = (list(column) for column in zip(*rows, strict=True))
    loss, gradient, sums = of_scores(scores, labels, numbers, form=form, temperature=temperature)
    assert loss == pytest.approx(expected / len(groups), rel=1e-9, abs=1e-12)
    if form != "circle":
        assert (gradient.abs() <= 1 / temperature / len(groups) + 1e-12).all()
    assert int(sums["groups"]) == len(groups)


def test_real_scores_are_means_over_written_tokens_of_the_log_ratio():
    logp = torch.tensor([[-1.0, -3.0, 9.0], [-2.0, 9.0, 9.0]])
    old_logp = torch.tensor([[-1.5, -3.5, 0.0], [-2.4, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found, _ = rewards_as_labels(logp, old_logp, torch.tensor([True, False]), mask, groups=torch.zeros(2, dtype=int))
    assert float(found) == pytest.approx(math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(0.8)), rel=1e-5)


def test_real_drops_one_sided_groups_from_the_sum_and_not_from_the_number():
    one, _, _ = of_scores([0.1, -0.2, 0.3], [1, 0, 0])
    two, gradient, sums = of_scores([0.1, 5.0, -0.2, 0.3, 6.0], [1, 1, 0, 0, 1], [0, 9, 0, 0, 9])
    assert two == pytest.approx(one / 2)
    assert gradient[[1, 4]].tolist() == [0.0, 0.0]
    assert (float(sums["groups"]), float(sums["kept"])) == (2.0, 1.0)


def drpo(scores, labels, preference=None, **chosen):
    scores = torch.tensor(scores, dtype=torch.float64)[:, None].requires_grad_()
    loss, _ = decoupled_reward(
        scores,
        torch.tensor(labels, dtype=torch.bool),
        torch.ones_like(scores, dtype=torch.bool),
        groups=torch.zeros(len(scores), dtype=torch.long),
        preference=None if preference is None else torch.tensor(preference, dtype=torch.float64),
        **chosen,
    )
    (gradient,) = torch.autograd.grad(loss, scores)
    return float(loss.detach()), -gradient[:, 0]


@pytest.mark.parametrize(
    ("sharpness", "weights"),
    [(0.1, [0.952, 0.047, 0.001]), (1.0, [0.447, 0.331, 0.222]), (math.inf, [1 / 3, 1 / 3, 1 / 3])],
)
def test_drpo_worked_weights_of_length(sharpness, weights):
    # Right answers of 20, 50 and 90 % of the limit, and a wrong one: ∂J/∂s of the right ones is their weight.
    _, pull = drpo([-1.0, -1.0, -1.0, -1.0], [1, 1, 1, 0], [0.8, 0.5, 0.1, 0.0], sharpness=sharpness)
    assert pull[:3].tolist() == pytest.approx(weights, abs=5e-4)
    assert (pull[:3] >= 0).all()
    assert float(pull[3]) == pytest.approx(-1.0)


def test_drpo_spares_the_long_right_answer_that_grpo_punishes():
    ratios, right = torch.tensor([0.9, 0.1, 0.1, 0.0]), torch.tensor([True, True, True, False])
    shaped = torch.where(right, 1 - 0.9 * ratios, torch.zeros(4))
    grpo = (shaped - shaped.mean()) / shaped.std(correction=0)
    assert float(grpo[0]) == pytest.approx(-0.76, abs=0.01)
    _, pull = drpo([-1.0] * 4, [1, 1, 1, 0], (1 - ratios).tolist())
    assert float(pull[0]) > 0


def test_drpo_reports_the_objective_itself():
    """The released code's negative part has the value τ whatever the scores; here it is τ log mean e^{s/τ}."""
    scores, tau = [-0.5, -1.5, -1.0, -3.0], 10.0
    weight = [math.exp(0.9 / 0.1), math.exp(0.4 / 0.1)]
    positive = (weight[0] * scores[0] + weight[1] * scores[1]) / sum(weight)
    negative = tau * math.log((math.exp(scores[2] / tau) + math.exp(scores[3] / tau)) / 2)
    loss, pull = drpo(scores, [1, 1, 0, 0], [0.9, 0.4, 5.0, -5.0], temperature=tau)
    assert loss == pytest.approx(negative - positive)
    soft = [math.exp(s / tau) for s in scores[2:]]
    assert pull[2:].tolist() == pytest.approx([-x / sum(soft) for x in soft])


def test_drpo_needs_both_sides_and_counts_every_group():
    logp, mask = -torch.ones(5, 1), torch.ones(5, 1, dtype=torch.bool)
    labels, groups = torch.tensor([True, False, True, True, False]), torch.tensor([4, 4, 7, 7, 8])
    loss, sums = decoupled_reward(2 * logp, labels, mask, groups=groups)
    assert (float(sums["groups"]), float(sums["kept"])) == (3.0, 1.0)
    assert float(loss) == 0.0
    loss, _ = decoupled_reward(torch.where(labels, -1.0, -4.0)[:, None], labels, mask, groups=groups)
    assert float(loss) == pytest.approx(-3.0 / 3)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_drpo_hinge_has_the_released_gradient_and_the_value_of_its_square(kind):
    old_logp = torch.tensor([[-1.0, -2.0, -0.5]], dtype=torch.float64)
    logp = torch.tensor([[-1.2, -2.1, 7.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    found = kl_hinge(logp, old_logp, mask, kind=kind, limit=1e-4, coefficient=1e3)
    (gradient,) = torch.autograd.grad(found, logp)

    moved = logp[:, :2] - old_logp[:, :2]
    mean = (-moved).mean() if kind == "k1" else (moved.exp() - moved - 1).mean()
    excess = 1e3 * (mean.detach() - 1e-4)
    (released,) = torch.autograd.grad(excess * mean, logp)
    torch.testing.assert_close(gradient, released)
    assert found.item() == pytest.approx(0.5e3 * (mean.item() - 1e-4) ** 2)


def test_drpo_hinge_is_open_within_the_limit_and_where_the_estimate_is_negative():
    old_logp, here = torch.zeros(1, 2) - 1, torch.ones(1, 2, dtype=torch.bool)
    for moved in (0.0, 5e-5, -0.3):
        assert kl_hinge(old_logp - moved, old_logp, here) == 0


def test_shapes_and_numbers_that_cannot_be_are_named():
    logp, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    labels, groups = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"labels must be \(2,\) beside logp \(2, 3\), got \(3,\)"):
        rewards_as_labels(logp, logp, torch.ones(3, dtype=torch.bool), mask, groups=groups)
    with pytest.raises(ValueError, match=r"old_logp must be \(2, 3\)"):
        rewards_as_labels(logp, logp[:1], labels, mask, groups=groups)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        rewards_as_labels(logp, logp, labels, mask, groups=groups, temperature=0.0)
    with pytest.raises(ValueError, match=r"preference must be \(2,\)"):
        decoupled_reward(logp, labels, mask, groups=groups, preference=torch.zeros(3))
    with pytest.raises(ValueError, match="sharpness and temperature"):
        decoupled_reward(logp, labels, mask, groups=groups, sharpness=0.0)
    with pytest.raises(ValueError, match="one shape"):
        kl_hinge(logp, logp[:, :2], mask)
