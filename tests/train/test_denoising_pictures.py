"""What is measured of pictures, and the rewards of handwritten digits."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from guerdon.core import Rollouts
from guerdon.rewards import image
from guerdon.train.denoising.denoiser import DenoiserConfig, DenoiserShape, build
from guerdon.train.denoising.digits import DenoisingTeach, digits, teach
from guerdon.train.denoising.pictures import data_url, diversity, nearest, recognized, sheet
from guerdon.train.report.pictures import SHEETS, pictures

pytest.importorskip("sklearn")
PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")


def real(n):
    found, labels = digits()
    return list(((found[:n, 0] + 1) * 127.5).round().to(torch.uint8).numpy()), [str(x) for x in labels[:n].tolist()]


def test_variety_counts_what_is_really_different():
    one, other = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    one[:, :2], other[:, :2] = 255, 255
    other[:2], one[:2] = 255 - other[:2], one[:2]  # orthogonal in [−1, 1]: half of the pixels agree
    assert diversity([one] * 6, ["a"] * 6) == pytest.approx(1.0, abs=1e-4)
    assert diversity([one, other] * 3, ["a"] * 6) == pytest.approx(2.0, abs=1e-4)
    assert diversity([one, other] * 2, ["a", "b"] * 2) == pytest.approx(1.0, abs=1e-4)
    assert diversity([one, other], ["a", "b"]) is None


def test_a_collapse_shows():
    found, labels = real(200)
    first = {label: found[labels.index(label)] for label in set(labels)}
    assert diversity([first[label] for label in labels], labels) == pytest.approx(1.0, abs=1e-3)
    assert diversity(found, labels) > 2


def test_a_picture_is_recognized_by_the_nearest_real_one_of_all():
    black, grey, white = (np.full((4, 4), level, np.uint8) for level in (0, 153, 255))
    real, labels = [black, white, white], ["0", "1", "1"]
    assert recognized([black, grey, white, black], ["0", "0", "1", "1"], real, labels) == 0.5
    assert recognized([grey], ["1"], real, labels) == 1.0


def test_the_nearest_real_one_is_of_the_same_prompt():
    black, white = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    assert nearest([black], ["0"], [black, white], ["0", "1"]) == pytest.approx(0.0, abs=1e-6)
    assert nearest([black], ["1"], [black, white], ["0", "1"]) == pytest.approx(1.0)
    grey = np.full((8, 8), 51, np.uint8)
    assert nearest([grey], ["1"], [white, black], ["1", "1"]) == pytest.approx(0.2)


def test_a_picture_as_text_is_the_picture():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(image.picture(data_url(picture)), picture)


@pytest.mark.parametrize("shape", [(8, 8), (20, 30, 3), (512, 512, 3)])
def test_a_sheet_shows_ten_in_a_row(shape):
    from PIL import Image

    found = Image.open(io.BytesIO(sheet([np.full(shape, 200, np.uint8)] * 57)))
    assert found.width > found.height
    assert found.width <= 2000
    assert found.width / found.height == pytest.approx(10 / 4 * shape[1] / shape[0], rel=0.1)


def test_a_report_holds_few_sheets_with_the_first_and_the_last():
    kept = [sheet["step"] for sheet in pictures([(i, b"x") for i in range(100)])]
    assert (kept[0], kept[-1], len(kept)) == (0, 99, SHEETS)
    assert [sheet["step"] for sheet in pictures([(i, b"x" * 250_000) for i in range(9)])] == [0, 8]
    assert pictures([]) == []


def test_real_digits_are_known_and_others_are_not():
    found, labels = real(100)
    scores = image.digit().score(Rollouts(labels, found))
    assert scores.read(np.nan).mean() > 0.9
    wrong = image.digit().score(Rollouts([str((int(label) + 1) % 10) for label in labels], found))
    assert wrong.read(np.nan).mean() < 0.05


def test_what_is_no_digit_gets_the_floor_and_a_prompt_that_is_none_abstains():
    [good, *_], _ = real(1)
    scores = image.digit().score(Rollouts(["0", "0", "0", "ten", "12"], [good, "no", np.zeros((4, 4)), good, good]))
    assert scores.read(-1.0)[1:].tolist() == [0.0, 0.0, -1.0, -1.0]
    assert scores.reasons.keys() == {3, 4}
    assert "not 8 × 8" in scores.details["problem"][2]


def test_compactness_worked_example():
    """Ink at (0, 0) and (0, 2) of 3 × 3: spread 1; all ink: √(8/6) = 1.1547."""
    pair = np.zeros((3, 3), np.uint8)
    pair[0, [0, 2]] = 255
    corners = np.zeros((3, 3), np.uint8)
    corners[[0, 0, 2, 2], [0, 2, 0, 2]] = 255
    shown = [pair, corners, np.zeros((3, 3), np.uint8), "no", 255 - pair]
    found = image.compactness().score(Rollouts(["p"] * 5, shown))
    np.testing.assert_allclose(found.read(np.nan)[:4], [1 - 1 / (8 / 6) ** 0.5, 0, 0, 0], atol=1e-9)
    assert found.details["problem"][2] == "no ink"
    dark = image.compactness(dark=True).score(Rollouts(["p"], [255 - pair]))
    np.testing.assert_allclose(dark.read(np.nan), [1 - 1 / (8 / 6) ** 0.5])


def test_teaching_lowers_the_loss_and_is_a_function_of_the_seed():
    config = DenoisingTeach(steps=30, batch=32, learning_rate=5e-3)
    shape = DenoiserConfig(DenoiserShape(layers=1, width=16, heads=2))
    state = torch.random.get_rng_state()
    first, second = (teach(build(shape, 0), config, seed=3) for _ in range(2))
    assert first == second
    assert np.mean(first[-5:]) < 0.8 * np.mean(first[:5])
    assert torch.equal(torch.random.get_rng_state(), state)
