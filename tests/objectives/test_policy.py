from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import clip, denominator, policy_gradient, token_means


def likelihood(ratio, logp, advantages):
    """A rule of a user's own, not linear in logp."""
    never = torch.zeros_like(logp, dtype=torch.bool)
    return clip.Surrogate(logp.exp() * advantages, never, never)


RULES = [
    likelihood,
    clip.none,
    clip.reinforce,
    clip.ppo,
    partial(clip.ppo, low=3e-4, high=4e-4),
    clip.dual,
    clip.cispo,
    clip.soft,
    partial(clip.truncated, low=0.5, high=1.5),
]
AGGREGATES = ["token-mean", "sequence-mean", "constant", "length-weighted"]
SETTINGS = {
    "clip": st.sampled_from(RULES),
    "aggregate": st.sampled_from(AGGREGATES),
    "ratio": st.sampled_from(["token", "sequence", "product", "mixture", "probability"]),
}


@st.composite
def batches(draw, spread=0.5, least=0):
    """Keyword arguments of policy_gradient in float64; lengths from `least`, with holes where a tool wrote."""
    n, t = draw(st.integers(1, 5)), draw(st.integers(max(least, 1), 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    lengths = torch.tensor(draw(st.lists(st.integers(least, t), min_size=n, max_size=n)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logp = -normal(n, t).abs()
    holes = torch.rand(n, t, generator=generator) < 0.2
    return {
        "logp": logp,
        "old_logp": logp + spread * normal(n, t),
        "advantages": normal(n, t) if draw(st.booleans()) else normal(n),
        "mask": (torch.arange(t) < lengths[:, None]) & ~holes,
        "kl": normal(n, t) if draw(st.booleans()) else None,
        "weight": normal(n) if draw(st.booleans()) else None,
        "off_policy": normal(n, t).abs() if draw(st.booleans()) else None,
    }


def loss_and_gradient(data, **chosen):
    leaf = data["logp"].clone().requires_grad_()
    loss, sums = policy_gradient(**{**data, "logp": leaf}, length=10, **chosen)
    loss.backward()
    return loss.detach(), leaf.grad, sums


def index(data, rows, columns=slice(None)):
    """A part of a batch: some rows, and some columns of what has columns."""
    return {
        name: value if value is None else value[rows] if value.ndim == 1 else value[rows][:, columns]
        for name, value in data.items()
    }


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(AGGREGATES), st.sampled_from(["token", "sequence", "product"]))
def test_loss_is_its_definition(data, aggregate, ratio):
    n, t = data["mask"].shape
    lengths = [int(data["mask"][i].sum()) for i in range(n)]
    rows = max(sum(length > 0 for length in lengths), 1)
    expected = 0.0
    for i in range(n):
        own = [k for k in range(t) if data["mask"][i, k]]
        difference = {k: float(data["logp"][i, k] - data["old_logp"][i, k]) for k in own}
        for k in own:
            exponent = {
                "token": difference[k],
                "sequence": sum(difference.values()) / len(own),
                "product": sum(difference.values()),
            }[ratio]
            r = 2.718281828459045**exponent
            a = float(data["advantages"][i, k] if data["advantages"].ndim == 2 else data["advantages"][i])
            term = -min(r * a, min(max(r, 0.9), 1.3) * a)
            term *= 1.0 if data["off_policy"] is None else float(data["off_policy"][i, k])
            term += 0.0 if data["kl"] is None else float(data["kl"][i, k])
            term *= 1.0 if data["weight"] is None else float(data["weight"][i])
            expected += (
                term
                / {
                    "token-mean": max(sum(lengths), 1),
                    "sequence-mean": rows * len(own),
                    "constant": rows * 10,
                    "length-weighted": rows,
                }[aggregate]
            )
    found, *_ = loss_and_gradient(data, aggregate=aggregate, ratio=ratio, clip=partial(clip.ppo, low=0.1, high=0.3))
    assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(data=batches(), cut=st.integers(0, 5), **SETTINGS)
def test_losses_of_rows_add_up_to_the_loss_of_the_batch(data, cut, **chosen):
    whole = denominator(data["mask"], chosen["aggregate"], length=10)
    loss, gradient, sums = loss_and_gradient(data, **chosen)
    parts = [
        loss_and_gradient(index(data, rows), denominator=whole[rows] if whole.ndim else whole, **chosen)
        for rows in (slice(0, cut), slice(cut, None))
    ]
    close(sum(part[0] for part in parts), loss)
    close(torch.cat([part[1] for part in parts]), gradient)
    for name, total in sums.items():
        close(sum(part[2][name] for part in parts), total)


@settings(max_examples=60, deadline=None)
@given(data=batches(), cut=st.integers(0, 6), rule=SETTINGS["clip"], aggregate=SETTINGS["aggregate"])
def test_losses_of_columns_add_up_for_token_ratios(data, cut, rule, aggregate):
    whole = denominator(data["mask"], aggregate, length=10)
    loss, gradient, sums = loss_and_gradient(data, clip=rule, aggregate=aggregate)
    parts = [
        loss_and_gradient(index(data, slice(None), columns), clip=rule, denominator=whole)
        for columns in (slice(0, cut), slice(cut, None))
    ]
    close(sum(part[0] for part in parts), loss)
    close(torch.cat([part[1] for part in parts], dim=1), gradient)
    for name, total in sums.items():
        close(sum(part[2][name] for part in parts), total)


@settings(max_examples=60, deadline=None)
@given(data=batches(), width=st.integers(1, 4), poison=st.sampled_from([torch.nan, torch.inf, -1e30]), **SETTINGS)
def test_padding_changes_nothing_whatever_stands_there(data, width, poison, **chosen):
    loss, gradient, sums = loss_and_gradient(data, **chosen)
    wider = {
        name: value
        if value is None or value.ndim == 1
        else torch.nn.functional.pad(value, (0, width), value=False if name == "mask" else poison)
        for name, value in data.items()
    }
    for name in ("logp", "old_logp", "kl", "off_policy"):
        if wider[name] is not None:
            wider[name] = wider[name].where(wider["mask"], torch.tensor(poison, dtype=torch.float64))
    padded_loss, padded_gradient, padded_sums = loss_and_gradient(wider, **chosen)
    close(padded_loss, loss)
    close(padded_gradient[:, :-width], gradient)
    assert (padded_gradient[~wider["mask"]] == 0).all()
    for name, total in sums.items():
        close(padded_sums[name], total)


@pytest.mark.parametrize("ratio", ["token", "sequence", "product"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_poison_in_any_argument_stays_behind_the_mask(poison, rule, ratio):
    mask = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    names = ("logp", "old_logp", "advantages", "kl", "weight", "off_policy")
    clean = {name: torch.full((3, 3), 0.1 * i - 1) for i, name in enumerate(names)}
    loss, gradient, _ = loss_and_gradient({**clean, "mask": mask}, clip=rule, ratio=ratio)
    for name in names:
        poisoned = {**clean, "mask": mask, name: clean[name].where(mask, poison)}
        found = loss_and_gradient(poisoned, clip=rule, ratio=ratio)
        assert found[0] == loss
        assert torch.equal(found[1], gradient)


@settings(max_examples=40, deadline=None)
@given(data=batches(), seed=st.integers(0, 99), **SETTINGS)
def test_order_of_rows_does_not_matter(data, seed, **chosen):
    order = torch.randperm(len(data["logp"]), generator=torch.Generator().manual_seed(seed))
    loss, gradient, _ = loss_and_gradient(data, **chosen)
    shuffled_loss, shuffled_gradient, _ = loss_and_gradient(index(data, order), **chosen)
    close(shuffled_loss, loss)
    close(shuffled_gradient, gradient[order])


@settings(max_examples=80, deadline=None)
@given(data=batches(spread=1e4), dtype=st.sampled_from([torch.float32, torch.bfloat16]), **SETTINGS)
def test_finite_in_finite_out_however_far_the_policies_are_apart(data, dtype, **chosen):
    data = {
        name: value.to(dtype) if value is not None and value.is_floating_point() else value
        for name, value in data.items()
    }
    loss, gradient, sums = loss_and_gradient(data, **chosen)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert all(value.isfinite() for value in sums.values())


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("ratio", ["token", "sequence", "product"])
@pytest.mark.parametrize("rule", [clip.none, clip.reinforce, clip.ppo, clip.dual, clip.soft])
def test_gradients_are_those_of_finite_differences(rule, ratio, aggregate):
    generator = torch.Generator().manual_seed(5)
    logp = (-torch.rand(3, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    old_logp = -torch.rand(3, 4, generator=generator, dtype=torch.float64)
    advantages = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 2, 3])[:, None]

    def loss(x):
        return policy_gradient(x, old_logp, advantages, mask, clip=rule, ratio=ratio, aggregate=aggregate, length=7)[0]

    assert torch.autograd.gradcheck(loss, logp)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 99))
def test_luspo_is_length_times_gspo_when_all_lengths_are_equal(length, seed):
    generator = torch.Generator().manual_seed(seed)
    logp, old_logp = -torch.rand(2, 3, length, generator=generator, dtype=torch.float64)
    data = {
        "logp": logp,
        "old_logp": old_logp,
        "advantages": torch.randn(3, generator=generator, dtype=torch.float64),
        "mask": torch.ones(3, length, dtype=torch.bool),
    }
    luspo = loss_and_gradient(data, ratio="sequence", aggregate="length-weighted")
    gspo = loss_and_gradient(data, ratio="sequence", aggregate="sequence-mean")
    close(luspo[0], length * gspo[0])
    close(luspo[1], length * gspo[1])


def test_gspo_shares_a_rows_pull_among_its_tokens_and_luspo_does_not():
    # LUSPO's example: lengths 2 and 8, A = 1, π = π_old; per token ½ and ⅛, against 1 and 1 (each over 2 rows)
    logp = torch.full((2, 8), -1.0)
    mask = torch.arange(8) < torch.tensor([2, 8])[:, None]
    data = {"logp": logp, "old_logp": logp, "advantages": torch.ones(2), "mask": mask}
    for aggregate, pull in (("sequence-mean", [0.5, 0.125]), ("length-weighted", [1.0, 1.0])):
        _, gradient, _ = loss_and_gradient(data, ratio="sequence", aggregate=aggregate)
        torch.testing.assert_close(gradient, -torch.tensor(pull)[:, None] / 2 * mask)


@settings(max_examples=30, deadline=None)
@given(batches())
def test_ratios_of_one_token_are_all_the_same(data):
    data = index(data, slice(None), slice(0, 1))
    token, sequence, product = (loss_and_gradient(data, ratio=ratio) for ratio in ("token", "sequence", "product"))
    for other in (sequence, product):
        close(other[0], token[0])
        close(other[1], token[1])


@pytest.mark.parametrize("ratio", ["token", "sequence", "product"])
@pytest.mark.parametrize("rule", [clip.none, clip.reinforce, clip.ppo, clip.cispo, clip.soft])
def test_on_fresh_tokens_every_rule_follows_the_policy_gradient(rule, ratio):
    """A bandit whose tokens are all enumerated: descent on the loss is ascent on the expected reward."""
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, 0.0, -0.5, 0.25], dtype=torch.float64)
    logp = logits.log_softmax(0)[:, None]
    mask, chances = torch.ones(4, 1, dtype=torch.bool), logp.detach().exp()[:, 0]
    loss, _ = policy_gradient(logp, logp, rewards, mask, clip=rule, ratio=ratio, weight=chances, denominator=1.0)
    (found,) = torch.autograd.grad(loss, logits)
    (truth,) = torch.autograd.grad((logits.softmax(0) * rewards).sum(), logits)
    torch.testing.assert_close(found, -truth)


def test_what_the_sums_count():
    ratios = torch.tensor([[0.5, 1.5, 2.0], [0.5, 2.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    _, sums = policy_gradient(
        ratios.log(), torch.zeros(2, 3), torch.tensor([1.0, -1.0]), mask, kl=torch.full((2, 3), 0.1)
    )
    approx_kl = (ratios - 1 - ratios.log())[mask].sum()
    expected = {
        "tokens": 5.0,
        "clip_low": 1.0,
        "clip_high": 2.0,
        "ratio": 6.5,
        "approx_kl": float(approx_kl),
        "kl": 0.5,
    }
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(expected)
    assert not any(value.requires_grad for value in sums.values())
    means = token_means(sums, sums)
    assert means == pytest.approx(
        {"tokens": 10.0, "clip_low": 0.2, "clip_high": 0.4, "ratio": 1.3, "approx_kl": float(approx_kl) / 5, "kl": 0.1}
    )


def test_no_written_token_at_all_is_a_loss_of_zero_that_can_be_differentiated():
    data = {name: torch.zeros(2, 3) for name in ("logp", "old_logp")}
    data |= {"advantages": torch.ones(2), "mask": torch.zeros(2, 3, dtype=torch.bool)}
    for ratio in ("token", "sequence", "product"):
        loss, gradient, sums = loss_and_gradient(data, ratio=ratio)
        assert loss == 0
        assert (gradient == 0).all()
        assert token_means(sums)["ratio"] == 0


def test_shapes_that_do_not_fit_are_named():
    logp, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"advantages must be \(2, 3\) or \(2,\) beside logp \(2, 3\), got \(3,\)"):
        policy_gradient(logp, logp, torch.zeros(3), mask)
    with pytest.raises(ValueError, match=r"mask must be \(2, 3\)"):
        policy_gradient(logp, logp, torch.zeros(2), mask[:1])
    with pytest.raises(ValueError, match=r"denominator must be a scalar or \(2,\), got \(2, 1\)"):
        policy_gradient(logp, logp, torch.zeros(2), mask, denominator=torch.ones(2, 1))
