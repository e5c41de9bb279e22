"""What the example of events in videos shows is so: overlap tells answers apart, and naming everything does not pay."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "examples" / "temporal_grounding.py"
SPEC = importlib.util.spec_from_file_location("examples_temporal_grounding", PATH)
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)


def test_temporal_example_separates_good_from_bad_and_naming_it_all_does_not_pay():
    found = example.table(count=80)
    for name in ("overlap", "overlap and form"):
        assert found["right"][name] == pytest.approx(1, abs=0.01)
        assert found["right"][name] > found["an eighth too late"][name] > found["its first half"][name]
        assert found["its first half"][name] > found["elsewhere"][name]
        assert max(row[name] for kind, row in found.items() if kind.startswith("hack")) < found["its first half"][name]
    for kind in ("elsewhere", "ends before it begins", "not a number", "in words"):
        assert found[kind]["overlap"] == 0
    assert found["hack: the whole video"]["share found"] == 1, "what the plausible reward pays for"


def test_temporal_example_no_answer_without_looking_pays():
    span, mean = example.best_constant(example.REWARDS["share found"], count=80)
    assert (span, mean) == ((0.0, 1.0), 1.0)
    assert example.best_constant(example.REWARDS["overlap"], count=80)[1] < 0.3


def test_temporal_example_selection_keeps_the_videos_that_teach():
    share = example.chosen(videos=120)
    assert share["kept"] > 1.5 * share["all"]
    assert share["learnable"] > 0.5
