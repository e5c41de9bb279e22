"""What the example of routes shows is so."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "examples" / "routes.py"
SPEC = importlib.util.spec_from_file_location("examples_routes", PATH)
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)


def test_rewardmap_example_separates_right_from_wrong_and_padding_does_not_pay():
    found = {kind: row["reward"] for kind, row in example.table(prompts=8).items()}
    assert found["right"] == 14.5
    assert found["right"] > found["one line wrong"] > found["one leg, made up"] > found["nothing"] == 0.0
    assert found["hack: every line in between"] < found["nothing"]


def test_rewardmap_example_a_perfect_plan_loses_by_the_released_count():
    row = example.table(prompts=4)["right"]
    assert (row["right"], row["detail"], row["reward"], row["off by one"]) == (1.0, 9.0, 14.5, 12.0)


def test_rewardmap_example_stages_never_go_back():
    assert example.stages() == ["order"] * 4 + ["count"] * 4 + ["plan"] * 4
