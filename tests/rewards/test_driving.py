"""`driving.route` against CaRL's rules, worked tick by tick, and in highway-env."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon import Rollouts, reduce
from guerdon.rewards import driving

TICKS = 40
CALM = ("outside", "too_close", "junction", "collision", "red_light", "stop_sign", "deviation", "stuck", "off_road")
FLAGS = st.lists(st.booleans(), min_size=1, max_size=60)


def drive(ticks=TICKS, **signals):
    """A clean drive of the whole route, with other signals where they are given."""
    clean = {"route": (100 * np.arange(1, ticks + 1) / ticks).tolist(), "speed": [8.0] * ticks, "limit": [13.9] * ticks}
    clean |= {name: [0.0] * ticks for name in (*CALM, "acceleration", "lateral", "heading", "centre")}
    return clean | {name: list(values) for name, values in signals.items()}


def scored(*drives, **options):
    return driving.route(**options).score(Rollouts(["?"] * len(drives), [""] * len(drives), {"drive": drives}))


def totals(*drives, **options):
    reward = reduce(driving.route(**options), "sum")
    return reward.score(Rollouts(["?"] * len(drives), [""] * len(drives), {"drive": drives})).read(np.nan)


def at(place, ticks=TICKS, value=1.0):
    return [value * (t == place) for t in range(ticks)]


def test_a_clean_route_sums_to_exactly_100():
    scores = scored(drive())
    assert totals(drive())[0] == 100
    assert scores.details["ended"] == ["finished"]
    assert scores.details["terminated"] == [False]  # finishing is a truncation


def test_all_comfort_and_the_gap_broken_leave_a_quarter():
    wild = drive(acceleration=[9.0 * (-1) ** t for t in range(TICKS)], lateral=[60.0 * (t % 2) for t in range(TICKS)])
    wild["heading"] = [0.99 * (0.1 * t) ** 2 for t in range(TICKS)]
    wild["too_close"] = [1.0] * TICKS
    signals = {name: np.array([values]) for name, values in wild.items()}
    found = driving.judge(signals, np.ones((1, TICKS), bool))
    assert np.prod(list(found.factors.values()), axis=0)[0, -1] == pytest.approx(0.25)


def test_a_crash_at_forty_is_worth_thirty_nine():
    assert totals(drive(collision=at(15)))[0] == pytest.approx(39)
    assert totals(drive(red_light=at(15)))[0] == pytest.approx(39)
    assert totals(drive(stop_sign=at(15)))[0] == pytest.approx(40)
    assert totals(drive(collision=at(15), stop_sign=at(15)))[0] == pytest.approx(39)


@pytest.mark.parametrize("ending", ["collision", "red_light", "stop_sign", "deviation", "stuck", "off_road"])
def test_an_ending_ends_the_score(ending):
    scores = scored(drive(**{ending: at(9)}))
    assert scores.mask.sum() == 10
    assert (scores.details["ended"], scores.details["terminated"]) == ([ending], [True])
    assert scores.details["done"] == [25.0]
    ignored = tuple(name for name in ("collision", "red_light", "stuck") if name != ending)
    assert scored(drive(**{ending: at(9)}), hard=ignored).mask.sum() == TICKS


def test_off_road_ends_above_its_share_and_time_runs_out():
    assert scored(drive(off_road=at(9, value=0.95))).details["ended"] == ["finished"]
    late = scored(drive(), timeout=2.0)
    assert late.mask.sum() == 20
    assert (late.details["ended"], late.details["terminated"]) == (["timeout"], [True])


def test_speed_at_the_margin_leaves_nothing():
    speeds = [13.9, 13.9 + 2.23 / 2, 13.9 + 2.23, 40.0]
    found = driving.within_limit(np.array(speeds), np.array(13.9))
    np.testing.assert_allclose(found, [1, 0.5, 0, 0], atol=1e-12)
    assert totals(drive(speed=[16.13] * TICKS))[0] == pytest.approx(0, abs=1e-9)


def test_a_parked_car_earns_nothing_for_ever():
    parked = drive(ticks=500, route=[0.0] * 500)
    assert totals(parked)[0] == 0
    assert totals(parked, form="sum")[0] == pytest.approx(500 * 0.05 * 11 / 16)  # the sum for nuPlan does pay for it


def test_going_back_and_forth_pays_nothing():
    forth = [10.0, 20.0, 30.0]
    back = [20.0, 10.0, 0.0]
    assert totals(drive(ticks=12, route=forth + back + forth + back))[0] == 30
    # …nor if the way back is free because a rule that is broken there takes its loss away.
    off = [0.0] * 3 + [1.0] * 3
    assert totals(drive(ticks=12, route=2 * (forth + back), outside=off + off))[0] == 30


def test_the_gap_is_held_and_each_drive_has_timers_of_its_own():
    close = drive(too_close=at(0))
    assert scored(close, drive(), hold=10).read(np.nan)[:, [0, 10, 11]] == pytest.approx(
        np.array([[1.25, 1.25, 2.5], [2.5, 2.5, 2.5]])
    )
    alone, among = totals(drive()), totals(close, drive(), close)
    assert among[1] == alone[0]


@given(FLAGS, st.integers(0, 7))
def test_kept_is_its_definition(flags, ticks):
    expected = [any(flags[max(0, t - ticks) : t + 1]) for t in range(len(flags))]
    assert driving.kept(np.array(flags), ticks).tolist() == expected


@given(FLAGS)
def test_counter_is_its_definition(flags):
    count, expected = 0, []
    for flag in flags:
        count = max(0, count + (1 if flag else -1))
        expected.append(count)
    assert driving.counter(np.array(flags)).tolist() == expected


def test_off_centre_costs_half_once_patience_is_out_and_never_at_junctions():
    away = drive(centre=[-0.6] * TICKS)
    assert totals(away)[0] == pytest.approx(2.5 * 30 + 1.25 * 10)
    assert totals(away | {"junction": [1.0] * TICKS})[0] == pytest.approx(100)
    assert totals(drive(centre=[0.5] * TICKS))[0] == pytest.approx(100)


def test_slope_is_scipys_filter_at_the_end_of_its_window():
    signal = pytest.importorskip("scipy.signal")
    values = np.random.default_rng(0).normal(size=30)
    for order, degree in ((1, 2), (2, 3)):
        weights = signal.savgol_coeffs(15, degree, deriv=order, delta=0.1, pos=14, use="dot")
        found = driving.slope(values, order=order, degree=degree)
        assert np.isnan(found[:14]).all()
        np.testing.assert_allclose(found[14:], [values[t - 14 : t + 1] @ weights for t in range(14, 30)], rtol=1e-7)


def test_each_limit_of_comfort_stands_where_it_should():
    t = np.arange(40) * 0.1
    still = np.zeros(40)

    def broken(acceleration=still, lateral=still, heading=still):
        return driving.broken_limits(acceleration, lateral, heading)[:, -1].tolist()

    assert broken(acceleration=still + 2.40) == [False] * 6
    assert broken(acceleration=still + 2.41) == [True] + [False] * 5
    assert broken(acceleration=still - 4.05) == [False] * 6
    assert broken(acceleration=still - 4.06) == [True] + [False] * 5
    assert broken(lateral=still - 4.9) == [False, True] + [False] * 4
    assert broken(lateral=8.4 * (t - 4.0)) == [False, False, True, False, False, False]
    assert broken(acceleration=4.2 * (t - 4.0)) == [False, False, False, True, False, False]
    assert broken(heading=0.96 * t) == [False] * 4 + [True, False]
    assert broken(heading=0.94 * t) == [False] * 6
    assert broken(heading=0.97 * (t - 3.9) ** 2) == [False] * 5 + [True]
    turning = np.angle(np.exp(1j * 0.9 * np.arange(80) * 0.1))  # through a full turn, where the angle jumps
    assert not driving.broken_limits(np.zeros(80), np.zeros(80), turning).any()


def test_what_comes_later_changes_nothing():
    rng = np.random.default_rng(4)
    whole = drive(
        acceleration=rng.normal(0, 3, TICKS), heading=rng.normal(0, 0.1, TICKS), too_close=rng.random(TICKS) < 0.1
    )
    whole["route"] = np.sort(rng.uniform(0, 90, TICKS)).tolist()
    part = {name: values[:25] for name, values in whole.items()}
    np.testing.assert_allclose(scored(whole).read(0.0)[0, :25], scored(part).read(0.0)[0])


def test_the_sum_for_nuplan_is_its_formula():
    mixed = drive(ticks=4, route=[10, 20, 20, 30], speed=[8, 20, 8, 8], too_close=[0, 0, 1, 0], outside=[0, 0, 0, 1])
    clean = 5 + 4 + 2
    expected = [(50 + 0.05 * clean) / 16, (50 + 0.05 * (clean - 4)) / 16, 0.05 * (clean - 5) / 16, 0]
    np.testing.assert_allclose(scored(mixed, form="sum").read(np.nan)[0], expected)


def test_a_simulator_at_fault_abstains_and_the_others_are_scored():
    faults = [
        drive(route=[math.nan] * TICKS),
        drive(route=[-1.0] * TICKS),
        drive(route=[120.0] * TICKS),
        drive(speed=[1.0]),
        {k: v for k, v in drive().items() if k != "collision"},
        drive(heading=["north"] * TICKS),
        drive(route=[]),
        None,
        "{",
        [1, 2],
    ]
    scores = scored(drive(), *faults, json.dumps(drive()))
    assert scores.usable.tolist() == [True] + [False] * len(faults) + [True]
    assert scores.reasons[5] == "signal 'collision' is missing"
    assert scores.read(0.0).sum(1)[[0, -1]].tolist() == [100, 100]
    assert scored(*faults).usable.sum() == 0


def test_rules_are_named_once_and_exist():
    for options in ({"factors": ("lanes", "lanes")}, {"hard": ("weather",)}, {"hold": -1}, {"tick": 0.0}):
        with pytest.raises(ValueError, match=r"some of|not negative"):
            driving.route(**options)


def test_in_highway_env_the_one_who_drives_well_earns_most():
    """The real simulator: who parks, speeds or leaves the lane is worth less than who drives."""
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("highway_env")
    config = {
        "action": {"type": "ContinuousAction"}, "vehicles_count": 3, "lanes_count": 2, "duration": 12,
        "policy_frequency": 5, "simulation_frequency": 10, "offscreen_rendering": True,
    }  # fmt: skip
    env = gymnasium.make("highway-v0", config=config)

    def steered(env, speed):
        vehicle = env.unwrapped.vehicle
        along, across = vehicle.lane.local_coordinates(vehicle.position)
        angle = vehicle.lane.local_angle(vehicle.heading, along)
        ahead, _ = env.unwrapped.road.neighbour_vehicles(vehicle, vehicle.lane_index)
        if ahead is not None and ahead.position[0] - vehicle.position[0] < 30:
            speed = min(speed, ahead.speed - 1)
        return np.clip([(speed - vehicle.speed) / 10, -0.05 * across - 0.4 * angle], -1, 1).astype(np.float32)

    drivers = {
        "careful": lambda env, seen: steered(env, 22.0),
        "parked": lambda env, seen: np.array([-1.0 if env.unwrapped.vehicle.speed > 0.5 else 0.0, 0.0], np.float32),
        "asleep": lambda env, seen: np.array([1.0, 0.0], np.float32),
        "swerving": lambda env, seen: np.array([0.0, 0.3], np.float32),
    }
    drives = {name: driving.highway(env, act, metres=200, seed=3) for name, act in drivers.items()}
    env.close()
    rules = {"factors": ("lanes", "speed", "gap", "comfort"), "hard": ("collision", "off_road"), "tick": 0.2}
    scores = scored(*drives.values(), **rules)
    assert scores.usable.all()
    worth = dict(zip(drives, totals(*drives.values(), **rules), strict=True))
    assert worth["careful"] > 60
    assert all(worth["careful"] > 2 * worth[name] for name in ("parked", "asleep", "swerving")), worth
    assert max(drives["asleep"]["speed"]) > max(drives["asleep"]["limit"]) + driving.MARGIN
    assert scores.details["ended"][3] in ("off_road", "collision")
    assert scores.details["done"][1] < 50
