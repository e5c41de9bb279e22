import numpy as np
import pytest
import torch

from guerdon.core.errors import Abstain
from guerdon.data import Task, copied, guided_attempts, preference_pairs, resolved

PATCH = "if not tokens: return early before the parser looks at the first of them"


@pytest.mark.parametrize(
    ("outcomes", "reward"),
    [
        ({"f": True, "p": True, "q": True}, 1.0),
        ({"f": True, "p": True, "q": False}, 0.0),  # mends what it should and breaks another
        ({"f": False, "p": True, "q": True}, 0.0),
        ({"f": True, "p": True}, 0.0),  # a test was not found
        (None, 0.0),  # does not apply
    ],
    ids=["all", "breaks", "fails", "lost", "no patch"],
)
def test_agent_rlvr_reward_table(outcomes, reward):
    assert resolved(outcomes, ["f"], ["p", "q"]) == reward


def test_a_task_without_a_test_to_mend_is_an_abstention():
    with pytest.raises(Abstain, match="names no test"):
        resolved({"p": True}, [], ["p"])


def test_agent_rlvr_leak_check_finds_pieces_of_the_patch():
    assert copied(f"Just write {PATCH}", PATCH) == 1.0
    assert copied("look at the parser, and at what it does when there are no tokens", PATCH) == 0.0
    words = PATCH.split()
    grams = {tuple(words[i : i + 8]) for i in range(len(words) - 7)}
    assert copied(" ".join(words[:9]), PATCH) == 2 / len(grams)
    assert copied("return  x\n", "return x") == 1.0  # shorter than a gram: as a whole
    assert copied("return y x", "return x") == 0.0


class Bandit:
    """Succeeds with probability .05, under guidance .4."""

    def __init__(self, seed=0, unguided=0.05, guided=0.4):
        self.rng, self.chances, self.prompts = np.random.default_rng(seed), (unguided, guided), []

    def __call__(self, prompts):
        self.prompts.append(list(prompts))
        chance = np.array([self.chances["hint" in prompt] for prompt in prompts])
        return ["good" if x else "bad" for x in self.rng.random(len(prompts)) < chance]


def outcomes_of(task, completion):
    return {"f": completion == "good"}


def hint(task, failed):
    return "hint: look at the parser"


def tasks(n):
    return [Task(f"t{i}", f"issue {i}", ("f",), solution=PATCH) for i in range(n)]


def pairs_of(rollouts, scores):
    return preference_pairs(scores, rollouts.groups, which="all")


def test_agent_rlvr_guidance_gives_about_eight_times_the_pairs():
    """Two attempts: 2·.05·.95 = .095 pairs a task; with a guided third, .95²·.4·2 = .722 more: 8.6 times as many."""
    n = 3000
    rollouts, scores = guided_attempts(tasks(n), Bandit(), hint, outcomes_of, attempts=2)
    alone = np.array([guidance is None for guidance in rollouts.column("guidance")])
    without = pairs_of(rollouts.select(alone), scores.select(alone))
    assert len(without) / n == pytest.approx(0.095, abs=0.02)
    assert len(pairs_of(rollouts, scores)) / n == pytest.approx(0.095 + 0.722, abs=0.06)
    assert 6 < len(pairs_of(rollouts, scores)) / len(without) < 11


def dpo(records, beta=1.0, steps=60):
    """Tabular DPO: a logit for 'good' per prompt, .05 and .4 to begin with."""
    start = {True: np.log(0.4 / 0.6), False: np.log(0.05 / 0.95)}
    prompts = sorted({record["prompt"] for record in records} | {"issue"})
    reference = torch.tensor([start["hint" in prompt] for prompt in prompts])
    logits = reference.clone().requires_grad_()
    rows = torch.tensor([prompts.index(record["prompt"]) for record in records])
    assert all((record["chosen"], record["rejected"]) == ("good", "bad") for record in records)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(steps):
        # log π(good) − log π(bad) is the logit itself.
        loss = -torch.nn.functional.logsigmoid(beta * (logits - reference)[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.sigmoid(logits[prompts.index("issue")]).item()


def test_agent_rlvr_pairs_without_guidance_teach_to_do_without_it():
    given = [Task(f"t{i}", "issue", ("f",), solution=PATCH) for i in range(200)]
    rollouts, scores = guided_attempts(given, Bandit(unguided=0.0), hint, outcomes_of)
    pairs = pairs_of(rollouts, scores)
    assert len(pairs) > 50
    removed = pairs.records(rollouts, prompts=rollouts.column("task"))
    assert dpo(removed) > 0.3
    told = [rollouts.prompts[row] for row in pairs.chosen.tolist()]
    kept = [record | {"prompt": prompt} for record, prompt in zip(removed, told, strict=True)]
    assert all("hint" in prompt for prompt in told)
    assert dpo(kept) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="answer different prompts"):
        pairs.records(rollouts)


def test_only_what_failed_is_attempted_again_and_with_what_it_failed_by():
    seen = []

    def guide(task, failed):
        seen.append((task.id, [attempt.outcomes for attempt in failed]))
        return "hint"

    def agent(prompts):
        return ["good" if "issue 0" in prompt else "bad" for prompt in prompts]

    rollouts, scores = guided_attempts(tasks(2), agent, guide, outcomes_of, again=2)
    assert seen == [("t1", [{"f": False}])]
    assert rollouts.prompts == ["issue 0", "issue 1", "issue 1\n\nhint", "issue 1\n\nhint"]
    assert rollouts.column("task") == ["issue 0", "issue 1", "issue 1", "issue 1"]
    assert rollouts.column("guidance") == [None, None, "hint", "hint"]
    assert rollouts.ids == ["t0", "t1", "t1", "t1"]
    assert rollouts.groups.tolist() == [0, 1, 1, 1]
    assert scores.read(-1.0).tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("guidance", [f"write: {PATCH}", None, ""], ids=["leak", "none", "empty"])
def test_guidance_that_holds_the_patch_is_not_used(guidance):
    agent = Bandit(unguided=0.0)
    rollouts, _ = guided_attempts(tasks(1), agent, lambda task, failed: guidance, outcomes_of)
    assert len(rollouts) == 1
    assert agent.prompts == [["issue 0"]]


def test_an_environment_that_cannot_say_is_neither_a_failure_nor_guided():
    def run(task, completion):
        if task.id == "t0":
            raise Abstain("the container did not start")
        return {"f": False}

    rollouts, scores = guided_attempts(tasks(2), Bandit(), hint, run)
    assert rollouts.ids == ["t0", "t1", "t1"]
    assert scores.reasons == {0: "the container did not start"}
    assert len(pairs_of(rollouts, scores)) == 0


def test_a_prompt_with_braces_is_left_as_it_is():
    task = Task("t", "fix {x} and {guidance}", ("f",))
    agent = Bandit(unguided=0.0)
    guided_attempts([task], agent, hint, outcomes_of)
    assert agent.prompts[1] == ["fix {x} and {guidance}\n\nhint: look at the parser"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guided_attempts([Task("a", "p", ("f",))] * 2, Bandit(), hint, outcomes_of), "different ids"),
        (lambda: guided_attempts(tasks(1), Bandit(), hint, outcomes_of, again=0), "attempts and again"),
        (lambda: guided_attempts(tasks(1), lambda prompts: [], hint, outcomes_of), "agent gave 0 completions for 1"),
        (lambda: copied("a", " "), "secret is empty"),
        (lambda: copied("a", "b", gram=0), "gram must be at least 1"),
    ],
    ids=["ids", "again", "agent", "secret", "gram"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_tasks_are_no_attempts():
    rollouts, scores = guided_attempts([], Bandit(), hint, outcomes_of)
    assert len(rollouts) == len(scores) == 0
