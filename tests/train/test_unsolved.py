"""Prompts that leave when they are solved, in the loop: which come next, by what the steps before made of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from stopping import equal, last, metrics, stopped

from guerdon.core import Context
from guerdon.core.errors import RecipeError
from guerdon.train import recipe as recipes
from guerdon.train.language import loop
from guerdon.train.prompts import Prompts
from guerdon.train.run import Run

KEEP = {"checkpoint_every": 100, "rollouts_every": 1, "rollouts": 64}
REWARD = "judging.scheduled"


@pytest.fixture
def recipe(tiny, tmp_path):
    """`recipe(results, unsolved, …)`: prompt u has `results[u][step]` right rollouts of 2, in batches of 3."""

    def build(results, unsolved, **changes):
        method = {"preset": "grpo", "kl": {"coefficient": 0.0}, "sampling": {"group": 2, **changes.pop("sampling", {})}}
        data = tiny(
            steps=len(results[0]), batch={"prompts": 3}, sampling={"max_tokens": 2}, keep=KEEP,
            evaluation={"prompts": 1, "accuracy": "text.length"}, max_abstain=1.0,
        ).data()  # fmt: skip
        rows = [{"prompt": f"{u}=", "results": list(right), "needs": sum(right)} for u, right in enumerate(results)]
        for name, lines in (("train", rows), ("test", [{**rows[0], "prompt": "1+1="}])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        prompts = {"file": str(tmp_path / "train.jsonl"), "held_out_file": str(tmp_path / "test.jsonl")}
        prompts |= {} if unsolved is None else {"unsolved": unsolved}
        data |= {"reward": REWARD, "method": method, "prompts": prompts, **changes}
        return recipes.from_data(data, allow_import=True)

    return build


def drawn(folder):
    """The prompts of each step, by their numbers in the file."""
    return [[int(prompt[:-1]) for prompt in sample["prompt"][::2]] for _, sample in Run(folder).rollouts()]


def by_hand(results, *, batch, needed):
    """Least tried first, solved ones only when all others are there; and how many are left behind each step."""
    size, around, solved, tries = len(results), 0, set(), [0] * len(results)
    steps, left = [], []
    for step in range(len(results[0])):
        now = []
        for _ in range(batch):
            free = {u for u in range(size) if u not in now and u not in solved}
            if not free:
                around, solved, tries = around + 1, set(), [int(u in now) for u in range(size)]
                free = set(range(size)) - set(now)
            order = np.random.default_rng([0, 2, around]).permutation(size).tolist()
            now.append(min(free, key=lambda u: (tries[u], order.index(u))))
            tries[now[-1]] += 1
        solved |= {u for u in now if results[u][step] >= needed}
        steps.append(now)
        left.append(size - len(solved))
    return steps, left


@pytest.mark.parametrize(("share", "needed"), [(0.0, 1), (0.6, 2)])
def test_prompts_come_by_the_rule_in_the_loop(recipe, tmp_path, share, needed):
    results = np.random.default_rng(3).choice(3, (8, 12), p=[0.3, 0.3, 0.4]).tolist()
    loop.train(recipe(results, {"share": share}), tmp_path / "run", allow_import=True)
    steps, left = by_hand(results, batch=3, needed=needed)
    assert drawn(tmp_path / "run") == steps
    assert [record["unsolved"] for record in metrics(tmp_path / "run")] == left
    assert left != sorted(left, reverse=True)  # all have come back


def test_a_run_solves_more_prompts_than_one_that_draws_all_in_turn(recipe, tmp_path):
    """24 prompts of unequal chances p, the attempt that solves each drawn beforehand, and 48 attempts at them.

    All rollouts of a group are right or all wrong, so the policy stays as it is. After each epoch of the plain run, no
    prompt that is not solved has had fewer attempts in the other.
    """
    needs = np.random.default_rng(0).geometric(np.linspace(0.05, 0.7, 24))
    solved = {}
    for name, unsolved in (("plain", None), ("unsolved", {})):
        of = recipe([[n] + [0] * 15 for n in needs.tolist()], unsolved, reward="judging.patient")
        loop.train(of, tmp_path / name, allow_import=True)
        assert {record["grad_norm"] for record in metrics(tmp_path / name)} == {0.0}
        tries = np.array([np.bincount(now, minlength=24) for now in drawn(tmp_path / name)]).cumsum(0)
        solved[name] = [int((tries[step] >= needs).sum()) for step in (7, 15)]
    assert solved["plain"] == [(needs <= 1).sum(), (needs <= 2).sum()]
    assert solved["unsolved"][0] == solved["plain"][0]
    assert solved["unsolved"][1] > solved["plain"][1]


def test_another_part_of_the_reward_may_say_what_is_right(recipe, tmp_path):
    """By the whole, of which half a point is the length, every prompt were solved at once."""
    reward = [{"part": REWARD, "name": "right", "weight": 0.1}, {"part": "text.length", "unit": "tokens"}]
    of = recipe([[0, 0, 0]] * 9, {"of": "right"}, reward=reward)
    loop.train(of, tmp_path / "run", allow_import=True)
    assert [record["unsolved"] for record in metrics(tmp_path / "run")] == [9] * 3
    loop.train(recipe([[0, 0, 0]] * 9, {"above": -1.0}, reward=reward), tmp_path / "whole", allow_import=True)
    assert [record["unsolved"] for record in metrics(tmp_path / "whole")] == [6, 3, 0]


def test_a_dataset_gives_its_pool_what_is_not_held_out(tiny):
    config = tiny(prompts={"size": 40, "unsolved": {}}).prompts
    prompts = Prompts(config, seed=0)
    rows = prompts.following(20, Context())
    assert len({row["metadata"]["source_index"] for row in rows}) == 20
    assert not any(prompts.is_held_out(row["prompt"]) for row in rows)
    with pytest.raises(RecipeError, match="all of its 1 tasks are held-out prompts"):
        Prompts(replace(config, size=1, held_out=0.9), seed=0)


def test_no_prompt_comes_twice_in_the_rounds_of_a_step(recipe, tmp_path, monkeypatch):
    """Nothing is kept, so that every step draws four rounds of three from twelve that are not solved."""
    seen, following = [], Prompts.following

    def watch(prompts, n, context):
        rows = following(prompts, n, context)
        seen.extend(row["prompt"] for row in rows)
        return rows

    monkeypatch.setattr(Prompts, "following", watch)
    sampling = {"dynamic": True, "rounds": 4, "filter": "data.varied"}
    loop.train(recipe([[0, 0]] * 12, {}, sampling=sampling), tmp_path / "run", allow_import=True)
    assert len(seen) == 24
    assert len(set(seen[:12])) == len(set(seen[12:])) == 12


@pytest.mark.parametrize("unsolved", [{"chances": "observed", "attempts": 2}, {"order": "random"}], ids=str)
def test_a_run_of_a_pool_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch, unsolved):
    results = np.random.default_rng(5).choice(3, (7, 6), p=[0.4, 0.3, 0.3]).tolist()
    of = recipe(results, unsolved, keep={**KEEP, "checkpoint_every": 1})
    loop.train(of, tmp_path / "whole", allow_import=True)

    def train(of, folder):
        return loop.train(of, folder, allow_import=True)

    stopped(monkeypatch, train, of, tmp_path / "stopped", after=3)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert drawn(tmp_path / "stopped") == drawn(tmp_path / "whole")
    assert equal(last(tmp_path / "stopped").weights, last(tmp_path / "whole").weights)
    assert last(tmp_path / "stopped").state["prompts"] == last(tmp_path / "whole").state["prompts"]
    assert last(tmp_path / "whole").state["prompts"]["round"] > 0


@pytest.mark.parametrize(
    ("unsolved", "changes", "message"),
    [
        ({"share": 2}, {}, "prompts.unsolved: share lies between 0 and 1, got 2"),
        ({"attempts": 0}, {}, "prompts.unsolved: attempts must be at least 1"),
        (
            {"order": "ranking", "chances": "observed"},
            {},
            "chances are weighed by the order 'balance'",
        ),
        ({"order": "balanced"}, {}, "prompts.unsolved.order: 'balanced' is not a choice: did you mean 'balance'"),
        ({"threshold": 1}, {}, "prompts.unsolved"),
        ({"of": "schedule"}, {}, "prompts.unsolved.of: the reward has no part 'schedule': did you mean 'scheduled'"),
        ({}, {"reward": {"part": "math.steps"}}, "prompts.unsolved.of: the reward is one of steps: name a part"),
        (
            {"of": "process"},
            {"reward": {"reduce": {"part": "math.steps", "name": "process"}, "how": "min"}},
            "prompts.unsolved.of: process is one of steps",
        ),
        ({}, {"prompts": {"file": "x", "unsolved": {}, "stages": {"by": "kind", "order": ["a"]}}}, "both given"),
        ({}, {"method": {"preset": "dr_grpo", "sampling": {"steps": {}}}}, "solved by whole rollouts: not with method"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_said_before_any_work(recipe, unsolved, changes, message):
    with pytest.raises(RecipeError) as error:
        recipe([[0]], unsolved, **changes)
    assert message in str(error.value)
