"""Drawings as code against what was wanted: the published numbers, the hacks, and SVG that is meant to do harm."""

import base64
import io
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon import Context, Rollouts
from guerdon.algebra import spec
from guerdon.credit import group_relative
from guerdon.objectives import policy_gradient
from guerdon.rewards import graphics
from guerdon.rewards.graphics import drawing
from guerdon.rewards.graphics.source import read_svg
from guerdon.shaping import anneal

NS = 'xmlns="http://www.w3.org/2000/svg"'


def svg(inner, *, box="0 0 100 100", more=""):
    return f'<svg {NS} viewBox="{box}" {more}>{inner}</svg>'


def circle(x=50, y=50, r=25, fill="#c03020"):
    return svg(f'<circle cx="{x}" cy="{y}" r="{r}" fill="{fill}"/>')


FACE = svg(
    '<circle cx="50" cy="50" r="40" fill="#fd4"/><circle cx="35" cy="40" r="6" fill="#234"/>'
    '<circle cx="65" cy="40" r="6" fill="#234"/>'
    '<path d="M30 62Q50 82 70 62" stroke="#a22" fill="none" stroke-width="4"/>'
)
PIXELS = graphics.match(side=128, length=0)


def drawn(text, side=128):
    source = read_svg(text)
    return drawing.draw(source, source.box, (side, side))


def png(pixels):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def in_process(reward, replies, references, **columns):
    """The scores of a process-lane reward, row by row, without workers."""
    return [reward.evaluate(reply, reference) for reply, reference in zip(replies, references, strict=True)]


# --- the measures ------------------------------------------------------------------------------------------------


def test_rlrf_length_worked_numbers():
    assert [graphics.brevity(share * 40, 40) for share in (0.5, 1, 1.5, 2)] == [1.0, 0.75, 0.0, -1.25]
    assert graphics.brevity(0, 40) == 1.0


def test_rlrf_l2_worked_numbers():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (400, 400, 3)).astype(np.uint8) for _ in range(2))
    assert graphics.l2(a, a) == 1.0
    assert graphics.l2(a, b) == pytest.approx(-1, abs=0.02)  # 1 − 2
    assert graphics.l2(a, 255 - a) == -1.0  # 1 − 4, clipped
    dim = (a // 2 + 30).astype(np.uint8)
    assert graphics.l2(dim, a) > 0.999


def test_rlrf_l2_is_the_equation():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 256, (30, 20, 3)).astype(np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-60, 60, a.shape), 0, 255).astype(np.uint8)
    total = 0.0
    for c in range(3):
        x, y = (p[..., c] / 255 for p in (a, b))
        total += (((x - x.mean()) / (x.std() + 1e-6) - (y - y.mean()) / (y.std() + 1e-6)) ** 2).sum()
    assert graphics.l2(a, b) == pytest.approx(1 - total / a.size, abs=1e-12)
    assert graphics.l2(a[..., 0], b[..., 0]) == graphics.l2(*(np.repeat(p[..., :1], 3, 2) for p in (a, b)))


def test_rlrf_l2_of_flat_channels():
    a = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    part = a.copy()
    part[..., 0] = 7  # of three channels, one is flat
    assert graphics.l2(part, a) == pytest.approx(1 - 2 / 3)
    assert graphics.l2(part, a, flat="published") == graphics.l2(a, part) == pytest.approx(1 - 1 / 3, abs=1e-4)
    assert graphics.l2(part, part) == 1.0
    gray = np.full_like(a, 200)
    gray[0, 0] = 201  # the least that is not flat, however bright
    assert graphics.l2(gray, (gray == 201) * np.uint8(40)) > 0.999


def test_rlrf_edges_are_dilated_and_blurred():
    picture = np.full((48, 48, 3), 255, np.uint8)
    picture[:, 24:, 1:] = 0  # red, from the middle on: one vertical edge
    found = graphics.edge_map(picture)
    sigma = 0.3 * (6 - 1) + 0.8
    weights = np.exp(-(np.arange(-6.0, 7) ** 2) / (2 * sigma**2))
    line = np.convolve(np.isin(np.arange(48), range(22, 25)) * 255.0, weights / weights.sum(), "same")
    assert found.dtype == np.uint8
    assert min(np.abs(found[24].astype(float) - np.roll(line, shift)).max() for shift in (0, 1)) <= 0.5 + 1e-3


def test_ssim_is_the_equation():
    rng = np.random.default_rng(2)
    a = rng.integers(0, 256, (24, 20)).astype(np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-40, 40, a.shape), 0, 255).astype(np.uint8)
    at = np.arange(11) - 5
    g = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(g, g) / g.sum() ** 2
    found = []
    for i in range(24 - 10):
        for j in range(20 - 10):
            x, y = (p[i : i + 11, j : j + 11].astype(float) for p in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            c1, c2 = 2.55**2, 7.65**2
            found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    rgb = [np.repeat(p[..., None], 3, 2) for p in (a, b)]
    assert graphics.ssim(*rgb, paper="in") == pytest.approx(np.mean(found), abs=1e-4)
    assert graphics.ssim(*rgb) == pytest.approx(np.mean(found), abs=1e-4)
    assert graphics.ssim(rgb[0], rgb[0]) == pytest.approx(1, abs=1e-5)


def test_ssim_without_paper_does_not_praise_an_empty_canvas():
    icon, empty = drawn(circle(r=8)), np.full((128, 128, 3), 255, np.uint8)
    assert graphics.ssim(empty, icon, paper="in") > 0.9
    assert graphics.ssim(empty, icon) < 0.5
    assert graphics.ssim(empty, empty) == 1.0


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_measures_stay_in_range_and_are_symmetric(seed, mix):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    b = (mix * a + (1 - mix) * rng.integers(0, 256, a.shape)).astype(np.uint8)
    for forward, backward in ((graphics.l2(a, b), graphics.l2(b, a)), (graphics.ssim(a, b), graphics.ssim(b, a))):
        assert -1 <= forward <= 1
        assert forward == pytest.approx(backward, abs=1e-5)


# --- the reward --------------------------------------------------------------------------------------------------


def test_rlrf_a_perfect_answer():
    value, terms = graphics.match(side=128, ssim=1.0).evaluate(f"Here:\n```svg\n{FACE}\n```", FACE)
    assert terms == {"l2": 1.0, "edges": 1.0, "ssim": pytest.approx(1, abs=1e-6), "length": 0.75}
    assert value == pytest.approx((1 + 1 + 1 + 0.75) / 4)


def test_rlrf_weights_are_a_mean():
    other = circle(x=60)
    _, terms = graphics.match(side=128, ssim=1.0).evaluate(other, circle())
    value, _ = graphics.match(side=128, l2=2, edges=1, ssim=0.5, length=1.5).evaluate(other, circle())
    by_hand = (2 * terms["l2"] + terms["edges"] + 0.5 * terms["ssim"] + 1.5 * terms["length"]) / 5
    assert value == pytest.approx(by_hand)


def test_rlrf_shifting_a_circle_lowers_the_reward():
    values = [PIXELS.evaluate(circle(x=50 + shift), circle())[0] for shift in (0, 2, 5, 10, 20)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 5


def test_rlrf_brightness_does_not_count_and_outlines_do():
    gray = [svg(f'<rect width="100" height="100" fill="{p}"/><circle cx="50" cy="50" r="25" fill="{c}"/>')
            for p, c in (("#808080", "#404040"), ("#a0a0a0", "#606060"))]  # fmt: skip
    assert graphics.match(side=128, length=0, edges=0).evaluate(gray[1], gray[0])[0] > 0.999
    square = svg('<rect x="28" y="28" width="44" height="44" fill="#c03020"/>')  # of the circle's area and colour
    _, terms = PIXELS.evaluate(square, circle())
    assert terms["edges"] < terms["l2"] - 0.2


def test_rlrf_what_cannot_be_drawn_has_every_term_at_the_floor():
    for reply in ("no drawing", "<svg><g></svg>", svg("<g>"), "<think>" + FACE, f"{FACE[:-6]}"):
        value, details = graphics.match(side=64).evaluate(reply, FACE)
        assert value == -1.0
        assert details["problem"]
        assert graphics.length().evaluate(reply, FACE)[0] == -1.0


def test_rlrf_the_last_drawing_counts():
    assert PIXELS.evaluate(f"{circle()} no, rather {FACE}", FACE)[0] > 0.99
    assert PIXELS.evaluate(f"<think>{FACE}</think>{circle()}", FACE)[0] < 0.9


def test_rlrf_references_may_be_pictures_of_any_kind():
    pixels = drawn(FACE)
    data = png(pixels)
    text = "data:image/png;base64," + base64.b64encode(data).decode()
    for reference in (pixels, data, text, pixels.tolist(), pixels / 255, {"bytes": data, "path": None}):
        assert PIXELS.evaluate(FACE, reference)[0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "reference", [None, "words", "", 3.5, b"GIF89a", svg(""), np.zeros((4, 4, 7)), "<svg/>", np.full((9, 9), 2.0)]
)
def test_an_unusable_reference_abstains(reference):
    scores = PIXELS.score(Rollouts(["?"], [FACE], {"reference": [reference]}))
    assert scores.valid.tolist() == [False]
    assert "reference" in scores.reasons[0]


def test_a_picture_has_no_code_to_be_shorter_than():
    scores = graphics.match(side=64).score(Rollouts(["?"], [FACE], {"reference": [drawn(FACE)]}))
    assert "length" in scores.reasons[0]


def test_length_is_counted_in_any_unit():
    pair = svg("<g/>" * 10 + '<rect width="9" height="9"/>'), svg("<g/>" * 20 + '<rect width="9" height="9"/>')
    tags = graphics.length(count=lambda code: code.count("<g/>"))
    assert tags.evaluate(pair[1], pair[0])[0] == -1.0  # −1.25, not below the floor
    assert tags.evaluate(pair[0], pair[1])[0] == 1.0
    spread = pair[0].replace(">", ">\n   ")
    assert graphics.length().evaluate(spread, pair[0])[0] == 0.75


# --- hacks -------------------------------------------------------------------------------------------------------


def test_hack_a_view_box_of_ones_own_does_not_pay():
    # A quarter of the circle, blown up by a small view box, against the reference's frame.
    target = svg('<circle cx="50" cy="50" r="49" fill="#c03020"/>')
    cheat = target.replace('viewBox="0 0 100 100"', 'viewBox="40 40 20 20"')
    for reply in (cheat, target.replace("<svg", '<svg width="1e9" height="1"'), target.replace("<svg", '<svg x="50"')):
        assert PIXELS.evaluate(reply, target)[0] == pytest.approx(1.0, abs=1e-5)
    small = svg('<circle cx="5" cy="5" r="4.9" fill="#c03020"/>', box="0 0 10 10")
    assert PIXELS.evaluate(small, target)[0] < 0.2
    assert graphics.match(side=128, length=0, frame="own").evaluate(small, target)[0] > 0.99


def test_hack_an_empty_canvas_does_not_pay():
    wrong = circle(x=60, r=20)
    for reply in (svg(""), svg('<rect width="100" height="100" fill="#fff"/>'), svg("<!-- -->")):
        value, details = graphics.match(side=128).evaluate(reply, circle())
        assert (value, details) == (-1.0, {"problem": "a blank canvas"})
        assert graphics.length().evaluate(reply, circle())[0] == -1.0
    assert PIXELS.evaluate(wrong, circle())[0] > -1.0
    # A dot that leaves two channels flat: half of the published formula's scale for nothing.
    dot = svg('<rect width="1" height="1" fill="cyan"/>')
    published = graphics.match(side=128, length=0, edges=0, flat="published")
    strict = graphics.match(side=128, length=0, edges=0)
    assert published.evaluate(dot, circle(fill="red"))[0] == pytest.approx(0, abs=0.02)
    assert strict.evaluate(dot, circle(fill="red"))[0] == pytest.approx(1 - 5 / 3, abs=0.02)


def test_hack_the_reference_as_an_embedded_picture_does_not_pay():
    data = base64.b64encode(png(drawn(FACE))).decode()
    for inner in (
        f'<image width="100" height="100" href="data:image/png;base64,{data}"/>',
        f'<image width="100" height="100" xlink:href="data:image/png;base64,{data}"/>',
        f'<filter id="f"><feImage href="data:image/png;base64,{data}"/></filter>',
        '<image href="face.png" width="100" height="100"/>',
        '<use href="file:///etc/passwd#a"/>',
        '<use href="&#x68;ttp://example.org/a.svg#a"/>',
        '<rect width="9" height="9" fill="url(http://example.org/a.svg#a)"/>',
        '<style>@import url("http://example.org/a.css");</style><rect width="9" height="9"/>',
    ):
        value, details = PIXELS.evaluate(svg(inner), FACE)
        assert value == -1.0
        assert "picture" in details["problem"] or "outside" in details["problem"]


# --- harm --------------------------------------------------------------------------------------------------------

COPIES = "<defs><g id='a0'><rect width='1' height='1'/></g>" + "".join(
    f"<g id='a{i}'>" + f"<use href='#a{i - 1}' x='.1'/>" * 10 + "</g>" for i in range(1, 14)
) + "</defs><use href='#a13'/>"  # fmt: skip
BLUR = '<filter id="f"><feGaussianBlur stdDeviation="1e9"/></filter><rect width="9" height="9" filter="url(#f)"/>'
OCTAVES = (
    '<filter id="f"><feTurbulence baseFrequency=".05" numOctaves="2000000000"/></filter>'
    '<rect width="100" height="100" filter="url(#f)"/>'
)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("<!DOCTYPE svg [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]>" + svg("<text>&b;</text>"), "undefined entity"),
        (svg("<g>" * 500 + "</g>" * 500), "within one another"),
        (svg("<g/>" * 30_000), "more than 20000 elements"),
        (svg("<path d='" + "M0 0" * 200_000 + "'/>"), "characters"),
        (svg(COPIES), ""),
        (svg('<rect width="9" height="9"/>').replace(NS, 'xmlns="http://www.w3.org/1999/xhtml"'), ""),
        (svg("\x00"), "well-formed"),
        (svg("\ud800"), "half a character"),
        (svg('<circle r="nan" cx="1e309" cy="-inf"/>'), "blank"),
        (svg(BLUR), ""),
    ],
    ids=["entities", "deep", "many", "long", "copies", "xhtml", "nul", "surrogate", "numbers", "blur"],
)  # fmt: skip
def test_harmful_drawings_are_floored(reply, problem):
    value, details = graphics.match(side=64, seconds=1.0).evaluate(reply, FACE)
    assert value == -1.0
    assert problem in details["problem"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!DOCTYPE svg><svg/>", "a document type"),
        ('<svg><filter id="f"><feImage href="#a"/></filter></svg>', "a picture in it"),
        ('<svg xmlns:s="http://www.w3.org/2000/svg"><s:image href="#a"/></svg>', "a picture in it"),
    ],
)
def test_document_types_and_pictures_are_refused_where_they_stand(text, problem):
    with pytest.raises(ValueError, match=problem):
        read_svg(text)


def test_a_long_drawing_has_at_most_three_times_the_side():
    assert drawing.canvas((0, 0, 10, 20), 100) == (100, 200)
    assert drawing.canvas((0, 0, 60, 10), 100) == (300, 50)


def test_a_drawing_without_end_is_floored_and_the_next_one_drawn():
    judge = graphics.match(side=64, seconds=0.3, length=0)
    start = time.process_time()
    value, details = judge.evaluate(svg(OCTAVES), FACE)
    assert (value, details["problem"]) == (-1.0, "it takes more than 0.3 s to draw")
    assert time.process_time() - start < 1.0
    assert judge.evaluate(FACE, FACE)[0] == pytest.approx(1.0)


def test_a_renderer_that_wants_too_much_memory_is_floored():
    renderer = drawing.Renderer(seconds=20.0, memory=192)
    try:
        with pytest.raises(drawing.NotDrawn):
            renderer.draw(svg('<rect width="9" height="9"/>'), 20_000, 20_000)
        assert renderer.draw(svg('<rect width="9" height="9"/>'), 8, 8).startswith(b"\x89PNG")
    finally:
        renderer.close()


def test_a_view_box_that_cannot_be_drawn_is_floored_where_it_is_the_answers_own():
    judge = graphics.match(side=64, length=0, frame="own")
    for box in ("0 0 0 9", "0 0 -1 9", "0 0 1e99 9", "0 0 nan 1", "0 0 1 1000", "a b c d", "0 0"):
        value, details = judge.evaluate(svg('<rect width="9" height="9"/>', box=box), FACE)
        assert value == -1.0
        assert "view box" in details["problem"]


@given(st.text(alphabet="<>/svg =\"'&;#x0gcr!-[]", max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_text_raises(text):
    value, details = graphics.match(side=16).evaluate(f"<svg {text}</svg>", FACE)
    assert -1 <= value <= 1
    assert details


# --- encoders and judges -----------------------------------------------------------------------------------------


def pooled(pictures):
    """A programmatic encoder: mean colours of sixteen tiles, around gray."""
    found = []
    for pixels in pictures:
        high, wide = (size // 4 * 4 for size in pixels.shape[:2])
        tiles = pixels[:high, :wide].reshape(4, high // 4, 4, wide // 4, 3).mean((1, 3))
        found.append(tiles.ravel() - 160)
    return np.array(found)


def batch(replies, reference):
    return Rollouts(["a face"] * len(replies), list(replies), {"reference": [reference] * len(replies)})


def test_rlrf_perceptual_by_hand():
    judge = graphics.perceptual(features=pooled, side=64)
    scores = judge.score(batch([FACE, circle(), "none", svg("")], FACE))
    a, b = (f / np.linalg.norm(f) for f in pooled([drawn(FACE, 64), drawn(circle(), 64)]))
    assert scores.read(math.nan).tolist() == pytest.approx([1.0, 1 - 2 * (1 - a @ b), -1.0, -1.0])
    assert scores.details["problem"] == [None, None, "no SVG", "a blank canvas"]
    edges = graphics.perceptual(features=pooled, seen="edges", side=64).score(batch([FACE, circle()], FACE))
    assert edges.read(0.0)[0] == pytest.approx(1.0)
    assert edges.read(0.0)[1] < 0.999


def test_rlrf_perceptual_asks_the_encoder_once_with_each_picture():
    asked = []

    def features(pictures):
        asked.append(len(pictures))
        return pooled(pictures)

    rows = Rollouts(["?"] * 4, [FACE, FACE, circle(), FACE], {"reference": [FACE, FACE, FACE, "words"]})
    scores = graphics.perceptual(features=features, side=64).score(rows)
    assert asked == [2]
    assert scores.valid.tolist() == [True, True, True, False]


def test_rlrf_a_real_class_of_encoder_runs():
    """CLIP with random weights, as an encoder of pictures and as the judge of text-to-SVG."""
    from transformers.models.clip.configuration_clip import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        text_config={**small, "vocab_size": 128, "projection_dim": 16, "eos_token_id": 1, "bos_token_id": 0},
        projection_dim=16,
    )
    model = CLIPModel(config).eval()

    def tensor(pictures):
        return torch.tensor(np.stack(pictures), dtype=torch.float32).permute(0, 3, 1, 2) / 127.5 - 1

    @torch.no_grad()
    def features(pictures):
        states = model.vision_model(pixel_values=tensor(pictures)).pooler_output
        return model.visual_projection(states).numpy()

    @torch.no_grad()
    def similarity(pictures, prompts):
        ids = torch.tensor([[0, *prompt.encode()[:6], 1] for prompt in prompts])
        words = model.text_projection(model.text_model(input_ids=ids).pooler_output)
        seen = model.visual_projection(model.vision_model(pixel_values=tensor(pictures)).pooler_output)
        return torch.nn.functional.cosine_similarity(words, seen).tolist()

    rows = batch([FACE, circle(), "none"], FACE)
    scores = graphics.perceptual(features=features, side=32).score(rows).read(math.nan)
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[0] > scores[1] >= scores[2] == -1.0
    judged = graphics.judged(judge=similarity, side=32).score(rows)
    assert judged.valid.all()
    assert judged.read(0.0)[0] != judged.read(0.0)[1]
    assert judged.read(0.0)[2] == -1.0


def test_rlrf_a_judge_that_says_nonsense_makes_rows_abstain():
    judge = graphics.judged(judge=lambda pictures, prompts: [0.5, 7.0, None, -0.5], low=0, high=1, side=32)
    scores = judge.score(batch([FACE] * 4, FACE))
    assert scores.valid.tolist() == [True, False, False, False]
    assert "7.0" in scores.reasons[1]
    assert "judge said -0.5" in scores.reasons[3]


# --- the whole ---------------------------------------------------------------------------------------------------


def test_rlrf_the_weight_of_length_grows_with_training():
    whole = 2 * graphics.match(side=64, length=0) + (graphics.length() >> anneal(start=0, end=1))
    padded = FACE.replace("</svg>", '<g fill="none"/>' * 40 + "</svg>")
    rows = Rollouts(["?"] * 2, [FACE, padded], {"reference": [FACE] * 2})
    early, late = (whole.score(rows, Context(progress=p)).read(math.nan) for p in (0.0, 1.0))
    assert early[0] == pytest.approx(early[1], abs=1e-4)
    assert late[0] > late[1] + 1
    assert spec.load(spec.dump(whole)) == whole


def test_rlrf_a_policy_without_kl_learns_the_drawing():
    """GRPO over five drawings, scored as RLRF does: the right one wins, and a blank and a copied picture do not."""
    data = base64.b64encode(png(drawn(FACE))).decode()
    choices = [circle(), svg(""), svg(f'<image width="100" height="100" href="data:image/png;base64,{data}"/>'),
               FACE, FACE.replace("#fd4", "#4df")]  # fmt: skip
    judge = graphics.match(side=64)
    values = torch.tensor([value for value, _ in in_process(judge, choices, [FACE] * 5)])
    logits = torch.zeros(5, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        drawn_ = torch.multinomial(logits.detach().softmax(0), 16, replacement=True, generator=generator)
        advantages = group_relative(values[drawn_], torch.zeros(16, dtype=torch.long))
        logp = logits.log_softmax(0)[drawn_][:, None]
        loss, _ = policy_gradient(logp, logp.detach(), advantages, torch.ones(16, 1, dtype=torch.bool))
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 0.5 * gradient).detach().requires_grad_()
    chances = logits.softmax(0)
    assert chances.argmax() == 3
    assert chances[1] + chances[2] < 0.05
