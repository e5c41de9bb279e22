"""The loop for denoising policies: a step is a token, and what goes in comes out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from painting import TINY, brightness, job_of, tiny, weights
from stopping import metrics

from guerdon.algebra import reward
from guerdon.core import Scores
from guerdon.core.errors import RecipeError, RunExists, TooManyAbstentions
from guerdon.objectives.denoising import sample
from guerdon.train import recipe as recipes
from guerdon.train.denoising import job as jobs, loop, scoring
from guerdon.train.denoising.denoiser import DenoiserConfig, build
from guerdon.train.denoising.loop import train
from guerdon.train.denoising.recipe import DenoisingRecipe
from guerdon.train.denoising.sampling import normals
from guerdon.train.run import Run

pytest.importorskip("diffusers")


@reward(range=(0, 1), lane="batch")
def first_bright(completion) -> list[float]:
    """Brightness in the first group, and nothing to tell the others apart."""
    return [float(np.asarray(p).mean() / 255) if i < 4 else 0.5 for i, p in enumerate(completion)]


@pytest.fixture
def bright(monkeypatch):
    """The reward is how bright a picture is."""
    monkeypatch.setattr(DenoisingRecipe, "load_reward", lambda self, allow_import=False: brightness())


def test_a_run_leaves_what_the_design_says(tmp_path):
    summary = train(tiny(), tmp_path / "run")
    assert set(summary["before"]) == set(summary["after"]) == {"reward", "ci95", "vendi"}
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    run = Run(tmp_path / "run")
    assert [record["step"] for record in run.metrics()] == [1, 2]
    assert [record["step"] for record in run.evaluations()] == [0, 2]
    assert [step for step, _ in run.rollouts()] == [1, 2]
    assert [step for step, _ in run.pictures()] == [0, 2]
    page = (run.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") > 2
    assert "img-src data:" in page
    again = build(DenoiserConfig(path=str(run.folder / "policy")), 0)
    learned = weights(run.folder)
    assert all(torch.equal(value, learned[name]) for name, value in again.network.state_dict().items())
    assert train(tiny(), tmp_path / "run") == summary
    with pytest.raises(RunExists, match=r"optimizer\.learning_rate"):
        train(tiny(optimizer={"learning_rate": 0.5}), tmp_path / "run")


def test_the_same_seed_gives_the_same_run(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(seed=seed, steps=1), tmp_path / name)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert metrics(tmp_path / "c") != metrics(tmp_path / "a")


def test_a_run_that_was_killed_ends_bit_for_bit_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    recipe = tiny(steps=3, method={"kl": {"coefficient": 0.1}}, keep={"checkpoint_every": 2})
    train(recipe, tmp_path / "whole")
    step = loop._step

    def killed(job):
        if job.step == 2:
            Run(job.run.folder).log({"step": 3, "reward": 9.0})  # what a killed process may have written already
            raise KeyboardInterrupt
        return step(job)

    monkeypatch.setattr(loop, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "killed")
    monkeypatch.setattr(loop, "_step", step)
    train(recipe, tmp_path / "killed")
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    first, second = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert Run(tmp_path / "killed").evaluations() == Run(tmp_path / "whole").evaluations()


@pytest.mark.parametrize(
    "method",
    [
        {"preset": "flow_grpo", "kl": {"coefficient": 0.1}},
        {"preset": "flow_grpo", "objective": {"aggregate": "sequence-mean"}},
        {"preset": "flow_grpo", "objective": {"ratio": "sequence"}},
        {"preset": "dense_grpo"},
    ],
    ids=["kl", "sequence-mean", "sequence", "dense"],
)
def test_how_steps_are_cut_into_micro_batches_does_not_change_the_run(tmp_path, method, bright):
    method = method | {"sampling": {"group": 4}}
    optimizer = {"learning_rate": 1e-3, "eps": 1e-3}
    for micro in (5, 64):
        train(tiny(method=method, batch={"micro": micro}, optimizer=optimizer), tmp_path / str(micro))
    for one, other in zip(metrics(tmp_path / "5"), metrics(tmp_path / "64"), strict=True):
        for name in ("loss", "grad_norm", "reward", "ratio"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name


def test_the_reward_of_brightness_makes_pictures_brighter(tmp_path, bright):
    recipe = tiny(steps=25, keep={"checkpoint_every": 100, "rollouts_every": 100}, method={"kl": {"coefficient": 0}})
    summary = train(recipe, tmp_path / "run")
    assert summary["after"]["reward"] > summary["before"]["reward"] + 0.05
    assert summary["after"]["ci95"][0] > summary["before"]["ci95"][1]


def test_the_first_gradient_is_that_of_the_definition(tmp_path, monkeypatch):
    """At ratio 1: −Σ A ∇ log N(x′; mean, std) / number of steps, with mean and std written out for a flow's SDE."""
    monkeypatch.setattr(DenoisingRecipe, "load_reward", lambda self, allow_import=False: first_bright())
    job, engine = job_of(tiny(method={"kl": {"coefficient": 0}}), tmp_path)
    with engine:
        batch = loop.sampled(job, 1)
        rewards = np.array([np.asarray(p).mean() / 255 for p in batch.rollouts.completions]).reshape(3, 4)
        rewards[1:] = 0.5  # they teach nothing, and count all the same
        advantages = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
        states, network, total = batch.trajectory.states, job.denoiser.network, 0.0
        labels = torch.tensor([int(p) for p in batch.rollouts.prompts])
        for k in range(3):  # of four steps the last is without noise
            s, following = 1 - k / 4, 1 - (k + 1) / 4
            growth = 0.7 * (s / (1 - (s if s < 1 else following))) ** 0.5
            x = states[:, k]
            v = network(x, timestep=torch.full((12,), s * 1000), class_labels=labels).sample
            mean = x + v * (following - s) + growth**2 / (2 * s) * (x + (1 - s) * v) * (following - s)
            logp = -((states[:, k + 1] - mean) ** 2).mean((1, 2, 3)) / (2 * growth**2 * (s - following))
            total = total - (torch.as_tensor(advantages).reshape(-1).float() * logp).sum() / 36
        total.backward()
        expected = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        network.zero_grad()
        found = {}
        job.optimizer.register_step_pre_hook(
            lambda *_: found.update(
                {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
            )
        )
        job.recipe = replace(job.recipe, optimizer=replace(job.recipe.optimizer, max_grad_norm=0.0))
        loop._step(job)
    assert found
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-7)


def test_the_kl_is_exact_and_begins_at_zero(tmp_path, bright):
    train(tiny(steps=2, optimizer={"learning_rate": 1e-1}), tmp_path / "run")
    first, second = metrics(tmp_path / "run")
    assert first["kl"] == 0.0
    assert second["kl"] > 0.0


def test_a_penalty_holds_the_policy_where_it_was(tmp_path, bright):
    gone = {}
    for coefficient in (0.0, 100.0):
        method = {"kl": {"coefficient": coefficient}, "sampling": {"group": 4}}
        train(tiny(steps=6, method=method, keep={"kl": True}), tmp_path / str(coefficient))
        gone[coefficient] = metrics(tmp_path / str(coefficient))[-1]["kl"]
    assert gone[100.0] < 0.5 * gone[0.0]


def test_dense_credit_is_the_gain_of_each_step_and_telescopes(tmp_path, bright, monkeypatch):
    compared, measured = [], scoring.measured
    monkeypatch.setattr(
        scoring,
        "measured",
        lambda job, made, *rest, **more: (compared.append(made), measured(job, made, *rest, **more))[1],
    )
    job, engine = job_of(tiny(method={"preset": "dense_grpo", "sampling": {"group": 4}}), tmp_path)
    with engine:
        batch = loop.sampled(job, 1)
        found = loop.score(job, batch, loop.Context(step=1))
        scores, [table] = found.scores, found.views
        start = sample(
            job.denoiser, batch.trajectory.states[:, 0], batch.chain.deterministic(), condition=batch.condition
        )
        ode = [float(p.mean() / 255) for p in job.denoiser.decode(start.states[:, -1])]
    # A group's samples stand beside one another at the same step only.
    assert (compared[-1].groups.reshape(3, 4, 3) == np.arange(3)[:, None, None] * 3 + np.arange(3)).all()
    values = table.read(0.0)
    assert values.shape == (12, 5)
    np.testing.assert_allclose(values[:, 0], ode, atol=2e-3)  # a byte more or less, for the order of sums
    np.testing.assert_allclose(values[:, -1], scores.read(0.0))
    gains = np.diff(values, axis=1)
    grouped = gains.reshape(3, 4, 4)
    expected = (grouped - grouped.mean(1, keepdims=True)) / (grouped.std(1, ddof=1, keepdims=True) + 1e-4)
    found = loop.credited(job.method, batch.rollouts, table).reshape(3, 4, 4)
    np.testing.assert_allclose(found[:, :, :3], expected[:, :, :3], rtol=1e-4, atol=1e-6)
    assert not found[:, :, 3].any()  # without noise there is nothing to learn from


def test_samples_that_are_not_finite_abstain(tmp_path, bright):
    job, engine = job_of(tiny(), tmp_path)
    with engine:
        batch = loop.sampled(job, 1)
        batch.sound[2] = False
        scores = loop.score(job, batch, loop.Context(step=1)).scores
    assert scores.reasons == {2: "the sample is not finite"}
    assert loop.credited(job.method, batch.rollouts, scores)[2] == 0.0


def test_a_policy_that_says_nan_stops_the_run_with_the_reason(tmp_path, bright, monkeypatch):
    def broken(config, seed):
        denoiser = build(config, seed)
        torch.nn.init.constant_(denoiser.network.proj_out_2.bias, torch.nan)
        return denoiser

    monkeypatch.setattr(jobs, "build", broken)
    with pytest.raises(TooManyAbstentions, match="the sample is not finite"):
        train(tiny(), tmp_path / "run")


def test_abstentions_are_counted_and_teach_nothing(tmp_path, monkeypatch):
    @reward(range=(0, 1), lane="batch")
    def half(completion) -> Scores:
        return Scores.of([None if i % 4 == 0 else np.asarray(p).mean() / 255 for i, p in enumerate(completion)])

    monkeypatch.setattr(DenoisingRecipe, "load_reward", lambda self, allow_import=False: half())
    summary = train(tiny(max_abstain=0.3), tmp_path / "run")
    assert summary["abstained"] == 0.25
    assert metrics(tmp_path / "run")[0]["reasons"] == {"no score was returned": 3}


def test_noise_belongs_to_its_row_and_step():
    whole = normals(range(6), (2, 3), seed=1, step=5)
    torch.testing.assert_close(whole[2:4], normals([2, 3], (2, 3), seed=1, step=5), rtol=0, atol=0)
    for other in (normals(range(6), (2, 3), seed=2, step=5), normals(range(6), (2, 3), seed=1, step=6)):
        assert not torch.equal(whole, other)
    assert len({float(row[0, 0]) for row in whole}) == 6
    many = normals(range(2000), (4,), seed=0, step=0)
    assert abs(float(many.mean())) < 0.03
    assert abs(float(many.std()) - 1) < 0.03


def test_several_updates_on_one_batch_leave_the_ratio(tmp_path, bright):
    batch = {"passes": 2, "minibatches": 2}
    train(tiny(steps=1, batch=batch, optimizer={"learning_rate": 1e-1}), tmp_path / "run")
    [record] = metrics(tmp_path / "run")
    assert record["ratio"] != 1.0
    assert record["clip_low"] + record["clip_high"] > 0


def test_a_recipe_is_data_and_back():
    recipe = tiny()
    assert recipes.from_data(recipe.data()) == recipe
    assert isinstance(recipe, DenoisingRecipe)
    shown = recipes.load(Path(__file__).parents[2] / "recipes" / "digits_flow.yaml")
    assert (shown.denoiser.from_config.size, shown.load_method().kl.coefficient > 0) == (8, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoisr": {}}, "denoisr: there is no such setting: did you mean 'denoiser'"),
        ({"sampling": {"window": [2, 5]}}, "window: steps 2 to 5 are not in a trajectory of 4"),
        ({"sampling": {"guidance": 0.5}}, "guidance is at least 1"),
        ({"sampling": {"kind": "sde"}}, "sampling.kind: 'sde' is not a choice"),
        ({"method": "real"}, "rewards_as_labels reads"),
        ({"method": "dapo"}, "sampling.dynamic: not for a denoising policy|limit"),
        ({"method": {"preset": "flow_grpo", "kl": {"place": "reward", "coefficient": 1}}}, "method.kl.place"),
        ({"method": {"preset": "flow_grpo", "entropy": 0.1}}, "method.entropy: not for a denoising policy"),
        ({"prompts": {"file": "x.jsonl", "unsolved": {}}}, "prompts.unsolved: not for a denoising policy"),
        (
            {
                "reward": [{"part": "image.compactness", "name": "a"}, {"part": "image.artifacts", "name": "b"}],
                "method": {
                    "preset": "flow_grpo",
                    "credit": {"sum": {"a": "credit.group_relative", "b": "credit.group_relative"}},
                    "blend": {"primary": "a"},
                },
            },
            "method.blend: not for a denoising policy",
        ),
        ({"method": "ppo"}, "critic"),
        ({"denoiser": {"path": "x"}}, "either built .from_config. or loaded .path.: both given"),
        ({"denoiser": {"from_config": {"heads": 3}}}, "divide the width"),
        ({"batch": {"minibatches": 5}}, "12 rollouts do not divide into 5"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:24],
)
def test_mistakes_in_a_recipe_are_named_before_any_work(changes, message):
    with pytest.raises(RecipeError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": {"kind": "ddim"}}, "FlowMatchEulerDiscreteScheduler has flow_sde, dance, cps, got ddim"),
        ({"denoiser": {"scheduler": {"shfit": 3.0}}}, "has no setting 'shfit': did you mean 'shift'"),
        ({"sampling": {"kind": "cps", "a": 1.5}}, "a of cps must lie between 0 and 1"),
        ({"teach": {}}, "digits are"),
    ],
    ids=["kind", "setting", "amount", "size"],
)
def test_mistakes_that_only_the_model_shows_are_named_before_any_step(tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        train(tiny(**changes), tmp_path / "run")


def test_the_command_trains_either_kind(tmp_path):
    from typer.testing import CliRunner

    from guerdon.cli import app

    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(TINY))
    result = CliRunner().invoke(app, ["train", str(path), "--steps", "1", "--folder", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "reward" in result.output
    assert Run(tmp_path / "run").summary["steps"] == 1
