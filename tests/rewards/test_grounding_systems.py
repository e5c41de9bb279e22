"""The published rewards of boxes, clicks, stretches of time and frames: each put together and held to its sheet."""

import json
import math

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts, product, reward, weigh
from guerdon.credit import group_relative
from guerdon.data import upper, varied, within
from guerdon.objectives import policy_gradient
from guerdon.rewards import format, geometry, grounding, math as maths, relevance, text
from guerdon.rewards.relevance import tfidf
from guerdon.shaping import anneal, quantize, target_length, threshold

GUI = [100, 100, 200, 140]


def values(reward, completions, *, context=None, **columns):
    completions = [completions] if isinstance(completions, str) else completions
    full = {name: [column] * len(completions) for name, column in columns.items()}
    return reward.score(Rollouts(["?"] * len(completions), list(completions), full), context).read(math.nan)


def value(reward, completion, **columns):
    return float(values(reward, [completion], **columns)[0])


def boxes(*listed, **more):
    return json.dumps([{"bbox_2d": list(box), **more} for box in listed])


def think(answer):
    return f"<think>Look at it closely.</think><answer>{answer}</answer>"


# --- Sweet Spot Learning -----------------------------------------------------------------------------------------

ZONES = (0.25, 0.5, 0.75, 1.0)
SSL_CLICK = grounding.inside() + 0.5 * (grounding.gaussian() >> quantize(at=ZONES))


def test_ssl_worked_numbers():
    assert value(SSL_CLICK, "(150, 120)", box=GUI) == 1.5
    # Two of four tiers in every block, and not solved.
    solution = "\n".join(["123456789"] * 9)
    half = "\n".join(["12.45.78."] * 6 + ["........."] * 3)
    partly = 0.5 * (grounding.grid() >> quantize(at=ZONES))
    sudoku = (grounding.grid(tiers=81).named("share") >> quantize(at=(1.0,))) + partly
    assert grounding.grid().evaluate("\n".join(["12.45.78."] * 9), solution)[0] == 0.5
    assert value(sudoku, "\n".join(["12.45.78."] * 9), solution=solution) == 0.25
    assert value(sudoku, solution, solution=solution) == 1.5
    assert value(sudoku, half, solution=solution) == pytest.approx(0.5 * 0.25)


def test_ssl_every_success_is_above_every_failure():
    rng = np.random.default_rng(0)
    clicks = [f"({x:.3f}, {y:.3f})" for x, y in rng.uniform((50, 80), (250, 160), (400, 2))]
    found = values(SSL_CLICK, clicks, box=GUI)
    hit = values(grounding.inside(), clicks, box=GUI) == 1
    assert 50 < hit.sum() < 350
    assert found[hit].min() > found[~hit].max()
    assert len(set(found[~hit])) > 1


def test_ssl_a_group_of_failures_still_has_a_direction():
    clicks = [f"({x}, 150)" for x in (150, 170, 190, 210, 240, 300, 400, 600)]
    groups = torch.zeros(8, dtype=torch.long)
    binary = torch.tensor(values(grounding.inside(), clicks, box=GUI))
    assert (group_relative(binary, groups) == 0).all()
    advantages = group_relative(torch.tensor(values(SSL_CLICK, clicks, box=GUI)), groups)
    assert advantages[0] > 0 > advantages[-1]


def test_ssl_noise_within_a_zone_has_no_gradient():
    rng = np.random.default_rng(1)
    clicks = [f"({x}, {y})" for x, y in np.array([165, 125]) + rng.normal(0, 0.5, (64, 2))]
    continuous = values(grounding.gaussian(), clicks, box=GUI)
    tiers = values(grounding.gaussian() >> quantize(at=ZONES), clicks, box=GUI)
    assert continuous.std() > 0
    assert tiers.std() == 0


def test_ssl_of_a_trajectory_is_the_zone_of_its_mean():
    other = [300, 300, 340, 340]
    reward = grounding.clicks(measure="inside").named("done") >> threshold(at=1.0)
    reward = reward + 0.5 * (grounding.clicks() >> quantize(at=ZONES))
    # e^(−½) and 1: the mean 0.803 reaches three of four zones.
    assert value(reward, "(200, 120)\n(320, 320)", boxes=[GUI, other]) == pytest.approx(1 + 0.5 * 0.75)
    assert value(reward, "(201, 120)\n(320, 320)", boxes=[GUI, other]) == pytest.approx(0.5 * 0.75)
    # Sixteen clicks where two are wanted do not pay for the two.
    assert value(reward, "\n".join(["(150, 120)", "(320, 320)"] * 8), boxes=[GUI, other]) == 0.0


# --- GUI-G1 ------------------------------------------------------------------------------------------------------

GUI_G1 = grounding.inside() + 0.25 * grounding.iou(edges="pixels") + 0.125 * grounding.edges()


def test_gui_g1_worked_numbers():
    assert value(GUI_G1, boxes(GUI), box=GUI, size=[1000, 500]) == 1.375
    assert value(grounding.edges(), boxes([110, 100, 200, 150]), box=GUI, size=[1000, 500]) == pytest.approx(
        0.99243, abs=5e-6
    )
    twice = [50, 80, 250, 160]
    assert value(grounding.inside(), boxes(twice), box=GUI) == 1
    assert value(grounding.iou(), boxes(twice), box=GUI) == 0.25
    assert value(grounding.iou(edges="pixels"), boxes(GUI), box=[100, 100, 200, 139]) == pytest.approx(40 / 41)
    # An edge that is a whole picture away: no division, 0.
    assert value(grounding.edges(), boxes([100, 100, 1300, 140]), box=GUI, size=[1000, 500]) == 0.0
    assert value(GUI_G1, "I cannot see it.", box=GUI, size=[1000, 500]) == 0.0


def test_gui_g1_neither_the_whole_screen_nor_a_dot_pays():
    size = [1000, 500]
    around = boxes([0, 0, 300, 240])  # the same middle
    dot = boxes([149, 119, 151, 121])
    full = value(GUI_G1, boxes(GUI), box=GUI, size=size)
    assert value(GUI_G1, boxes([0, 0, 1000, 500]), box=GUI, size=size) < 0.25
    for hack in (around, dot):
        assert value(grounding.inside(), hack, box=GUI) == 1
        assert value(GUI_G1, hack, box=GUI, size=size) < full - 0.2


def test_gui_g1_weights_the_loss_by_difficulty_and_divides_by_a_constant():
    # Two questions of two rollouts each: hit and miss. The targets' sizes differ.
    targets = [GUI, GUI, [0, 0, 500, 250], [0, 0, 500, 250]]
    sizes = [[1000, 500]] * 4
    weights = geometry.size_weights(np.array(targets, float), np.array(sizes, float))
    said = [boxes(GUI), boxes([800, 400, 900, 450]), boxes([0, 0, 500, 250]), boxes([900, 450, 990, 490])]
    rows = Rollouts(["a", "a", "b", "b"], said, {"box": targets, "size": sizes, "weight": weights.tolist()})
    plain = torch.tensor(GUI_G1.score(rows).read(math.nan))
    weighed = torch.tensor(weigh(GUI_G1, by="weight").score(rows).read(math.nan))
    groups = torch.as_tensor(rows.groups)
    advantages = group_relative(weighed, groups, scale="none")
    assert advantages == pytest.approx(torch.tensor(weights) * group_relative(plain, groups, scale="none"))
    assert weights[0] > 1 > weights[2]

    def gradient(width):
        logp = torch.full((4, width), -1.0, dtype=torch.float64, requires_grad=True)
        mask = torch.ones(4, width, dtype=torch.bool)
        mask[1:, 3:] = False
        loss, _ = policy_gradient(logp, logp.detach(), advantages, mask, aggregate="constant", length=64)
        loss.backward()
        return logp.grad

    # −A/(N · 64) for each token, however many tokens the first answer has.
    assert gradient(3)[:, :3] == pytest.approx(gradient(9)[:, :3])
    assert gradient(9)[:, 0] == pytest.approx(-advantages / (4 * 64))


# --- GUI-G² ------------------------------------------------------------------------------------------------------

GUI_G2 = grounding.gaussian() + grounding.coverage()


def test_gui_g2_worked_numbers():
    assert value(grounding.gaussian(), "[100, 100, 200, 140]", box=GUI) == 1
    assert value(grounding.coverage(), "[100, 100, 200, 140]", box=GUI) == 1
    shifted = "[125, 110, 225, 150]"
    assert value(grounding.gaussian(), shifted, box=GUI) == pytest.approx(0.7788, abs=5e-5)
    assert value(grounding.coverage(), shifted, box=GUI) == pytest.approx(0.9394, abs=5e-5)
    assert value(grounding.coverage(), shifted, box=GUI) == pytest.approx(math.exp(-0.0625))
    assert value(grounding.gaussian(), "[50, 80, 250, 160]", box=GUI) == 1
    assert value(grounding.coverage(), "[50, 80, 250, 160]", box=GUI) == pytest.approx(0.8)
    assert value(grounding.gaussian(), "[150, 100, 250, 140]", box=GUI) == pytest.approx(0.6065, abs=5e-5)
    whole = GUI_G2 + grounding.form(kind="box", within="reply")
    assert value(whole, "[100, 100, 200, 140]", box=GUI) == 3
    assert value(whole, "It is [100, 100, 200, 140].", box=GUI) == 2
    assert value(whole, "It is there.", box=GUI) == 0


def test_gui_g2_is_given_everywhere_and_size_hacks_do_not_pay():
    away = values(GUI_G2, ["[300, 100, 400, 140]", "[260, 100, 360, 140]", "[220, 100, 320, 140]"], box=GUI)
    assert 0 < away[0] < away[1] < away[2], "where boxes do not touch, nearer is better"
    assert values(grounding.iou(), ["[300, 100, 400, 140]", "[260, 100, 360, 140]"], box=GUI).tolist() == [0, 0]
    honest = value(GUI_G2, "[105, 102, 205, 142]", box=GUI)
    for hack in ("[-350, -130, 650, 370]", "[149, 119, 151, 121]", "[140, 119, 160, 121]"):
        assert value(GUI_G2, hack, box=GUI) < honest - 0.5
    assert value(GUI_G2, "[200, 140, 100, 100]", box=GUI) == 0


# --- Vision-R1 ---------------------------------------------------------------------------------------------------


def vision_r1(switch=0.5):
    """Format, recall and precision, whose bars rise when training has come to `switch`."""

    def stage(name, bar, band, start, end):
        when = anneal(start=start, end=end, until=switch, shape="step")
        counted = grounding.detection(credit="count", per="gt", above=bar, inclusive=True, cost="detr")
        recall = counted.named(f"{name} recall") >> threshold(at=0.5, full=0.75)
        precision = grounding.detection(per="matched", above=-1, cost="detr", band=band).named(f"{name} precision")
        return (recall >> when) + (precision >> when)

    early, late = stage("early", 0.5, (0.5, 0.75), 1, 0), stage("late", 0.75, (0.75, 0.9), 0, 1)
    return grounding.form(absent="reversed", within="reply") + early + late


def stages(completion, targets):
    reward = vision_r1()
    return [
        float(values(reward, completion, context=Context(progress=progress), boxes=targets)[0]) - 1
        for progress in (0.1, 0.9)
    ]


def test_vision_r1_rules_tighten_with_training():
    target = [[0, 0, 10, 10]]
    # One box: precision 0.6 and recall 1 early, nothing late; then 1 and 1 early, 0.8 and 1 late.
    assert stages(boxes([0, 0, 10, 6]), target) == pytest.approx([0.6 + 1, 0])
    assert stages(boxes([0, 0, 10, 8]), target) == pytest.approx([1 + 1, 0.8 + 1])
    assert stages(boxes([0, 0, 10, 9.5]), target) == pytest.approx([2, 2])


def test_vision_r1_recall_is_made_discrete():
    four = [[20 * i, 0, 20 * i + 10, 10] for i in range(4)]
    recall = grounding.detection(credit="count", per="gt", above=0.5, inclusive=True) >> threshold(at=0.5, full=0.75)
    found = [value(recall, boxes(*([x, 0, x + 10, 9] for x in range(0, 20 * k, 20))), boxes=four) for k in range(5)]
    assert found == [0, 0, 0.5, 0.75, 1]


def test_vision_r1_matches_by_all_of_place_label_and_overlap():
    targets = [{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [1, 0, 11, 10], "label": "dog"}]
    said = json.dumps(
        [{"bbox_2d": [0.5, 0, 10.5, 10], "label": "dog"}, {"bbox_2d": [0.5, 0, 10.5, 10], "label": "cat"}]
    )
    leaf = grounding.detection(cost="detr", labels="after")
    assert value(leaf, said, boxes=targets) == pytest.approx(9.5 / 10.5)


def test_vision_r1_junk_is_free_over_matched_pairs_and_costs_over_all():
    target = [[0, 0, 10, 10]]
    junk = [[100 + 20 * i, 100, 110 + 20 * i, 110] for i in range(10)]
    good, flood = boxes([0, 0, 10, 9]), boxes([0, 0, 10, 9], *junk)
    matched, pred = grounding.detection(per="matched"), grounding.detection(per="pred")
    assert value(matched, flood, boxes=target) == value(matched, good, boxes=target) == pytest.approx(0.9)
    assert value(pred, flood, boxes=target) == pytest.approx(0.9 / 11)


def test_vision_r1_on_a_picture_without_targets():
    reward = vision_r1()
    assert values(reward, ["[]", boxes([0, 0, 1, 1]), "well"], boxes=[]).tolist() == [3, 0, 1]
    assert values(reward, ["[]", "well"], boxes=[[0, 0, 10, 10]]).tolist() == [0, 0]


# --- Temporal-R1 -------------------------------------------------------------------------------------------------

TEMPORAL_R1 = 0.5 * grounding.span(reference="share", within="answer_tag") + 0.5 * product(
    format.template(answer="tag"), grounding.form(kind="span")
)


def times(start, end):
    return think(json.dumps({"start_time": str(start), "end_time": str(end)}))


def test_temporal_r1_worked_numbers():
    columns = {"span": [0.4, 0.8], "duration": 10}
    said = [times(2, 6), times(0, 3), times(4, 8), times(8, 4), think("2 to 6"), times(2, 6)[7:]]
    expected = [0.5 * 2 / 6 + 0.5, 0.5, 1.0, 0.5, 0.0, 0.5 * 2 / 6]
    assert values(TEMPORAL_R1, said, **columns) == pytest.approx(expected)
    assert expected[0] == pytest.approx(0.6667, abs=5e-5)


def test_temporal_r1_questions_and_grounded_questions():
    asked = 0.5 * text.exact(within="answer_tag") + 0.5 * format.template(answer="tag")
    assert values(asked, [think("B"), think("C"), "B"], answer="B").tolist() == [1, 0.5, 0]
    both = text.exact(within="answer_tag") + grounding.span(within="completion")
    said = "<think>…</think>[2, 6]<answer>B</answer>"
    assert value(both, said, answer="B", span=[2, 4]) == 1.5


def test_temporal_r1_the_whole_video_does_not_pay():
    rng = np.random.default_rng(0)
    begin = rng.uniform(0, 0.8, 200)
    spans = [[b, b + 0.15] for b in begin]
    n = len(spans)
    whole = Rollouts(["?"] * n, [times(0, 10)] * n, {"span": spans, "duration": [10] * n})
    near = [times(10 * b + 0.25, 10 * b + 1.75) for b in begin]
    honest = Rollouts(["?"] * n, near, {"span": spans, "duration": [10] * n})
    score = grounding.span(reference="share", within="answer_tag").score
    assert score(whole).mean() == pytest.approx(0.15)
    assert score(honest).mean() == pytest.approx(1.25 / 1.75)


def test_temporal_r1_selection_keeps_what_has_a_gradient():
    rng = np.random.default_rng(2)
    prompts, k = 400, 8
    p = rng.uniform(0, 1, prompts)
    outcomes = (rng.random((prompts, k)) < p[:, None]).astype(float)
    rows = Rollouts([str(i) for i in range(prompts) for _ in range(k)], [""] * (prompts * k))
    reward = maths.answer().score(
        Rollouts(rows.prompts, [str(int(x)) for x in outcomes.ravel()], {"answer": ["1"] * (prompts * k)})
    )
    assert reward.read(0.0).tolist() == outcomes.ravel().tolist()
    kept = upper(drop=0.5, statistic="std").keep(reward, Context(rows))
    never = outcomes.std(1) == 0
    assert not varied().keep(reward, Context(rows))[never].any()
    assert (within(statistic="std", low=0.3).keep(reward, Context(rows)) == (outcomes.std(1) >= 0.3)).all()

    # What GRPO would learn from: fresh rollouts of the kept prompts, and of as many at random.
    fresh = torch.tensor((rng.random((prompts, k)) < p[:, None]).astype(float))
    groups = torch.arange(prompts).repeat_interleave(k)
    mass = group_relative(fresh.ravel(), groups).abs().reshape(prompts, k).mean(1).numpy()
    chance = [mass[rng.permutation(prompts)[: kept.sum()]].mean() for _ in range(200)]
    assert kept.sum() == prompts // 2
    assert mass[kept].mean() > max(chance)


# --- VLM-R1 ------------------------------------------------------------------------------------------------------

LABELLED = [{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [20, 0, 30, 10], "label": "cat"}]
JUNK = [{"bbox_2d": [100 + 20 * i, 0, 110 + 20 * i, 10], "label": "cat"} for i in range(18)]


def test_vlm_r1_boxes_are_not_worth_dumping():
    exact, dumped = (f"```json\n{json.dumps(said)}\n```" for said in (LABELLED, LABELLED + JUNK))
    penalised, plain = grounding.average_precision(), grounding.average_precision(flood="free")
    assert [value(leaf, exact, boxes=LABELLED) for leaf in (penalised, plain)] == [1, 1]
    assert value(plain, dumped, boxes=LABELLED) == pytest.approx(1)
    assert value(penalised, dumped, boxes=LABELLED) == pytest.approx(0.1)
    assert [value(penalised, said, boxes=[]) for said in ("None", "[]", exact)] == [1, 1, 0]
    other = json.dumps([{**LABELLED[0], "label": "dog"}, LABELLED[1]])
    assert value(penalised, other, boxes=LABELLED) == pytest.approx(51 / 101)


def test_vlm_r1_grounding_and_format():
    reward = grounding.iou(within="answer_tag", units="seen") + format.template(answer="tag")
    said = ["<think>…</think><answer>{[5, 5, 10, 10]}</answer>", "[5, 5, 10, 10]"]
    columns = {"box": [50, 50, 100, 200], "size": [1000, 1000], "seen": [100, 100]}
    assert values(reward, said, **columns) == pytest.approx([1 / 3 + 1, 0])


def test_vlm_r1_greedy_score():
    options = {"match": "greedy", "above": 0.5, "inclusive": True, "edges": "pixels"}
    place = grounding.detection(per="gt", labels="after", **options).named("place")
    found = grounding.detection(credit="count", per="gt", **options).named("found")
    true = grounding.detection(credit="count", per="pred", **options).named("true")
    # complete = 1 − (misses + false alarms)/2 is the mean of what was found and what was true.
    reward = 0.7 * place + 0.3 * (0.5 * found + 0.5 * true)
    said = json.dumps([LABELLED[0], *JUNK[:2]])
    assert value(reward, said, boxes=LABELLED) == pytest.approx(0.7 * 0.5 + 0.3 * (1 - (1 / 2 + 2 / 3) / 2))
    assert value(reward, json.dumps(LABELLED), boxes=LABELLED) == pytest.approx(1)


@pytest.mark.parametrize(
    ("length", "right", "wrong"), [(0, 1, 0), (512, 0.75, -0.25), (1024, 0.5, -0.5), (2048, 0.5, -0.5)]
)
def test_vlm_r1_cosine_length(length, right, wrong):
    @reward(range=(0, 1), lane="batch")
    def correct(solved):
        return solved

    brief = target_length(curve="cosine", target=512, weight=0.25, wrong="same", above=0.0, unit="words")
    rows = Rollouts(["?"] * 2, [" ".join(["w"] * length)] * 2, {"solved": [1.0, 0.0]})
    assert ((correct() + -0.25) >> brief).score(rows).read(math.nan) == pytest.approx([right, wrong])


def test_vlm_r1_repetition_of_boxes_and_words():
    assert value(grounding.repetition(), json.dumps(LABELLED * 2)) == -0.5
    assert value(format.repetition(size=6), " ".join(["so"] * 12)) == pytest.approx(-6 / 7)


# --- Visual-RFT --------------------------------------------------------------------------------------------------

VISUAL = {"match": "order", "above": 0.5, "duplicates": "drop", "within": "answer_tag"}
V1, V2 = (grounding.detection(per=per, **VISUAL) for per in ("pred", "max"))
SURE = grounding.confidence(within="answer_tag")


def positions(*said):
    return think(str([{"Position": list(box), "Confidence": sure} for box, sure in said]))


EIGHT, SIX, MISS = ([0, 0, 10, 8], 0.9), ([20, 0, 30, 6], 0.7), ([200, 0, 210, 10], 0.2)
THERE = [[0, 0, 10, 10], [20, 0, 30, 10]]


def test_visual_rft_worked_numbers():
    said = positions(EIGHT, SIX, MISS)
    assert value(V1, said, boxes=THERE) == value(V2, said, boxes=THERE) == pytest.approx(1.4 / 3)
    assert value(SURE, said, boxes=THERE) == pytest.approx(0.8)
    four = [*THERE, [40, 0, 50, 10], [60, 0, 70, 10]]
    assert value(V2, said, boxes=four) == pytest.approx(0.35)
    assert [value(leaf, positions(EIGHT), boxes=four) for leaf in (V1, V2)] == pytest.approx([0.8, 0.2])
    total = V2 + SURE + format.template(answer="tag")
    assert value(total, said, boxes=THERE) == pytest.approx(1.4 / 3 + 0.8 + 1)
    assert value(total, positions((THERE[0], 1.0), (THERE[1], 1.0)), boxes=THERE) == pytest.approx(3)


def test_visual_rft_duplicates_thresholds_and_confidence():
    once, twice = positions(EIGHT, SIX), positions(EIGHT, EIGHT, SIX, EIGHT)
    for leaf in (V1, V2, SURE):
        assert value(leaf, once, boxes=THERE) == value(leaf, twice, boxes=THERE)
    assert value(V2, positions(([0, 0, 10, 5], 0.9)), boxes=THERE[:1]) == 0, "an IoU of exactly 0.5 is no match"
    bold = positions(EIGHT, SIX, (MISS[0], 1.0))
    assert value(SURE, bold, boxes=THERE) < value(SURE, positions(EIGHT, SIX, MISS), boxes=THERE)
    # The more certain box chooses first: the worse one takes the target, and the better one is a miss.
    greedy = positions(([0, 0, 10, 8], 0.1), ([0, 0, 10, 6], 0.9))
    assert value(V1, greedy, boxes=THERE[:1]) == pytest.approx(0.3)
    cut = positions(EIGHT, SIX, MISS)[: -len("}]</answer>") - 12] + "</answer>"
    assert value(V1, cut, boxes=THERE) == pytest.approx(0.7), "what was cut off does not count"


def test_visual_rft_a_flood_of_doubtful_boxes_does_not_pay():
    rng = np.random.default_rng(0)
    junk = [([x, y, x + 5, y + 5], 0.0) for x, y in rng.integers(50, 500, (100, 2)).tolist()]
    flood, honest = positions(EIGHT, *junk), positions(EIGHT, SIX)
    assert value(SURE, flood, boxes=THERE) > 0.95, "calibrated, and worth nothing"
    assert value(V2 + SURE, flood, boxes=THERE) < value(V2 + SURE, honest, boxes=THERE) - 0.3
    unpaid = grounding.confidence(misses="unpaid", within="answer_tag")
    assert value(unpaid, flood, boxes=THERE) < 0.05 < value(unpaid, honest, boxes=THERE)


def test_visual_rft_classes_and_reasoned_grounding():
    classes = text.contained() + format.template(answer="tag")
    said = [think("Airbus_A320"), think("a"), think(""), "airbusa320"]
    assert values(classes, said, answer="airbus_a320").tolist() == [2, 1, 0, 0]
    lisa = grounding.iou(within="answer_tag") + format.template(answer="tag")
    assert value(lisa, think("[0, 0, 10, 5]"), box=[0, 0, 10, 10]) == 1.5


# --- VEASON-R1 ---------------------------------------------------------------------------------------------------

FRAMES = [1, 2, 3]
OBJECTS = [[[0, 0, 5, 2]], [[0, 0, 8, 5]], [[0, 0, 5, 4]]]  # areas 10, 40, 20
MASKS = [geometry.fill(found, 6, 10).astype(int).tolist() for found in OBJECTS]


def veason(frame, *said):
    return think(json.dumps({"keyframe_timestamp": frame, "bbox_2d_list": [list(box) for box in said]}))


def recorded(video, said, frame):
    """A segmenter that knows the video: it finds the objects that were pointed at."""
    assert video == "cat.mp4"
    found = geometry.iou(np.array(said)[:, None], np.array(OBJECTS[frame], float)).max() > 0.5 if said else False
    return np.array(MASKS) * bool(found)


def veason_r1(**options):
    layout = format.template(answer="tag") + grounding.form(kind="key_boxes", credit="share")
    return layout + grounding.key_frame() + grounding.key_boxes() + grounding.segmentation(**options)


VEASON = {"frames": FRAMES, "masks": MASKS, "boxes": OBJECTS}


@pytest.mark.parametrize("options", [{}, {"propagate": recorded}], ids=["boxes", "segmenter"])
def test_veason_r1_worked_numbers(options):
    columns = {**VEASON, "video": "cat.mp4"}
    assert value(veason_r1(**options), veason(2, [0, 0, 8, 5]), **columns) == pytest.approx(5)
    keys = [value(grounding.key_frame(), veason(frame), frames=FRAMES, masks=[10, 40, 20]) for frame in (1, 2, 3, 4)]
    assert keys == [0.25, 1, 0.5, 0]
    assert value(veason_r1(**options), veason(7, [0, 0, 8, 5]), **columns) == 2
    assert value(grounding.key_boxes(), veason(2, [0, 0, 8, 5], [9, 9, 20, 20]), frames=FRAMES, boxes=OBJECTS) == 0.5
    assert value(grounding.key_boxes(), veason(2, [0, 0, 7, 5]), frames=FRAMES, boxes=OBJECTS) == pytest.approx(8 / 9)
    assert value(veason_r1(**options), "the cat", **columns) == 0


def test_veason_r1_masks_of_frames_without_the_object():
    columns = {"frames": [1, 2], "masks": [[[1, 1, 0]], [[0, 0, 0]]], "boxes": [[[0, 0, 2, 1]], []]}
    assert value(grounding.segmentation(), veason(1, [0, 0, 2, 1]), **columns) == 1, "nothing on either side"
    assert value(grounding.segmentation(), veason(1, [0, 0, 1, 1]), **columns) == pytest.approx((1 / 2 + 1) / 2)
    assert value(grounding.key_boxes(), veason(2, [0, 0, 2, 1]), frames=[1, 2], boxes=columns["boxes"]) == 0


def test_veason_r1_a_flood_of_boxes_does_not_pay():
    flood = veason(2, *([x, y, x + 8, y + 5] for x in range(0, 40) for y in range(0, 10)))
    reward = veason_r1()
    assert value(grounding.key_boxes(), flood, frames=FRAMES, boxes=OBJECTS) == pytest.approx(1 / 400)
    assert value(reward, flood, **VEASON) < value(reward, veason(2, [0, 0, 8, 4]), **VEASON) - 0.7


# --- 3D-R1 -------------------------------------------------------------------------------------------------------


def test_3d_r1_worked_numbers():
    encoder = tfidf(["the chair is left of the table box"])
    likeness = relevance.reference(encoder=encoder, within="answer_tag")
    seen = grounding.detection(axes=3, match="best", per="pred", within="completion")
    reward = 0.3 * grounding.reasoned() + 0.4 * seen + 0.3 * likeness
    columns = {"boxes": [[0, 0, 0, 1, 1, 1]], "answer": "the chair is left"}
    full = "<think>It is beside the table. box: [0, 0, 0, 1, 1, 1]</think><answer>the chair is left</answer>"
    no_box = "<think>It is beside the table.</think><answer>the chair is left</answer>"
    assert values(reward, [full, no_box], **columns) == pytest.approx([1.0, 0.6])
    shifted = full.replace("[0, 0, 0, 1, 1, 1]", "[0.5, 0, 0, 1.5, 1, 1]")
    assert value(seen, shifted, **columns) == pytest.approx(1 / 3)
    assert [grounding.reasoned().evaluate(x) for x in (full, "<think></think><answer>a</answer>", "left")] == [
        1,
        0.75,
        0,
    ]
    degenerate = full.replace("[0, 0, 0, 1, 1, 1]", "[0, 0, 0, 1, 1, 0]")
    assert value(seen, degenerate, **columns) == 0


def test_3d_r1_one_safe_box_of_many_pays_only_per_prediction():
    room = [[3 * i, 0, 0, 3 * i + 1, 1, 1] for i in range(5)]
    one = "box: [0, 0, 0, 1, 1, 1]"
    released, safe = grounding.detection(axes=3, match="best", per="pred"), grounding.detection(axes=3)
    assert value(released, " ".join([one] * 4), boxes=room) == 1
    assert value(released, one, boxes=room) == 1
    assert value(safe, one, boxes=room) == value(safe, " ".join([one] * 4), boxes=room) == pytest.approx(1 / 5)
    every = " ".join(f"box: {box}" for box in room)
    assert value(safe, every, boxes=room) == 1


def test_3d_r1_views_are_chosen_by_their_worth():
    text_likeness, covered, seen = np.random.default_rng(0).random((3, 8))
    worth = [0.3 * t + 0.5 * c + 0.5 * s for t, c, s in zip(text_likeness, covered, seen, strict=True)]
    best = sorted(range(8), key=lambda i: -worth[i])[:4]
    assert geometry.top_views(geometry.view_worth(text_likeness, covered, seen)).tolist() == best
    assert geometry.top_views(geometry.view_worth(text_likeness, covered, seen) + 3.0).tolist() == best
