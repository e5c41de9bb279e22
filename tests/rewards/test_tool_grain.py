"""Tool calls at every grain: names, keys, values; their number, their layout; ToolRL, Pixel Reasoner, VisionThink."""

import json
from itertools import permutations

import pytest
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts
from guerdon.algebra import gate, product, route, spec
from guerdon.core.errors import Abstain
from guerdon.data import within
from guerdon.rewards import choice, recorded, text, tools
from guerdon.shaping import clip, curiosity, pool


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def hermes(*calls):
    return "\n".join(f"<tool_call>\n{json.dumps(one)}\n</tool_call>" for one in calls)


def correctness(made, expected, **options):
    return 3 * tools.parameters(**options).evaluate(made, expected)[0]


GOLD = [call("f", a=1, b=2)]


@pytest.mark.parametrize(
    ("made", "paid"),
    [
        ([call("f", a=1, b=2)], 3.0),
        ([call("f", a=1, b=3)], 1.5),  # S = 1 + 1 + 1 of 4
        ([call("f", a=1)], 0.75),  # S = 1 + ½ + 1
        ([call("g", a=1, b=2)], -3.0),
        ([call("f", a=1, b=2)] * 2, 2.25),  # names ½: S = 3½
        ([], -3.0),
    ],
    ids=["same", "one value wrong", "one key short", "another name", "twice", "none"],
)
def test_toolrl_worked_numbers(made, paid):
    assert correctness(hermes(*made), GOLD, surplus="names") == pytest.approx(paid)
    if len(made) < 2:
        assert correctness(hermes(*made), GOLD) == pytest.approx(paid)


def test_toolrl_without_expected_calls_correctness_is_neutral_or_strict():
    assert correctness("Just an answer.", []) == correctness(hermes(*GOLD), []) == 0.0
    strict = tools.parameters(none="refuse")
    assert strict.evaluate("Just an answer.", [])[0] == 1.0
    assert strict.evaluate(hermes(*GOLD), [])[0] == -1.0


def test_toolrl_what_cannot_be_read_earns_the_floor_and_says_so():
    score, details = tools.parameters().evaluate(hermes(*GOLD) + "<tool_call>{'f'</tool_call>", GOLD)
    assert (score, details["unreadable"]) == (-1.0, 1)
    assert tools.parameters().evaluate("<tool_call>{", [])[0] == -1.0
    with pytest.raises(Abstain, match="no call"):
        tools.parameters().evaluate(hermes(*GOLD), [{"arguments": {}}])


names, keys = st.sampled_from("fg"), st.sampled_from("abc")
calls = st.lists(st.builds(lambda n, a: call(n, **a), names, st.dictionaries(keys, st.integers(0, 2))), max_size=3)


@settings(max_examples=60)
@given(calls, calls.filter(bool))
def test_toolrl_best_matching_by_trying_all(made, expected):
    """S by every way of matching, from the definition."""

    def jaccard(first, second):
        first, second = list(first), list(second)
        either = {x: max(first.count(x), second.count(x)) for x in {*first, *second}}
        both = {x: min(first.count(x), second.count(x)) for x in {*first, *second}}
        return sum(both.values()) / sum(either.values()) if either else 1.0

    def likeness(a, b):
        if a is None or a["name"] != b["name"]:
            return 0.0
        same = sum(a["arguments"].get(k, "none") == v for k, v in b["arguments"].items())
        return jaccard(a["arguments"], b["arguments"]) + same

    slots = [*made, *([None] * len(expected))]
    best = max(sum(map(likeness, chosen, expected)) for chosen in permutations(slots, len(expected)))
    total = jaccard([c["name"] for c in made], [c["name"] for c in expected]) + best
    sizes = [1 + sum(1 + len(c["arguments"]) for c in side) for side in (expected, made)]
    for surplus, most in (("names", sizes[0]), ("charged", max(sizes))):
        wanted = 6 * total / most - 3 if made else -3.0
        assert correctness(hermes(*made), expected, surplus=surplus) == pytest.approx(wanted)
        assert correctness(hermes(*reversed(made)), expected, surplus=surplus) == pytest.approx(wanted)


@settings(max_examples=60)
@given(calls.filter(bool), calls.filter(bool))
def test_toolrl_only_the_expected_calls_earn_all_of_it(made, expected):
    def told(calls):
        return sorted(json.dumps(one, sort_keys=True) for one in calls)

    score = correctness(hermes(*made), expected)
    assert -3.0 <= score <= 3.0
    assert (score > 3.0 - 1e-9) == (told(made) == told(expected))


def test_toolrl_spraying_every_call_does_not_pay():
    """By the names alone, all 16 calls earn more than one wrong value; charged, less than one honest guess."""
    spray = hermes(*(call("f", a=a, b=b) for a in range(4) for b in range(4)))
    guess, right = hermes(call("f", a=1, b=3)), hermes(*GOLD)
    assert correctness(spray, GOLD, surplus="names") > correctness(guess, GOLD, surplus="names")
    assert correctness(spray, GOLD) < correctness(hermes(call("f", a=3, b=3)), GOLD) < correctness(guess, GOLD)
    assert correctness(hermes(*GOLD, *GOLD, *GOLD), GOLD) < correctness(guess, GOLD) < correctness(right, GOLD) == 3.0


def test_parameters_reads_chat_and_lists_of_values_and_compares_as_json():
    chat = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1.0, "b": 2}'}}],
        }
    ]
    assert tools.parameters().evaluate(chat, json.dumps(GOLD))[0] == 1.0
    assert tools.parameters(tolerance=0.1).evaluate(hermes(call("f", a=1.05, b=2)), GOLD)[0] == 1.0
    assert tools.parameters().evaluate(hermes(call("f", a=True, b=2)), GOLD)[0] == 0.5


TOOLRL = """
- route: layout
  to:
    call: {part: format.tags, names: [think, tool_call], name: format.call}
    response: {part: format.tags, names: [think, response], name: format.response}
    both: {part: format.tags, names: [think, tool_call, response], name: format.both}
- {part: tools.parameters, weight: 3}
"""

SMOOTH = """
- of:
    sum:
      - route: layout
        to: {call: {part: format.tags, names: [think, tool_call]}}
        weight: 2
    bias: -1
  shape: [{part: shaping.anneal, start: 2, end: 1, until: 0.5}]
- {part: tools.parameters, shape: [{part: shaping.anneal, start: 2, end: 3, until: 0.5}]}
"""


def load(written):
    yaml = pytest.importorskip("yaml")
    return spec.load(yaml.safe_load(written))


def test_toolrl_total_is_routed_by_layout_and_goes_from_minus_3_to_4():
    reward = load(TOOLRL)
    assert reward.range == (-3.0, 4.0)
    assert spec.load(spec.dump(reward)) == reward
    thought = "<think>Which?</think>\n"
    replies = [
        thought + hermes(*GOLD),
        hermes(*GOLD),
        thought + "<response>Hello.</response>",
        thought + hermes(*GOLD),
        "nothing",
        thought + hermes(*GOLD) + "\n<response>Done.</response>",
    ]
    rows = {
        "tool_calls": [GOLD, GOLD, [], [], GOLD, GOLD],
        "layout": ["call", "call", "response", "response", "call", "both"],
    }
    assert reward(["?"] * 6, replies, **rows) == pytest.approx([4.0, 3.0, 1.0, 0.0, -3.0, 4.0])


def test_toolrl_calls_may_stand_in_one_tag_one_a_line():
    calls = [call("f", a=1, b=2), call("g")]
    lines = "\n".join(map(json.dumps, calls))
    reply = f"<think>Both.</think>\n<tool_call>\n{lines}\n</tool_call>"
    assert load(TOOLRL)(["?"], [reply], tool_calls=[calls], layout=["call"]) == [4.0]
    assert tools.calls().evaluate(reply, calls)[0] == 1.0
    broken = reply.replace('{"name": "g"', '{"name: "g"')
    assert tools.parameters().evaluate(broken, calls) == (
        -1.0,
        {"made": 2, "unreadable": 1, "matched": 0.0, "most": 5.0},
    )
    pretty = "<tool_call>\n" + json.dumps(calls[0], indent=2) + "\n</tool_call>"
    assert tools.count().evaluate(pretty)[0] == 1.0
    assert tools.count().evaluate(pretty.replace("}\n}", "}"))[0] == 1.0


def test_toolrl_schedule_moves_the_floors_too():
    reward = load(SMOOTH)
    good, bad = "<think>Which?</think>\n" + hermes(*GOLD), "nothing"
    batch = Rollouts(["?"] * 2, [good, bad], {"tool_calls": [GOLD] * 2, "layout": ["call"] * 2})
    ends = [reward.score(batch, Context(progress=p)).read(float("nan")).tolist() for p in (0.0, 0.25, 0.5, 1.0)]
    assert ends == [pytest.approx(x) for x in ([4.0, -4.0], [4.0, -4.0], [4.0, -4.0], [4.0, -4.0])]
    halves = [
        reward.score(
            Rollouts(["?"], [hermes(*GOLD)], {"tool_calls": [GOLD], "layout": ["call"]}), Context(progress=p)
        ).read(0.0)[0]
        for p in (0.0, 0.25, 0.5)
    ]
    assert halves == pytest.approx([2.0 - 2.0, 2.5 - 1.5, 3.0 - 1.0])


def test_toolrl_switch_and_coarse_and_length_forms():
    switch = spec.load(
        {
            "part": "tools.parameters",
            "shape": [{"part": "shaping.anneal", "start": 1, "end": 3, "until": 0.2, "shape": "step"}],
        }
    )
    batch = Rollouts(["?"], [hermes(*GOLD)], {"tool_calls": [GOLD]})
    assert [switch.score(batch, Context(progress=p)).read(0.0)[0] for p in (0.0, 0.19, 0.2, 1.0)] == [
        1.0,
        1.0,
        3.0,
        3.0,
    ]
    coarse = 6 * tools.calls(order="any", arguments="exact") - 3
    assert coarse(["?"] * 2, [hermes(*GOLD), hermes(call("f", a=1))], tool_calls=[GOLD] * 2) == [3.0, -3.0]
    length = (1 / 512 * text.length(unit="words")) >> clip(high=1)
    assert length(["?"] * 2, ["w " * 256, "w " * 2000]) == [0.5, 1.0]


def test_count_says_how_many_calls_of_which_tools():
    reply = hermes(call("zoom", box=[0, 0, 1, 1]), call("zoom"), call("search")) + "<tool_call>{</tool_call>"
    assert tools.count().evaluate(reply) == (4.0, {"called": {"zoom": 2, "search": 1}})
    assert tools.count(names=("zoom", "frames")).evaluate(reply)[0] == 2.0
    assert tools.count().evaluate("<think>" + hermes(call("zoom")) + "</think>No.")[0] == 0.0


FAILED = [
    {"role": "assistant", "content": hermes(call("zoom", box=[0, 0, 0, 0]))},
    {"role": "tool", "content": "Error: the box is empty"},
]
REPAIRED = [*FAILED, {"role": "assistant", "content": hermes(call("zoom"))}, {"role": "tool", "content": "an image"}]


def test_settled_looks_at_the_last_result_only():
    answer = {"role": "assistant", "content": "B"}
    assert tools.settled().evaluate([*FAILED, answer]) == 0.0
    assert tools.settled().evaluate([*REPAIRED, answer]) == 1.0
    assert tools.settled().evaluate([answer]) == tools.settled().evaluate("Error") == 1.0
    assert tools.settled(error="empty$").evaluate([*FAILED, answer]) == 0.0
    with pytest.raises(ValueError, match="no regular expression"):
        tools.settled(error="(")


def test_pixel_reasoner_joined_from_messages_to_reward():
    """One of eight uses the tool and is right, another guesses after a failed call, a third calls three times."""
    correct = gate(tools.settled(), then=choice.answer())
    count = tools.count(names=("zoom",))
    reward = correct + 0.5 * (count >> curiosity(target=0.5)) + 0.05 * ((1 - count) >> clip(high=0))
    zoom = {"role": "assistant", "content": hermes(call("zoom"))}
    seen, right, wrong = (
        {"role": "tool", "content": "an image"},
        {"role": "assistant", "content": "B"},
        {"role": "assistant", "content": "C"},
    )
    replies = [[zoom, seen, right], [*FAILED, right], [zoom, seen, zoom, seen, zoom, seen, wrong], *[[wrong]] * 5]
    paid = reward(["q"] * 8, replies, answer=["B"] * 8)
    few = 0.5 * (0.5 - 3 / 8)
    assert paid == pytest.approx([1 + few, few, few - 0.1, *[0.0] * 5])


def test_pixel_reasoner_uniform_groups_are_skipped_and_bands_are_filters():
    correct = recorded.value(column="right").named("right")
    prompts = [f"q{i}" for i in range(4) for _ in range(8)]
    right = [1] * 8 + [0] * 8 + [1] + [0] * 7 + [1] * 5 + [0] * 3
    batch = Rollouts(prompts, [""] * 32, {"right": right})
    scores, context = correct.score(batch), Context(batch)
    assert within(statistic="std", low=0.01).keep(scores, context).tolist() == [False, False, True, True]
    assert within(low=1 / 8, high=3 / 8 - 1e-9).keep(scores, context).tolist() == [False, False, True, False]
    assert within(low=3 / 8, high=6 / 8 - 1e-9).keep(scores, context).tolist() == [False, False, False, True]


def turn(thought, rest):
    return {"role": "assistant", "content": f"<think>{thought}</think>{rest}"}


ZOOM = hermes(call("full_image"))


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ("<think>A cat.</think><answer>cat</answer>", None),
        ([turn("blurred", ZOOM), {"role": "tool", "content": "image"}, turn("a cat", "<answer>cat</answer>")], None),
        ("<answer>cat</answer>", "turn 1: does not think once"),
        ("<think></think><answer>cat</answer>", "turn 1: does not think once"),
        ("<think>a</think><think>b</think><answer>cat</answer>", "turn 1: does not think once"),
        ("<think>a</think><answer>cat</answer>" + ZOOM, "turn 1: 1 calls"),
        ([turn("a", ZOOM + "<answer>cat</answer>"), turn("b", "<answer>cat</answer>")], "turn 1: 1 answers"),
        ([turn("a", ZOOM + ZOOM), turn("b", "<answer>cat</answer>")], "turn 1: 2 calls"),
        ([turn("a", ZOOM), turn("b", "cat")], "turn 2: 0 answers"),
        ([turn("a", "<tool_call>{"), turn("b", "<answer>cat</answer>")], "turn 1: tags are not closed"),
        ([{"role": "tool", "content": "image"}], "no turn of the assistant"),
    ],
    ids=str,
)
def test_visionthink_layout(completion, problem):
    assert tools.layout().evaluate(completion) == (float(problem is None), {"problem": problem})


def test_layout_takes_calls_of_the_message_and_may_limit_them():
    structured = {**turn("a", ""), "tool_calls": [{"function": {"name": "full_image", "arguments": "{}"}}]}
    last = turn("b", "<answer>cat</answer>")
    assert tools.layout().evaluate([structured, last])[0] == 1.0
    assert tools.layout(most=1).evaluate([structured, structured, last]) == (0.0, {"problem": "2 calls, 1 at most"})


def test_visionthink_joined_from_messages_and_a_judge_to_reward():
    """R = R_acc + R_format − P with a recorded judge: a direct answer on an easy prompt 1.5, a needless call 1.4."""
    correct = recorded.value(column="judge").named("correct")
    used = tools.count() >> clip(high=1)
    direct = 1 - used
    seldom = (product(correct, direct) >> pool()) - 0.2 * (correct >> pool())
    charged = gate(seldom, then=used, above=-1e-9, otherwise=direct)
    penalty = gate(correct >> pool(), then=charged, above=0.0)
    reward = correct + 0.5 * tools.layout() - 0.1 * penalty
    here = [turn("a cat", "<answer>cat</answer>")]
    there = [turn("blurred", ZOOM), {"role": "tool", "content": "image"}, turn("a cat", "<answer>cat</answer>")]
    prompts = ["easy"] * 4 + ["hard"] * 10
    replies = [here, here, here, there, here, *[there] * 9]
    scores = reward.score(Rollouts(prompts, replies, {"judge": [1, 1, 0, 1, *[1] * 9, None]}))
    assert scores.read(-9.0).tolist() == pytest.approx([1.5, 1.5, 0.5, 1.4, 1.4, *[1.5] * 8, -9.0])
    assert "not a number" in scores.reasons[13]
    both = [turn("a", ZOOM + "<answer>cat</answer>")]
    assert reward(["q"] * 2, [both, here], judge=[1, 1])[0] < 1.1  # answering and calling at once is not well formed


def test_visionthink_with_a_label_of_whether_the_tool_is_needed():
    """The release's other form: 0.1 off, or a tenth of the accuracy, where use and label differ."""
    used, label = tools.count() >> clip(high=1), recorded.value(column="use_tool").named("use_tool")
    differs = product(used - label, used - label)
    correct = recorded.value(column="judge").named("correct")
    replies = [ZOOM, "cat", ZOOM, "cat", "cat"]
    rows = {"use_tool": [1, 0, 0, 1, 1], "judge": [1, 1, 1, 1, 0]}
    assert (correct - 0.1 * differs)(["?"] * 5, replies, **rows) == pytest.approx([1.0, 1.0, 0.9, 0.9, -0.1])
    assert product(correct, 1 - 0.1 * differs)(["?"] * 5, replies, **rows) == pytest.approx([1.0, 1.0, 0.9, 0.9, 0.0])


def test_visionthink_judge_says_0_or_1_and_nothing_else():
    reply = ["<think>a</think><answer>a cat</answer>"]
    judges = {"1": 1.0, "0": 0.0, "probably 1": None}
    for said, paid in judges.items():
        judge = text.verdict(judge=lambda question, said=said: said, reads="binary")
        assert judge(["What?"], reply, answer=["cat"]) == [paid]


def test_route_by_task_needs_no_new_part():
    reward = route("kind", tool=tools.parameters(), direct=text.exact(within="answer_tag"))
    assert reward(
        ["?"] * 2,
        [hermes(*GOLD), "<answer>x</answer>"],
        kind=["tool", "direct"],
        tool_calls=[GOLD, []],
        answer=["", "x"],
    ) == [1.0, 1.0]
