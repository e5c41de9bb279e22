"""Routes on a map, and RewardMap's reward and stages over them."""

import itertools
import json
import random

import networkx
import pytest
import yaml

from guerdon import Context, Rollouts
from guerdon.algebra import spec
from guerdon.core.errors import Abstain
from guerdon.data import Staged
from guerdon.rewards import transit

TOY = {"L1": ["A", "B", "C"], "L2": ["C", "D", "E"]}


def written(*legs):
    return "\n--\n".join(f"Route Name: {line}\nDeparture Stop: {a}\nArrival Stop: {b}" for line, a, b in legs)


GOOD = written(("L1", "A", "C"), ("L2", "C", "E"))


def accuracy(reply, lines=TOY, ends=("A", "E")):
    return transit.plan().evaluate(reply, lines, *ends)


def partial(reply, transfers=1, lines=TOY, ends=("A", "E"), **options):
    return transit.detail(**options).evaluate(reply, lines, *ends, transfers)[0]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (GOOD, None),
        (f"<think>Hm.</think>Here:\n{GOOD}\n", None),
        (GOOD.replace("Route Name", "**Route Name**").replace("Stop: C", "Stop:  c station (L1)"), None),
        ("", "no plan"),
        ("From A to E.", "no plan"),
        (written(("L1", "B", "C"), ("L2", "C", "E")), "does not begin at the origin"),
        (written(("L1", "A", "C"), ("L2", "C", "D")), "does not end at the destination"),
        (written(("L9", "A", "C"), ("L2", "C", "E")), "leg 1: no line 'l9' with both stops"),
        (written(("L1", "A", "E")), "leg 1: no line 'l1' with both stops"),
        (written(("L1", "A", "B"), ("L2", "C", "E")), "leg 1: ends where leg 2 does not begin"),
        (GOOD.replace("Arrival Stop: E", ""), "does not end at the destination"),
    ],
    ids=lambda x: str(x)[:40],
)  # fmt: skip
def test_rewardmap_plans(reply, problem):
    score, details = accuracy(reply)
    assert (score, details["problem"]) == (float(problem is None), problem)


def total(reply, weight=2.0, transfers=1, **options):
    return weight * (10 * accuracy(reply)[0] + 0.5 * partial(reply, transfers, **options))


def test_rewardmap_worked_numbers():
    assert partial(GOOD) == 9.0
    assert total(GOOD, weight=1.5) == 21.75
    wrong_line = written(("L1", "A", "C"), ("L9", "C", "E"))
    assert (accuracy(wrong_line)[0], partial(wrong_line), total(wrong_line, weight=1.5)) == (0.0, 6.0, 4.5)
    wrong_end = written(("L1", "A", "C"), ("L2", "C", "D"))
    assert partial(wrong_end) == total(wrong_end) == 0.0
    extra = written(("L1", "A", "B"), ("L1", "B", "C"), ("L2", "C", "E"))
    assert partial(extra) == partial(written(("L1", "A", "B"), ("L1", "B", "E"))) - 5
    assert (
        partial(
            GOOD,
            transfers=2,
        )
        == 9.0
    )


def test_rewardmap_released_form_is_off_by_one():
    direct = written(("L1", "A", "C"))
    ends = {"ends": ("A", "C")}
    assert partial(GOOD, allowed="transfers") == 4.0  # R = 1.5 · (10 + 2) = 18
    assert partial(direct, 0, allowed="transfers", **ends) == 1.0  # R = 10.5
    assert partial(direct, 0, **ends) == 6.0
    assert partial(written(("L2", "A", "C")), 0, **ends) == 2.0


def test_rewardmap_adding_legs_until_one_is_right_does_not_pay():
    legs = [("L1", "A", "C"), ("L2", "C", "E")]
    paid = [partial(written(legs[0], *[("L1", "C", "C")] * k, legs[1])) for k in range(6)]
    assert paid == sorted(paid, reverse=True)
    assert paid[0] - paid[1] >= 5
    assert paid[5] < 0


def test_unusable_maps_and_ends_abstain():
    for lines in (None, {}, "{", {"L1": "A"}, {"L1": [1]}, [1]):
        with pytest.raises(Abstain):
            accuracy(GOOD, lines)
    with pytest.raises(Abstain, match="origin not on the map"):
        accuracy(GOOD, ends=("Z", "E"))
    for transfers in (-1, None, "1", True):
        with pytest.raises(Abstain, match="transfers"):
            partial(GOOD, transfers)
    assert accuracy(GOOD, json.dumps(TOY))[0] == 1.0
    assert accuracy(GOOD, {**TOY, "L7": None})[0] == 1.0


def test_plans_agree_with_a_graph_search():
    """Random legs on a random map: right if and only if networkx finds the route by those lines."""
    rng = random.Random(0)
    for _ in range(200):
        stations = [f"s{i}" for i in range(8)]
        lines = {f"l{k}": rng.sample(stations, 4) for k in range(3)}
        graph = networkx.MultiGraph()
        for line, members in lines.items():
            graph.add_edges_from((a, b, line) for a in members for b in members if a != b)
        if len(graph) < 2:
            continue
        start, end = rng.sample(sorted(graph), 2)
        if not networkx.has_path(graph, start, end):
            continue
        path = networkx.shortest_path(graph, start, end)
        legs = [(sorted(graph[a][b])[0], a, b) for a, b in itertools.pairwise(path)]
        assert accuracy(written(*legs), lines, (start, end))[0] == 1.0
        place = rng.randrange(len(legs))
        line, a, b = legs[place]
        wrong = rng.choice([k for k in [*lines, "l9"] if not {a, b} <= set(lines.get(k, ()))])
        assert accuracy(written(*legs[:place], (wrong, a, b), *legs[place + 1 :]), lines, (start, end))[0] == 0.0


def test_rewardmap_stops_pay_new_right_ones():
    paid = transit.stops().evaluate
    assert paid("<answer>B, D station; B</answer>", ["B", "D"]) == (0.5, {"right": 2})
    assert paid("<answer>" + ", ".join("ABCDEFGH") + "</answer>", ["B", "D"])[0] == -2.0
    assert paid("no tag", ["B"]) == (0.0, {"right": 0})
    with pytest.raises(Abstain):
        paid("<answer>B</answer>", [])


REWARDMAP = """
weigh:
  route: kind
  to:
    judge: {part: text.exact, within: answer_tag, ignore: squad, weight: 10}
    count: {part: math.answer, weight: 10}
    plan:
      - {part: transit.plan, weight: 10}
      - {part: transit.detail, weight: 0.5}
by: difficulty
"""

ROWS = [
    {"prompt": "Does L1 come before L2?", "kind": "judge", "answer": "yes", "difficulty": 1.0},
    {"prompt": "How many stops?", "kind": "count", "answer": "3", "difficulty": 1.2},
    {"prompt": "From A to E?", "kind": "plan", "answer": "", "difficulty": 2.0},
]
COLUMNS = {"lines": TOY, "origin": "A", "destination": "E", "transfers": 1}


def test_rewardmap_joined_stages_draw_and_each_kind_is_paid_in_its_own_way():
    reward = spec.load(yaml.safe_load(REWARDMAP))
    assert spec.load(spec.dump(reward)) == reward
    rows = [{**row, **COLUMNS, "prompt": f"{row['prompt']} {i}"} for row in ROWS for i in range(4)]
    random.Random(1).shuffle(rows)
    stages = Staged(rows, by="kind", order=("judge", "count", "plan"))
    says = {"judge": "<answer>Yes</answer>", "count": "It is 3.", "plan": GOOD}
    drawn = []
    for step in range(12):
        row = stages.draw(1, Context(progress=step / 12))[0]
        names = [name for name in row if name != "prompt"]
        batch = Rollouts([row["prompt"]] * 2, [says[row["kind"]], "?"], {name: [row[name]] * 2 for name in names})
        drawn.append((row["kind"], reward.score(batch).read(-1.0).tolist()))
    assert [kind for kind, _ in drawn] == ["judge"] * 4 + ["count"] * 4 + ["plan"] * 4
    paid = {"judge": 10.0, "count": 12.0, "plan": 29.0}
    assert all(scores == [pytest.approx(paid[kind]), 0.0] for kind, scores in drawn)
