"""Pictures against what was asked for, and tables against charts."""

import io
import math

import numpy as np
import pytest

from guerdon import Rollouts
from guerdon.algebra import spec
from guerdon.core.errors import Abstain
from guerdon.rewards import image


def value(reward, **row):
    """What a row is worth, or why it abstains; in this process."""
    try:
        return reward.evaluate(*(row.get(name) for name in reward.reads))[0]
    except Abstain as reason:
        return str(reason)


def painted(color=(200, 30, 30), size=64, *, box=(16, 16, 48, 48)):
    pixels = np.full((size, size, 3), 255, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = color
    return pixels


def encoded(pixels, kind="PNG", **options):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


# --- reading -----------------------------------------------------------------------------------------------------


def test_pictures_of_any_mode_are_read():
    from PIL import Image

    base = Image.fromarray(painted())
    np.testing.assert_array_equal(image.picture(base), painted())
    assert image.picture(base.convert("L")).shape == image.picture(base.convert("P")).shape == (64, 64, 3)
    clear = np.zeros((2, 2, 4), np.uint8)
    assert (image.picture(clear) == 255).all()
    assert image.picture(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(
    "broken",
    [None, 7, "", "data:image/png;base64,%%%", b"\x89PNG\r\n\x1a\nxxxx", np.zeros((3, 3, 2)), np.zeros((0, 4, 3)),
     np.full((2, 2), 3.0), np.full((2, 2), -1), np.full((2, 2), np.nan), [[1, 2], [3]], {"bytes": None}, "a.png"],
)  # fmt: skip
def test_what_is_no_picture_is_floored_in_an_answer_and_abstains_in_a_reference(broken):
    assert value(image.artifacts(), completion=broken) == 0.0
    assert value(image.palette(), completion=broken, reference=painted()) == 0.0
    assert "reference" in value(image.palette(), completion=painted(), reference=broken)


def test_a_picture_that_unpacks_to_gigabytes_is_not_unpacked():
    data = bytearray(encoded(painted()))
    data[16:24] = (60_000).to_bytes(4, "big") * 2  # IHDR: the width and height
    assert value(image.artifacts(), completion=bytes(data)) == 0.0


def test_a_reply_names_no_file_and_a_reference_may(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(painted()))
    assert value(image.palette(), completion=str(path), reference=painted()) == 0.0
    assert value(image.palette(), completion=painted(), reference=str(path)) == 1.0


def test_the_picture_of_a_chat_is_its_last():
    chat = [
        {"role": "user", "content": [{"type": "image", "image": painted((0, 0, 255))}]},
        {"role": "assistant", "content": [{"type": "text", "text": "here"}, {"type": "image", "image": painted()}]},
    ]
    assert value(image.palette(), completion=chat, reference=painted()) == 1.0
    assert value(image.palette(), completion=[{"role": "assistant", "content": "none"}], reference=painted()) == 0.0


# --- colours -----------------------------------------------------------------------------------------------------


def test_palette_by_hand():
    # A quarter of one is red, a half of the other; what both have is 3/4 white... and 1/4 red.
    quarter, half = painted(box=(0, 0, 32, 32)), painted(box=(0, 0, 32, 64))
    assert value(image.palette(), completion=quarter, reference=half) == 0.75
    assert value(image.palette(), completion=painted((0, 0, 255), box=(0, 0, 64, 64)), reference=half) == 0.0
    assert value(image.palette(), completion=np.flipud(half), reference=half) == 1.0


@pytest.mark.parametrize(
    ("color", "name"),
    [((0, 0, 0), "black"), ((250, 250, 248), "white"), ((90, 90, 95), "gray"), ((180, 10, 15), "red"),
     ((255, 120, 10), "orange"), ((240, 220, 60), "yellow"), ((10, 110, 30), "green"), ((20, 40, 160), "blue"),
     ((110, 30, 130), "purple"), ((250, 170, 200), "pink"), ((100, 60, 30), "brown")],
)  # fmt: skip
def test_colors_have_the_names_people_give_them(color, name):
    assert image.color_name(np.full((4, 4, 3), color, np.uint8)) == name


# --- composition -------------------------------------------------------------------------------------------------


def seen(label, *box, **more):
    return {"label": label, "box": list(box), "confidence": 0.9, **more}


SCENE = [seen("dog", 0, 40, 20, 60, color="brown"), seen("cat", 70, 40, 90, 60, color="black"),
         seen("bird", 70, 0, 80, 10), seen("bird", 40, 0, 50, 10), seen("cup", 0, 0, 5, 5, confidence=0.2)]  # fmt: skip


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([{"class": "dog"}, {"class": "cat"}], [], 1.0),
        ([{"class": "bird", "count": 2}], [{"class": "bird", "count": 3}], 1.0),
        ([{"class": "bird", "count": 1}], [{"class": "bird", "count": 2}], 0.5),
        ([{"class": "bird", "count": 3}], [], 0.0),
        ([{"class": "dog", "color": "brown"}, {"class": "cat", "color": "white"}], [], 0.5),
        ([{"class": "dog"}, {"class": "cat", "position": ["right of", 0]}], [], 1.0),
        ([{"class": "dog"}, {"class": "cat", "position": ["left of", 0]}], [], 0.5),
        ([{"class": "cat"}, {"class": "bird", "position": ["above", 0]}], [], 1.0),
        ([{"class": "cup"}], [], 0.0),
    ],
)
def test_geneval_composition(include, exclude, expected):
    wanted = {"include": include, "exclude": exclude}
    assert value(image.composition(), detections=SCENE, expected=wanted) == expected
    assert value(image.composition(credit="all"), detections=SCENE, expected=wanted) == float(expected == 1.0)


def test_geneval_relations_by_the_published_rule():
    # Middles 30 apart, sizes 10 each: beyond = 30 − 0.1 · 20 = 28 of 30.
    assert image.relations([30, 0, 40, 10], [0, 0, 10, 10]) == {"right of"}
    assert image.relations([30, 30, 40, 40], [0, 0, 10, 10]) == {"right of", "below"}
    assert image.relations([10, 30, 20, 40], [0, 0, 10, 10]) == {"below"}  # 8 of 31.6 sideways
    assert image.relations([0, 0, 10, 10], [0, 0, 10, 10]) == set()


def test_hack_filling_the_picture_does_not_pay():
    wanted = {"include": [{"class": "dog", "count": 2}], "exclude": [{"class": "dog", "count": 3}]}
    honest, flood = ([seen("dog", 20 * i, 0, 20 * i + 10, 10) for i in range(n)] for n in (2, 12))
    assert value(image.composition(), detections=honest, expected=wanted) == 1.0
    assert value(image.composition(), detections=flood, expected=wanted) == 0.5
    assert value(image.composition(credit="all"), detections=flood, expected=wanted) == 0.0


def test_colors_may_be_read_off_the_picture():
    wanted = {"include": [{"class": "car", "color": "red"}]}
    judge = image.composition(colors="picture")
    for color, expected in (((200, 30, 30), 1.0), ((30, 60, 200), 0.0)):
        row = {"detections": [seen("car", 16, 16, 48, 48, color="red")], "expected": wanted}
        assert value(judge, completion=painted(color), **row) == expected
    assert value(judge, completion="nothing", **row) == 0.0


@pytest.mark.parametrize(
    "row",
    [
        {"expected": None}, {"expected": {}}, {"expected": {"include": [{"count": 2}]}},
        {"expected": {"include": [{"class": "dog", "position": ["over", 0]}]}},
        {"expected": {"include": [{"class": "dog", "position": ["above", 0]}]}},
        {"expected": {"include": [{"class": "dog", "color": "mauve"}]}}, {"expected": "{"},
        {"detections": None}, {"detections": [{"label": "dog"}]}, {"detections": [seen("dog", 5, 5, 0, 0)]},
        {"detections": [seen("dog", 0, 0, 5, 5, confidence="high")]},
    ],
)  # fmt: skip
def test_columns_that_cannot_be_used_abstain(row):
    good = {"detections": SCENE, "expected": {"include": [{"class": "dog"}]}}
    assert "column" in value(image.composition(), **good | row)


# --- artifacts ---------------------------------------------------------------------------------------------------


def texture(size=96):
    y, x = np.mgrid[:size, :size]
    return (128 + 60 * np.sign(np.sin(x / 5.0)) * np.sign(np.cos(y / 7.0))).astype(np.float64)


def test_noise_is_estimated_where_it_is_known():
    rng = np.random.default_rng(0)
    plane = np.add.outer(np.arange(300), np.arange(300)) / 4.0
    assert image.noise(plane) == pytest.approx(0, abs=1e-9)
    for sigma in (2.0, 10.0):
        assert image.noise(plane + rng.normal(0, sigma, plane.shape)) == pytest.approx(sigma, rel=0.02)


def test_blur_is_the_equation_and_grows():
    gray = texture(24)
    found = []
    for picture in (gray, gray.T):
        padded = np.pad(picture, ((4, 4), (0, 0)), mode="edge")
        smooth = np.array([padded[i : i + 9].mean(0) for i in range(len(picture))])
        before, after = (np.abs(p[1:] - p[:-1]) for p in (picture, smooth))
        kept = sum(max(0.0, b - a) for b, a in zip(before.ravel(), after.ravel(), strict=True))
        found.append(1 - kept / before.sum())
    assert image.blur(gray) == pytest.approx(max(found))
    soft = gray
    degrees = [image.blur(soft)]
    for _ in range(3):
        soft = (soft + np.roll(soft, 1, 0) + np.roll(soft, -1, 0) + np.roll(soft, 1, 1) + np.roll(soft, -1, 1)) / 5
        degrees.append(image.blur(soft))
    assert degrees == sorted(degrees)


def test_blocking_by_hand_and_of_jpeg():
    steps = np.repeat(np.arange(6) * 8.0, 8)  # steps at the seams alone
    assert image.blocking(np.tile(steps[:, None], (1, 48))) == 1.0
    assert image.blocking(np.tile(np.arange(48.0)[:, None], (1, 48))) == 0.0
    smooth = np.clip(np.add.outer(np.arange(96), np.arange(96)) * 1.3, 0, 255).astype(np.uint8)
    pixels = np.repeat(smooth[..., None], 3, 2)
    poor, fine = (image.picture(encoded(pixels, "JPEG", quality=q))[..., 1].astype(float) for q in (5, 95))
    assert image.blocking(poor) > image.blocking(fine) + 0.2


def test_artifacts_are_the_worst_of_them_and_an_empty_picture_does_not_pay():
    clean = np.repeat(texture()[..., None], 3, 2).astype(np.uint8)
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    only = image.artifacts(measures=("noise",))
    assert value(only, completion=noisy) < value(only, completion=clean)
    scores = image.artifacts().score(Rollouts(["?"], [clean], {}))
    degrees = [scores.details[name][0] for name in ("noise", "blur", "blocking")]
    assert scores.read(math.nan)[0] == pytest.approx(1 - max(degrees))
    assert value(image.artifacts(), completion=np.full((64, 64, 3), 120, np.uint8)) == 0.0
    assert value(image.artifacts(), completion=painted(size=8, box=(0, 0, 4, 4))) == 0.0


# --- tables ------------------------------------------------------------------------------------------------------

SALES = [["year", "north", "south"], [2020, 10, 40], [2021, 20, 50]]


def markdown(rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


@pytest.mark.parametrize(
    "reply",
    [
        markdown(SALES), "The chart says:\n\n" + markdown(SALES) + "\n\nThat is all.",
        "```csv\nyear,north,south\n2020,10,40\n2021,20,50\n```", "year\tsouth\tnorth\n2021\t50\t20\n2020\t40\t10",
        '[{"year": 2020, "north": 10, "south": 40}, {"year": 2021, "north": 20, "south": 50}]',
        '{"year": [2020, 2021], "north": [10, 20], "south": [40, 50]}',
        markdown([["", "2020", "2021"], ["north", "$10", "20.0"], ["south", "40", "50"]]),
    ],
    ids=["markdown", "prose", "csv", "order", "records", "columns", "transposed"],
)  # fmt: skip
def test_tables_are_the_same_however_they_are_written(reply):
    assert value(image.table(), completion=reply, answer=SALES) == 1.0
    assert value(image.table(match="equal"), completion=reply, answer=markdown(SALES)) == 1.0


def test_tables_by_hand():
    half = [SALES[0], SALES[1]]  # P = 1, R = 1/2
    assert value(image.table(), completion=markdown(half), answer=SALES) == pytest.approx(2 / 3)
    near = [SALES[0], [2020, 10.5, 40], SALES[2]]  # one value 5 % off: 3.95 of 4
    assert value(image.table(), completion=markdown(near), answer=SALES) == pytest.approx(3.95 / 4)
    far = [SALES[0], [2020, 15, 40], SALES[2]]
    assert value(image.table(), completion=markdown(far), answer=SALES) == pytest.approx(3 / 4)
    named = [["year", "north", "south"], ["2020", "lo", "hi"]]
    said = [["year", "north", "south"], ["2020", "lo", "ho"]]  # 'ho' for 'hi': 1/2
    assert value(image.table(), completion=markdown(said), answer=named) == pytest.approx(1.5 / 2)


def test_tables_equal_is_all_or_nothing():
    judge = image.table(match="equal", tolerance=0.05)
    for change, expected in ((10.4, 1.0), (12, 0.0)):
        assert value(judge, completion=markdown([SALES[0], [2020, change, 40], SALES[2]]), answer=SALES) == expected
    assert value(judge, completion=markdown(SALES[:2]), answer=SALES) == 0.0


def test_hack_a_table_of_everything_does_not_pay():
    flood = [SALES[0], *([year, a, b] for year in (2020, 2021) for a in (10, 20) for b in range(0, 60, 10))]
    assert value(image.table(), completion=markdown(flood), answer=SALES) < 0.3
    huge = [["a"] + [str(i) for i in range(60)]] + [[str(j)] + ["1"] * 60 for j in range(60)]
    assert value(image.table(), completion=markdown(huge), answer=SALES) == 0.0
    assert value(image.table(), completion=markdown([SALES[0]] * 2), answer=SALES) < 0.3


def test_tables_that_are_none():
    for reply in ("no table", "", "|", "[[1, 2], 3]", "{}", "a,b", "| a |\n| b |"):
        assert value(image.table(), completion=reply, answer=SALES) == 0.0
    for answer in (None, "none", [], [["a", "b"]], 3):
        assert "reference" in value(image.table(), completion=markdown(SALES), answer=answer)


def test_parts_are_specs():
    for part in (
        image.table(match="equal"),
        image.composition(least=0.5),
        image.artifacts(measures=("noise",)),
        image.palette(),
    ):
        assert spec.load(spec.dump(part)) == part
