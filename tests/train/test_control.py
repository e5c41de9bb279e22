"""The loop for planners: recorded episodes and what is still to be earned in them, plans, and acting as asked."""

import itertools
import json

import numpy as np
import pytest
import torch
from stopping import equal, last, metrics, stopped

pytest.importorskip("gymnasium")

import gymnasium
from typer.testing import CliRunner
from walking import ID, TINY, pays, tiny, walked, written

from guerdon.algebra import reward
from guerdon.cli import app
from guerdon.core import Scores
from guerdon.core.errors import GuerdonError, MissingInput, RecipeError, RunExists, TooManyAbstentions
from guerdon.models import MultiScalePlanner
from guerdon.train import recipe as recipes
from guerdon.train.control import evaluation, loop
from guerdon.train.control.episodes import EnvironmentConfig, World, play, seeded
from guerdon.train.control.loop import train
from guerdon.train.control.windows import Windows, earned, to_go
from guerdon.train.run import Run


@reward(range=(0, 10))
def places(observations) -> float:
    """How far to the right an episode ended."""
    return float(np.clip(observations[-1][0] + 5, 0, 10))


def test_asking_for_more_brings_more(tmp_path):
    """On walks whose return is known, what is earned follows what is asked for: a rank correlation above 0.8."""
    recipe = tiny(
        planner={"length": 8, "scales": [1, 2, 4, 8], "codes": 16, "width": 32, "heads": 4},
        episodes={"file": written(tmp_path / "walks.jsonl", walked(128)), "record": None},
        evaluation={"targets": [0.1, 0.3, 0.5, 0.7, 0.9], "episodes": 4},
        steps=280, windows=32, optimizer={"learning_rate": 4e-3},
    )  # fmt: skip
    after = train(recipe, tmp_path / "run")["after"]
    assert after["follows"] > 0.8
    assert after["asked"][-1]["reward"] > after["asked"][0]["reward"] + 0.3
    assert after["reward"] == after["asked"][-1]["reward"]
    returns = [sum(row["rewards"]) for row in walked(128)]
    assert after["recorded"] == pytest.approx({"mean": np.mean(returns), "best": max(returns)})
    again = MultiScalePlanner.from_pretrained(tmp_path / "run" / "policy")
    state, target = torch.tensor([[-2.0]]), torch.tensor([0.9])
    assert again.act(state, target).item() > again.act(state, torch.tensor([0.1])).item()


def test_a_run_leaves_what_the_design_says(tmp_path):
    summary = train(tiny(), tmp_path / "run")
    assert set(summary["before"]) == set(summary["after"]) == {"reward", "ci95", "follows", "recorded", "asked"}
    run = Run(tmp_path / "run")
    assert json.loads((run.folder / "summary.json").read_text()) == summary
    assert [record["step"] for record in run.metrics()] == [1, 2, 3, 4]
    # 0.4 of four steps learn codes
    assert ["codes_loss" in record for record in run.metrics()] == [True, False, False, False]
    assert [record["step"] for record in run.evaluations()] == [0, 4]
    (first, table), _ = run.rollouts()
    assert first == 0
    assert table["prompt"][:1] + table["prompt"][-1:] == [f"{ID}, 0.2 asked for", f"{ID}, 0.8 asked for"]
    assert table["score"] == pytest.approx([sum(rewards) for rewards in table["rewards"]])
    assert table["completion"] == ["8 steps"] * 6
    assert table["group"] == [0] * 3 + [1] * 3
    page = (run.folder / "report.html").read_text()
    assert "Does as asked" in page
    assert '"kind":"control"' in page.replace(" ", "")
    planner = MultiScalePlanner.from_pretrained(run.folder / "policy")
    assert equal(planner.state_dict(), last(run.folder).weights)
    assert train(tiny(), tmp_path / "run") == summary
    with pytest.raises(RunExists, match="windows"):
        train(tiny(windows=4), tmp_path / "run")


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train(tiny(seed=seed), tmp_path / name)
    one, same, other = (metrics(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other
    assert Run(tmp_path / "one").evaluations() == Run(tmp_path / "same").evaluations()


def test_a_run_that_was_killed_ends_where_an_uninterrupted_one_does_and_scores_nothing_twice(tmp_path, monkeypatch):
    train(tiny(), tmp_path / "whole")
    scored = []
    own = loop.prepare.__globals__["_scored"]
    monkeypatch.setitem(loop.prepare.__globals__, "_scored", lambda *rest: scored.append(1) or own(*rest))
    stopped(monkeypatch, train, tiny(), tmp_path / "broken", after=2)
    assert len(scored) == 1
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert equal(last(tmp_path / "broken").weights, last(tmp_path / "whole").weights)


def test_how_windows_are_divided_over_processes_does_not_change_the_gradient(tmp_path, monkeypatch):
    """Two halves, each by itself, add up to the whole."""
    found = {}
    for name, part in (("whole", slice(None)), ("first", slice(0, 4)), ("second", slice(4, 8))):
        monkeypatch.setattr(loop, "share", lambda accelerator, rows, part=part: rows[part])
        monkeypatch.setattr(
            loop, "add_gradients", lambda accelerator, weights, name=name: found.setdefault(
                name, [None if w.grad is None else w.grad.clone() for w in weights]
            ),
        )  # fmt: skip
        train(tiny(steps=1, planner={"coding": 0.1}), tmp_path / name)
    learned = [grads for grads in zip(*found.values(), strict=True) if grads[0] is not None]
    assert len(learned) > 10
    for whole, first, second in learned:
        torch.testing.assert_close(first + second, whole, rtol=1e-4, atol=1e-6)


def test_what_is_left_to_be_earned_is_the_sum_from_here_on():
    rewards = [[1.0, 0.5, -2.0], [3.0], None, [0.25] * 5]
    expected = [None if row is None else [sum(row[t:]) for t in range(len(row))] for row in rewards]
    assert to_go(rewards) == expected


def test_episodes_earn_at_their_end_or_step_by_step_or_for_where_each_step_led():
    assert earned(Scores([4.0]), [3]) == ([[0.0, 0.0, 4.0]], {})
    mask = np.array([[True, True, False], [True, True, True]])
    steps = Scores(np.array([[1.0, 2.0, 9.0], [7.0, 2.0, 3.0]]), mask=mask)
    assert earned(steps, [2, 2]) == ([[1.0, 2.0], [2.0, 3.0]], {})  # nobody earned the first observation
    found, reasons = earned(steps, [2, 5])
    assert found == [[1.0, 2.0], None]
    assert "3 scores for 5 actions" in reasons[1]
    some = Scores(np.ones((1, 2)), valid=np.array([[True, False]]), reasons={0: "the judge is away"})
    assert earned(some, [2]) == ([None], {0: "the judge is away"})


def test_windows_begin_at_every_action_and_stay_where_an_episode_ended():
    seen = [[[0.0], [1.0], [2.0]], [[9.0], [9.0]], [[5.0], [6.0]]]
    done = [[[0.1], [0.2]], [[0.9]], [[0.5]]]
    windows = Windows.of(seen, done, [[3.0, 2.0], None, [1.0]])
    assert len(windows) == 3
    assert windows.totals.tolist() == [3.0, 1.0]
    steps, actions = windows.read(np.array([0, 1, 2]), 3)
    assert steps.tolist() == [
        [[3.0, 0.0], [2.0, 1.0], [0.0, 2.0]],
        [[2.0, 1.0], [0.0, 2.0], [0.0, 2.0]],
        [[1.0, 5.0], [0.0, 6.0], [0.0, 6.0]],
    ]
    torch.testing.assert_close(actions, torch.tensor([[0.1], [0.2], [0.5]]))
    assert (windows.drawn(50, seed=3, step=2) == windows.drawn(50, seed=3, step=2)).all()
    assert (windows.drawn(50, seed=3, step=2) != windows.drawn(50, seed=3, step=3)).any()
    assert set(windows.drawn(50, seed=3, step=2)) == {0, 1, 2}


@pytest.mark.parametrize("lower", [True, False])
def test_what_was_earned_is_taken_from_what_is_asked_for(tmp_path, monkeypatch, lower):
    asked, acted = [], []

    def act(self, state, target, *, generator=None):
        asked.append(target.tolist())
        acted.append(0.25 * (1 + len(acted)) / 8)
        return torch.full((len(state), 1), acted[-1])

    monkeypatch.setattr(MultiScalePlanner, "act", act)
    train(tiny(steps=0, evaluation={"targets": [0.5, 0.75], "episodes": 1, "lower": lower}), tmp_path)
    so_far = [0.0, *itertools.accumulate(pays(a) for a in acted[:7])]
    expected = [[0.5 - gone, 0.75 - gone] if lower else [0.5, 0.75] for gone in so_far]
    np.testing.assert_allclose(asked[:8], expected, atol=1e-6)


def test_a_reward_of_whole_episodes_is_earned_at_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr("guerdon.train.control.recipe.ControlRecipe.load_reward", lambda self, allow_import: places())
    train(tiny(), tmp_path / "run")
    known = Run(tmp_path / "run")
    table = next(known.rollouts())[1]
    assert table["score"] == pytest.approx([min(10, max(0, x[-1][0] + 5)) for x in table["observations"]])
    assert known.evaluations()[0]["asked"][0]["reward"] == pytest.approx(np.mean(table["score"][:3]))


def test_the_same_episodes_are_asked_for_every_return(tmp_path):
    train(tiny(), tmp_path / "run")
    table = next(Run(tmp_path / "run").rollouts())[1]
    begun = [row[0][0] for row in table["observations"]]
    assert begun[:3] == begun[3:]
    assert len(set(begun[:3])) == 3


def test_drawn_codes_are_drawn_anew_in_each_run_of_another_seed_only(tmp_path):
    def earned_by(name, **changes):
        train(tiny(evaluation={"drawn": True}, **changes), tmp_path / name)
        return [record["asked"] for record in Run(tmp_path / name).evaluations()]

    assert earned_by("one") == earned_by("same")
    train(tiny(), tmp_path / "likeliest")
    assert [record["asked"] for record in Run(tmp_path / "likeliest").evaluations()] != earned_by("again")


def test_episodes_without_a_score_are_left_out_and_counted(tmp_path):
    rows = walked(10)
    rows[3]["rewards"] = [0.1, None]
    rows[4]["rewards"] = [0.1, 0.2]
    recipe = tiny(episodes={"file": written(tmp_path / "walks.jsonl", rows), "record": None})
    summary = train(recipe, tmp_path / "run")
    assert summary["abstained"] == 0.2
    first = Run(tmp_path / "run").metrics()[0]
    assert first["abstained"] == 0.2
    assert any("2 scores for 8 actions" in reason for reason in first["reasons"])
    returns = [sum(row["rewards"]) for i, row in enumerate(rows) if i not in (3, 4)]
    assert summary["after"]["recorded"]["mean"] == pytest.approx(np.mean(returns))
    with pytest.raises(TooManyAbstentions, match="2 of the last 10"):
        train(tiny(**recipe.data() | {"max_abstain": 0.1}), tmp_path / "strict")


def test_targets_are_those_of_the_episodes_where_none_are_named(tmp_path):
    file = written(tmp_path / "walks.jsonl", walked(21))
    summary = train(tiny(episodes={"file": file, "record": None}, evaluation={"targets": None}), tmp_path / "run")
    returns = [sum(row["rewards"]) for row in walked(21)]
    asked = [point["target"] for point in summary["after"]["asked"]]
    np.testing.assert_allclose(asked, np.linspace(np.quantile(returns, 0.1), max(returns), 5), atol=1e-5)


def test_choices_are_vectors_and_back():
    world = World(EnvironmentConfig("CartPole-v1"))
    assert (world.state, world.action, world.discrete) == (4, 2, True)
    assert world.read([0, 1, 1]).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert world.squashed(np.array([3.0, 4.0])).tolist() == [3.0, 4.0]
    with pytest.raises(ValueError, match="choices 0 … 1"):
        world.read([0, 2])
    first = world.begin(5)
    assert world.step(np.array([0.9, 0.1]))[0][1] < 0 < first.size  # pushed to the left


def test_choices_that_do_not_begin_at_zero():
    taken = []

    class Three(gymnasium.Env):
        observation_space = gymnasium.spaces.Discrete(2)
        action_space = gymnasium.spaces.Discrete(3, start=-1)

        def reset(self, *, seed=None, options=None):
            return 1, {}

        def step(self, action):
            taken.append(action)
            return 0, 0.0, False, False, {}

    gymnasium.register("guerdon/Three-v0", entry_point=Three, disable_env_checker=True)
    world = World(EnvironmentConfig("guerdon/Three-v0"))
    assert world.begin(0).tolist() == [0, 1]
    assert world.read([-1, 1]).tolist() == [[1, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="choices -1 … 1"):
        world.read([2])
    world.step(np.array([0.9, 0.1, 0.2]))
    world.step(np.array([0.1, 0.1, 0.2]))
    assert taken == [-1, 1]


def test_numbers_are_held_to_their_limits():
    world = World(EnvironmentConfig("Pendulum-v1"))
    assert world.within(np.array([7.0])).tolist() == [2.0]
    assert world.squashed(np.array([0.5])) == pytest.approx([2 * np.tanh(0.5)])
    assert World(EnvironmentConfig(ID)).read([0.5, -1]).tolist() == [[0.5], [-1.0]]
    with pytest.raises(ValueError, match="an action is 1 finite numbers"):
        world.read([[0.0, 1.0]])


def test_episodes_that_are_played_together_are_those_that_are_played_alone():
    def act(numbers, episodes):
        return np.stack([[np.sin(n + len(episode.actions))] for n, episode in zip(numbers, episodes, strict=True)])

    config = EnvironmentConfig(ID, limit=5)
    seeds = [seeded(1, n) for n in range(70)]
    together = [episode for some in play(config, seeds, act) for episode in some]
    assert len(together) == 70
    for n in (0, 69):
        (alone,) = next(play(config, [seeds[n]], lambda _, episodes, n=n: act([n], episodes)))
        assert len(alone.actions) == 5
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together[n], name))


@pytest.mark.parametrize("behaviour", ["random", "linear"])
def test_what_is_recorded_is_a_function_of_the_seed(tmp_path, behaviour):
    train(tiny(steps=0, episodes={"behaviour": behaviour, "hold": 4}), tmp_path / "run")
    from guerdon.core import tables

    kept = tables.read_parquet(tmp_path / "run" / "episodes.parquet")
    assert len(kept["actions"]) == 6
    slopes = []
    for seen, done, paid, left in zip(*(kept[x] for x in ("observations", "actions", "rewards", "to_go")), strict=True):
        assert len(seen) == len(done) + 1 == 9
        assert paid == pytest.approx([pays(a) for (a,) in done])
        assert left[0] == pytest.approx(sum(paid))
        if behaviour == "random":
            assert done[0] == done[3] != done[4]
        else:  # a = tanh(w x), with a w of its own
            known = [np.arctanh(a) / x for (a,), (x,) in zip(done, seen, strict=False) if 0 < abs(a) < 0.999]
            assert np.ptp(known) < 1e-3
            slopes.append(known[0])
    assert np.ptp([kept["actions"][i][0][0] for i in range(6)] if behaviour == "random" else slopes) > 0.1
    file = {"file": str(tmp_path / "run" / "episodes.parquet"), "record": None, "hold": 1, "behaviour": "linear"}
    summary = train(tiny(episodes=file), tmp_path / "again")  # what was kept can be learned from again
    assert summary["after"]["recorded"]["mean"] == pytest.approx(np.mean([sum(paid) for paid in kept["rewards"]]))


def test_a_recipe_is_data_and_back():
    recipe = tiny()
    assert recipes.from_data(recipe.data(), allow_import=True) == recipe
    assert recipe.reward == {"part": "recorded.steps", "column": "rewards"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"planner": {"lenght": 8}}, "planner.*lenght.*did you mean.*length"),
        ({"planner": {"coding": 1.0}}, "coding is a share"),
        ({"episodes": {"file": "x.jsonl"}}, "read from a file or recorded: both given"),
        ({"episodes": {"record": None}}, "neither given"),
        ({"episodes": {"behaviour": "expert"}}, "behaviour"),
        ({"evaluation": {"targets": [2, 1]}}, "targets are returns that rise"),
        ({"windows": 0}, "windows must be at least 1"),
        ({"keep": {"kl": True}}, "keep.kl"),
        ({"method": "grpo"}, "method"),
        ({"reward": "recorded.stepz"}, "recorded.steps"),
    ],
)
def test_mistakes_in_a_recipe_are_named_before_any_work(changes, message):
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        tiny(**changes)


def test_an_environment_that_imports_a_module_is_asked_about():
    data = TINY | {"environment": {"id": "os:Line-v0"}}
    with pytest.raises(RecipeError, match="--allow-import"):
        recipes.from_data(data)
    assert recipes.from_data(data, allow_import=True).environment.id == "os:Line-v0"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"environment": {"id": "Nowhere-v0"}}, RecipeError, "gymnasium cannot make 'Nowhere-v0'"),
        ({"environment": {"options": {"begin": 1}}}, RecipeError, "begin"),
        ({"planner": {"scales": [1, 3]}}, RecipeError, "planner: scales must rise and each divide the length, 4"),
        ({"planner": {"heads": 3}}, RecipeError, "planner: embed_dim must be divisible"),
        ({"reward": {"part": "recorded.steps", "column": "fun"}}, MissingInput, "'fun'"),
        ({"episodes": {"file": "nowhere.jsonl", "record": None}}, RecipeError, "no file 'nowhere.jsonl'"),
        ({"optimizer": {"learning_rate": 1e30}}, GuerdonError, "the loss is .*: lower optimizer.learning_rate"),
    ],
)
def test_mistakes_that_only_work_shows_are_named(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(tiny(**changes), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": [[0.1]] * 3}, "episode 1: 9 observations for 3 actions: one more is wanted"),
        ({"actions": []}, "episode 1"),
        ({"actions": [[0.1, 0.2]] * 8}, "an action is 1 finite numbers, not 2"),
        ({"observations": [[0.0, 1.0]] * 9}, "an observation is 1 finite numbers, not 2"),
        ({"observations": [["left"]] * 9}, "episode 1"),
        ({"observations": None}, "episode 1"),
    ],
)
def test_episodes_that_are_not_of_the_environment_are_named(tmp_path, change, message):
    rows = walked(3)
    rows[1] |= change
    with pytest.raises(RecipeError, match=message):
        train(tiny(episodes={"file": written(tmp_path / "w.jsonl", rows), "record": None}), tmp_path / "run")


def test_where_an_episode_ended_need_not_be_known(tmp_path):
    rows = [row | {"observations": row["observations"][:-1]} for row in walked(4)]
    train(tiny(episodes={"file": written(tmp_path / "w.jsonl", rows), "record": None}), tmp_path / "run")


def test_environments_that_cannot_be_used_are_named():
    class Odd(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,))
        action_space = gymnasium.spaces.MultiDiscrete([2, 2])

    class Broken(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.array([np.nan], np.float32), {}

    for name, made in (("Odd", Odd), ("Broken", Broken)):
        if f"guerdon/{name}-v0" not in gymnasium.registry:
            gymnasium.register(f"guerdon/{name}-v0", entry_point=made, disable_env_checker=True)
    with pytest.raises(RecipeError, match="neither Box nor Discrete"):
        World(EnvironmentConfig("guerdon/Odd-v0"))
    with pytest.raises(RecipeError, match="not finite"):
        World(EnvironmentConfig("guerdon/Broken-v0")).begin(0)


def test_ranks_are_shared_by_equals_and_of_one_value_there_are_none():
    """Against the correlation of ranks, one pair after the other."""
    generator = np.random.default_rng(0)
    one, other = generator.integers(4, size=30).astype(float), generator.integers(4, size=30).astype(float)

    def ranks(values):
        return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]

    assert evaluation.rank_correlation(one, other) == pytest.approx(np.corrcoef(ranks(one), ranks(other))[0, 1])
    assert evaluation.rank_correlation(one, np.ones(30)) is None
    assert evaluation.rank_correlation(one[:1], other[:1]) is None


def test_the_command_trains_it(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(TINY))
    result = CliRunner().invoke(app, ["train", str(file), "--folder", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "follows" in result.output
    assert (tmp_path / "run" / "report.html").exists()
