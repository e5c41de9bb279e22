"""The run store: whole or not at all, and never lost."""

import errno
import json

import numpy as np
import pytest

from guerdon.core import Rollouts, Scores
from guerdon.core.errors import GuerdonError, RunExists
from guerdon.train import run as store
from guerdon.train.run import Run

CONFIG = {"name": "x", "steps": 3, "policy": {"layers": 2}}


def test_a_run_is_opened_again_with_the_same_recipe_and_refused_with_another(tmp_path):
    Run.open(tmp_path / "x", CONFIG).log({"step": 1})
    assert Run.open(tmp_path / "x", CONFIG).config == CONFIG
    with pytest.raises(RunExists, match=r"different: policy\.layers") as refused:
        Run.open(tmp_path / "x", {**CONFIG, "policy": {"layers": 3}})
    assert "--fresh" in str(refused.value)


def test_fresh_moves_each_earlier_run_aside(tmp_path):
    for steps in (1, 2, 3):
        Run.open(tmp_path / "x", {**CONFIG, "steps": steps}, fresh=True).log({"step": 1})
    assert [Run(tmp_path / name).config["steps"] for name in ("x", "x.1", "x.2")] == [3, 1, 2]


def test_a_dry_run_makes_way_for_the_run_it_tried(tmp_path):
    Run.open(tmp_path / "x", {**CONFIG, "steps": 1}).log({"step": 1})
    Run.open(tmp_path / "x", CONFIG).log({"step": 1})
    assert [Run(tmp_path / name).config["steps"] for name in ("x", "x.1")] == [3, 1]
    with pytest.raises(RunExists, match="different: steps"):
        Run.open(tmp_path / "x", {**CONFIG, "steps": 1})


def test_a_run_that_never_began_does_not_stand_in_the_way_of_the_mended_recipe(tmp_path):
    Run.open(tmp_path / "x", CONFIG)
    assert Run.open(tmp_path / "x", {**CONFIG, "reward": "mended"}).config["reward"] == "mended"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("mine")
    with pytest.raises(RunExists, match="holds no run"):
        Run.open(tmp_path / "x", CONFIG)
    assert (tmp_path / "x" / "thesis.tex").read_text() == "mine"


def test_a_torn_last_line_is_ignored_and_a_torn_earlier_one_is_not(tmp_path):
    run = Run.open(tmp_path / "x", CONFIG)
    run.log({"step": 1})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')
    assert run.metrics() == [{"step": 1}]
    (run.folder / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(GuerdonError, match=r"metrics\.jsonl, line 2"):
        run.metrics()


def test_rewind_forgets_what_came_after_a_step(tmp_path):
    run = Run.open(tmp_path / "x", CONFIG)
    batch, scores = Rollouts(["p"], ["c"]), Scores(np.ones(1))
    for step in (1, 2, 3):
        run.log({"step": step})
        run.log_evaluation({"step": step})
        run.save_rollouts(step, batch, scores)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')
    run.rewind(2)
    run.log({"step": 3, "again": True})
    assert run.metrics() == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    assert [e["step"] for e in run.evaluations()] == [1, 2]
    assert [step for step, _ in run.rollouts()] == [1, 2]


def test_metrics_are_never_nan(tmp_path):
    run = Run.open(tmp_path / "x", CONFIG)
    with pytest.raises(ValueError, match="JSON"):
        run.log({"step": 1, "loss": float("nan")})


def test_rollouts_are_kept_with_scores_parts_details_and_reasons(tmp_path):
    run = Run.open(tmp_path / "x", CONFIG)
    part = Scores.of([1.0, None], reasons={1: "no reference"}, details={"extracted": ["4", None]})
    scores = Scores.of([0.5, None], reasons={1: "math.answer: no reference"}).with_values(
        np.array([0.5, 0.0]), parts={"math.answer": part}
    )
    run.save_rollouts(7, Rollouts(["p", "p"], ["c", "\ud800"], {"answer": ["4", None]}), scores, advantage=[0.1, 0.0])
    [(step, table)] = run.rollouts()
    assert step == 7
    assert table["score"] == [0.5, None]
    assert table["part.math.answer"] == [1.0, None]
    assert table["reason"] == [None, "math.answer: no reference"]
    assert table["details"][0] == {"extracted": "4"}
    assert table["advantage"] == [0.1, 0.0]
    assert table["completion"][0] == "c"


def test_a_full_disk_says_what_is_kept_and_what_to_do(tmp_path, monkeypatch):
    run = Run.open(tmp_path / "x", CONFIG)
    run.save_summary({"before": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "replace", full)
    with pytest.raises(GuerdonError, match=r"No space left.*make room and run the same command again"):
        run.save_summary({"before": 2})
    assert json.loads((run.folder / "summary.json").read_text()) == {"before": 1}
    assert [path.name for path in run.folder.iterdir() if path.name.endswith(".tmp")] == []
