"""`optics`: lenses whose numbers are known, rays against Snell's law and optiland, and what does not pay."""

import json
import math

import numpy as np
import pytest

from guerdon import Rollouts
from guerdon.algebra import spec, tiers
from guerdon.rewards import optics
from guerdon.rewards.optics import Lenses

TARGETS = {"focal_length": 100.0, "f_number": 5.0}
THIN = 1e-9


def surface(radius, thickness, index, semi=10.0, stop=False):
    return {"radius": radius, "thickness": thickness, "index": index, "semi_diameter": semi, "stop": stop}


def biconvex(radius=None, thickness=4.0, **changes):
    """A lens of 100 mm at f/5, its image at its focus, with other cells where they are given."""
    radius = radius or 99.33
    front, back = surface(radius, thickness, 1.5, stop=True), surface(-radius, 98.66, 1.0, semi=11.0)
    return [{**front, **changes}, back]


def lenses(*tables):
    return Lenses.of([optics.read_lens(table) for table in tables])


def batch(*completions, targets=TARGETS, **columns):
    n = len(completions)
    written = [c if isinstance(c, str) else json.dumps(c) for c in completions]
    wanted = targets if isinstance(targets, list) else [targets] * n
    return Rollouts(["?"] * n, written, {"targets": wanted, **columns})


def whole():
    return tiers(optics.table(), optics.feasible(), optics.focus(), optics.spot())


def test_thin_lens_is_100():
    near_axis = optics.paraxial(lenses([surface(100, THIN, 1.5, stop=True), surface(-100, 100, 1)]))
    assert near_axis.focal_length[0] == pytest.approx(100)
    assert near_axis.back_focal_length[0] == pytest.approx(100)
    assert near_axis.f_number[0] == pytest.approx(5)


def test_two_thin_lenses_at_a_distance():
    pair = [surface(100, THIN, 1.5, stop=True), surface(-100, 50, 1), surface(100, THIN, 1.5), surface(-100, 33, 1)]
    assert optics.paraxial(lenses(pair)).focal_length[0] == pytest.approx(66.6667, abs=1e-3)
    assert optics.paraxial(lenses(pair)).back_focal_length[0] == pytest.approx(100 * (50 - 100) / (50 - 200), abs=1e-3)


def test_a_thick_lens_is_the_lens_makers():
    r1, r2, t, n = 60.0, -80.0, 7.0, 1.6
    power = (n - 1) * (1 / r1 - 1 / r2 + (n - 1) * t / (n * r1 * r2))
    near_axis = optics.paraxial(lenses([surface(r1, t, n, stop=True), surface(r2, 50, 1)]))
    assert near_axis.focal_length[0] == pytest.approx(1 / power)
    assert near_axis.back_focal_length[0] == pytest.approx((1 - (n - 1) * t / (n * r1)) / power)


def test_matrices_are_products_of_the_sheets_matrices_and_keep_their_determinant():
    rng = np.random.default_rng(0)
    tables, expected = [], []
    for count in (1, 3, 6):
        before, matrix, table = 1.0, np.eye(2), []
        for k in range(count):
            radius, gap = rng.uniform(20, 90) * rng.choice([-1, 1]), rng.uniform(1, 9)
            after = 1.0 if k == count - 1 else rng.uniform(1.4, 2)
            matrix = np.array([[1, 0], [-(after - before) / (radius * after), before / after]]) @ matrix
            matrix = np.array([[1, gap if k < count - 1 else 0], [0, 1]]) @ matrix
            table.append(surface(radius, gap, after, stop=k == 0))
            before = after
        tables.append(table)
        expected.append(matrix)
    found, _ = optics.abcd(lenses(*tables))
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(np.linalg.det(found), 1)


def test_the_stop_makes_pupil_and_f_number():
    """A stop behind a thin lens is seen through it: at b/a, and larger by 1/|a|."""
    behind = [surface(100, THIN, 1.5), surface(-100, 20, 1), surface(None, 80, 1, semi=8.0, stop=True)]
    near_axis = optics.paraxial(lenses(behind))
    assert near_axis.aperture[0] == pytest.approx(16 / (1 - 20 / 100))
    assert near_axis.pupil[0] == pytest.approx(20 / (1 - 20 / 100))


def test_a_ray_obeys_snells_law_at_a_sphere():
    """One surface: where a ray at height h meets the axis, by triangles."""
    radius, index, h = 50.0, 1.6, 12.0
    incidence = math.asin(h / radius)
    bent = incidence - math.asin(h / radius / index)
    crosses = radius - math.sqrt(radius**2 - h**2) + h / math.tan(bent)
    lens = lenses([surface(radius, crosses, index, semi=h, stop=True)])
    rays = optics.trace(lens, optics.paraxial(lens), np.zeros(1), rings=1)
    np.testing.assert_allclose(np.hypot(rays.x, rays.y)[0], 0, atol=1e-9)


def test_rays_that_miss_or_cannot_leave_are_not_through():
    steep = [surface(21, 25, 1.8, semi=20, stop=True), surface(None, 40, 1, semi=20)]
    ball = [surface(9, 1, 1.5, semi=12, stop=True), surface(None, 40, 1)]
    lens = lenses(steep, ball, biconvex())
    rays = optics.trace(lens, optics.paraxial(lens), np.zeros(3))
    assert rays.through.all(1).tolist() == [False, False, True]
    assert np.isnan(optics.rms_spot(rays)).tolist() == [True, True, False]


def test_a_ray_that_passes_a_sphere_by_is_not_through():
    """Of rays at 0, 3, 6, 9 and 12 from the axis, a sphere of radius 10 is met by the first four."""
    ball = lenses([surface(10, 30, 1.5, semi=12, stop=True)])
    rays = optics.trace(ball, optics.paraxial(ball), np.zeros(1))
    heights = np.hypot(*(12 * optics.bundle()).T)
    assert rays.through[0].tolist() == (heights < 10).tolist()


def test_a_ray_is_as_high_as_at_the_surface_where_it_fills_most():
    window = lenses([surface(None, 5, 1.5, semi=4, stop=True), surface(None, 40, 1, semi=16)])
    rays = optics.trace(window, optics.paraxial(window), np.zeros(1), rings=2)
    np.testing.assert_allclose(rays.highest[0], np.hypot(*optics.bundle(2).T))


def test_stacked_lenses_are_scored_as_alone():
    tables = [biconvex(), biconvex(thickness=-1.0), [surface(50, 100, 1.5, stop=True)], "no lens"]
    together = whole().score(batch(*tables)).read(np.nan)
    alone = [whole().score(batch(table)).read(np.nan)[0] for table in tables]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_a_good_lens_opens_every_tier():
    scores = whole().score(batch(biconvex()))
    assert scores.parts["optics.feasible"].details["problem"] == [None]
    assert scores.parts["optics.focus"].read(np.nan).tolist() == [1]
    assert 0.875 < scores.read(np.nan)[0] < 0.9375


def test_tiers_by_hand():
    miss = 125.0
    near_axis = optics.paraxial(lenses(biconvex(radius=miss)))
    error = abs(near_axis.focal_length[0] / 100 - 1)
    dark = abs(near_axis.f_number[0] / 5 - 1)
    expected = 0.75 + 0.125 * (math.exp(-error / 0.1) + math.exp(-dark / 0.1)) / 2
    assert whole().score(batch(biconvex(radius=miss))).read(np.nan)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"thickness": -4.0}, "a thickness is not positive"),
        ({"thickness": 0.5}, "an edge has no thickness"),
        ({"index": 1.2}, "an index is neither"),
        ({"index": 1.0}, "there is no glass"),
        ({"index": 2.4}, "an index is neither"),
        ({"semi_diameter": 120.0}, "a semi-diameter"),
        ({"semi_diameter": 0.0}, "a semi-diameter"),
        ({"thickness": 2000.0}, "the track is too long"),
        ({"semi_diameter": 25.0, "thickness": 12.0}, "light passes outside"),
    ],
)
def test_what_cannot_be_built_is_worth_the_first_tier_whatever_its_focus(changes, problem):
    scores = whole().score(batch(biconvex(**changes)))
    assert scores.read(np.nan)[0] == 0.5
    assert scores.parts["optics.feasible"].details["problem"][0].startswith(problem)


def test_light_that_ends_in_glass_comes_out_of_no_lens():
    cemented = [surface(100, 4, 1.5, stop=True), surface(-100, 98, 1.6, semi=11)]
    assert optics.feasible().score(batch(cemented)).details["problem"] == ["behind the lens is no air"]


def test_a_lens_that_spreads_light_can_be_built():
    spreading = [surface(-100, 4, 1.5, stop=True), surface(100, 50, 1, semi=11)]
    wanted = {"focal_length": -100.0, "f_number": 5.0}
    assert optics.feasible().score(batch(spreading, targets=wanted)).details["problem"] == [None]
    close = optics.focus().score(batch(spreading, targets=wanted)).read(np.nan)[0]
    assert close > 0.9 > 0.6 > optics.focus().score(batch(spreading)).read(np.nan)[0]


def test_no_focus_makes_up_for_what_cannot_be_built():
    """The hack: a negative thickness that puts the focal length exactly right."""
    radius, thickness = 100.0, -3.0
    power = 0.5 * (2 / radius - 0.5 * thickness / (1.5 * radius**2))
    cheat = [surface(radius, thickness, 1.5, semi=100 / 10 / (100 * power), stop=True), surface(-radius, 99, 1)]
    targets = {"focal_length": 1 / power, "f_number": 1 / power / (2 * cheat[0]["semi_diameter"])}
    assert optics.focus().score(batch(cheat, targets=targets)).read(np.nan)[0] == 1
    honest = biconvex(radius=140.0)
    worth = whole().score(batch(cheat, honest, targets=[targets, TARGETS])).read(np.nan)
    assert worth[0] == 0.5 < 0.75 < worth[1]


def test_a_pinhole_is_sharp_and_does_not_pay():
    """The hack: the stop closed until every spot is small."""
    pinhole = biconvex(semi_diameter=0.1)
    spots = optics.spot().score(batch(pinhole, biconvex())).read(np.nan)
    assert spots[0] > spots[1]
    worth = whole().score(batch(pinhole, biconvex())).read(np.nan)
    assert worth[0] < worth[1]
    window = [surface(None, 4, 1.5, stop=True), surface(None, 98, 1)]
    assert whole().score(batch(window)).read(np.nan)[0] == 0.75  # it can be built, and focuses nothing


@pytest.mark.parametrize(
    "reply",
    [
        "", "[]", "{}", "no", "[1]", '{"surfaces": 3}', "[" * 2000, "[{}]", '[{"radius": 1}]',
        json.dumps([surface(50, 3, 1.5)]),  # no stop
        json.dumps([surface(50, 3, 1.5, stop=True)] * 2),
        json.dumps([{**surface(50, 3, 1.5, stop=True), "coating": "none"}]),
        json.dumps([surface(50, "3", 1.5, stop=True)]),
        json.dumps([surface(50, True, 1.5, stop=True)]),
        json.dumps([surface(1e300, 3, 1.5, stop=True)]),
        json.dumps([surface(1e-300, 3, 1.5, stop=True)]),
        json.dumps([surface(50, 3, 1.5)] * 64 + [surface(50, 3, 1, stop=True)]),
        '[{"radius": NaN, "thickness": 3, "index": 1.5, "semi_diameter": 3, "stop": true}]',
        json.dumps([{**surface(50, 3, None, stop=True), "glass": "N-BK7"}]),  # no catalogue
    ],
)  # fmt: skip
def test_what_is_no_table_gets_the_floor(reply):
    scores = whole().score(batch(reply))
    assert scores.read(np.nan).tolist() == [0]
    assert scores.parts["optics.table"].details["problem"][0]


def test_odd_but_whole_tables_never_raise():
    odd = [
        [surface(1e-6, 1e-9, 1e-9, semi=1e9 - 1, stop=True)],
        [surface(-50, 3, 0.0, stop=True), surface(50, 3, -1.5)],
        [surface(0, 1, 1, semi=-4, stop=True)],
        [surface(10, 1e8, 1.5, stop=True)] + [surface(10, 1e8, 1.5)] * 63,
    ]
    assert whole().score(batch(*odd)).read(np.nan).tolist() == [0.5] * len(odd)


def test_targets_that_cannot_be_met_abstain():
    wrong = [None, "{", 3, {}, {"focal_length": 0, "f_number": 5}, {"focal_length": 100, "f_number": -5},
             {"focal_length": math.nan, "f_number": 5}, {**TARGETS, "field": 90}, {**TARGETS, "track": 0},
             {"focal_length": True, "f_number": 5}]  # fmt: skip
    scores = whole().score(batch(*[biconvex()] * (len(wrong) + 1), targets=[*wrong, json.dumps(TARGETS)]))
    assert scores.usable.tolist() == [False] * len(wrong) + [True]


def test_the_table_is_read_from_where_the_reply_puts_it():
    said = json.dumps({"surfaces": biconvex()})
    for reply in (said, f"<think>[]</think>\n```json\n{said}\n```\nDone.", f"<answer>{said}</answer>"):
        assert optics.table().score(batch(reply)).read(np.nan)[0] == 1


def test_a_prescription_is_completed_and_not_rewritten():
    given = [{**row, "radius": "?"} for row in biconvex()]
    other = [{**row, "semi_diameter": 9.0} for row in biconvex()]
    reward = optics.table(given="keep")
    tables, asked = [biconvex(), other, biconvex()[:1], given], [given] * 4
    scores = reward.score(batch(*tables, prescription=asked))
    assert scores.read(np.nan).tolist() == [1, 0, 0, 0]
    assert scores.details["problem"][1] == "surface 1: semi_diameter was given as 10.0"
    absent = [{**row, "stop": None} for row in given]  # as Parquet has what is not there
    assert reward.score(batch(biconvex(), prescription=[absent])).read(np.nan).tolist() == [1]
    lost = reward.score(batch(*[biconvex()] * 3, prescription=[None, biconvex(), "no table"]))
    assert not lost.usable.any()
    assert lost.reasons[1] == "prescription has no cell to fill in"


def test_polishing_brings_a_proposal_to_its_target_and_is_never_worse():
    pytest.importorskip("scipy")
    proposal = optics.read_lens(biconvex(radius=130.0))
    polished = optics.polish(proposal, focal_length=100.0, field=1.0)
    before, after = (optics.paraxial(Lenses.of([table])) for table in (proposal, polished))
    assert abs(before.focal_length[0] - 100) > 20
    assert after.focal_length[0] == pytest.approx(100, rel=0.01)
    assert [row["thickness"] for row in polished] == [row["thickness"] for row in proposal]
    worth = whole().score(batch(proposal, polished, biconvex()))
    assert worth.read(np.nan)[0] < worth.read(np.nan)[1]
    again = optics.polish(polished, focal_length=100.0, field=1.0)
    assert [row["radius"] for row in again] == pytest.approx([row["radius"] for row in polished], rel=0.05)
    flat = optics.read_lens([surface(None, 4, 1.5, stop=True), surface(None, 98, 1)])
    assert optics.polish(flat, focal_length=100.0) == flat


def test_polishing_minds_the_light_at_an_angle():
    pytest.importorskip("scipy")
    proposal = optics.read_lens(biconvex(radius=110.0))
    found = [optics.polish(proposal, focal_length=100.0, field=field, weight=0.01) for field in (0.0, 12.0)]
    polished = Lenses.of(found)
    along, across = optics.rms_spot(optics.trace(polished, optics.paraxial(polished), np.full(2, 12.0)))
    assert across < 0.9 * along


def test_the_reward_is_data_and_back():
    assert spec.load(spec.dump(whole())) == whole()
    with pytest.raises(ValueError, match="positive"):
        optics.spot(size=0)


def test_optiland_agrees_from_the_reply_to_the_reward():
    """The real ray tracer: focal length, pupil and spots of three designs, and with them the reward, are optiland's."""
    pytest.importorskip("optiland")
    doublet = [
        surface(61.47, 6, 1.5168, semi=12.5, stop=True), surface(-44.64, 2.5, 1.673, semi=12.5),
        surface(-129.94, 95.9, 1, semi=12.5),
    ]  # fmt: skip
    behind = [surface(60.0, 5, 1.6, semi=14), surface(400, 8, 1, semi=14), surface(None, 86, 1, semi=8, stop=True)]
    for table in (biconvex(), doublet, behind):
        lens = lenses(table)
        near_axis = optics.paraxial(lens)
        field = 2.0
        optic = optics.to_optiland(optics.read_lens(table), aperture=near_axis.aperture[0], field=field)
        assert float(np.squeeze(optic.paraxial.f2())) == pytest.approx(near_axis.focal_length[0])
        assert float(np.squeeze(optic.paraxial.EPL())) == pytest.approx(near_axis.pupil[0], abs=1e-9)
        spots = []
        for share in (0.0, 1.0):
            optic.trace(Hx=0, Hy=share, wavelength=0.5876, num_rays=4, distribution="hexapolar")
            x, y = optic.surfaces.x[-1], optic.surfaces.y[-1]
            spots.append(math.sqrt(np.mean((x - x.mean()) ** 2 + (y - y.mean()) ** 2)))
            rays = optics.trace(lens, near_axis, np.array([share * field]))
            assert sorted(rays.y[0]) == pytest.approx(sorted(y), abs=1e-8)
        expected = np.mean([1 / (1 + rms / 0.01) for rms in spots])
        scored = optics.spot().score(batch(table, targets={**TARGETS, "field": field}))
        assert scored.read(np.nan)[0] == pytest.approx(expected, rel=1e-6)
    glass = [{**row, "glass": "N-BK7"} if row["index"] == 1.5 else row for row in biconvex(radius=104.0)]
    found = tiers(optics.table(catalogue="optiland"), optics.feasible(catalogue="optiland")).score(
        batch(glass, [{**glass[0], "glass": "NO-SUCH-9"}, glass[1]])
    )
    assert found.read(np.nan).tolist() == [0.75, 0]
