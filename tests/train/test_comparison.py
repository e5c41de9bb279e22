import json
import subprocess
from pathlib import Path

import pytest
import yaml

from guerdon.cli import compare as cli
from guerdon.core.errors import GuerdonError, RecipeError
from guerdon.train import comparison as comparisons, recipe as recipes
from guerdon.train.language import loop


@pytest.fixture
def written(tmp_path, tiny_file):
    """`written(arms={…}, teach={…})`: a comparison's file beside a tiny recipe."""

    def write(arms, *, recipe=None, **settings):
        tiny_file(**(recipe or {}))
        path = tmp_path / "few.yaml"
        path.write_text(yaml.safe_dump({"base": "tiny.yaml", "arms": arms, "seeds": [0, 1]} | settings))
        return path

    return write


@pytest.fixture
def commands(monkeypatch):
    """The commands that are run, each of them here instead of in a process of its own."""
    run: list[list[str]] = []

    def here(command, *, stdout, **_):
        run.append(command)
        assert command[1:4] == ["-m", "guerdon", "train"]
        try:
            loop.train(recipes.load(command[4]), Path(command[6]))
        except GuerdonError as error:
            stdout.write(f"guerdon: {error}\n")
            return subprocess.CompletedProcess(command, 2)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", here)
    return run


TEACH = {"demonstrations": "scratchpad", "steps": 2, "batch": 4}


def test_arms_that_teach_alike_begin_with_the_same_policy(written, commands, tmp_path):
    arms = {"plain": {}, "fast": {"optimizer.learning_rate": 0.1}}
    comparison = comparisons.load(written(arms, recipe={"teach": TEACH, "steps": 1}, seeds=[3]))
    result = comparisons.compare(comparison, tmp_path / "runs", jobs=1)
    assert len(commands) == 3, "one start, and two arms"
    assert [run["seed"] for run in result["arms"]["fast"]] == [3]
    begun = yaml.safe_load((tmp_path / "runs" / "fast" / "seed-3" / "config.yaml").read_text())
    assert begun["seed"] == 3
    assert begun["teach"] is None
    assert begun["optimizer"]["learning_rate"] == 0.1
    assert Path(begun["policy"]["path"]).parent.parent == tmp_path / "starts"
    assert json.loads((tmp_path / "runs" / "comparison.json").read_text()) == result


def test_starts_differ_where_what_is_taught_or_the_seed_does(written):
    arms = {"plain": {}, "fast": {"optimizer.learning_rate": 0.1}, "apart": {"teach.steps": 1}}
    comparison = comparisons.load(written(arms, recipe={"teach": TEACH}))
    starts = {(arm, seed): comparisons.plan(comparison, arm, seed, Path("x")).start for arm in arms for seed in (0, 1)}
    assert starts["plain", 0] == starts["fast", 0]
    assert len(set(starts.values())) == 4


def test_what_has_ended_is_not_run_again_and_another_recipe_is_refused(written, commands, tmp_path):
    comparison = comparisons.load(written({"plain": {}, "short": {"sampling.max_tokens": 4}}, seeds=[0]))
    first = comparisons.compare(comparison, tmp_path / "runs", jobs=1)
    made = len(commands)
    assert comparisons.compare(comparison, tmp_path / "runs", jobs=1) == first
    assert len(commands) == made
    other = comparisons.load(written({"plain": {}, "short": {"sampling.max_tokens": 5}}, seeds=[0]))
    with pytest.raises(GuerdonError, match=r"(?s)short, seed 0.*exit code 2.*different: .*sampling\.max_tokens"):
        comparisons.compare(other, tmp_path / "runs", jobs=1)


def test_the_rollouts_to_an_accuracy_are_counted_to_the_first_evaluation_that_has_it(tmp_path, tiny):
    run = comparisons.Planned("arm", 0, {}, tmp_path / "run", None)
    recipe = tiny(steps=6, batch={"prompts": 4}, method={"sampling": {"group": 4}})
    made = comparisons.Run.open(run.folder, recipe.data())
    for step in range(1, 7):
        made.log({"step": step, "rounds": 2 if step == 2 else 1})
    for step, accuracy in [(0, 0.1), (2, 0.5), (4, 0.8), (6, 0.6)]:
        made.log_evaluation({"step": step, "accuracy": accuracy})
    made.save_summary({"before": {"accuracy": 0.1}, "after": {"accuracy": 0.6, "mean_length": 3.0}, "seconds": 1.0})
    assert comparisons.measured(run, 0.5)["rollouts"] == 16 * 3
    assert comparisons.measured(run, 0.8)["rollouts"] == 16 * 5
    assert comparisons.measured(run, 0.9)["rollouts"] is None
    assert comparisons.measured(run)["best"] == 0.8


@pytest.mark.parametrize(
    ("arms", "settings", "message"),
    [
        ({}, {}, "at least one arm"),
        ({"a": {"optimiser.learning_rate": 1}}, {}, r"arms\.a: .*optimiser"),
        ({"a": {"method": "grpoo"}}, {}, r"arms\.a: .*grpo"),
        ({"a/b": {}}, {}, "folder's name"),
        ({"a": {}}, {"seeds": [1, 1]}, "repeated"),
        ({"a": {}}, {"base": "missing.yaml"}, r"missing\.yaml: No such file"),
        ({"a": {"reward.part.x": 1}}, {}, "has no settings inside it"),
    ],
)
def test_a_mistake_is_found_before_any_work(written, commands, arms, settings, message):
    with pytest.raises(RecipeError, match=message):
        comparisons.load(written(arms, **settings))
    assert not commands


def test_set_changes_every_arm_and_arms_come_last(written):
    path = written({"a": {}, "b": {"steps": 5}}, set={"steps": 3})
    comparison = comparisons.load(path, ["steps=4", "batch.micro=2"])
    steps = {arm: comparisons.plan(comparison, arm, 0, Path("x")).recipe["steps"] for arm in "ab"}
    assert steps == {"a": 4, "b": 5}
    assert comparisons.plan(comparison, "a", 7, Path("x")).recipe["batch"]["micro"] == 2


def test_the_table_shows_the_mean_and_the_ends():
    runs = [
        {"accuracy": 0.5, "best": 0.6, "mean_length": 10.0, "pass_at": {"1": 0.5, "2": 0.75}, "rollouts": 1024},
        {"accuracy": 0.7, "best": 0.8, "mean_length": 14.0, "pass_at": {"1": 0.7, "2": 0.85}, "rollouts": None},
    ]
    table = cli.table({"name": "few", "arms": {"a": runs}})
    assert [column.header for column in table.columns][1:] == [
        "accuracy", "best", "mean length", "pass@1", "pass@2", "rollouts",
    ]  # fmt: skip
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells == [
        "a", "0.600 (0.500 … 0.700)", "0.700 (0.600 … 0.800)", "12.0 (10.0 … 14.0)", "0.600 (0.500 … 0.700)",
        "0.800 (0.750 … 0.850)", "1,024 (1,024 … 1,024, 1 of 2)",
    ]  # fmt: skip
