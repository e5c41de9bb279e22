"""Prompts in stages by the progress of training."""

import pytest

from guerdon import Context
from guerdon.core.errors import MissingInput
from guerdon.data import Staged

ROWS = [{"prompt": f"{kind}{i}", "kind": kind} for i in range(3) for kind in ("plan", "count", "judge")]
ORDER = ("judge", "count", "plan")


def test_rewardmap_stages_never_go_back_and_shuffle_inside():
    stages = Staged(ROWS, by="kind", order=ORDER, seed=1)
    drawn = [stages.draw(1, Context(progress=i / 9))[0]["prompt"] for i in range(9)]
    kinds = [prompt[:-1] for prompt in drawn]
    assert kinds == ["judge"] * 3 + ["count"] * 3 + ["plan"] * 3
    assert sorted(drawn) == sorted(row["prompt"] for row in ROWS)
    others = {
        tuple(
            Staged(ROWS, by="kind", order=ORDER, seed=s).draw(3, Context(progress=0.0))[i]["prompt"] for i in range(3)
        )
        for s in range(8)
    }
    assert len(others) > 1


def test_stages_begin_where_they_are_told():
    stages = Staged(ROWS, by="kind", order=ORDER, begins=(0.1, 0.8))
    assert [stages.stage(p) for p in (0.0, 0.0999, 0.1, 0.5, 0.8, 1.0)] == [0, 0, 1, 1, 2, 2]
    uneven = Staged(ROWS + [{"prompt": "plan9", "kind": "plan"}] * 3, by="kind", order=ORDER)
    assert list(uneven.begins) == [0.25, 0.5]


def test_stages_resume_where_they_were():
    first = Staged(ROWS, by="kind", order=ORDER)
    first.draw(2, Context(progress=0.0)), first.draw(1, Context(progress=0.5))
    second = Staged(ROWS, by="kind", order=ORDER)
    second.load_state_dict(first.state_dict())
    assert [second.draw(2, Context(progress=p)) for p in (0.0, 0.5, 0.9)] == [
        first.draw(2, Context(progress=p)) for p in (0.0, 0.5, 0.9)
    ]
    with pytest.raises(ValueError, match="2 stages"):
        Staged(ROWS, by="kind", order=ORDER).load_state_dict({"drawn": [0, 0], "filter": {}})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"order": ("judge", "count")}, "no stage of"),
        ({"order": (*ORDER, "other")}, "no prompts of the kind other"),
        ({"order": (*ORDER, "plan")}, "twice"),
        ({"begins": (0.5,)}, "rising points"),
        ({"begins": (0.8, 0.2)}, "rising points"),
        ({"begins": (0.0, 0.2)}, "rising points"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_stages_refuse(options, why):
    with pytest.raises((ValueError, MissingInput), match=why):
        Staged(ROWS, **{"by": "kind", "order": ORDER, **options})
