"""One guerdon reward, unchanged, as `reward_funcs=` of TRL's GRPOTrainer."""

import math

import pytest

pytest.importorskip("trl")

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from guerdon import Abstain, gate, reward
from guerdon.core.errors import GuerdonError
from guerdon.rewards import text
from guerdon.shaping import bound, center
from guerdon.train.language.policy import ModelShape, PolicyConfig, build


@reward(range=(0, 1))
def digits(completion, answer):
    """The share of digits, where there is a reference."""
    if answer is None:
        raise Abstain("no reference")
    return sum(c.isdigit() for c in completion) / max(1, len(completion))


def trainer(tmp_path, reward, answers, **changes):
    model, tokenizer = build(PolicyConfig(ModelShape(layers=1, hidden=16, heads=2, mlp=32, context=64)), seed=0)
    data = Dataset.from_list([{"prompt": f"{i}+1=", "answer": answers[i % len(answers)]} for i in range(32)])
    options = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8,
        "max_steps": 3, "logging_steps": 1, "report_to": [], "use_cpu": True, "learning_rate": 1e-2,
        "save_strategy": "no", "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    config = GRPOConfig(**(options | changes))
    return GRPOTrainer(model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer)


@pytest.mark.processes
def test_a_composed_reward_trains_three_steps_and_its_parts_arrive_in_the_metrics(tmp_path):
    composed = 0.75 * digits().named("digits") + 0.25 * (text.length(unit="characters") >> bound(scale=8))
    run = trainer(tmp_path, composed, ["1", None])
    before = [p.detach().clone() for p in run.model.parameters()]
    run.train()
    logs = [record for record in run.state.log_history if "reward" in record]
    assert len(logs) == 3
    for record in logs:
        assert 0 <= record["reward/digits"] <= 1
        assert record["reward/text.length"] > 0
        assert 0 <= record["reward/abstained"] <= 1
        assert math.isfinite(record["loss"])
    assert any(record["reward/abstained"] > 0 for record in logs)
    assert any((a != b).any() for a, b in zip(before, run.model.parameters(), strict=True))


@pytest.mark.processes
def test_abstentions_are_left_out_by_trl_rather_than_summed_as_zero(tmp_path):
    run = trainer(tmp_path, digits(), [None], max_steps=1)
    run.train()
    [record] = [record for record in run.state.log_history if "reward" in record]
    assert record["reward/abstained"] == 1.0
    assert record["reward"] is None  # not the mean of zeros
    assert all(p.isfinite().all() for p in run.model.parameters())


@pytest.mark.processes
def test_a_reward_of_whole_groups_works_and_refuses_split_ones(tmp_path):
    relative = gate(digits(), then=text.length(unit="characters"), above=-1) >> center("group")
    run = trainer(tmp_path / "a", relative, ["1"], max_steps=1)
    run.train()
    assert run.state.global_step == 1
    with pytest.raises(GuerdonError, match="per_device_train_batch_size"):
        relative(["a", "a", "b"], ["1", "2", "3"], answer=["1", "1", "1"])
