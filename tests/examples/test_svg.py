"""What the example of drawings shows is so: right beats wrong, and no hack beats an honest mistake."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "examples" / "svg.py"
SPEC = importlib.util.spec_from_file_location("examples_svg", PATH)
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)


def test_rlrf_example_separates_right_from_wrong_and_hacks_do_not_pay():
    found = {kind: row["reward"] for kind, row in example.table(icons=2).items()}
    honest = {kind: value for kind, value in found.items() if kind != "no drawing" and not kind.startswith("hack")}
    hacks = [value for kind, value in found.items() if kind.startswith("hack")]
    assert found["right"] == max(found.values())
    assert found["right"] > found["right, at twice the length"]
    assert found["one shape missing"] > found["another icon"]
    assert max(hacks) < min(value for kind, value in honest.items() if kind != "another icon")
    assert found["hack: an empty canvas"] == found["no drawing"] == -1.0


def test_rlrf_example_the_reward_leads_to_the_icon():
    curve = example.climbed(steps=60)
    assert curve == sorted(curve)
    assert curve[-1] > curve[0] + 0.1
