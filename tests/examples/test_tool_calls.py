"""What the example of tool calls shows is so: right beats wrong, and no hack beats one honest mistake."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "examples" / "tool_calls.py"
SPEC = importlib.util.spec_from_file_location("examples_tool_calls", PATH)
example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)

FINE = ("share of calls", "by parameter")


def test_toolrl_example_separates_right_from_wrong_and_hacks_do_not_pay():
    found = example.table(prompts=12)
    for name in example.REWARDS:
        assert found["right"][name] == found["in another order"][name] == 1.0
        assert all(row[name] < 1.0 for kind, row in found.items() if kind not in ("right", "in another order"))
        assert found["another tool"][name] == found["not readable"][name] == 0.0
    for name in FINE:
        hacks = [row[name] for kind, row in found.items() if kind.startswith("hack")]
        assert max(hacks) < found["one value wrong"][name]
        assert found["one call missing"][name] < found["one parameter missing"][name]
    sprayed = found["hack: right, and all others too"]["as published"]
    assert sprayed > found["one value wrong"]["as published"]


def test_toolrl_example_finer_rewards_leave_fewer_groups_without_signal():
    found = example.groups_with_signal(prompts=20)
    assert all(found[name] > found["all or nothing"] for name in FINE)


def test_toolrl_example_schedule_turns_from_form_to_correctness():
    from guerdon import Context, Rollouts

    call = [{"name": "weather", "arguments": {"city": "Rome"}}]
    replies = [example.written(call).partition("</think>")[2], "<think>Hm.</think><tool_call>{}</tool_call>"]
    batch = Rollouts(["?"] * 2, replies, {"tool_calls": [call] * 2})
    begin, end = (example.scheduled().score(batch, Context(progress=p)).read(0.0).tolist() for p in (0.0, 1.0))
    assert begin == [0.0, 0.0]
    assert end == [2.0, -2.0]
