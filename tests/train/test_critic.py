"""A critic in the loop: what it reads, what it learns, and what is learned with it."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from stopping import equal, last, metrics, stopped

from guerdon.algebra import Learned
from guerdon.core import Rollouts, Scores, Spans, Tokens
from guerdon.core.errors import RecipeError
from guerdon.train import checkpoint as checkpoints
from guerdon.train.crediting import advantages
from guerdon.train.language import loop
from guerdon.train.language.critic import Critic, CriticConfig, states, targets
from guerdon.train.language.learning import learn
from guerdon.train.language.losses import Experience
from guerdon.train.language.policy import build
from guerdon.train.presets import load
from guerdon.train.recipe import Recipe
from guerdon.train.run import Run

CRITIC = {"hidden": [8], "learning_rate": 0.05, "warmup": 1}


@pytest.fixture
def recipe(tiny):
    """`recipe("ppo", critic={…})`: the tiny recipe with a method that reads a critic, and a small critic."""

    def build(preset="ppo", critic=None, method=None, **changes):
        return tiny(method={"preset": preset, **(method or {})}, critic=CRITIC | (critic or {}), **changes)

    return build


@pytest.fixture
def shape(tiny):
    return asdict(tiny().policy.from_config)


class Odd(Learned):
    """Steps of two characters, paid by their share of odd digits; it has nothing to learn."""

    name, range, floor, level = "odd", (0.0, 1.0), 0.0, "step"

    def measure(self, rollouts, context):
        rows = [[(at, min(at + 2, len(text))) for at in range(0, len(text), 2)] for text in rollouts.completions]
        spans = Spans.of(rows, unit="character")
        numbers = np.zeros(spans.mask.shape)
        for i, (text, row) in enumerate(zip(rollouts.completions, rows, strict=True)):
            numbers[i, : len(row)] = [sum(c in "13579" for c in text[b:e]) / (e - b) for b, e in row]
        return Scores(numbers, spans=spans)

    def update(self, rollouts, scores, context):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def critic_of(config, policy, trunk=None, seed=0):
    settings = {"betas": (0.9, 0.999), "eps": 1.0, "weight_decay": 0.0}
    return Critic(config, policy, trunk, settings, Accelerator(cpu=True), max_grad_norm=0.0, seed=seed)


def batch(critic=None):
    """Three rollouts of one prompt, padded on both sides of what is read."""
    generator = torch.Generator().manual_seed(0)
    there = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    data = {
        "prompt_ids": torch.randint(3, 15, (3, 4), generator=generator),
        "prompt_mask": torch.arange(4) >= torch.tensor([0, 2, 1])[:, None],
        "ids": torch.where(there, torch.randint(3, 15, (3, 5), generator=generator), 0),
        "attended": there,
    }
    more = {
        "mask": there,
        "advantages": torch.tensor([[1.0], [-0.5], [0.3]]) * there,
        "values": torch.randn(3, 5, generator=generator),
        "targets": torch.randn(3, 5, generator=generator),
        "valued": there & (torch.arange(5) % 2 == 0),
    }
    return Experience(**data, **more)


def inputs(data):
    return data.prompt_ids, data.prompt_mask, data.ids, data.attended


def test_a_value_is_read_from_the_state_before_its_token(tiny):
    """The first from the last token of the prompt, as in VL-DAC."""
    policy, _ = build(tiny().policy, seed=1)
    data = batch()
    found = states(policy, *inputs(data))
    for i in range(3):
        prompt, ids = data.prompt_ids[i][data.prompt_mask[i]], data.ids[i][data.attended[i]]
        hidden = policy.model(torch.cat([prompt, ids])[None]).last_hidden_state[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(found[i, : len(ids)], hidden, rtol=1e-4, atol=1e-5)


def test_values_do_not_depend_on_how_rows_are_cut_and_are_0_on_padding(tiny):
    policy, _ = build(tiny().policy, seed=1)
    data = batch()
    whole, cut = (critic_of(CriticConfig(hidden=(8,), micro=micro), policy).values(*inputs(data)) for micro in (9, 2))
    torch.testing.assert_close(whole, cut)
    assert (whole[~data.attended] == 0).all()
    assert (whole[data.attended] != 0).all()


def test_vl_dac_head_is_linear_relu_linear_on_detached_states(tiny):
    policy, _ = build(tiny().policy, seed=1)
    critic = critic_of(CriticConfig(hidden=(8,)), policy)
    weights = critic.state_dict()["weights"]
    a, b, c, d = (weights[f"head.layers.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    data = batch()
    hidden = states(policy, *inputs(data)).detach()
    expected = (torch.relu(hidden @ a.T + b) @ c.T + d)[..., 0]
    torch.testing.assert_close(critic.values(*inputs(data)), torch.where(data.attended, expected, 0.0))
    critic.backward(data, data)
    assert all(p.grad is None for p in policy.parameters())


@pytest.mark.parametrize("clip", [0.1, None])
def test_the_critic_follows_the_gradient_of_its_loss_however_rows_are_cut(tiny, clip):
    policy, _ = build(tiny().policy, seed=1)
    data = batch()
    steps = []
    for micro in (1, 3):
        critic = critic_of(CriticConfig(hidden=(8,), clip=clip, learning_rate=0.05), policy)
        before = {name: value.clone() for name, value in critic.state_dict()["weights"].items()}
        for at in range(0, 3, micro):
            critic.backward(data.select(slice(at, at + micro)), data)
        critic.update()
        after = critic.state_dict()["weights"]
        steps.append({name: after[name] - before[name] for name in before})
    named = {name: value.requires_grad_() for name, value in before.items()}
    hidden = states(policy, *inputs(data)).detach()
    layers = [named[f"head.layers.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias")]
    values = (torch.relu(hidden @ layers[0].T + layers[1]) @ layers[2].T + layers[3])[..., 0]
    errors = (values - data.targets) ** 2
    if clip is not None:
        held = data.values + (values - data.values).clamp(-clip, clip)
        errors = torch.maximum(errors, (held - data.targets) ** 2)
    loss = 0.5 * errors[data.valued].mean()
    for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
        # The first step of Adam: its moments are the gradient and its square.
        expected = -0.05 * gradient / (gradient.abs() + 1.0)
        for step in steps:
            torch.testing.assert_close(step[name], expected, rtol=1e-4, atol=1e-6)


def rollouts_of(values, n=2, t=4):
    written = np.ones((n, t), bool)
    written[0, 3] = False
    tokens = Tokens(np.full((n, t), 4), written, written, logp=np.zeros((n, t)), values=np.asarray(values, np.float32))
    return Rollouts(["1+1="] * n, ["2222"] * n, tokens=tokens)


def test_ppo_advantages_and_targets_are_generalised_advantages_over_tokens():
    values = [[0.5, 0.25, 1.0, 9.0], [0.0, 0.5, 0.5, 0.25]]
    rollouts, scores = rollouts_of(values), Scores.of([2.0, -1.0])
    method = load("ppo", kl={"coefficient": 0.0})
    expected = torch.zeros(2, 4)
    for i, (length, reward) in enumerate(((3, 2.0), (4, -1.0))):
        gae = 0.0
        for t in range(length - 1, -1, -1):
            following = values[i][t + 1] if t + 1 < length else 0.0
            gae = (reward if t == length - 1 else 0.0) + following - values[i][t] + 0.95 * gae
            expected[i, t] = gae
    there = torch.as_tensor(rollouts.tokens.written)
    found = targets(method, rollouts, scores)
    torch.testing.assert_close(found["targets"][there], (expected + torch.tensor(values))[there])
    assert torch.equal(found["valued"], there)
    whitened = (expected - expected[there].mean()) / expected[there].std()
    made = advantages(method.credit, rollouts, scores)
    torch.testing.assert_close(made[there].float(), whitened[there], rtol=1e-4, atol=1e-5)


def test_vl_dac_worked_chain_reads_the_value_before_each_step():
    """r = (0, 1) and V = 0 give (0.9 · 0.95, 1); a value before a step moves that step, and the one before it."""
    method = load("vl_dac", credit=[{"part": "credit.returns", "kind": "gae", "gamma": 0.9, "lam": 0.95}])
    spans = Spans.of([[(0, 2), (2, 3)], [(0, 1), (1, 4)]], unit="token")
    scores = Scores(np.array([[0.0, 1.0], [0.0, 1.0]]), spans=spans)
    rollouts = rollouts_of([[0.0, 7.0, 0.0, 7.0], [0.5, 0.25, 7.0, 7.0]])
    made = advantages(method.credit, rollouts, scores)
    second = 1 - 0.25
    first = 0.9 * 0.25 - 0.5 + 0.9 * 0.95 * second
    torch.testing.assert_close(
        made, torch.tensor([[0.855, 0.855, 1.0, 0.0], [first, second, second, second]]), check_dtype=False
    )
    found = targets(method, rollouts, scores)
    assert found["valued"].tolist() == [[True, False, True, False], [True, True, False, False]]
    torch.testing.assert_close(
        found["targets"][found["valued"]], torch.tensor([0.855, 1.0, first + 0.5, second + 0.25])
    )


def test_a_rollout_without_a_score_is_no_target():
    found = targets(load("ppo", kl={"coefficient": 0.0}), rollouts_of(np.zeros((2, 4))), Scores.of([None, 1.0]))
    assert found["valued"].any(1).tolist() == [False, True]


def watched(monkeypatch):
    """What a run learns from, step by step, and the policy's weights before each."""
    seen = []

    def watch(data, of, method, model, *rest, **options):
        seen.append((data, {name: p.detach().clone() for name, p in model.named_parameters()}))
        return learn(data, of, method, model, *rest, **options)

    monkeypatch.setattr(loop, "learn", watch)
    return seen


def test_only_the_critic_learns_while_it_warms_up(recipe, tmp_path, monkeypatch):
    seen = watched(monkeypatch)
    loop.train(recipe(steps=3, critic={"warmup": 2}, keep={"checkpoint_every": 1, "checkpoints": 9}), tmp_path / "run")
    (_, a), (_, b), (_, c) = seen
    assert all(torch.equal(a[name], b[name]) and torch.equal(a[name], c[name]) for name in a)
    folder = tmp_path / "run" / "checkpoints"
    ends = {n: torch.load(folder / f"step-00000{n}" / "critic.pt", weights_only=True) for n in (0, 1, 2, 3)}
    assert not torch.equal(ends[0]["weights"]["head.layers.0.weight"], ends[1]["weights"]["head.layers.0.weight"])
    last = checkpoints.latest(folder)[0].weights
    assert any(not torch.equal(last[name], c[name]) for name in c)


def test_the_values_that_are_read_are_those_of_the_critic_at_sampling(recipe, tmp_path, monkeypatch):
    seen = watched(monkeypatch)
    of = recipe(steps=1, critic={"warmup": 0})
    loop.train(of, tmp_path / "run")
    [(data, _)] = seen
    policy, _ = build(of.policy, seed=of.seed)
    config = of.critic
    expected = critic_of(config, policy, seed=of.seed).values(*inputs(data))
    torch.testing.assert_close(data.values, expected, rtol=1e-4, atol=1e-5)
    assert set(data.advantages[data.mask].tolist()) != {0.0}


@pytest.mark.parametrize("own", [False, True])
def test_a_critic_learns_what_to_expect(recipe, tmp_path, own, shape):
    model = {"from_config": shape | {"hidden": 32}} if own else None
    of = recipe(
        steps=20, critic={"warmup": 20, "model": model, "learning_rate": 0.01, "clip": None},
        optimizer={"eps": 1e-8}, keep={"checkpoint_every": 100},
    )  # fmt: skip
    loop.train(of, tmp_path / "run")
    errors = [record["value_error"] for record in Run(tmp_path / "run").metrics()]
    assert np.mean(errors[-5:]) < 0.5 * errors[0]


@pytest.mark.parametrize("own", [False, True])
def test_a_run_with_a_critic_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch, own, shape):
    model = {"from_config": shape} if own else None
    of = recipe(steps=5, critic={"model": model}, batch={"passes": 2}, optimizer={"schedule": "linear"})
    loop.train(of, tmp_path / "whole")
    stopped(monkeypatch, loop.train, of, tmp_path / "stopped", after=3)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    ends = [last(tmp_path / name) for name in ("stopped", "whole")]
    assert equal(*(end.weights for end in ends))
    assert equal(*(end.critic["weights"] for end in ends))


def test_a_critic_of_other_tokens_is_refused(recipe, tmp_path, shape):
    of = recipe(critic={"model": {"from_config": shape | {"alphabet": "0123456789+-=;# x"}}})
    with pytest.raises(RecipeError, match=r"critic\.model: its tokens are not the policy's"):
        loop.train(of, tmp_path / "run")
    assert not Run(tmp_path / "run").metrics()


def vl_dac_of(data):
    """VL-DAC's advantages of what the loop learns from, step by step from its tokens and values."""
    rows = []
    for i in range(len(data)):
        text, begins, steps = "", [], []
        for t in torch.nonzero(data.attended[i]).flatten().tolist():
            if data.ids[i, t] >= 3:  # 0 to 2 are special, and no character of the text
                if len(text) % 2 == 0:
                    begins.append(t)
                text += "0123456789+-=;# "[int(data.ids[i, t]) - 3]
            steps.append(len(begins) - 1)
        rewards = [np.mean([c in "13579" for c in text[k : k + 2]]) for k in range(0, len(text), 2)]
        values = [float(data.values[i, t]) for t in begins]
        gae, found = 0.0, [0.0] * len(begins)
        for k in reversed(range(len(begins))):
            following = values[k + 1] if k + 1 < len(begins) else 0.0
            gae = rewards[k] + 0.9 * following - values[k] + 0.9 * 0.95 * gae
            found[k] = gae
        rows.append((found, steps))
    every = [a for found, _ in rows for a in found]
    mean, variance = np.mean(every), np.var(every, ddof=1)
    table = torch.zeros(data.ids.shape)
    for i, (found, steps) in enumerate(rows):
        for t, k in enumerate(steps):
            table[i, t] = (found[k] - mean) / (variance + 1e-8) ** 0.5 if k >= 0 else 0.0
    return table


def test_vl_dac_end_to_end_follows_its_equations(recipe, tmp_path, monkeypatch):
    """Warm-up, then the first update of the policy: values, GAE over steps, one scale, all tokens of a step."""
    monkeypatch.setattr(Recipe, "load_reward", lambda self, allow_import=False: Odd())
    seen = watched(monkeypatch)
    plain = {"eps": 1.0, "learning_rate": 0.5, "max_grad_norm": 0.0}
    of = recipe(
        "vl_dac", critic={"warmup": 1}, method={"kl": {"coefficient": 0.04}}, optimizer=plain, steps=2,
        batch={"micro": 3}, max_abstain=1.0, keep={"checkpoint_every": 1},
    )  # fmt: skip
    loop.train(of, tmp_path / "run")
    (_, first), (data, second) = seen
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert 0 < int(data.valued.sum()) < int(data.mask.sum())
    torch.testing.assert_close(data.advantages, vl_dac_of(data), rtol=1e-4, atol=1e-5)

    policy, _ = build(of.policy, seed=of.seed)
    loss = 0.0
    for i in range(len(data)):
        prompt, ids = data.prompt_ids[i][data.prompt_mask[i]], data.ids[i][data.attended[i]]
        logits = policy(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        # The reference is the policy still, where k3 is 0 and has no gradient; all ratios are 1.
        loss = loss - (data.advantages[i, : len(ids)] * data.mask[i, : len(ids)] * logp).sum() / data.mask.sum()
    names, before = zip(*policy.named_parameters(), strict=True)
    after = checkpoints.latest(tmp_path / "run" / "checkpoints")[0].weights
    for name, old, gradient in zip(names, before, torch.autograd.grad(loss, before), strict=True):
        # The first step of Adam: its moments are the gradient and its square.
        moved = old - 0.5 * gradient / (gradient.abs() + 1.0)
        torch.testing.assert_close(after[name], moved.detach(), rtol=1e-4, atol=1e-6)
