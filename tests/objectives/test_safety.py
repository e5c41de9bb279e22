"""What holds for every objective: finite in, finite out; what is masked does not exist; parts add up."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.objectives import (
    adaptive_distillation,
    answer_bound_policy_gradient,
    answer_policy_gradient,
    answer_weights,
    bellman_loss,
    clip,
    clipped_value_loss,
    conservative_targets,
    decoupled_reward,
    distillation,
    explorative,
    extrapolated_advantages,
    extrapolated_policy_gradient,
    gflownet,
    group_preference,
    hybrid_policy_gradient,
    kl_hinge,
    perplexity,
    policy_gradient,
    recovered_rewards,
    rewards_as_labels,
    truncated_importance,
)

V = 4


@st.composite
def batches(draw, size=1.0, holes=True):
    """Random tensors of every kind, in float64; all of it may be empty, or rows; groups of one, labels all alike."""
    n, t = draw(st.integers(0, 6)), draw(st.integers(0, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))

    def normal(*shape):
        return size * torch.randn(*shape, generator=generator, dtype=torch.float64)

    def drawn(values, dtype):
        return torch.tensor(draw(st.lists(values, min_size=n, max_size=n)), dtype=dtype)

    lengths = drawn(st.integers(0, t), torch.long)
    mask = torch.arange(t) < lengths[:, None]
    if holes:
        mask = mask & (torch.rand(n, t, generator=generator) > 0.2)
    return {
        "logp": -normal(n, t).abs(),
        "old_logp": -normal(n, t).abs(),
        "ref_logp": -normal(n, t).abs(),
        "advantages": normal(n),
        "values": normal(n, t),
        "returns": normal(n, t),
        "logits": normal(n, t, V),
        "teacher": normal(n, t, V),
        "ids": torch.randint(V, (n, t), generator=generator),
        "mask": mask,
        "external": torch.rand(n, t, generator=generator) < 0.5,
        "labels": drawn(st.booleans(), torch.bool),
        "groups": drawn(st.integers(0, 2), torch.long),
        "preference": normal(n),
        "states": normal(n, t + 1),
        "rewards": normal(n, t + 1),
    }


def behind(d):
    """Completions, and answers behind them of which the same tokens are there."""
    return d["logp"], d["old_logp"], d["advantages"], d["mask"], d["values"], d["mask"]


def bellman(d, **chosen):
    columns = (d["logits"], d["values"], d["ids"], d["advantages"], d["mask"])
    return bellman_loss(*columns, reference=d["teacher"], **chosen)


def labels(d, **chosen):
    return rewards_as_labels(d["logp"], d["old_logp"], d["labels"], d["mask"], groups=d["groups"], **chosen)


def hybrid(d, **chosen):
    chosen = {"aggregate": "token-mean"} | chosen
    columns = (d["logp"], d["old_logp"], d["advantages"], d["mask"])
    return hybrid_policy_gradient(*columns, external=d["external"], **chosen)


def signed(d, **chosen):
    return policy_gradient(
        d["logp"], d["old_logp"], d["advantages"], d["mask"], positive=0.1, negative=2.0, clip=clip.guarded, **chosen
    )


def likeliest(d, **chosen):
    """The other ratios and the rule without a minimum."""
    return policy_gradient(
        d["logp"],
        d["old_logp"],
        d["advantages"],
        d["mask"],
        ratio="probability",
        clip=partial(clip.truncated, low=0.1, high=0.9),
        **chosen,
    )


# Losses, and the tensors each is differentiated by. All give (loss, sums) and take a denominator, whose default is the
# number of "tokens", "groups", "trajectories" or steps.
LOSSES = {
    "signed": (signed, ["logp"]),
    "probability": (likeliest, ["logp"]),
    "hybrid": (hybrid, ["logp"]),
    "anchored": (labels, ["logp"]),
    "circle": (partial(labels, form="circle"), ["logp"]),
    "bce": (partial(labels, form="bce"), ["logp"]),
    "decoupled": (
        lambda d, **chosen: decoupled_reward(
            d["logp"], d["labels"], d["mask"], groups=d["groups"], preference=d["preference"], **chosen
        ),
        ["logp"],
    ),
    "distillation": (
        lambda d, **chosen: distillation(d["logits"], d["teacher"], d["mask"], aggregate="token-mean", **chosen),
        ["logits"],
    ),
    "adaptive": (
        lambda d, **chosen: adaptive_distillation(
            d["logits"], d["teacher"], d["teacher"].flip(-1), d["mask"], aggregate="token-mean", **chosen
        ),
        ["logits"],
    ),
    "extrapolated": (
        lambda d, **chosen: extrapolated_policy_gradient(
            d["logp"], d["old_logp"], d["values"], d["mask"], ref_logp=d["ref_logp"], strength=1.25, **chosen
        ),
        ["logp"],
    ),
    "value": (
        lambda d, **chosen: clipped_value_loss(d["values"], d["logp"], d["returns"], d["mask"], **chosen),
        ["values"],
    ),
    "bellman": (bellman, ["logits", "values"]),
    "trajectory": (
        lambda d, **chosen: gflownet.trajectory_balance(
            d["logp"], d["advantages"], d["mask"], groups=d["groups"], **chosen
        ),
        ["logp"],
    ),
    "reward": (
        lambda d, **chosen: gflownet.reward_balance(
            d["logp"],
            d["advantages"],
            d["mask"],
            groups=d["groups"],
            rows=d["mask"].any(1),
            values=d["values"],
            **chosen,
        ),
        ["logp", "values"],
    ),
    "edge balance": (
        lambda d, **chosen: gflownet.reward_edge_balance(
            d["logp"], d["advantages"], d["mask"], values=d["values"], ref_logp=d["ref_logp"], **chosen
        ),
        ["logp", "values"],
    ),
    "part balance": (
        lambda d, **chosen: gflownet.reward_subtrajectory_balance(
            d["logp"], d["advantages"], d["mask"], values=d["values"], rows=d["mask"].any(1), place="edges", **chosen
        ),
        ["logp", "values"],
    ),
    "group preference": (
        lambda d, **chosen: group_preference(
            d["logp"], d["ref_logp"], d["advantages"], d["groups"], d["mask"], **chosen
        ),
        ["logp"],
    ),
    "answer": (
        lambda d, **chosen: answer_policy_gradient(*behind(d), rows=d["mask"].any(1), **chosen),
        ["logp", "values"],
    ),
    "answer bound": (
        lambda d, **chosen: answer_bound_policy_gradient(
            *behind(d), rows=d["mask"].any(1), groups=d["groups"], **chosen
        ),
        ["logp", "values"],
    ),
}

# The same of losses over trajectories without holes, one number per state.
PATHS = {
    "subtrajectory": (
        lambda d, **chosen: gflownet.subtrajectory_balance(d["logp"], d["states"], d["rewards"], d["mask"], **chosen),
        ["logp", "states"],
    ),
    "edge": (
        lambda d, **chosen: gflownet.edge_balance(
            d["values"], d["logp"], d["old_logp"], d["advantages"], d["mask"], **chosen
        ),
        ["values", "logp"],
    ),
}

# One number per token, 0 where masked (or 1, for a weight).
TOKENS = {
    "explorative": lambda d: explorative(d["advantages"], d["logp"], d["mask"]),
    "truncated": lambda d: truncated_importance(d["logp"], d["old_logp"], d["mask"]),
    "extrapolated": lambda d: extrapolated_advantages(
        d["old_logp"], d["logp"], d["mask"], ref_logp=d["ref_logp"], strength=1.25
    ),
    "targets": lambda d: conservative_targets(d["returns"], d["values"], d["mask"], discount=0.9),
    "recovered": lambda d: recovered_rewards(d["returns"], d["values"], d["mask"], discount=0.9),
    **{
        kind: (lambda d, kind=kind: answer_weights(d["logp"], d["mask"], kind=kind, groups=d["groups"]))
        for kind in ("logprob", "mean-logprob", "prob", "mean-prob", "group-bound")
    },
}


def run(function, names, data, **chosen):
    leaves = {name: data[name].clone().requires_grad_() for name in names}
    loss, sums = function({**data, **leaves}, **chosen)
    loss.backward()
    return loss.detach(), {name: leaf.grad for name, leaf in leaves.items()}, sums


def spoiled(data, value):
    """The same batch with something else wherever there is no token."""
    outside = ~data["mask"]
    states = torch.nn.functional.pad(outside, (1, 0), value=False)
    found = {}
    for name, x in data.items():
        if x.dtype != torch.float64 or x.ndim == 1:
            found[name] = x
        elif name in ("states", "rewards"):
            found[name] = torch.where(states, value, x)
        else:
            found[name] = torch.where(outside if x.ndim == 2 else outside[..., None], value, x)
    return found


def widened(data, by):
    """The same batch with more padding."""
    return {
        name: x
        if x.ndim == 1
        else torch.nn.functional.pad(x, (0, by) if x.ndim == 2 else (0, 0, 0, by), value=0 if name != "values" else 7)
        for name, x in data.items()
    }


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def check_masked(function, names, data):
    loss, gradients, sums = run(function, names, data)
    for other in (spoiled(data, float("nan")), spoiled(data, -float("inf")), widened(data, 3)):
        other_loss, other_gradients, other_sums = run(function, names, other)
        close(other_loss, loss)
        for name, gradient in gradients.items():
            close(other_gradients[name][:, : gradient.shape[1]], gradient)
            assert not other_gradients[name][:, gradient.shape[1] :].any()
        for name, value in sums.items():
            close(other_sums[name], value)


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=30, deadline=None)
@given(data=batches())
def test_what_is_masked_does_not_exist(name, data):
    check_masked(*LOSSES[name], data)


@pytest.mark.parametrize("name", PATHS)
@settings(max_examples=30, deadline=None)
@given(data=batches(holes=False))
def test_what_is_masked_does_not_exist_on_paths(name, data):
    check_masked(*PATHS[name], data)


@pytest.mark.parametrize("name", LOSSES | PATHS)
@settings(max_examples=25, deadline=None)
@given(data=batches(size=300.0, holes=False))
def test_finite_numbers_give_finite_losses_and_gradients(name, data):
    function, names = (LOSSES | PATHS)[name]
    for precise in (True, False):
        given_ = data if precise else {k: x.float() if x.dtype == torch.float64 else x for k, x in data.items()}
        loss, gradients, sums = run(function, names, given_)
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        assert all(value.isfinite() for value in sums.values())


@pytest.mark.parametrize("name", LOSSES | PATHS)
@settings(max_examples=30, deadline=None)
@given(data=batches(holes=False), kept=st.sets(st.integers(0, 2)))
def test_losses_of_whole_groups_add_up_with_a_denominator(name, data, kept):
    function, names = (LOSSES | PATHS)[name]
    loss, gradients, sums = run(function, names, data, denominator=7.0)
    mine = torch.isin(data["groups"], torch.tensor(sorted(kept), dtype=torch.long))
    found, pieces = 0.0, {name: torch.zeros_like(gradient) for name, gradient in gradients.items()}
    counted = dict.fromkeys(sums, 0.0)
    for rows in (mine, ~mine):
        part, part_gradients, part_sums = run(function, names, {k: x[rows] for k, x in data.items()}, denominator=7.0)
        found += part
        for key, gradient in part_gradients.items():
            pieces[key][rows] = gradient
        for key, value in part_sums.items():
            counted[key] += float(value)
    close(found, loss)
    for key, gradient in gradients.items():
        close(pieces[key], gradient)
    assert counted == pytest.approx({key: float(value) for key, value in sums.items()}, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", TOKENS)
@settings(max_examples=30, deadline=None)
@given(data=batches())
def test_one_number_per_token_wherever_there_is_one(name, data):
    found, mask = TOKENS[name](data), data["mask"]
    assert found.isfinite().all()
    assert (found[~mask] == (1.0 if name == "truncated" else 0.0)).all()
    for other in (spoiled(data, float("nan")), spoiled(data, -float("inf")), widened(data, 2)):
        close(TOKENS[name](other)[:, : mask.shape[1]], found)


@settings(max_examples=30, deadline=None)
@given(data=batches())
def test_the_hinge_and_perplexity_see_written_tokens_only(data):
    for function in (
        lambda d: kl_hinge(d["logp"], d["old_logp"], d["mask"]),
        lambda d: kl_hinge(d["logp"], d["old_logp"], d["mask"], kind="k3"),
        lambda d: perplexity(d["logp"], d["mask"]),
    ):
        found = function(data)
        assert found.isfinite().all()
        for other in (spoiled(data, float("nan")), widened(data, 2)):
            close(function(other), found)
