"""A critic that an objective teaches: log Z of a GFlowNet, the values of B-Coder."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from stopping import Alone, equal, last, metrics, stopped

from guerdon.core import Rollouts, Scores, Tokens
from guerdon.objectives import dueling, recovered_rewards
from guerdon.train import checkpoint as checkpoints
from guerdon.train.language import learning, loop, writing
from guerdon.train.language.critic import Critic, targets
from guerdon.train.language.learning import learn
from guerdon.train.language.losses import Experience
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import PolicyConfig, build, completion_logits
from guerdon.train.language.tokenizer import pad
from guerdon.train.presets import load
from guerdon.train.prompts import PromptsConfig
from guerdon.train.run import Run

LENGTHS = torch.tensor([4, 2, 3, 1, 4])
PRESETS = ("gflownet_tb", "gflownet_db", "gflownet_subtb", "b_coder")
SHAPE = {"layers": 1, "hidden": 16, "heads": 2, "mlp": 32, "context": 12, "alphabet": "ab"}


def experience():
    """Two groups; the last rollout has no score."""
    generator = torch.Generator().manual_seed(0)
    there = torch.arange(4) < LENGTHS[:, None]
    return Experience(
        prompt_ids=torch.randint(3, 15, (5, 3), generator=generator),
        prompt_mask=torch.ones(5, 3, dtype=torch.bool),
        ids=torch.where(there, torch.randint(3, 15, (5, 4), generator=generator), 0),
        attended=there,
        mask=there & (torch.arange(5) < 4)[:, None],
        advantages=torch.zeros(5),
        groups=torch.tensor([0, 0, 1, 1, 1]),
        rewards=torch.tensor([1.0, 0.5, -1.0, 0.0, 9.0]),
    )


def read(model, data):
    """Logits, log-probabilities and hidden states before each token, row by row and without padding."""
    v, d = model.config.vocab_size, model.config.hidden_size
    logits, logp, hidden = torch.zeros(5, 4, v), torch.zeros(5, 4), torch.zeros(5, 4, d)
    for i, length in enumerate(LENGTHS.tolist()):
        found = model(torch.cat([data.prompt_ids[i], data.ids[i, :length]])[None], output_hidden_states=True)
        here = found.logits[0, 2:-1]
        at = (torch.full((length,), i), torch.arange(length))
        logits = logits.index_put(at, here)
        logp = logp.index_put(at, here.log_softmax(-1).gather(-1, data.ids[i, :length, None])[:, 0])
        hidden = hidden.index_put(at, found.hidden_states[-1][0, 2:-1])
    return logits, logp, hidden


def by_hand(preset, data, policy, reference, head):
    """The loss of all rows at once, with values of a linear head on detached states."""
    (logits, logp, hidden), frozen = read(policy, data), read(reference, data)[0].detach()
    values = hidden.detach() @ head["head.layers.0.weight"][0] + head["head.layers.0.bias"]
    if preset == "gflownet_tb":
        residual = values[:, 0] + torch.where(data.mask, logp, 0.0).sum(1) - data.rewards
        return (residual[:4] ** 2).mean()
    if preset.startswith("gflownet"):
        rows = []
        for i, length in enumerate(LENGTHS[:4].tolist()):
            flow = [*values[i, :length], data.rewards[i]]  # log F of every prefix; of the whole it is log R

            def squared(j, k, i=i, flow=flow):
                return (flow[j] + logp[i, j:k].sum() - flow[k]) ** 2

            pairs = [(j, k) for k in range(length + 1) for j in range(k)]
            weights = [0.9 ** (k - j) for j, k in pairs]
            parts = sum(w * squared(j, k) for w, (j, k) in zip(weights, pairs, strict=True)) / sum(weights)
            rows.append(sum(squared(t, t + 1) for t in range(length)) if preset == "gflownet_db" else parts)
        return sum(rows) / (LENGTHS[:4].sum() if preset == "gflownet_db" else 4)
    loss = 0.0
    for i in range(4):
        for t in range(LENGTHS[i]):
            a = logits[i, t, data.ids[i, t]] - logits[i, t].max()
            target = data.rewards[i]
            if t + 1 < LENGTHS[i]:
                following = logits[i, t + 1]
                target = (values[i, t + 1] + following[frozen[i, t + 1].argmax()] - following.max()).detach()
            loss = loss + (values[i, t] + a - target) ** 2 + a**2 - logp[i, t]
    return loss / LENGTHS[:4].sum()


def critic_of(config, policy):
    settings = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    own = config.load_model()
    trunk = None if own is None else build(own, seed=0)[0]
    return Critic(config, policy, trunk, settings, Accelerator(cpu=True), max_grad_norm=0.0, seed=3)


def setting(tiny, preset, **batch):
    of = tiny(
        method={"preset": preset, "sampling": {"group": 4}}, batch={"prompts": 2, **batch},
        critic={"hidden": [], "warmup": 0}, optimizer={"max_grad_norm": 0.0},
    )  # fmt: skip
    policy, tokenizer = build(of.policy, seed=1)
    reference, _ = build(of.policy, seed=2)
    return of, policy, {"reference": LanguageModel(reference, tokenizer)}, critic_of(of.critic, policy)


def update(of, policy, models, critic, data, accelerator=None):
    """The gradients that a step has in policy and critic, and what it reports."""
    model, optimizer = policy, torch.optim.SGD(policy.parameters(), lr=1.0)
    if accelerator is None:
        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(policy, optimizer)
    before = [p.detach().clone() for p in policy.parameters()]
    taught = []
    critic.update = lambda: taught.extend(p.grad.clone() for p in critic.module.parameters())
    schedule = SimpleNamespace(step=lambda: None)
    metrics = learn(
        data, of, of.load_method(), model, optimizer, schedule, accelerator, step=1, models=models, critic=critic
    )
    moved = [old - new.detach() for old, new in zip(before, policy.parameters(), strict=True)]
    for old, parameter in zip(before, policy.parameters(), strict=True):
        parameter.data.copy_(old)
    critic.module.zero_grad()
    return metrics, moved, taught


@pytest.mark.parametrize("micro", [1, 3, 64])
@pytest.mark.parametrize("preset", PRESETS)
def test_policy_and_critic_follow_the_gradient_of_one_loss(tiny, preset, micro):
    of, policy, models, critic = setting(tiny, preset, micro=micro)
    data = experience()
    metrics, moved, taught = update(of, policy, models, critic, data)
    head = {name: value.clone().requires_grad_() for name, value in critic.state_dict()["weights"].items()}
    loss = by_hand(preset, data, policy, models["reference"].model, head)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert "value_error" not in metrics
    expected = torch.autograd.grad(loss, [*policy.parameters(), *head.values()])
    assert max(float(gradient.abs().max()) for gradient in expected[-2:]) > 1e-2
    for found, gradient in zip([*moved, *taught], expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_mean_of_two_processes_gradients_is_that_of_one(tiny, preset, monkeypatch):
    of, policy, models, critic = setting(tiny, preset, micro=2)
    whole = update(of, policy, models, critic, experience())[1:]
    monkeypatch.setattr(learning, "gather", lambda accelerator, mine: [mine])
    first, second = (update(of, policy, models, critic, experience(), Alone(i))[1:] for i in (0, 1))
    for one, other, both in zip(*(policy + critic for policy, critic in (first, second, whole)), strict=True):
        torch.testing.assert_close((one + other) / 2, both, rtol=1e-4, atol=2e-5)


def test_values_are_not_read_at_sampling_and_have_no_targets():
    written = np.ones((2, 2), bool)
    rollouts = Rollouts(["1+1="] * 2, ["2", "3"], tokens=Tokens(np.full((2, 2), 4), written, written))
    assert targets(load("gflownet_tb"), rollouts, Scores.of([1.0, 0.0])) == {}


def files(folder, rows):
    """Prompts to train on and one to evaluate, as a recipe names them."""
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "test.jsonl").write_text(json.dumps({**rows[0], "prompt": "ab"}))
    return PromptsConfig(file=str(folder / "train.jsonl"), held_out_file=str(folder / "test.jsonl"))


@pytest.fixture
def small(tiny, tmp_path):
    """`small("gflownet_tb", rows, …)`: a policy of two letters on prompts of a file."""

    def build(preset, rows, **changes):
        method = {"preset": preset, **changes.pop("method", {})}
        accuracy = {"prompts": 1, "accuracy": "text.length"}
        of = tiny(method=method, evaluation=accuracy, **{"policy": {"from_config": SHAPE}, **changes})
        return replace(of, prompts=files(tmp_path, rows))

    return build


def trained(folder, of):
    """The policy and the critic as a run left them."""
    policy, _ = build(of.policy, seed=of.seed)
    end = checkpoints.latest(folder / "checkpoints")[0]
    checkpoints.restore(policy, end.weights)
    critic = critic_of(of.critic, policy)
    critic.load_state_dict(end.critic)
    return policy, critic


def rows_of(tokenizer, pairs):
    """Prompts and completions as tensors, as the loop has them."""
    prompts = pad([tokenizer(prompt).input_ids for prompt, _ in pairs], 0, side="left")
    return *prompts, *pad([ids for _, ids in pairs], 0, side="right")


def logp_of(policy, inputs):
    *_, ids, there = inputs
    logp = completion_logits(policy, *inputs).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return torch.where(there, logp, 0.0)


LINEAR = {"hidden": [], "start": "zero", "learning_rate": 0.05, "warmup": 0}
OWN = {"model": {"from_config": SHAPE}, "hidden": [32], "start": "zero", "learning_rate": 0.01, "warmup": 0}


@pytest.mark.parametrize(
    ("preset", "of_critic", "group", "steps"),
    [("gflownet_tb", LINEAR, 64, 70), ("gflownet_db", OWN, 48, 60), ("gflownet_subtb", OWN, 48, 60)],
    ids=["tb", "db", "subtb"],
)
def test_gflownet_writes_in_proportion_to_the_reward_and_log_z_is_the_log_of_their_sum(
    small, tmp_path, preset, of_critic, group, steps
):
    """All completions of up to two tokens, of two prompts: R = e^length at one, and 1 at the other.

    In proportion to the root of the reward the distance of the distributions would be 0.15, to its square 0.27.

    With log Z alone, only the first value is a flow; in balance at every edge, each is that of its prefix.
    """
    of = small(
        preset,
        [{"prompt": "a", "worth": 1.0}, {"prompt": "b", "worth": 0.0}],
        reward=[{"weigh": {"part": "text.length", "unit": "characters"}, "by": "worth"}],
        method={"sampling": {"group": group}},
        critic=of_critic,
        sampling={"max_tokens": 2},
        batch={"prompts": 2, "passes": 6, "micro": 64},
        optimizer={"learning_rate": 0.02, "schedule": "cosine"},
        keep={"checkpoint_every": 100, "rollouts_every": 100},
        steps=steps,
    )
    loop.train(of, tmp_path / "run")
    policy, critic = trained(tmp_path / "run", of)
    tokenizer = build(of.policy, seed=0)[1]
    end, v = tokenizer.eos_token_id, policy.config.vocab_size
    objects = [[end]] + [[x, y] for x in range(v) if x != end for y in range(v)]
    for prompt, worth in (("a", 1.0), ("b", 0.0)):
        inputs = rows_of(tokenizer, [(prompt, ids) for ids in objects])
        with torch.no_grad():
            chances = logp_of(policy, inputs).sum(1).exp()
        lengths = [len(tokenizer.decode(ids, skip_special_tokens=True)) for ids in objects]
        rewards = (worth * torch.tensor(lengths)).exp()
        assert chances.sum() == pytest.approx(1.0, abs=1e-4)
        assert 0.5 * (chances - rewards / rewards.sum()).abs().sum() < 0.13
        values = critic.values(*inputs)
        torch.testing.assert_close(values[:, 0], rewards.sum().log().expand(len(objects)), rtol=0, atol=0.3)
        for x in range(v) if preset != "gflownet_tb" else ():
            below = torch.tensor([len(ids) == 2 and ids[0] == x for ids in objects])
            flow = rewards[below].sum().log()
            torch.testing.assert_close(values[below, 1], flow.expand(int(below.sum())), rtol=0, atol=0.3)


OUTCOMES = {"a": "ab", "b": "ba", "ab": "bb", "ba": "aa"}


@pytest.mark.parametrize("preset", ["gflownet_db", "gflownet_subtb"])
def test_a_policy_is_taught_to_reach_the_outcome_that_its_prompt_states(small, tmp_path, preset):
    """In each group one completion that reaches it, and seven of the policy's own; the reward stands at every edge."""
    of = small(
        preset,
        [{"prompt": prompt, "answer": said, "reached": said} for prompt, said in OUTCOMES.items()],
        reward=[{"part": "text.exact"}],
        method={
            "objective": {"place": "edges", "kind": "floor", "floor": 0.01},
            "sampling": {"group": 8, "external": "reached"},
        },
        critic={**OWN, "learning_rate": 0.02},
        sampling={"max_tokens": 2},
        batch={"prompts": 4, "passes": 8, "micro": 32},
        optimizer={"learning_rate": 0.005, "schedule": "cosine", "max_grad_norm": 0.0},
        keep={"checkpoint_every": 100, "rollouts_every": 100},
        steps=45,
    )
    loop.train(of, tmp_path / "run")
    tokenizer = build(of.policy, seed=0)[1]
    inputs = rows_of(tokenizer, [(x, tokenizer(y, add_special_tokens=False).input_ids) for x, y in OUTCOMES.items()])
    models = build(of.policy, seed=of.seed)[0], trained(tmp_path / "run", of)[0]
    with torch.no_grad():
        before, after = (logp_of(model, inputs).sum(1).exp() for model in models)
    assert before.max() < 0.1
    assert after.min() > 0.7


PROGRAMS = {"a": ["a", "bb", "bba"], "b": ["aab", "b", "ba"]}


@pytest.fixture
def b_coder(small):
    """Programs of two prompts, worth their length in letters; only the Bellman error counts."""

    objective = {"discount": 0.5, "advantage": 0.0, "likelihood": 0.0}

    def build(group=2, warmup=5, **changes):
        return small(
            "b_coder",
            [{"prompt": prompt, "programs": programs} for prompt, programs in PROGRAMS.items()],
            reward=[{"part": "text.length", "unit": "characters"}],
            method={"sampling": {"group": group}, "objective": objective},
            sampling={"max_tokens": 6},
            **{"batch": {"prompts": 2, "passes": 6}, "critic": {"start": "zero", "warmup": warmup}, **changes},
        )

    return build


def taught(of, folder):
    """A policy that has learned to write the programs, the frozen model of the operator."""
    policy, tokenizer = build(of.policy, seed=0)
    inputs = rows_of(tokenizer, program_tokens(tokenizer))
    optimiser = torch.optim.Adam(policy.parameters(), 0.01)
    for _ in range(80):
        optimiser.zero_grad()
        (-logp_of(policy, inputs)[inputs[-1]].mean()).backward()
        optimiser.step()
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return policy, inputs


def program_tokens(tokenizer):
    end = [tokenizer.eos_token_id]
    return [
        (prompt, tokenizer(program, add_special_tokens=False).input_ids + end)
        for prompt, programs in PROGRAMS.items()
        for program in programs
    ]


def test_b_coder_learns_from_programs_alone_what_each_is_worth(b_coder, tmp_path, monkeypatch):
    """Nothing is sampled; where the Bellman error is small, the rewards that Q implies are those of the programs."""
    monkeypatch.setattr(writing, "generate", None)
    monkeypatch.setattr(loop, "evaluate", lambda job: {"accuracy": 0.0, "ci95": [0.0, 0.0], "mean_length": 0.0})
    wide = {"from_config": SHAPE | {"hidden": 32, "mlp": 64}}
    of = b_coder(
        group=3, policy=wide,
        critic={
            "model": wide, "hidden": [32], "start": "zero", "warmup": 5,
            "learning_rate": 0.005,
        },
        optimizer={"learning_rate": 0.005, "schedule": "cosine", "max_grad_norm": 0.0},
        keep={"checkpoint_every": 100, "rollouts_every": 100},
        steps=25,
    )  # fmt: skip
    frozen, inputs = taught(of, tmp_path / "base")
    of = replace(of, policy=PolicyConfig(path=str(tmp_path / "base")))
    loop.train(of, tmp_path / "run")
    errors = [record["bellman"] for record in Run(tmp_path / "run").metrics()]
    assert errors[-1] < 0.01 < 1.0 < errors[0]
    policy, critic = trained(tmp_path / "run", of)
    *_, ids, there = inputs
    with torch.no_grad():
        logits, likely = (completion_logits(model, *inputs) for model in (policy, frozen))
    values = critic.values(*inputs)
    q, greedy_q = dueling(logits, values, ids), dueling(logits, values, likely.argmax(-1))
    implied = recovered_rewards(q, greedy_q, there, discount=0.5).sum(1)
    worth = torch.tensor([float(len(program)) for programs in PROGRAMS.values() for program in programs])
    torch.testing.assert_close(implied, worth, rtol=0, atol=0.2)


def test_only_the_values_are_fitted_at_first(b_coder, tmp_path):
    of = b_coder(
        critic={"hidden": [], "start": "zero", "warmup": 2},
        steps=3,
        keep={"checkpoint_every": 1, "checkpoints": 9},
    )
    loop.train(of, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    ends = [
        [torch.load(folder / f"step-00000{n}" / f"{name}.pt", weights_only=True) for n in range(4)]
        for name in ("weights", "critic")
    ]
    still = [[torch.equal(a[name], b[name]) for name in a] for a, b in zip(ends[0], ends[0][1:], strict=False)]
    assert [all(same) for same in still] == [True, True, False]
    bias = [end["weights"]["head.layers.0.bias"].item() for end in ends[1]]
    assert bias[0] == 0.0
    assert len(set(bias)) == 4


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_that_teaches_a_critic_goes_on_bit_for_bit(b_coder, small, tmp_path, monkeypatch, preset):
    of = b_coder(warmup=1, steps=4)
    if preset != "b_coder":
        rows = [{"prompt": prompt} for prompt in "ab"]
        of = small(
            preset, rows, critic={"hidden": [4], "learning_rate": 0.05, "warmup": 1}, batch={"prompts": 2}, steps=4
        )
    loop.train(of, tmp_path / "whole")
    stopped(monkeypatch, loop.train, of, tmp_path / "stopped", after=2)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    ends = [last(tmp_path / name) for name in ("stopped", "whole")]
    assert equal(*(end.weights for end in ends))
    assert equal(*(end.critic["weights"] for end in ends))
