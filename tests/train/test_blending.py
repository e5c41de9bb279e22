"""Weights of the parts of a reward: fixed ones, and those that are learned for what serves the primary part."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from stopping import equal, last, metrics, stopped

from guerdon.core import Rollouts, Scores
from guerdon.core.errors import RecipeError
from guerdon.shaping import implicit_gradient
from guerdon.train import presets, recipe as recipes
from guerdon.train.language import loop
from guerdon.train.language.blending import reweigh, service, updated
from guerdon.train.language.learning import gradients
from guerdon.train.language.losses import Experience
from guerdon.train.language.policy import build
from guerdon.train.method import Blend, Sum
from guerdon.train.run import Run
from guerdon.train.scoring import credited

PATTERNS = {"goal": "77", "hint": ".*7.*", "decoy": ".*3.*"}
REWARD = [
    {"part": "format.regex", "pattern": PATTERNS["goal"], "name": "goal"},
    {"part": "format.regex", "pattern": PATTERNS["hint"], "name": "hint"},
    {"sum": [{"part": "format.regex", "pattern": PATTERNS["decoy"], "name": "threes", "weight": 3}], "name": "decoy"},
]
PAYS = {"goal": 1.0, "hint": 1.0, "decoy": 3.0}
CENTRED = {"part": "credit.group_relative", "scale": "none"}
CREDIT = {"sum": dict.fromkeys(PATTERNS, CENTRED)}


@pytest.fixture
def toy(tiny, tmp_path):
    """`toy(blend={…})`: two characters are to be written; paid are two sevens, any seven, and thrice a three."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "=" * (i + 1)}) + "\n" for i in range(40)))

    def write(blend=None, method=None, **changes):
        base = tiny(policy={"from_config": {"alphabet": "037="}}, sampling={"max_tokens": 2}, **changes).data()
        return recipes.from_data(
            base
            | {
                "prompts": {"file": str(path), "held_out": 0.3},
                "reward": REWARD,
                "method": {"preset": "dr_grpo", "credit": CREDIT, "blend": blend, **(method or {})},
                "evaluation": {"prompts": 1, "accuracy": REWARD[0]},
            }
        )

    return write


# What is learned, against its definition


def enumerated(vocabulary):
    """Every completion of one token of two prompts: what a mean over these rows is weighed for is an expectation."""
    n = 2 * vocabulary
    return Experience(
        prompt_ids=torch.tensor([[3, 4], [5, 6]]).repeat_interleave(vocabulary, 0),
        prompt_mask=torch.ones(n, 2, dtype=torch.bool),
        ids=torch.arange(vocabulary).repeat(2)[:, None],
        attended=torch.ones(n, 1, dtype=torch.bool),
        mask=torch.ones(n, 1, dtype=torch.bool),
        advantages=torch.zeros(n),
    )


def expected(policy, weights, prompt, rewards):
    """E[r(y)] over the next token."""
    logits = torch.func.functional_call(policy, weights, (prompt[None],)).logits[0, -1]
    return logits.softmax(-1) @ rewards


def test_service_is_what_a_step_along_each_part_does_for_the_exact_expectation_of_the_primary_one(toy):
    """s = d/dw J_p(b; θ + Σ wₖ ∇Jₖ(a; θ)) at w = 0, both ways round; expectations are sums over all tokens."""
    recipe = toy(batch={"micro": 3})
    policy, _ = build(recipe.policy, seed=1)
    size = policy.config.vocab_size
    experience = enumerated(size)
    generator = torch.Generator().manual_seed(0)
    rewards = {name: torch.randn(size, generator=generator) for name in ("goal", "hint")}
    rewards["decoy"] = -rewards["goal"]
    weights = {name: p.detach() for name, p in policy.named_parameters()}
    prompts = experience.prompt_ids[::size]

    def ascent(prompt, name):
        return torch.func.grad(lambda w: expected(policy, w, prompt, rewards[name]))(weights)

    slopes = {name: [] for name in PATTERNS}
    for here, there in (prompts, prompts.flip(0)):
        steps = {name: ascent(here, name) for name in PATTERNS}
        for name in PATTERNS:

            def reached(w, name=name, steps=steps, there=there):
                moved = {key: value + w * steps[name][key] for key, value in weights.items()}
                return expected(policy, moved, there, rewards["goal"])

            slopes[name].append(torch.func.grad(reached)(torch.tensor(0.0)).item())

    halves = []
    for half in (slice(0, size), slice(size, None)):
        part = experience.select(half)
        with torch.no_grad():
            chances = policy(part.prompt_ids[:1]).logits[0, -1].softmax(-1)
        tables = {name: size * chances * values for name, values in rewards.items()}
        # `constant` divides by rows and the limit, of two tokens here.
        found = gradients(part, tables, recipe, recipe.load_method(), policy, Accelerator(cpu=True))
        halves.append({name: 2 * gradient for name, gradient in found.items()})
    got = service(*halves, primary="goal", scale="none")
    for name in PATTERNS:
        assert got[name] == pytest.approx(sum(slopes[name]) / 2, rel=1e-3, abs=1e-6)
    assert len({np.sign(x) for x in got.values()}) == 2
    assert all(p.grad is None for p in policy.parameters())

    # It is the first term of the series by which `shaping.implicit_gradient` goes through the end of learning.
    a, b = (torch.stack([half[name] for name in PATTERNS], 1) for half in halves)
    series = [
        implicit_gradient(lambda theta, phi, g=g: g @ phi + 0 * theta, torch.zeros(len(g)), torch.ones(3), outer[:, 0],
                          terms=1, rate=1.0)
        for g, outer in ((a, b), (b, a))
    ]  # fmt: skip
    torch.testing.assert_close(torch.tensor(list(got.values())), sum(series) / 2, rtol=1e-3, atol=1e-6)


def by_hand(rollouts, policy, prompt_ids, used, *, rate, decay, scale="cosine"):
    """The next weights from the texts: centred rewards of rows, one gradient per row, halves by the group's number."""
    texts, groups = rollouts.completions, np.asarray(rollouts.groups)
    paid = {k: np.array([PAYS[k] * bool(re.fullmatch(p, t)) for t in texts]) for k, p in PATTERNS.items()}
    tables = {k: x - np.array([x[groups == g].mean() for g in groups]) for k, x in paid.items()}
    sums = {k: [0.0, 0.0] for k in PATTERNS}
    for i, group in enumerate(groups):
        length = int(rollouts.tokens.written[i].sum())
        ids = torch.as_tensor(rollouts.tokens.ids[i, :length])
        logits = policy(torch.cat([prompt_ids[i], ids])[None]).logits[0, -length - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, ids[:, None]).sum()
        row = torch.cat([g.flatten() for g in torch.autograd.grad(logp, list(policy.parameters()))])
        for k, half in sums.items():
            half[group % 2] = half[group % 2] + tables[k][i] * row / (2 * np.sum(groups % 2 == group % 2))
    following = {}
    for k, (a, b) in sums.items():
        p, q = sums["goal"]
        one, two = p @ b, q @ a
        if scale == "cosine":
            one, two = (x / n if n else x for x, n in ((one, p.norm() * b.norm()), (two, q.norm() * a.norm())))
        following[k] = max(0.0, used[k] + rate * (float(one + two) / 2 - decay * used[k]))
    return following, tables


@pytest.mark.parametrize(("micro", "scale"), [(64, "cosine"), (3, "cosine"), (64, "none")])
def test_the_weights_of_the_next_step_are_those_of_the_equation(toy, tmp_path, monkeypatch, micro, scale):
    seen = []

    def watch(job, experience, rollouts, scores):
        state = {name: value.clone() for name, value in job.policy.state_dict().items()}
        prompts = [ids[mask] for ids, mask in zip(experience.prompt_ids, experience.prompt_mask, strict=True)]
        seen.append((experience, rollouts, state, prompts))
        return reweigh(job, experience, rollouts, scores)

    monkeypatch.setattr(loop, "reweigh", watch)
    blend = {"primary": "goal", "learning_rate": 0.3, "decay": 0.1, "scale": scale}
    recipe = toy(
        blend, steps=3, batch={"prompts": 6, "micro": micro},
        method={
            "credit": CREDIT | {"weights": {"decoy": 0.5}}, "sampling": {"group": 8}, "kl": {"coefficient": 0.5},
            "entropy": 0.5,
        },
    )  # fmt: skip
    loop.train(recipe, tmp_path / "run")
    records = Run(tmp_path / "run").metrics()
    used = {"goal": 1.0, "hint": 1.0, "decoy": 0.5}
    policy, _ = build(recipe.policy, seed=0)
    for (experience, rollouts, state, prompts), record in zip(seen, records, strict=True):
        assert {k: record[f"weight/{k}"] for k in PATTERNS} == pytest.approx(used, rel=1e-4, abs=1e-6)
        policy.load_state_dict(state)
        following, tables = by_hand(rollouts, policy, prompts, used, rate=0.3, decay=0.1, scale=scale)
        blended = sum(used[k] * table for k, table in tables.items())
        np.testing.assert_allclose(experience.advantages, blended, rtol=1e-4, atol=1e-5)
        used = following
    assert used["decoy"] != pytest.approx(0.5, abs=0.02)
    assert last(tmp_path / "run").state["weights"] == pytest.approx(used, rel=1e-4, abs=1e-6)


def test_a_gradient_of_nothing_moves_no_weight_but_by_decay():
    nothing, something = torch.zeros(3), torch.ones(3)
    served = service({"p": nothing, "k": something}, {"p": nothing, "k": something}, primary="p", scale="cosine")
    assert served == {"p": 0.0, "k": 0.0}
    moved = updated({"p": 1.0, "k": -2.0}, served, Blend("p", learning_rate=0.1, decay=0.5, floor=None))
    assert moved == pytest.approx({"p": 0.95, "k": -1.9})
    free = Blend("p", learning_rate=1.0, decay=0.0, floor=None)
    assert updated({"k": 0.5}, {"k": -1.0}, free) == {"k": -0.5}
    assert updated({"k": 0.5}, {"k": -1.0}, replace(free, floor=0.1)) == {"k": 0.1}


# In a run


def test_a_misleading_part_loses_its_weight_and_the_primary_reward_is_won(toy, tmp_path):
    """Thrice a three is easier than two sevens, and excludes them: with weights of 1 the policy stays with threes."""
    changes = {
        "steps": 18, "batch": {"prompts": 6, "micro": 64}, "optimizer": {"learning_rate": 0.03},
        "keep": {"checkpoint_every": 100, "rollouts_every": 100},
    }  # fmt: skip
    group = {"sampling": {"group": 8}}
    loop.train(toy(None, group, **changes), tmp_path / "fixed")
    loop.train(toy({"primary": "goal", "learning_rate": 0.15}, group, **changes), tmp_path / "learned")
    fixed, learned = (Run(tmp_path / name).metrics() for name in ("fixed", "learned"))

    def won(records):
        return np.mean([record["parts"]["goal"] for record in records[-5:]])

    assert won(learned) > 0.8
    assert won(fixed) < 0.3
    assert learned[-1]["weight/decoy"] < 0.3
    assert learned[-1]["weight/hint"] > 0.9


def test_a_run_with_learned_weights_goes_on_bit_for_bit(toy, tmp_path, monkeypatch):
    recipe = toy({"primary": "goal", "learning_rate": 0.3}, steps=5)
    loop.train(recipe, tmp_path / "whole")
    stopped(monkeypatch, loop.train, recipe, tmp_path / "stopped", after=3)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    one, other = last(tmp_path / "stopped"), last(tmp_path / "whole")
    assert equal(one.weights, other.weights)
    assert one.state["weights"] == other.state["weights"] != dict.fromkeys(PATTERNS, 1.0)


def test_without_blend_nothing_is_learned_of_weights_and_nothing_is_said(toy, tmp_path):
    loop.train(toy(steps=1), tmp_path / "run")
    [record] = Run(tmp_path / "run").metrics()
    assert not any(name.startswith(("weight/", "service/")) for name in record)
    assert last(tmp_path / "run").state["weights"] == {}
    assert reweigh(SimpleNamespace(method=presets.grpo), None, None, None) == {}


# Weights that are given


def test_the_parts_of_a_sum_are_weighed_before_they_are_added():
    parts = {"a": Scores.of([1.0, 0.0, 0.0, 1.0]), "b": Scores.of([3.0, 1.0, 5.0, 5.0])}
    scores = Scores.of([0.0] * 4).with_values(np.zeros(4), parts=parts)
    rollouts = Rollouts(["x", "x", "y", "y"], ["", "", "", ""])
    centred = presets.load("grpo", credit=CENTRED).credit
    method = replace(presets.grpo, kl=presets.KL(), credit=Sum({"a": centred, "b": centred}, {"b": -0.5}))
    assert credited(method, rollouts, scores).tolist() == [0.5 - 0.5, -0.5 + 0.5, -0.5, 0.5]


def test_weights_are_written_and_read():
    credit = {"sum": {"a": "credit.group_relative", "b": "credit.group_relative"}, "weights": {"b": 2}}
    method = presets.load("grpo", credit=credit, blend={"primary": "a", "floor": None})
    assert method.credit.weights == {"b": 2.0}
    dumped = method.dump()
    assert dumped["credit"]["weights"] == {"b": 2.0}
    assert dumped["blend"] == {"primary": "a", "learning_rate": 0.05, "decay": 0.01, "floor": None, "scale": "cosine"}
    assert presets.load("dapo", **dumped) == method
    assert "weights" not in presets.prime.dump()["credit"][0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"c": 1}, "credit.weights: 'c' is no part of the sum"),
        ({"a": "much"}, "credit.weights"),
        ([1.0], "credit.weights: expected a mapping"),
    ],
)
def test_weights_of_nothing_are_refused(weights, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        presets.load("grpo", credit={"sum": {"a": "credit.group_relative"}, "weights": weights})


@pytest.mark.parametrize(
    ("blend", "changes", "message"),
    [
        ({"primary": "goal"}, {"method": {"credit": CENTRED}}, "method.blend: .* the credit is not a sum alone"),
        ({"primary": "goal"}, {"method": {"credit": [CREDIT, "credit.spread"]}}, "the credit is not a sum alone"),
        ({"primary": "gaol"}, {}, "method.blend.primary: the credit's sum has no part 'gaol'.*'goal'"),
        ({"primary": "goal"}, {"method": {"credit": {"sum": {"goal": CENTRED}}}}, "has one part"),
        ({"primary": "goal", "learning_rate": 0}, {}, "blend: .*learning_rate is above 0"),
        ({"primary": "goal", "decay": -1}, {}, "decay at least 0"),
        ({"primary": "goal", "scale": "sine"}, {}, "blend.scale"),
        ({"learning_rate": 0.1}, {}, "primary"),
        ({"primary": "goal"}, {"method": {"kl": {"coefficient": 0.1, "place": "reward"}}}, "method.kl.place"),
        (
            {"primary": "goal", "floor": 0.5},
            {"method": {"credit": CREDIT | {"weights": {"hint": 0.4}}}},
            "credit.weights.hint: it begins below method.blend.floor, 0.5",
        ),
        ({"primary": "goal"}, {"batch": {"prompts": 1}}, "batch.prompts is at least 2"),
        (
            {"primary": "goal"},
            {"method": {"objective": "objectives.rewards_as_labels"}},
            "method.blend: objectives.rewards_as_labels takes no advantages",
        ),
    ],
    ids=[
        "no sum",
        "behind",
        "unknown",
        "one",
        "rate",
        "decay",
        "scale",
        "no primary",
        "kl",
        "low",
        "one prompt",
        "objective",
    ],
)
def test_weights_that_cannot_be_learned_are_said_before_any_work(toy, blend, changes, message):
    with pytest.raises(RecipeError, match=message):
        toy(blend, **changes)
