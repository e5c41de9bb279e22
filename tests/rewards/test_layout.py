"""Plans of boxes: read, drawn, judged and found again; GoT-R1's product of its stages."""

import numpy as np
import pytest

from guerdon import product
from guerdon.rewards import layout
from guerdon.rewards.layout import drawing, read_plan

CHAIN = "I put a red cat (0,100),(400,900), and then the small dog (600,100),(1000,900) to its right."


def ink(picture, columns):
    return (picture[:, columns] < 250).any(-1).sum()


def test_plans_are_read_with_the_words_before_each_box():
    plan = read_plan(CHAIN)
    assert plan.names == ["I put a red cat", "then the small dog"]
    assert plan.boxes.tolist() == [[0.0, 0.1, 0.4, 0.9], [0.6, 0.1, 1.0, 0.9]]
    for wrong in ("cat (0,0)", "cat (5,5),(5,9)", "cat (0,0),(2000,10)", "(0,0),(9,9)", "", "cat (9,0),(0,9)"):
        assert read_plan(wrong).names == []
    with pytest.raises(ValueError, match="canvas"):
        read_plan(CHAIN, canvas=0)


def test_got_r1_a_drawing_shows_what_is_left_of_what():
    """A judge that only sees pixels finds where each box is."""
    picture = drawing(read_plan("a cat (0,0),(300,1000)"), side=200)
    assert ink(picture, slice(0, 70)) > 0 == ink(picture, slice(70, 200))
    mirrored = drawing(read_plan("a cat (700,0),(1000,1000)"), side=200)
    assert ink(mirrored, slice(130, 200)) > 0
    assert ink(mirrored, slice(0, 130)) == 0
    two = drawing(read_plan(CHAIN), side=200)
    colours = {tuple(pixel) for pixel in two.reshape(-1, 3).tolist()}
    assert len(colours) > 2
    with pytest.raises(ValueError, match="side"):
        drawing(read_plan(CHAIN), side=4)


def rewards(pi, sem, spa, boxes):
    judge = layout.judged(judge=lambda asked, said: sem)
    return product(
        layout.judged(judge=lambda asked, picture: pi, column="image").named("pi"),
        judge.named("sem") + layout.planned(judge=lambda asked, picture: spa).named("spa"),
        layout.grounded(detector=lambda picture, names: boxes).named("ri"),
    )


HALF = [[0.0, 0.1, 0.4, 0.5], [0.6, 0.1, 1.0, 0.5]]  # each covers half of its planned box


def test_got_r1_worked_number():
    part = rewards(8, [9, 9, 10, 8], 6, HALF)
    assert part(["?"], [CHAIN], image=["picture"]) == pytest.approx([0.8 * (0.9 + 0.6) * 0.5])
    assert part(["?"], [CHAIN], image=["picture"]) == pytest.approx([0.6])
    assert part.range == (0.0, 2.0)


@pytest.mark.parametrize("zero", ["pi", "ri"])
def test_got_r1_nothing_makes_up_for_a_picture_that_is_wrong(zero):
    part = rewards(0 if zero == "pi" else 10, 10, 10, [None, None] if zero == "ri" else HALF)
    assert part(["?"], [CHAIN], image=["picture"]) == [0.0]


def test_got_r1_rises_in_every_term():
    low = rewards(5, 5, 5, [HALF[0], None])(["?"], [CHAIN], image=["picture"])[0]
    for better in (rewards(6, 5, 5, [HALF[0], None]), rewards(5, 6, 5, [HALF[0], None]),
                   rewards(5, 5, 6, [HALF[0], None]), rewards(5, 5, 5, HALF)):  # fmt: skip
        assert better(["?"], [CHAIN], image=["picture"])[0] > low


def test_got_r1_a_chain_without_boxes_earns_nothing_and_nobody_is_asked():
    def never(*given):
        raise AssertionError("asked")

    assert layout.planned(judge=never)(["?"], ["a cat"]) == [0.0]
    assert layout.grounded(detector=never)(["?"], ["a cat"], image=["picture"]) == [0.0]
    assert layout.judged(judge=never)(["?"], ["  "]) == [0.0]


def test_got_r1_several_marks_of_a_drawing_are_a_mean():
    part = layout.planned(judge=lambda asked, picture: [2, 4, 3], scale=5)
    assert part(["?"], [CHAIN]) == pytest.approx([0.6])


def test_got_r1_overlap_of_planned_and_found_boxes():
    plan = "a cat (0,0),(10,10)"
    found = layout.grounded(detector=lambda picture, names: [[0.5, 0.0, 1.5, 1.0]], canvas=10)
    assert found(["?"], [plan], image=["picture"]) == pytest.approx([1 / 3])


def test_what_judges_say_wrongly_abstains():
    for said in (11, -1, [-1, 9], [11, 1], "good", [], None):
        assert layout.judged(judge=lambda asked, text, said=said: said)(["?"], ["a chain"]) == [None]
    for said in (None, [[0, 0, 1, 1]], [[0, 0, 1], [0, 0, 1, 1]]):
        part = layout.grounded(detector=lambda picture, names, said=said: said)
        assert part(["?"], [CHAIN], image=["picture"]) == [None]
    assert layout.grounded(detector=lambda *x: HALF)(["?"], [CHAIN], image=[None]) == [None]
    with pytest.raises(ValueError, match="scale"):
        layout.judged(judge=max, scale=0)


def test_got_r1_advantages_are_those_of_the_group():
    import torch

    from guerdon.credit import group_relative

    part = layout.grounded(detector=lambda picture, names: [picture])
    pictures = [[0.0, 0.0, 1.0, share] for share in (0.25, 0.5, 0.75, 1.0)]
    scores = np.array(part(["?"] * 4, ["a cat (0,0),(1000,1000)"] * 4, image=pictures))
    assert scores == pytest.approx([0.25, 0.5, 0.75, 1.0])
    advantages = group_relative(torch.as_tensor(scores), torch.zeros(4, dtype=torch.long))
    assert (advantages.diff() > 0).all()
