"""Agent-RLVR as a loop: attempts, guidance, attempts under guidance, preferences without it, and the best of N."""

import numpy as np
import pytest
import torch

from guerdon.data import Task, guided_attempts, preference_pairs, top_of_group
from guerdon.models import LinearHead, fit, implicit_loss, implicit_rewards, language_loss, states_of, total
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import ModelShape, PolicyConfig, build

SHAPE = ModelShape(layers=1, hidden=32, heads=2, mlp=64, context=16, alphabet="0123abcdefgh?:", tied_embeddings=False)
FIXES = dict(zip("0123", "cafe", strict=True))  # the patch of each task: a letter
HINTS = {"a": "h", "c": "g", "e": "f", "f": "d"}  # what is said of each, and not the letter itself
TASKS = [Task(number, number, ("f",), ("p",), solution=patch) for number, patch in FIXES.items()]


def language_model(seed=0):
    return LanguageModel(*build(PolicyConfig(SHAPE), seed=seed), micro_batch=256)


def apprentice():
    """An agent that makes something of a hint, most of the time, and guesses without one."""
    rng, model = np.random.default_rng(0), language_model()
    letters, numbers = list("abcdefgh"), list("0123")
    means = {hint: patch for patch, hint in HINTS.items()}
    records = []
    for _ in range(240):
        number, hint = rng.choice(numbers), rng.choice(list(means))
        told = means[hint] if rng.random() < 0.6 else rng.choice(letters)
        records.append({"prompt": f"{number}{hint}?", "completion": told})
        records.append({"prompt": f"{number}", "completion": rng.choice(letters)})
    loss = lambda rows: language_loss(model, [records[row] for row in rows])  # noqa: E731
    fit(model.parameters(), loss, len(records), learning_rate=1e-2, epochs=5, batch=120)
    return model


def environment(task, patch):
    """The environment: a patch that is no letter does not apply, 'h' mends what fails and breaks what passed."""
    if not patch.isalpha():
        return None
    return {"f": patch in (task.solution, "h"), "p": patch != "h"}


def plan(task, failed):
    assert all(attempt.reward == 0 for attempt in failed)
    return HINTS[task.solution]


def solved(model, guided=False):
    """The chance of the right patch for each task, with and without the hint."""
    prompts = [f"{task.prompt}{HINTS[task.solution]}?" if guided else task.prompt for task in TASKS]
    with torch.no_grad():
        return model.logprobs(prompts, [task.solution for task in TASKS]).logp.exp().mean().item()


def attempts(model, seed, each):
    """Every task attempted so often, and again under guidance; all rollouts and their rewards."""
    calls = iter(range(seed, seed + 2))

    def agent(prompts):
        return model.generate(prompts, max_tokens=1, seed=next(calls)).completions

    return guided_attempts(TASKS, agent, plan, environment, attempts=each, again=8, template="{prompt}{guidance}?")


def test_agent_rlvr_guided_attempts_preferences_and_the_best_of_n_are_one_loop():
    """Two iterations of attempts, guidance and DPO on pairs without it; then the best of eight by a classifier.

    The agent ends up solving by itself what it could only solve under guidance.
    """
    agent, reference = apprentice(), language_model()
    reference.load_state_dict(agent.state_dict())
    before = solved(agent)
    assert before < 0.25
    assert solved(agent, guided=True) > 2 * before
    trajectories = []
    for iteration in range(2):
        rollouts, scores = attempts(agent, seed=10 * iteration, each=2)
        assert set(np.flatnonzero(scores.read(0.0))) <= {i for i, c in enumerate(rollouts.completions) if c in "cafe"}
        trajectories += zip(rollouts.column("task"), rollouts.completions, scores.read(0.0), strict=True)
        pairs = preference_pairs(scores, rollouts.groups, which="all")
        records = pairs.records(rollouts, prompts=rollouts.column("task"))
        assert len(records) > 4
        assert all(record["prompt"] in FIXES for record in records), "the guidance is removed"
        prompts = [r["prompt"] for r in records for _ in range(2)]
        sides = [r[side] for r in records for side in ("chosen", "rejected")]
        labels, groups = torch.tensor([1.0, 0.0] * len(records)), np.repeat(np.arange(len(records)), 2)

        def dpo(rows, prompts=prompts, sides=sides, labels=labels, groups=groups):
            said = [prompts[i] for i in rows], [sides[i] for i in rows]
            values = total(*implicit_rewards(agent, reference, *said, beta=0.1), how="sum")
            return implicit_loss(values, labels[rows], kind="dpo", groups=torch.as_tensor(groups[rows]))[0]

        fit(agent.parameters(), dpo, len(prompts), learning_rate=2e-3, epochs=8, batch=64, groups=groups.tolist())
    after = solved(agent)
    assert after > 0.5 > 2 * before

    # The reward model: right or wrong, of every trajectory, guided or not; it reads them without guidance.
    more, rewarded = attempts(reference, seed=50, each=6)
    trajectories += zip(more.column("task"), more.completions, rewarded.read(0.0), strict=True)
    tasks, patches, outcomes = zip(*trajectories, strict=True)
    judge, head = language_model(1), LinearHead(SHAPE.hidden)
    labels = torch.tensor(outcomes, dtype=torch.float32)

    def classify(rows):
        states = states_of(judge, [tasks[i] for i in rows], [patches[i] for i in rows])
        return implicit_loss(head(states), labels[rows], kind="ce")[0]

    fit([*judge.parameters(), *head.parameters()], classify, len(tasks), learning_rate=5e-3, epochs=12, batch=128)
    asked = [task.prompt for task in TASKS for _ in range(8)]
    written = reference.generate(asked, max_tokens=1, seed=99).completions
    with torch.no_grad():
        odds = head(states_of(judge, asked, written)).double().numpy()
    groups = np.repeat(np.arange(len(TASKS)), 8)
    right = np.array([FIXES[number] == patch for number, patch in zip(asked, written, strict=True)])
    chosen = top_of_group(odds, groups)
    possible = np.bincount(groups, right) > 0
    assert right[chosen].mean() > 2 * right.mean()
    assert right[chosen][possible].mean() >= 0.75


@pytest.mark.parametrize("patch", ["h", ":"], ids=["breaks another", "does not apply"])
def test_agent_rlvr_a_patch_that_breaks_or_does_not_apply_is_not_rewarded(patch):
    _, scores = guided_attempts(TASKS[:1], lambda prompts: [patch] * len(prompts), plan, environment)
    assert scores.read(-1.0).tolist() == [0.0, 0.0]
