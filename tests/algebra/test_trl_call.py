from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guerdon import Abstain, GuerdonError, Scores, reduce, reward, shaping
from guerdon.core import Rollouts


@reward(range=(-9, 9), lane="batch")
def noted(rollouts: Rollouts, note):
    """What the data say; None abstains."""
    return Scores.of(rollouts.column("note"), reasons={i: "no note" for i, v in enumerate(note) if v is None})


@reward(range=(0, 9), lane="batch", differentiable=True)
def learned(rollouts):
    return torch.arange(float(len(rollouts)), requires_grad=True)


@reward(range=(0, 9), lane="batch", level="step")
def stepwise(rollouts):
    return Scores(np.ones((len(rollouts), 2)))


class Watch(shaping.Shaper):
    """Remembers the contexts it shaped and the steps it observed."""

    def __init__(self, scope="row"):
        self.scope, self.contexts, self.observed = scope, [], []

    def __call__(self, scores, context):
        self.contexts.append(context)
        return scores

    def observe(self, scores, context):
        self.observed.append(context.step)


class Trainer:
    """As much of TRL's trainer as a reward function meets."""

    def __init__(self, max_steps: int = 10) -> None:
        self.state = SimpleNamespace(global_step=0, max_steps=max_steps)
        self.model = SimpleNamespace(training=True)
        self.metrics: dict[str, list[float]] = {}
        self.extra: dict[str, list[str]] = {}

    def log_metric(self, name: str, value: float) -> None:
        self.metrics.setdefault(name, []).append(value)

    def log_extra(self, column: str, values: list[str]) -> None:
        self.extra.setdefault(column, []).extend(values)

    def call(self, function, prompts, completions=None, **columns):
        """As `GRPOTrainer._calculate_rewards` calls it."""
        completions = completions or ["x"] * len(prompts)
        return function(
            prompts=prompts,
            completions=completions,
            completion_ids=[[1] * len(c) for c in completions],
            trainer_state=self.state,
            log_extra=self.log_extra,
            log_metric=self.log_metric,
            **columns,
        )


def test_trl_still_calls_a_reward_function_so():
    """Read, not imported: importing it takes longer than all else here."""
    installed = find_spec("trl")
    if installed is None:
        pytest.skip("trl is not installed")
    source = (Path(installed.submodule_search_locations[0]) / "trainer" / "grpo_trainer.py").read_text()
    for expected in (
        "prompts=prompts, completions=completions, completion_ids=completion_ids_list, **reward_kwargs",
        'reward_kwargs["trainer_state"] = self.state',
        'reward_kwargs["log_extra"] = self._log_completion_extra',
        'reward_kwargs["log_metric"] = self._log_metric',
    ):
        assert expected in source


def test_floats_and_none():
    result = Trainer().call(noted() + 1, ["a"] * 3, note=[1, None, 0.5])
    assert result == [2.0, None, 1.5]
    assert [type(v) for v in result] == [float, type(None), float]


@pytest.mark.filterwarnings("error")
def test_a_reward_that_holds_tensors_gives_floats_too():
    trainer = Trainer()
    assert trainer.call(2 * learned(), ["a"] * 3) == [0.0, 2.0, 4.0]
    assert trainer.metrics["reward/abstained"] == [0.0]


def test_parts_and_abstentions_are_logged():
    trainer = Trainer()
    whole = (noted() >> shaping.clip(high=1)).named("clipped") * 1 + learned()
    trainer.call(whole, ["a"] * 4, note=[2, None, 0, 1])
    part = noted().name
    assert trainer.metrics == {
        f"reward/{part}": [1.0],
        "reward/clipped": [pytest.approx(2 / 3)],
        f"reward/{learned().name}": [1.5],
        "reward/abstained": [0.25],
    }
    assert trainer.extra == {"abstained_because": ["", f"{part}: no note", "", ""]}
    trainer.call(whole, ["a"] * 2, note=[None, None])
    assert len(trainer.metrics[f"reward/{part}"]) == 1, "no score, no mean"
    assert trainer.metrics["reward/abstained"] == [0.25, 1.0]
    trainer.call(whole, ["a"] * 2, note=[1, 1])
    assert trainer.extra["abstained_because"][-2:] == ["", ""], (
        "or TRL's table would keep older reasons beside new rows"
    )


def test_progress_and_step_come_from_the_trainer():
    watch, trainer = Watch(), Trainer(max_steps=8)
    for step in (0, 2, 8, 9):
        trainer.state.global_step = step
        trainer.call(noted() >> watch, ["a"], note=[1])
    assert sorted({(c.step, c.progress, c.training) for c in watch.contexts}) == [
        (0, 0.0, True), (2, 0.25, True), (8, 1.0, True), (9, 1.0, True),
    ]  # fmt: skip
    watch.contexts.clear()
    (noted() >> watch)(["a"], ["x"], note=[1])
    assert [(c.progress, c.training) for c in watch.contexts] == [(1.0, False)], "called by hand: outside training"
    trainer.state.max_steps = 0
    trainer.call(noted() >> watch, ["a"], note=[1])
    assert watch.contexts[-1].progress == 0.0


def test_shapers_observe_once_each_time_the_step_has_grown():
    watch, trainer = Watch(), Trainer()
    whole = noted() >> watch
    for step in (0, 0, 1, 1, 1, 4):
        trainer.state.global_step = step
        trainer.call(whole, ["a"], note=[1])
    assert watch.observed == [0, 1, 4]
    trainer.state.global_step = 0
    trainer.call(whole, ["a"], note=[1])
    assert watch.observed == [0, 1, 4, 0], "another run with the same reward"


def test_shapers_do_not_observe_while_trl_evaluates():
    watch, trainer = Watch(), Trainer()
    whole = noted() >> watch
    trainer.state.global_step = 5
    trainer.model.training = False
    trainer.call(whole, ["a"], note=[1])
    assert watch.observed == []
    assert not watch.contexts[-1].training
    trainer.model.training = True
    trainer.call(whole, ["a"], note=[1])
    assert watch.observed == [5]


def test_tokens_are_those_of_completion_ids():
    watch = Watch()
    long = (noted() >> shaping.clip(low=0)) >> shaping.brevity(weight=1.0, target=1, width=1, unit="tokens")
    with pytest.raises(ValueError, match="never negative"):
        noted() >> shaping.brevity()
    scores = Trainer().call(long >> watch, ["a", "a"], ["x", ""], note=[1, 1])
    assert scores == pytest.approx([1 - 1 / 2, 1 - 1 / (1 + np.e)])
    (context,) = watch.contexts
    assert context.rollouts.lengths().tolist() == [1, 0]
    with pytest.raises(GuerdonError, match="'tokens' is missing"):
        long(["a"], ["x"], note=[1])


def test_columns_that_rollouts_have_a_field_for():
    """Datasets have ids: those are the rollouts', and labels of groups may be text."""
    watch = Watch()
    result = Trainer().call(
        noted() >> shaping.center("group") >> watch,
        ["a"] * 4,
        note=[1, 3, 5, 9],
        id=[7, 7, 8, 8],
        group=["u", "u", "v", "v"],
        finished=[True, False, True, True],
    )
    assert result == [-1.0, 1.0, -2.0, 2.0]
    assert watch.contexts[0].rollouts.ids == ["7", "7", "8", "8"]
    assert watch.contexts[0].rollouts.finished.tolist() == [True, False, True, True]


def test_steps_are_refused_with_the_remedy():
    with pytest.raises(GuerdonError, match=r"use reduce\(…, 'min'\)"):
        stepwise()(["a"], ["x"])
    assert reduce(stepwise(), "min")(["a"], ["x"]) == [1.0]


def test_a_missing_column_is_an_error_before_any_work():
    watch = Watch()
    with pytest.raises(GuerdonError, match="column 'note' is missing"):
        Trainer().call(noted() >> watch, ["a"], answer=["1"])
    assert watch.contexts == []


def test_a_group_that_is_cut_is_an_error_that_names_the_settings():
    relative = noted() >> shaping.center("group")
    assert Trainer().call(relative, ["a", "a", "b", "b"], note=[0, 2, 0, 4]) == [-1.0, 1.0, -2.0, 2.0]
    assert Trainer().call(relative, ["a", "b"], note=[0, 2]) == [0.0, 0.0], "groups of one"
    with pytest.raises(GuerdonError, match="per_device_train_batch_size × steps_per_generation a multiple of num_gen"):
        Trainer().call(relative, ["a", "a", "b"], note=[0, 2, 0])
    # What does not compare groups does not mind.
    assert Trainer().call(noted(), ["a", "a", "b"], note=[0, 2, 0]) == [0.0, 2.0, 0.0]
    assert Trainer().call(noted() >> shaping.center("batch"), ["a", "a", "b"], note=[0, 3, 0]) == [-1.0, 2.0, -1.0]


class Processes:
    """torch.distributed, with what the other processes would say."""

    def __init__(self, monkeypatch, others):
        self.others, self.said = others, None
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1 + len(others))
        monkeypatch.setattr(torch.distributed, "all_gather_object", self.gather)

    def gather(self, found, mine):
        found[:] = [mine, *self.others]


def ends(*prompts):
    return tuple(Rollouts([prompt], [""]).ids[0] for prompt in prompts)


def test_a_group_that_goes_on_at_the_next_process_is_found(monkeypatch):
    relative = noted() >> shaping.center("group")
    call = lambda: Trainer().call(relative, ["a", "a", "b", "b"], note=[0, 2, 0, 4])  # noqa: E731
    Processes(monkeypatch, [(False, *ends("c", "d"))])
    assert call() == [-1.0, 1.0, -2.0, 2.0]
    Processes(monkeypatch, [(False, *ends("b", "d"))])
    with pytest.raises(GuerdonError, match="split over processes"):
        call()
    Processes(monkeypatch, [(True, *ends("c", "d"))])
    with pytest.raises(GuerdonError, match="split over processes"):
        call()
    Processes(monkeypatch, [(False, *ends("c", "d")), (False, *ends("d", "e"))])
    with pytest.raises(GuerdonError, match="split over processes"):
        call()


def test_a_mean_over_the_batch_is_refused_where_the_batch_is_in_pieces(monkeypatch):
    whole = noted() >> shaping.center("batch")
    Processes(monkeypatch, [(False, *ends("c", "d"))])
    with pytest.raises(GuerdonError, match=r"the 2 processes scores a part: compare groups"):
        Trainer().call(whole, ["a"], note=[1])
    assert Trainer().call(noted(), ["a"], note=[1]) == [1.0]


def test_a_reward_has_the_name_that_trl_logs():
    assert (noted() + 1).__name__ == "guerdon"
    assert noted().__name__ == noted().name
    assert (noted() + 1).named("total").__name__ == "total"
    assert not inspect.iscoroutinefunction(noted())
    assert not inspect.iscoroutinefunction(noted().__call__)


def test_chat_and_tool_calls_go_through():
    chat = [{"role": "user", "content": "2+2"}]
    call = [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}]

    @reward(range=(0, 1), lane="batch")
    def words(rollouts):
        return rollouts.lengths("words") / 10

    said = [{"role": "assistant", "content": "it is four"}]
    assert Trainer().call(words(), [chat] * 3, [said, call, []]) == [0.3, 0.0, 0.0]


def test_a_leaf_that_raises_costs_its_rows_and_not_the_run():
    @reward(range=(0, 1), lane="batch")
    def broken(rollouts):
        raise Abstain("the judge is gone")

    trainer = Trainer()
    assert trainer.call(broken() + noted(), ["a", "a"], note=[1, 1]) == [None, None]
    assert trainer.extra["abstained_because"][0].endswith("the judge is gone")
