"""Objectives that read more than advantages: the loop's update against the objective called by hand."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from stopping import Alone, metrics

from guerdon.core import Rollouts, Scores, Tokens
from guerdon.core.errors import RecipeError
from guerdon.objectives import (
    adaptive_distillation,
    decoupled_reward,
    denominator,
    extrapolated_advantages,
    extrapolated_policy_gradient,
    hybrid_policy_gradient,
    kl_hinge,
    policy_gradient,
    rewards_as_labels,
)
from guerdon.train.language import learning, loop
from guerdon.train.language.learning import learn
from guerdon.train.language.losses import Experience, read_from, readable_rows
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import build
from guerdon.train.presets import load
from guerdon.train.prompts import PromptsConfig
from guerdon.train.run import Run

LENGTHS = torch.tensor([5, 2, 4, 3, 1, 5, 2, 3])
LIMIT = 8


@pytest.fixture
def recipe(tiny):
    """`recipe("real", micro=3)`: the tiny recipe with a preset in groups of 4, two models and plain descent."""

    def build(preset="real", micro=64, passes=1, minibatches=1, models=None, changes=None, **more):
        shape = asdict(tiny().policy.from_config)
        others = {"teacher": {"from_config": shape | {"layers": 2}}, "anchor": {"from_config": shape | {"mlp": 48}}}
        if preset == "balance":
            preset, balance = "real", {"part": "objectives.reward_balance", "temperature": 0.5}
            changes = {"objective": balance, "reads": {"ref_logp": "reference"}}
        batch = {"micro": micro, "passes": passes, "minibatches": minibatches, "prompts": 2}
        return tiny(
            method={"preset": preset, **(changes or {})},
            models=others if models is None else models,
            batch=batch,
            optimizer={"max_grad_norm": 0.0},
            **more,
        )

    return build


def experience():
    """Two groups that take turns, both with right and wrong rollouts; the last rollout has no score."""
    generator = torch.Generator().manual_seed(0)
    there = torch.arange(5) < LENGTHS[:, None]
    return Experience(
        prompt_ids=torch.randint(3, 15, (8, 3), generator=generator),
        prompt_mask=torch.ones(8, 3, dtype=torch.bool),
        ids=torch.where(there, torch.randint(3, 15, (8, 5), generator=generator), 0),
        attended=there,
        mask=there & (torch.arange(8) < 7)[:, None],
        advantages=torch.tensor([1.5, -0.5, 0.0, -2.0, 0.7, 0.3, -1.0, 0.0]),
        ref_logp=-2 - torch.rand(8, 5, generator=generator),
        groups=torch.tensor([7, 3, 7, 3, 3, 7, 3, 7]),
        labels=torch.tensor([1, 1, 0, 0, 1, 0, 0, 1]).bool(),
        preference=1 - LENGTHS / LIMIT,
        rewards=torch.tensor([1.0, 0.5, -1.0, 0.0, 2.0, 0.25, 0.0, 9.0]),
        sampler_logp=-2 - torch.rand(8, 5, generator=generator),
        external=there & (torch.arange(8) % 4 == 3)[:, None],
    )


def read(model, data, gradients=False, temperature=1.0):
    """Logits and log-probabilities of each token, row by row and without padding."""
    logits = torch.zeros(*data.ids.shape, model.config.vocab_size)
    logp = torch.zeros(data.ids.shape)
    with torch.set_grad_enabled(gradients):
        for i, length in enumerate(data.attended.sum(1).tolist()):
            here = model(torch.cat([data.prompt_ids[i], data.ids[i, :length]])[None]).logits[0, 2:-1] / temperature
            chosen = here.log_softmax(-1).gather(-1, data.ids[i, :length, None])[:, 0]
            at = (torch.full((length,), i), torch.arange(length))
            logits, logp = logits.index_put(at, here), logp.index_put(at, chosen)
    return logits, logp


def named(of):
    return {name: LanguageModel(*build(config, seed=3)) for name, config in of.load_models().items()}


def update(of, data, models=None, accelerator=None, seed=1):
    """What a step of gradient descent at rate 1 takes from each weight, and what the step reports."""
    policy, _ = build(of.policy, seed=seed)
    before = [p.detach().clone() for p in policy.parameters()]
    model, optimizer = policy, torch.optim.SGD(policy.parameters(), lr=1.0)
    if accelerator is None:
        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(policy, optimizer)
    schedule = SimpleNamespace(step=lambda: None)
    metrics = learn(data, of, of.load_method(), model, optimizer, schedule, accelerator, step=1, models=models)
    return metrics, [old - new.detach() for old, new in zip(before, policy.parameters(), strict=True)]


def by_hand(preset, logits, logp, data, models):
    """The loss of the whole batch at once, for the first update on it."""
    mask, groups, old = data.mask, data.groups, logp.detach()
    if preset == "real":
        return rewards_as_labels(logp, old, data.labels, mask, groups=groups)[0]
    if preset == "drpo":
        return decoupled_reward(logp, data.labels, mask, groups=groups, preference=data.preference)[0]
    if preset == "balance":
        zeta = torch.where(mask, logp - data.ref_logp, 0.0).sum(1) - data.rewards / 0.5
        parts = [zeta[(groups == g) & mask.any(1)] for g in (3, 7)]
        return sum(((part - part.mean().detach()) ** 2).sum() for part in parts) / 7
    if preset == "group_dpo":
        d, groups_losses = torch.where(mask, logp - data.ref_logp, 0.0).sum(1), []
        for g in (3, 7):
            rows = [i for i in range(7) if groups[i] == g]
            pairs = [(i, j) for i in rows for j in rows if data.rewards[i] > data.rewards[j]]
            terms = [-torch.nn.functional.logsigmoid(0.1 * (d[i] - d[j])) for i, j in pairs]
            groups_losses.append(sum(terms) / len(terms))
        return sum(groups_losses) / 2
    if preset == "rl_plus":
        entropy = -(logits.log_softmax(-1) * logits.softmax(-1)).sum(-1)
        D = denominator(mask, "constant", length=LIMIT)
        return hybrid_policy_gradient(
            logp, old, data.advantages, mask, external=data.external, kl=-0.001 * entropy, denominator=D
        )[0]
    (target, target_logp), (anchor, _) = (read(models[name].model, data) for name in ("teacher", "anchor"))
    if preset == "aligndistil":
        return adaptive_distillation(logits, target, anchor, mask)[0]
    cap = (old - data.sampler_logp).exp().clamp(max=5.0)
    if preset == "opd":
        return policy_gradient(logp, old, target_logp - old, mask, off_policy=cap)[0]
    assert preset == "exopd"
    far = 1.25 * (target_logp - data.ref_logp) - (old - data.ref_logp)
    return policy_gradient(logp, old, far, mask, off_policy=cap)[0]


PRESETS = ["real", "drpo", "balance", "group_dpo", "rl_plus", "opd", "exopd", "aligndistil"]


@pytest.mark.parametrize("micro", [1, 3, 64])
@pytest.mark.parametrize("preset", PRESETS)
def test_an_update_is_the_gradient_of_the_objective_called_by_hand(recipe, preset, micro):
    of, data = recipe(preset, micro), experience()
    models = named(of)
    metrics, moved = update(of, data, models)
    policy, _ = build(of.policy, seed=1)
    logits, logp = read(policy, data, gradients=True)
    loss = by_hand(preset, logits, logp, data, models)
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    gradients = torch.autograd.grad(loss, list(policy.parameters()))
    assert max(float(g.abs().max()) for g in gradients) > 1e-3
    for change, gradient in zip(moved, gradients, strict=True):
        torch.testing.assert_close(change, gradient, rtol=1e-4, atol=2e-6)


def test_all_models_are_read_at_the_temperature_of_sampling(recipe):
    of, data = recipe("aligndistil", sampling={"temperature": 0.5}), experience()
    models = named(of)
    metrics, _ = update(of, data, models)
    policy, _ = build(of.policy, seed=1)
    read_of = [
        read(model, data, temperature=0.5)[0] for model in (policy, models["teacher"].model, models["anchor"].model)
    ]
    assert metrics["loss"] == pytest.approx(adaptive_distillation(*read_of, data.mask)[0].item(), rel=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_mean_of_two_processes_gradients_is_that_of_one(recipe, preset, monkeypatch):
    of, data = recipe(preset, micro=3), experience()
    models = named(of)
    alone, whole = update(of, data, models)
    monkeypatch.setattr(learning, "gather", lambda accelerator, mine: [mine])
    (first, a), (second, b) = (update(of, data, models, Alone(index)) for index in (0, 1))
    assert (first["loss"] + second["loss"]) / 2 == pytest.approx(alone["loss"], abs=1e-5)
    for one, other, both in zip(a, b, whole, strict=True):
        torch.testing.assert_close((one + other) / 2, both, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("micro", [1, 5, 64])
def test_groups_stay_whole_in_every_minibatch_and_micro_batch(recipe, micro, monkeypatch):
    seen = []

    def watched(part, *rest, **options):
        seen.append((sorted(part.groups.tolist()), sorted(set(rest[3].groups.tolist()))))
        return loss(part, *rest, **options)

    loss = learning.loss
    monkeypatch.setattr(learning, "loss", watched)
    update(recipe("real", micro, passes=2, minibatches=2), experience())
    assert len(seen) == 4
    assert all(groups == [whole[0]] * 4 for groups, whole in seen)
    assert {whole[0] for _, whole in seen} == {3, 7}


def test_the_constraint_of_drpo_is_that_of_the_whole_minibatch_however_it_is_cut(recipe):
    data = experience()
    settings = {"objective": {"sharpness": 0.5}, "constraint": {"limit": 1e-6, "coefficient": 50.0}}
    metrics, moved = update(recipe("drpo", 4, passes=2, changes=settings), data)
    policy, _ = build(recipe().policy, seed=1)
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    before = [p.detach().clone() for p in policy.parameters()]
    old, losses = read(policy, data)[1], []
    for _ in range(2):
        logp = read(policy, data, gradients=True)[1]
        loss = decoupled_reward(
            logp, data.labels, data.mask, groups=data.groups, preference=data.preference, sharpness=0.5
        )[0]
        distance = (old - logp)[data.mask].mean()
        loss = loss + 25.0 * torch.relu(distance - 1e-6) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert distance > 1e-3  # the wall was in force
    assert metrics["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    for old_weight, new, change in zip(before, policy.parameters(), moved, strict=True):
        torch.testing.assert_close(change, old_weight - new.detach(), rtol=1e-3, atol=1e-5)


def test_the_share_of_groups_with_both_labels_is_reported(recipe):
    data = experience()
    data.labels[data.groups == 3] = True
    metrics, _ = update(recipe("real", 4), data)
    assert metrics["kept"] == 0.5
    assert "groups" not in metrics


def test_the_share_of_pairs_in_their_order_is_reported(recipe):
    """Pairs are counted over all micro-batches, and are no mean over tokens."""
    data = experience()
    metrics, _ = update(recipe("group_dpo", 4), data)
    policy, _ = build(recipe("group_dpo").policy, seed=1)
    d = torch.where(data.mask, read(policy, data)[1] - data.ref_logp, 0.0).sum(1)
    rows = range(7)
    pairs = [
        (i, j) for i in rows for j in rows if data.groups[i] == data.groups[j] and data.rewards[i] > data.rewards[j]
    ]
    assert metrics["right"] == pytest.approx(np.mean([bool(d[i] > d[j]) for i, j in pairs]))
    assert "pairs" not in metrics


def test_rows_without_an_advantage_are_learned_from_where_the_objective_reads_none(recipe):
    of, data, none = recipe("opd"), experience(), experience()
    none.advantages[:] = 0.0
    models = named(of)
    for one, other in zip(update(of, data, models)[1], update(of, none, models)[1], strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_cut_by_micro_batches_of_their_own_is_the_mean_of_their_losses(recipe):
    data = experience()
    models = named(of := recipe("opd", micro=4, changes={"denominator": "micro-batch"}))
    metrics, _ = update(of, data, models)
    policy, _ = build(of.policy, seed=1)
    old, teacher = read(policy, data)[1], read(models["teacher"].model, data)[1]
    halves = []
    for rows in (slice(0, 4), slice(4, 8)):
        terms = ((old - teacher) * (old - data.sampler_logp).exp().clamp(max=5.0))[rows][data.mask[rows]]
        halves.append(terms.mean().item())
    assert metrics["loss"] == pytest.approx(sum(halves) / 2, abs=1e-5)


def test_extrapolated_policy_gradient_is_the_two_together():
    torch.manual_seed(0)
    logp, old, teacher, ref = (-torch.rand(2, 4) - 0.1 for _ in range(4))
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    loss, sums = extrapolated_policy_gradient(logp, old, teacher, mask, ref_logp=ref, strength=2.0)
    advantages = 2.0 * (teacher - ref) - (old - ref)
    assert loss.item() == pytest.approx(policy_gradient(logp, old, advantages, mask)[0].item(), abs=1e-6)
    assert sums["teacher_advantage"].item() == pytest.approx(advantages[mask].sum().item(), abs=1e-5)
    assert torch.equal(extrapolated_advantages(old, teacher, mask), torch.where(mask, teacher - old, 0.0))


@pytest.mark.parametrize("contrast", [True, False])
def test_adaptive_distillation_is_its_definition_token_by_token(contrast):
    torch.manual_seed(0)
    logits, teacher, anchor = (torch.randn(2, 3, 6) for _ in range(3))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    anchor[0, 2] = torch.nan
    loss, sums = adaptive_distillation(logits, teacher, anchor, mask, contrast=contrast, slope=2.0, floor=0.5, beta=0.3)
    rows = []
    for i in range(2):
        terms = []
        for t in torch.nonzero(mask[i]).flatten().tolist():
            p, q = teacher[i, t].softmax(0), anchor[i, t].softmax(0)
            w = 2.0 * (p - q).abs().sum() + 0.5
            z = (
                teacher[i, t] + w * (teacher[i, t] - anchor[i, t])
                if contrast
                else w * teacher[i, t] + (1 - w) * anchor[i, t]
            )
            ours = logits[i, t].softmax(0)
            terms.append(0.3 / w * (ours * (ours.log() - z.log_softmax(0))).sum())
        rows.append(torch.stack(terms).mean())
    assert loss.item() == pytest.approx(torch.stack(rows).mean().item(), abs=1e-5)
    assert sums["tokens"] == 3


def test_parts_of_a_hinge_add_up_to_it_in_value_and_gradient():
    torch.manual_seed(0)
    logp = (-torch.rand(4, 3) - 1).requires_grad_()
    old, mask = torch.full((4, 3), -1.0), torch.tensor([[True, True, False]] * 4)
    whole = kl_hinge(logp, old, mask, limit=0.1, coefficient=7.0)
    mean, count = (old - logp)[mask].mean().item(), int(mask.sum())
    parts = sum(
        kl_hinge(logp[rows], old[rows], mask[rows], limit=0.1, coefficient=7.0, mean=mean, denominator=count)
        for rows in (slice(0, 1), slice(1, 4))
    )
    assert parts.item() == pytest.approx(whole.item(), rel=1e-5)
    assert whole > 0.1
    gradients = [torch.autograd.grad(x, logp)[0] for x in (whole, parts)]
    torch.testing.assert_close(*gradients)
    with pytest.raises(ValueError, match="the KL of the whole and"):
        kl_hinge(logp, old, mask, mean=0.1)


@pytest.mark.parametrize(
    ("preset", "changes", "more", "message"),
    [
        ("opd", {}, {"models": {}}, "from a model 'teacher', which the recipe does not have; it has: ref"),
        ("aligndistil", {}, {"models": {"teacher": "policy"}}, "reads 'anchor' from a model 'anchor'"),
        ("exopd", {"reads": {}}, {}, "strength 1.25 says how far to go from a reference"),
        ("exopd", {"reads": {"ref_logp": "bass"}}, {}, "from a model 'bass'"),
        ("real", {"reads": {"label": "x"}}, {}, "reads.label: .*did you mean 'labels'"),
        ("real", {"reads": {"labels": "rite"}}, {}, "reads.labels: the reward has no part 'rite'"),
        ("real", {"kl": {"coefficient": 0.1}}, {}, "kl: objectives.rewards_as_labels takes no penalty"),
        ("real", {"entropy": 0.1}, {}, "entropy: objectives.rewards_as_labels takes no penalty"),
        ("real", {"objective": {"temperature": 0}}, {}, "temperature must be above 0"),
        ("real", {"objective": "objectives.conservative_targets"}, {}, "'greedy_q', which the loop does not have"),
        ("real", {"objective": "objectives.explorative"}, {}, "objectives.explorative is no loss"),
        ("b_coder", {}, {}, "'values' from a model 'critic', which the recipe does not have.*Add critic: {}"),
        ("gflownet_tb", {}, {}, "'values' from a model 'critic', which the recipe does not have.*Add critic: {}"),
        ("gflownet_tb", {"reads": {}}, {"critic": {}}, "critic: nothing reads its values"),
        ("gflownet_tb", {"reads": {"values": "teacher"}}, {}, "reads.values: 'values' are read from 'critic'"),
        ("exopd", {"reads": {"ref_logp": "critic"}}, {"critic": {}}, "reads.ref_logp: 'values' are read from 'critic'"),
        ("real", {"reads": {"values": "critic"}}, {"critic": {}}, "reads.values: not among what objectives.rewards_as"),
        (
            "gflownet_tb",
            {"credit": ["credit.spread", {"part": "credit.returns", "kind": "gae"}]},
            {"critic": {}},
            "credit and objective both read its values",
        ),
        ("real", {}, {"models": {"critic": "policy"}}, "models.critic: the run has a model of that name itself"),
        ("gflownet_db", {}, {}, "'values' from a model 'critic', which the recipe does not have.*Add critic: {}"),
        ("gflownet_db", {"objective": {"floor": 0}}, {"critic": {}}, "temperature and floor must be above 0"),
        ("gflownet_subtb", {"objective": {"decay": 2}}, {"critic": {}}, r"decay must be in \(0, 1\]"),
        ("gflownet_tb", {"objective": {"temperature": 0}}, {"critic": {}}, "temperature and floor must be above 0"),
        ("b_coder", {"objective": {"discount": 2}}, {"critic": {}}, r"discount must be in \[0, 1\]"),
        ("drpo", {"constraint": "objectives.kl_penalty"}, {}, "kl_penalty is no constraint"),
        ("rl_plus", {"sampling": {"external": None}}, {}, "reads 'external'.*method.sampling.external"),
        ("ppo", {}, {}, "reads the values of a critic, and the recipe has none"),
        ("real", {}, {"critic": {}}, "critic: nothing reads its values"),
        ("ppo", {}, {"critic": {"warmup": -1}}, "warmup at least 0"),
        ("ppo", {}, {"critic": {"model": {"pth": "x"}}}, "critic.model"),
        ("real", {}, {"minibatches": 3}, "compares whole groups, and 2 of them do not divide into 3"),
    ],
)  # fmt: skip
def test_what_an_objective_lacks_is_said_before_any_work(recipe, preset, changes, more, message):
    with pytest.raises(RecipeError, match=message):
        recipe(preset, changes=changes, **more)


@pytest.fixture
def learned(monkeypatch):
    """What a run learns from, step by step, and the policy's weights before each."""
    seen = []

    def watch(data, of, method, model, *rest, **options):
        seen.append((data, {name: p.detach().clone() for name, p in model.named_parameters()}))
        return learn(data, of, method, model, *rest, **options)

    monkeypatch.setattr(loop, "learn", watch)
    return seen


@pytest.mark.parametrize("preset", ["real", "drpo", "balance", "opd", "exopd", "aligndistil"])
def test_a_preset_trains_for_two_steps(recipe, tmp_path, learned, preset):
    # 6 tokens and more are right.
    reward = {"part": "text.length", "unit": "tokens", "shape": [{"part": "shaping.threshold", "at": 6}]}
    of = recipe(preset, reward=reward, minibatches=2, keep={"checkpoint_every": 1}, steps=2)
    loop.train(of, tmp_path / "run")
    (data, first), (_, second) = learned
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert [np.isfinite(record["loss"]) for record in metrics(tmp_path / "run")] == [True, True]
    assert all(record["grad_norm"] > 0 for record in metrics(tmp_path / "run") if "grad_norm" in record)
    assert (data.ref_logp is not None) == (preset in ("exopd", "balance"))
    if preset in ("real", "drpo"):
        assert data.labels.tolist() == (data.attended.sum(1) >= 6).tolist()
        assert data.groups.tolist() == [0] * 4 + [1] * 4
        assert max(record["kept"] for record in metrics(tmp_path / "run")) > 0


def demonstrated(path, rows=60):
    """Sums with a worked answer, which every third row lacks."""
    lines = []
    for i in range(rows):
        a, b = i % 10, i // 10
        said = None if i % 3 == 0 else f"{a}+{b};{a + b}"[: 4 + i % 5]
        lines.append({"prompt": f"{a}+{b}=", "answer": str(a + b), "demonstration": said})
    path.write_text("\n".join(map(json.dumps, lines)))
    return {line["prompt"]: line["demonstration"] for line in lines}


@pytest.fixture
def rl_plus(recipe, tmp_path):
    """The tiny recipe with RL-PLUS on prompts that bring demonstrations, for three steps; and these."""
    said = demonstrated(tmp_path / "sums.jsonl")
    of = recipe("rl_plus", steps=3, evaluation={"prompts": 4}, keep={"checkpoint_every": 1})
    return replace(of, prompts=PromptsConfig(file=str(tmp_path / "sums.jsonl"), held_out=0.3)), said


def test_rl_plus_mixes_demonstrations_into_groups(rl_plus, tmp_path, learned):
    of, said = rl_plus
    loop.train(of, tmp_path / "run")
    _, tokenizer = build(of.policy, seed=of.seed)
    lengths = []
    for data, _ in learned:
        for i in range(8):
            prompt = tokenizer.decode(data.prompt_ids[i][data.prompt_mask[i]], skip_special_tokens=True)
            demonstration = said[prompt] if i % 4 == 3 else None
            assert torch.equal(data.external[i], data.attended[i] & (demonstration is not None))
            if demonstration is not None:
                ids = [*tokenizer(demonstration, add_special_tokens=False).input_ids, tokenizer.eos_token_id][:LIMIT]
                assert data.ids[i][data.attended[i]].tolist() == ids
                lengths.append(len(ids))
        # Demonstrations are scored like the others, σ(length / 8), and advantages are those of the group, without σ.
        rewards = torch.sigmoid(data.attended.sum(1) / 8)
        expected = rewards - rewards.view(2, 4).mean(1).repeat_interleave(4)
        torch.testing.assert_close(data.advantages, expected, rtol=1e-4, atol=1e-6)
    assert min(lengths) < LIMIT
    assert all(record["external"] > 0 for record in metrics(tmp_path / "run"))


def test_the_log_probabilities_of_demonstrations_are_the_policys(rl_plus, tmp_path, monkeypatch):
    of, _ = rl_plus
    kept = []
    collect = loop.collect
    monkeypatch.setattr(loop, "collect", lambda *rest: kept.append(collect(*rest)) or kept[-1])
    loop.train(replace(of, steps=1), tmp_path / "run")
    rollouts, tokens = kept[0][0], kept[0][0].tokens
    policy, tokenizer = build(of.policy, seed=of.seed)
    rows = np.flatnonzero(tokens.origin.any(1))
    assert len(rows) > 0
    for i in rows:
        ids = torch.as_tensor(tokens.ids[i][tokens.written[i]])
        prompt = torch.tensor(tokenizer(rollouts.prompts[i]).input_ids)
        logp = policy(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        chosen = logp.gather(-1, ids[:, None])[:, 0].detach()
        np.testing.assert_allclose(tokens.logp[i][tokens.written[i]], chosen.numpy(), rtol=1e-4, atol=1e-5)
        assert rollouts.finished[i] == (ids[-1] == tokenizer.eos_token_id)
        text, places = rollouts.completions[i], tokens.offsets[i][tokens.written[i]]
        assert (
            "".join(text[b:e] for b, e in places if b >= 0) == text == rollouts.column("demonstration")[i][: len(text)]
        )


def test_a_column_of_demonstrations_that_is_not_there_is_missed_before_any_work(rl_plus, tmp_path):
    of, _ = rl_plus
    of = replace(of, method={"preset": "rl_plus", "sampling": {"external": "demo"}})
    with pytest.raises(RecipeError, match=r"prompts have no 'demo': .*demonstration"):
        loop.train(of, tmp_path / "run")
    assert not Run(tmp_path / "run").evaluations()


def test_a_teacher_of_other_tokens_is_refused_before_any_work(recipe, tiny, tmp_path):
    other = {"from_config": asdict(tiny().policy.from_config) | {"alphabet": "+0123456789-=;# "}}
    with pytest.raises(RecipeError, match=r"models\.teacher: its tokens are not the policy's"):
        loop.train(recipe("opd", models={"teacher": other}), tmp_path / "run")
    assert not Run(tmp_path / "run").evaluations()


def test_labels_may_be_a_part_of_the_reward_and_its_abstentions_are_not_learned_from():
    method = load("real", reads={"labels": "right"})
    written = np.ones((3, 2), bool)
    rollouts = Rollouts(["1+1="] * 3, ["2", "3", "4"], tokens=Tokens(np.full((3, 2), 4), written, written))
    right = Scores.of([1.0, None, 0.25], reasons={1: "no judge"})
    scores = Scores(np.array([0.1, 0.9, 0.9]), parts={"right": right})
    assert read_from(method, rollouts, scores, limit=8)["labels"].tolist() == [True, False, False]
    assert readable_rows(method, rollouts, scores).tolist() == [True, False, True]
    assert read_from(load("real"), rollouts, scores, limit=8)["labels"].tolist() == [False, True, True]
    found = read_from(load("drpo"), rollouts, scores, limit=8)
    assert found["preference"].tolist() == [0.75] * 3
