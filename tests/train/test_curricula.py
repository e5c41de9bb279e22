"""Which prompts a run draws, stage by stage and round by round, and which rollouts it learns from."""

import json

import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

from guerdon.core import Context
from guerdon.core.errors import RecipeError
from guerdon.train import checkpoint as checkpoints, recipe as recipes
from guerdon.train.language import collecting, loop
from guerdon.train.prompts import Prompts, PromptsConfig, Stages
from guerdon.train.run import Run

DIGIT = {"part": "format.regex", "pattern": "[3-5]", "match": "search"}
STEPS = {"part": "probe.likelihood", "cut": {"at": "separator", "separator": "1", "until": None}, "stop": "#"}
KEEP = {"checkpoint_every": 1, "rollouts_every": 1, "rollouts": 64}


@pytest.fixture
def kinds(tmp_path):
    """A file of prompts of two kinds: sums of one term and of two."""
    path = tmp_path / "kinds.jsonl"
    rows = [{"prompt": f"{i}=", "answer": str(i), "kind": "one"} for i in range(10)]
    rows += [{"prompt": f"{i}+{j}=", "answer": str(i + j), "kind": "two"} for i in range(10) for j in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"file": str(path), "held_out": 0.3}


@pytest.fixture
def staged(tiny, kinds):
    """`staged(stages, steps=…)`: the tiny recipe on that file, in stages."""

    def build(stages, **changes):
        data = tiny(evaluation={"prompts": 4}, **changes).data()
        return recipes.from_data(data | {"prompts": {**kinds, "stages": stages}})

    return build


# Stages.


def test_stages_follow_the_progress_of_training_and_go_through_each_kind(kinds):
    prompts = Prompts(PromptsConfig(**kinds, stages=Stages("kind", ("one", "two"), (0.25,))), seed=0)
    drawn = [prompts.following(2, Context(progress=p / 8)) for p in range(9)]
    assert [{row["kind"] for row in rows} for rows in drawn] == [{"one"}] * 2 + [{"two"}] * 7
    later = [row["prompt"] for rows in drawn[2:] for row in rows]
    assert len(set(later)) == len(later)  # without replacement until all of the kind were there
    held = {row["prompt"] for row in prompts.held_out(5)}
    assert not held & {row["prompt"] for rows in drawn for row in rows}


def test_a_kind_can_lie_inside_a_column(tiny):
    config = tiny().prompts
    of = {**vars(config), "size": 60, "parameters": {**config.parameters, "max_terms": 3}}
    prompts = Prompts(PromptsConfig(**{**of, "stages": Stages("metadata[num_terms]", ("2", "3"))}), seed=0)
    first, last = (prompts.following(4, Context(progress=p)) for p in (0.0, 1.0))
    assert [row["metadata"]["num_terms"] for row in (*first, *last)] == [2] * 4 + [3] * 4


def test_a_run_in_stages_goes_on_bit_for_bit(staged, tmp_path, monkeypatch):
    recipe = staged({"by": "kind", "order": ["one", "two"], "begins": [0.4]}, steps=5, keep=KEEP)
    loop.train(recipe, tmp_path / "whole")
    asked = [{len(p.split("+")) for p in sample["prompt"]} for _, sample in Run(tmp_path / "whole").rollouts()]
    assert asked == [{1}, {1}, {2}, {2}, {2}]
    stopped(monkeypatch, loop.train, recipe, tmp_path / "stopped", after=3)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert equal(last(tmp_path / "stopped").weights, last(tmp_path / "whole").weights)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"by": "kind", "order": ["one", "one"]}, "prompts.stages: a kind stands in the order twice: one"),
        ({"by": "kind", "order": ["one", "two"], "begins": [0.5, 0.2]}, "2 stages begin at 1 rising points"),
        ({"by": "kind", "order": ["one", "two"], "begins": [1.5]}, "rising points in"),
        ({"by": "kind", "order": []}, "none is named"),
        ({"by": "kind", "order": ["one"]}, "kind is 'two', no stage of: one"),
        ({"by": "kind", "order": ["one", "two", "three"]}, "no prompts of the kind three"),
        ({"by": "knid", "order": ["one", "two"]}, "there is no 'knid': did you mean 'kind'"),
        ({"order": ["one", "two"]}, "prompts.stages"),
    ],
)
def test_stages_that_cannot_be_are_said_before_any_work(staged, tmp_path, stages, message):
    with pytest.raises(RecipeError) as error:
        loop.train(staged(stages), tmp_path / "run")
    assert message in str(error.value)
    assert not Run(tmp_path / "run").metrics()


# Rounds of dynamic sampling.


def test_rounds_go_on_in_one_order_and_their_pace_is_learned(tiny, tmp_path, monkeypatch):
    """⌈missing / min(s, s′)⌉, at most `pace`; no prompt twice before all were there; gone on with bit for bit."""
    asked, drawn = [], []
    original = collecting.write

    def watched(job, step, n, before, context):
        rollouts = original(job, step, n, before, context)
        asked.append((step, n, before))
        drawn.extend(rollouts.prompts[::4])
        return rollouts

    monkeypatch.setattr(collecting, "write", watched)
    method = {"preset": "grpo", "kl": {"coefficient": 0.0}}
    sampling = {"group": 4, "dynamic": True, "rounds": 6, "pace": 12, "filter": "data.varied"}
    recipe = tiny(
        method={**method, "sampling": sampling}, reward=[{**DIGIT, "pattern": "3.*[0-9]"}], steps=4, keep=KEEP
    )
    loop.train(recipe, tmp_path / "whole")
    expected, share, records = [], 1.0, metrics(tmp_path / "whole")
    for step, record in enumerate(records, 1):
        rounds = [(n, before) for s, n, before in asked if s == step]
        assert len(rounds) == record["rounds"]
        assert rounds[0] == (min(10, -(-4 // share)) if share else 10, 0)
        kept = record["kept"] * sum(n for n, _ in rounds)
        if kept >= 4:
            share = min(share, record["kept"])
        expected += [before for _, before in rounds]
        assert [before for _, before in rounds] == np.cumsum([0, *(n for n, _ in rounds[:-1])]).tolist()
    assert max(n for _, n, _ in asked) > 4
    assert any(record["rounds"] > 1 for record in records)
    own = Prompts(recipe.prompts, seed=recipe.seed)
    assert drawn == [row["prompt"] for row in own.draw(0, len(drawn))]
    stopped(monkeypatch, loop.train, recipe, tmp_path / "stopped", after=2)
    assert metrics(tmp_path / "stopped") == records
    assert equal(last(tmp_path / "stopped").weights, last(tmp_path / "whole").weights)


# Filters of rollouts, and of prompts that nothing replaces.


def test_prof_learns_from_as_many_right_rollouts_as_wrong_ones(tiny, tmp_path, learned):
    reward = [
        {**DIGIT, "name": "outcome"},
        {"of": {"reduce": {**STEPS, "name": "process"}, "how": "last"}, "weight": 0},
    ]
    sampling = {"group": 8, "filter": {"part": "data.consistent", "process": "process", "count": 4}}
    recipe = tiny(reward=reward, method={"preset": "prof", "sampling": sampling}, steps=1, max_abstain=0.5, keep=KEEP)
    loop.train(recipe, tmp_path / "run")
    [data], [record], [(_, sample)] = learned, Run(tmp_path / "run").metrics(), Run(tmp_path / "run").rollouts()
    kept = data.mask.any(1).numpy().reshape(4, 8)
    advantages = data.advantages.numpy().reshape(4, 8)
    mixed = 0
    for row, own, right in zip(kept, advantages, np.asarray(sample["part.outcome"]).reshape(4, 8), strict=True):
        wins, losses = right[row].sum(), (1 - right[row]).sum()
        assert (own[~row] == 0).all()
        assert (wins, losses) == balance(int(right.sum()))
        mixed += wins > 0 < losses
        if wins and losses:
            values = right[row]
            expected = (values - values.mean()) / (values.std(ddof=1) + 1e-4)
            np.testing.assert_allclose(own[row], expected, rtol=1e-4)
    assert mixed
    assert record["kept"] == 1.0


def balance(right, of=8, keep=4):
    """k₊ and k₋ of the largest product, k₊ + k₋ = 4, out of so many right and wrong ones."""
    fitting = [k for k in range(keep + 1) if k <= right and keep - k <= of - right]
    best = max(fitting, key=lambda k: (k * (keep - k), k))
    return best, keep - best


def test_pf_ppo_learns_from_one_rollout_of_each_prompt(tiny, tmp_path, learned):
    recipe = tiny(
        method={"preset": "pf_ppo", "kl": {"coefficient": 0.01}}, critic={"hidden": [8], "warmup": 0},
        steps=1, keep=KEEP,
    )  # fmt: skip
    loop.train(recipe, tmp_path / "run")
    [data], [(_, sample)] = learned, Run(tmp_path / "run").rollouts()
    rewards = sample["length"]
    for group in range(4):
        [row] = [i for i in range(4 * group, 4 * group + 4) if bool(data.mask[i].any())]
        assert rewards[row] in (min(rewards[4 * group : 4 * group + 4]), max(rewards[4 * group : 4 * group + 4]))
    assert torch.equal(data.valued, data.mask)


def test_a_batch_of_which_nothing_is_kept_changes_nothing(tiny, tmp_path):
    method = {
        "preset": "grpo",
        "kl": {"coefficient": 0.0},
        "sampling": {"group": 4, "filter": {"part": "data.within", "low": 9.0}},
    }
    loop.train(tiny(method=method, steps=2, optimizer={"weight_decay": 0.0}, keep=KEEP), tmp_path / "run")
    records = metrics(tmp_path / "run")
    assert [(record["kept"], record["loss"]) for record in records] == [(0.0, 0.0)] * 2
    assert all(np.isfinite(record["grad_norm"]) for record in records)
    weights = [checkpoints.latest(tmp_path / "run" / "checkpoints")[0].weights]
    assert all(bool(value.isfinite().all()) for value in weights[0].values())


def test_a_filter_without_others_in_their_place_leaves_prompts_out(tiny, tmp_path, learned):
    method = {"preset": "dr_grpo", "sampling": {"group": 4, "filter": {"part": "data.ranked", "count": 1, "of": None}}}
    loop.train(tiny(method=method, steps=1, keep=KEEP), tmp_path / "run")
    [data], [(_, sample)] = learned, Run(tmp_path / "run").rollouts()
    means = np.asarray(sample["length"], float).reshape(4, 4).mean(1)
    there = data.mask.any(1).reshape(4, 4)
    assert there.all(1).sum() == 1
    assert int(there.all(1).int().argmax()) == int(means.argmin())
    assert len(sample["length"]) == 16
