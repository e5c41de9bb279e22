"""The loop: what goes in comes out, however it is cut up."""

import json
from dataclasses import replace
from math import comb

import numpy as np
import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from stopping import metrics

from guerdon.algebra import Learned
from guerdon.core import Scores
from guerdon.core.errors import MissingInput, RecipeError, TooManyAbstentions
from guerdon.train import checkpoint as checkpoints
from guerdon.train.distributed import leave
from guerdon.train.language.evaluation import _pass_at
from guerdon.train.language.loop import train
from guerdon.train.language.policy import borrowed, build
from guerdon.train.prompts import Prompts, PromptsConfig
from guerdon.train.recipe import Evaluation, Recipe
from guerdon.train.run import Run


def weights(folder):
    return checkpoints.latest(folder / "checkpoints")[0].weights


def test_a_run_leaves_what_the_design_says(tiny, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    summary = train(tiny(), tmp_path / "run")
    assert set(summary["before"]) == set(summary["after"]) == {"accuracy", "ci95", "mean_length"}
    assert {"seconds", "peak_rss_mib", "abstained"} <= set(summary)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    run = Run(tmp_path / "run")
    assert [record["step"] for record in run.metrics()] == [1, 2]
    assert [record["step"] for record in run.evaluations()] == [0, 2]
    assert [step for step, _ in run.rollouts()] == [1, 2]
    assert (run.folder / "report.html").exists()
    model = AutoModelForCausalLM.from_pretrained(run.folder / "policy")
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "policy")
    assert tokenizer.decode(tokenizer("1+1=").input_ids, skip_special_tokens=True) == "1+1="
    learned = weights(run.folder)
    assert all(torch.equal(value, learned[name]) for name, value in model.state_dict().items())


def test_a_finished_run_leaves_its_group_of_processes_when_the_interpreter_ends(tiny, tmp_path, monkeypatch):
    at_exit = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    train(tiny(steps=1), tmp_path / "run")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        for end in at_exit:
            if end.__module__.startswith("guerdon."):
                end()
        assert not dist.is_initialized()
    finally:
        leave()


def test_the_same_seed_gives_the_same_run_and_a_finished_run_is_only_reported(tiny, tmp_path):
    first = train(tiny(), tmp_path / "a")
    train(tiny(), tmp_path / "b")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert train(tiny(), tmp_path / "a") == first
    train(tiny(seed=1), tmp_path / "c")
    assert metrics(tmp_path / "c") != metrics(tmp_path / "a")


def test_another_trainer_in_the_process_leaves_no_trace_in_the_run(tiny, tmp_path):
    train(tiny(), tmp_path / "alone")
    AcceleratorState._reset_state()
    Accelerator(cpu=True, mixed_precision="bf16")
    train(tiny(), tmp_path / "after")
    assert metrics(tmp_path / "after") == metrics(tmp_path / "alone")


def test_the_reward_of_length_makes_completions_longer(tiny, tmp_path):
    recipe = tiny(steps=25, batch={"prompts": 8}, keep={"checkpoint_every": 100}, sampling={"max_tokens": 16})
    train(recipe, tmp_path / "run")
    lengths = [record["length"] for record in Run(tmp_path / "run").metrics()]
    assert np.mean(lengths[-5:]) > np.mean(lengths[:5]) + 2


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "gspo", "luspo", "rloo"])
def test_how_rows_are_cut_into_micro_batches_does_not_change_the_run(tiny, tmp_path, method):
    well_conditioned = {
        "eps": 1.0,
        "learning_rate": 0.1,
    }  # Adam's usual eps turns rounding in a tiny gradient into a step
    for micro in (3, 64):
        changes = {"preset": method, "sampling": {"group": 4}}
        recipe = tiny(method=changes, batch={"micro": micro}, optimizer=well_conditioned)
        train(recipe, tmp_path / str(micro))
    for whole, cut in zip(metrics(tmp_path / "64"), metrics(tmp_path / "3"), strict=True):
        assert cut["loss"] == pytest.approx(whole["loss"], rel=1e-4, abs=1e-6)
        assert cut["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-3)
    whole, cut = weights(tmp_path / "64"), weights(tmp_path / "3")
    assert all(torch.allclose(value, cut[name], atol=1e-6) for name, value in whole.items())


@pytest.mark.parametrize("method", ["dapo", "bnpo", "cispo", "sapo", "reinforce", "tempo", "dler"])
def test_every_other_preset_runs(tiny, tmp_path, method):
    changes = {"preset": method, "sampling": {"group": 4}}
    if method == "dapo":
        changes["shaping"] = [{"part": "shaping.overlong", "limit": 8, "buffer": 4}]
    train(tiny(steps=1, method=changes), tmp_path / "run")
    [record] = metrics(tmp_path / "run")
    assert np.isfinite(record["loss"])
    assert 0 < record["grad_norm"] < np.inf
    assert ("rounds" in record) == (method in ("dapo", "dler"))


def test_reused_rollouts_leave_the_ratio_of_one_and_fresh_ones_do_not(tiny, tmp_path):
    train(tiny(), tmp_path / "fresh")
    train(tiny(batch={"minibatches": 2, "passes": 2}), tmp_path / "reused")
    for record in metrics(tmp_path / "fresh"):
        assert record["ratio"] == pytest.approx(1.0)
        assert record["approx_kl"] == pytest.approx(0.0, abs=1e-9)
    assert all(record["approx_kl"] > 1e-6 for record in metrics(tmp_path / "reused"))


def test_the_kl_penalty_refers_to_the_policy_that_training_began_with(tiny, tmp_path):
    recipe = tiny(steps=3, method={"preset": "grpo", "kl": {"coefficient": 0.1}, "sampling": {"group": 4}})
    train(recipe, tmp_path / "run")
    kl = [record["kl"] for record in metrics(tmp_path / "run")]
    assert kl[0] == pytest.approx(0.0, abs=1e-7)
    assert kl[1] > 1e-5
    assert kl[2] > kl[1]


def test_the_kl_is_measured_without_a_penalty_and_changes_nothing(tiny, tmp_path):
    train(tiny(steps=3), tmp_path / "without")
    train(tiny(steps=3, keep={"kl": True}), tmp_path / "with")
    measured = metrics(tmp_path / "with")
    kl = [record.pop("kl") for record in measured]
    assert measured == metrics(tmp_path / "without")
    assert kl[0] == pytest.approx(0.0, abs=1e-7)
    assert kl[2] > kl[1] > 1e-5


def test_borrowed_weights_are_given_back_even_after_an_error():
    model = torch.nn.Linear(1, 1, bias=False)
    own = model.weight.detach().clone()

    def use_and_fail():
        with borrowed(model, {"weight": torch.full((1, 1), 5.0)}):
            assert model(torch.ones(1)).item() == 5.0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        use_and_fail()
    assert torch.equal(model.weight, own)


def test_a_batch_that_abstains_whole_stops_training_before_it_touches_the_weights(tiny, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i}+1=", "answer": ""}) + "\n" for i in range(60)))
    prompts = PromptsConfig(file=str(path), prompt_column="question")
    recipe = replace(tiny(), reward="math.answer", prompts=prompts, evaluation=Evaluation(5, "text.length"))
    with pytest.raises(TooManyAbstentions, match=r"(?s)all of the last batch.*reference not parseable"):
        train(recipe, tmp_path / "run")
    saved = weights(tmp_path / "run")
    untouched, _ = build(recipe.policy, seed=recipe.seed)
    assert all(torch.equal(value, saved[name]) for name, value in untouched.state_dict().items())
    assert Run(tmp_path / "run").summary is None
    assert (tmp_path / "run" / "report.html").exists()


def test_what_the_reward_lacks_is_missed_before_any_work(tiny, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}+1=", "solution": "2"}) + "\n" for i in range(60)))
    recipe = replace(tiny(), reward="math.answer", prompts=PromptsConfig(file=str(path)), evaluation=Evaluation(5))
    with pytest.raises(MissingInput, match=r"'answer' is missing: math\.answer reads it; .*solution"):
        train(recipe, tmp_path / "run")
    too_long = tiny(policy={"from_config": {"context": 8}})
    with pytest.raises(RecipeError, match="context of 8"):
        train(too_long, tmp_path / "long")
    for name in ("run", "long"):
        assert not (tmp_path / name / "checkpoints").exists()


def test_low_rank_adapters_learn_and_the_rest_stays(tiny, tmp_path):
    pytest.importorskip("peft")
    train(tiny(policy={"lora": {"rank": 2, "target_modules": ["q_proj"]}}), tmp_path / "run")
    saved = weights(tmp_path / "run")
    assert saved
    assert all("lora" in name for name in saved)
    assert any(value.abs().sum() > 0 for name, value in saved.items() if "lora_B" in name)
    assert (tmp_path / "run" / "policy" / "adapter_config.json").exists()


def test_a_policy_can_be_what_an_earlier_run_left(tiny, tmp_path):
    train(tiny(), tmp_path / "first")
    recipe = tiny(policy={"from_config": None, "path": str(tmp_path / "first" / "policy")})
    summary = train(recipe, tmp_path / "second")
    assert summary["before"] == Run(tmp_path / "first").summary["after"]


def test_chat_prompts_give_chat_completions(tiny, tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    train(tiny(steps=1, prompts={"system": "12 ", "chat": True}, policy={"chat_template": template}), tmp_path / "run")
    [(_, sample)] = Run(tmp_path / "run").rollouts()
    assert [message["role"] for message in sample["prompt"][0]] == ["system", "user"]
    assert sample["completion"][0][0]["role"] == "assistant"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"learning_rat": 1}}, "optimizer.learning_rat.*did you mean 'learning_rate'"),
        ({"reward": "math.anwser"}, "did you mean 'math.answer'"),
        ({"reward": {"part": "text.length", "unit": "word"}}, "did you mean 'words'"),
        ({"method": "grpoo"}, "no preset 'grpoo'.*did you mean 'grpo'"),
        ({"steps": "many"}, "steps: expected a number"),
        ({"policy": {"path": "x"}}, "both given"),
        ({"max_abstain": 2}, "max_abstain is a share"),
        ({"batch": {"minibatches": 3}}, "do not divide"),
        ({"name": "a/b"}, "name is a folder's name"),
    ],
)
def test_a_bad_recipe_is_an_error_before_any_work(tiny, changes, message):
    with pytest.raises(RecipeError, match=message):
        tiny(**changes)


def test_metrics_go_to_trackers_as_well(tiny, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tiny(keep={"trackers": ["tensorboard"]}), tmp_path / "run")
    seen = events.EventAccumulator(str(tmp_path / "run" / "guerdon"))
    seen.Reload()
    logged = [event.value for event in seen.Scalars("reward")]
    assert logged == pytest.approx([record["reward"] for record in metrics(tmp_path / "run")])


def test_memory_is_saved_by_recomputing_and_the_run_stays_the_same(tiny, tmp_path):
    for name, saved in (("plain", False), ("recomputed", True)):
        train(tiny(policy={"gradient_checkpointing": saved}, optimizer={"eps": 1.0}), tmp_path / name)
    for plain, recomputed in zip(metrics(tmp_path / "plain"), metrics(tmp_path / "recomputed"), strict=True):
        assert recomputed["loss"] == pytest.approx(plain["loss"], rel=1e-4, abs=1e-6)
        assert recomputed["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)


def test_weights_can_be_bfloat16(tiny, tmp_path):
    train(tiny(policy={"dtype": "bfloat16"}), tmp_path / "run")
    assert {value.dtype for value in weights(tmp_path / "run").values()} == {torch.bfloat16}
    assert all(np.isfinite(record["loss"]) for record in metrics(tmp_path / "run"))


def test_evaluation_on_the_way_is_kept_and_changes_nothing(tiny, tmp_path):
    train(tiny(steps=4), tmp_path / "without")
    train(tiny(steps=4, evaluation={"every": 1}), tmp_path / "with")
    assert [record["step"] for record in Run(tmp_path / "with").evaluations()] == [0, 1, 2, 3, 4]
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")


def test_held_out_prompts_are_never_trained_on(tiny, tmp_path):
    train(tiny(steps=6, keep={"rollouts_every": 1, "rollouts": 64}), tmp_path / "run")
    recipe = tiny()
    held_out = {row["prompt"] for row in Prompts(recipe.prompts, seed=recipe.seed).held_out(16)}
    trained = {prompt for _, sample in Run(tmp_path / "run").rollouts() for prompt in sample["prompt"]}
    assert len(trained) > 10
    assert not trained & held_out


class Drifting(Learned):
    """A learned leaf whose one weight moves with what it is shown."""

    name, range, floor = "drifting", (0.0, 1e9), 0.0

    def __init__(self, dies_at=None):
        self.weight, self.dies_at = torch.ones(1), dies_at

    def measure(self, rollouts, context):
        return Scores(self.weight.item() * rollouts.lengths("characters"))

    def update(self, rollouts, scores, context):
        if context.step == self.dies_at:
            raise KeyboardInterrupt
        self.weight = self.weight + 0.1 * float(scores.read(0.0).mean())
        return {"weight": float(self.weight)}

    def state_dict(self):
        return {"weight": self.weight}

    def load_state_dict(self, state):
        self.weight = state["weight"]


def test_a_learned_leaf_learns_once_a_step_and_its_weights_survive_a_stop(tiny, tmp_path, monkeypatch):
    def run(folder, leaf):
        monkeypatch.setattr(Recipe, "load_reward", lambda self, allow_import=False: leaf)
        return train(tiny(steps=5), tmp_path / folder)

    run("whole", Drifting())
    with pytest.raises(KeyboardInterrupt):
        run("stopped", Drifting(dies_at=4))
    run("stopped", Drifting())
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    seen = [record["drifting/weight"] for record in metrics(tmp_path / "whole")]
    rewards = [record["reward"] for record in metrics(tmp_path / "whole")]
    assert seen == pytest.approx(1 + 0.1 * np.cumsum(rewards), rel=1e-5)


def test_pass_at_k_is_counted_over_the_answers_to_each_prompt(tiny, tmp_path):
    recipe = tiny(steps=0, evaluation={"prompts": 6, "samples": 4, "batch": 5, "accuracy": {"part": "text.length"}})
    summary = train(recipe, tmp_path / "run")
    record = Run(tmp_path / "run").evaluations()[0]
    lengths = np.array(record["lengths"]).reshape(6, 4)
    right = (lengths > 0.5).sum(1)
    expected = {k: np.mean([1 - comb(4 - c, k) / comb(4, k) for c in right]) for k in (1, 2, 4)}
    assert summary["after"]["pass_at"] == {str(k): pytest.approx(v) for k, v in expected.items()}
    assert record["n"] == 24
    low, high = summary["after"]["ci95"]
    assert low <= summary["after"]["accuracy"] <= high


def test_pass_at_k_tells_prompts_apart():
    right = np.array([1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], bool)
    valid = np.ones(12, bool)
    groups = np.repeat([0, 1, 2], 4)
    assert _pass_at(right, valid, groups, 4) == {
        "1": pytest.approx(5 / 12),
        "2": pytest.approx(0.5),
        "4": pytest.approx(2 / 3),
    }
    valid[1] = False  # the first prompt has an answer without a score, and does not count
    assert _pass_at(right, valid, groups, 4) == {"1": 0.5, "2": 0.5, "4": 0.5}
