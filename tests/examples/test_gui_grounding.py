"""What the example of clicks and boxes shows is so: nearer is better, and no size is a way around it."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "examples" / "gui_grounding.py"
SPEC = importlib.util.spec_from_file_location("examples_gui_grounding", PATH)
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)

SAFE = ("overlap", "hit, overlap, edges", "gaussian")


def test_gui_example_separates_good_from_bad_and_size_hacks_do_not_pay():
    found = example.table(count=60)
    for name in SAFE:
        assert found["right"][name] == pytest.approx(1, abs=0.01)
        near, beside, far = (found[kind][name] for kind in ("a quarter too far right", "beside it", "far away"))
        assert found["right"][name] > near > beside >= far
        assert all(found[kind][name] == 0 for kind in ("high below low", "not a number", "no box"))
        hacks = [row[name] for kind, row in found.items() if kind.startswith("hack")]
        assert max(hacks) < near
    for hack in ("hack: eight times too large", "hack: a dot in the middle"):
        assert found[hack]["hit"] == 1, "a hit is what they cheat"
    assert found["beside it"]["gaussian"] > found["beside it"]["overlap"] == 0


def test_gui_example_a_policy_learns_place_and_size():
    for name in SAFE:
        learned = example.climb(example.REWARDS[name], steps=150)
        assert learned["off"] < 0.15
        assert 0.85 < learned["size"] < 1.2
    assert example.climb(example.REWARDS["hit"], steps=50)["off"] == pytest.approx(1.2), "no signal so far away"
