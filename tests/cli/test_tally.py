import numpy as np
import pytest
from hypothesis import given, strategies as st

from guerdon.cli import tally
from guerdon.cli.tally import Spread, Tally, numbers

QUANTILES = (0.0, 0.25, 0.5, 0.9, 1.0)


def spread_of(values, piece=7):
    spread = Spread()
    for start in range(0, len(values), piece):
        spread.add(np.array(values[start : start + piece], float))
    return spread


@given(st.lists(st.sampled_from([0.0, 1.0, 0.5, -2.25, 1 / 3]) | st.floats(-1e6, 1e6), max_size=60))
def test_a_spread_is_exact_while_few_numbers_differ(values):
    spread = spread_of(values)
    assert spread.count == len(values)
    if not values:
        assert (spread.mean, spread.quantiles(QUANTILES), spread.counts()) == (None, None, [])
        return
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.quantiles(QUANTILES) == pytest.approx(np.quantile(values, QUANTILES), rel=1e-12, abs=1e-9)
    assert dict(spread.counts()) == {x: values.count(x) for x in values}


def test_many_numbers_are_kept_to_one_part_in_8000_and_in_little_memory(monkeypatch):
    monkeypatch.setattr(tally, "MOST_VALUES", 500)
    values = np.random.default_rng(0).lognormal(0, 5, 20_000) * np.where(np.arange(20_000) % 3, 1, -1)
    spread = spread_of(values, piece=300)
    assert len(spread.counts()) < 20_000
    assert sum(count for _, count in spread.counts()) == 20_000
    assert spread.mean == pytest.approx(values.mean(), rel=1e-9)
    assert spread.quantiles(QUANTILES) == pytest.approx(np.quantile(values, QUANTILES), rel=1 / 8000)


def test_memory_is_bounded_however_many_numbers_come(monkeypatch):
    monkeypatch.setattr(tally, "MOST_VALUES", 64)
    monkeypatch.setattr(tally, "MANTISSA_BITS", 6)
    spread = Spread()
    for seed in range(50):
        spread.add(0.5 + 0.5 * np.random.default_rng(seed).random(200))
    assert len(spread.counts()) <= 2**5 + 1


def columns(scores, reasons, **parts):
    valid = [reason is None for reason in reasons]
    return {"score": scores, "valid": valid, "reason": reasons, **{f"part.{k}": v for k, v in parts.items()}}


def test_rows_abstentions_reasons_and_parts_are_counted():
    found = Tally()
    found.add(columns([1.0, None, 0.0], [None, "late", None], a=[1.0, None, 0.0]))
    found.add(columns([None, None, None], ["late", "lost", None], a=[0.5, None, None]) | {"valid": [False] * 3})
    assert (found.rows, found.abstained) == (6, 4)
    assert (found.score.count, found.score.mean) == (2, 0.5)
    assert found.reasons() == [("late", 2), ("lost", 1), ("not asked for", 1)]
    assert {name: part.counts() for name, part in found.parts.items()} == {"a": [(0.0, 1), (0.5, 1), (1.0, 1)]}


def test_reasons_that_quote_each_reply_do_not_grow_without_bound(monkeypatch):
    monkeypatch.setattr(tally, "MOST_REASONS", 20)
    monkeypatch.setattr(tally, "KEPT_REASONS", 5)
    found = Tally()
    for i in range(100):
        found.add(columns([None] * 3, [f"no number in 'reply {i}'", "deadline 2.0 s", "deadline 2.0 s"]))
    reasons = found.reasons()
    assert len(reasons) <= 21
    assert reasons[0] == ("deadline 2.0 s", 200)
    assert reasons[-1][0] == "other reasons"
    assert sum(count for _, count in reasons) == found.abstained == 300


def test_numbers_of_rows_and_of_steps():
    assert numbers([1.0, None, 0.5]).tolist() == [1.0, 0.5]
    assert numbers([[1.0, None], [], None, [0.5]]).tolist() == [1.0, 0.5]
