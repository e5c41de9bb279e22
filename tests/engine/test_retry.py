import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from guerdon.core import Abstain
from guerdon.engine import retry
from guerdon.engine.retry import pause, transient


def error(kind=Exception, cause=None, **attributes):
    made = kind("failed")
    made.__cause__ = cause
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def response(status=None, **headers):
    return SimpleNamespace(
        status_code=status, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


class Evasive(Exception):
    @property
    def response(self):
        raise RuntimeError("nobody answered")


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError("no route to host"), True),
        (ValueError("no number in the reply"), False),
        (error(status=429), True),
        (error(status_code=503), True),
        (error(response=response(500)), True),
        (error(status=404), False),
        (error(status=600), False),
        (error(OSError, status=404), False),  # urllib's HTTPError is an OSError
        (error(response=response(200)), False),
        (error(retry_after=2), True),
        (error(response=response(retry_after="2")), True),
        (error(cause=error(cause=ConnectionError())), True),  # as httpx wraps it
        (error(cause=ValueError()), False),
        (error(Abstain, cause=ConnectionError()), False),
        (Evasive(), False),
    ],
    ids=str,
)
def test_which_failures_are_worth_another_attempt(failure, again):
    assert transient(failure) is again


def test_a_leaf_may_say_so_itself():
    assert transient(KeyError(), (LookupError,))
    assert not transient(ConnectionError(), (LookupError,))
    assert not transient(error(status=503), ())


def test_causes_that_go_round_come_to_an_end():
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert not transient(first)


def test_the_back_off_doubles_up_to_a_minute_and_is_drawn_evenly(monkeypatch):
    monkeypatch.setattr(retry, "_jitter", SimpleNamespace(uniform=lambda low, high: (low, high)[1]))
    assert [pause(ValueError(), attempts) for attempts in (1, 2, 3, 7, 8, 9, 5000)] == [0.5, 1, 2, 32, 60, 60, 60]
    monkeypatch.undo()
    drawn = [pause(ValueError(), 3) for _ in range(400)]
    assert min(drawn) >= 0
    assert max(drawn) <= 2
    assert sum(drawn) / 400 == pytest.approx(1, abs=0.15)  # 5 standard errors of U(0, 2)


def test_the_back_off_leaves_the_seed_alone():
    import random

    random.seed(1)
    expected = random.random()
    random.seed(1)
    pause(ValueError(), 1)
    assert random.random() == expected


@pytest.mark.parametrize(
    ("failure", "asked"),
    [
        (error(retry_after=7), 7),
        (error(retry_after="7.5"), 7.5),
        (error(response=response(429, retry_after="7")), 7),
        (error(headers={"Retry-After": "7"}), 7),
        (error(cause=error(retry_after=7)), 7),
        (error(retry_after=-3), 0),
        (error(retry_after="soon"), 0),
        (error(retry_after=float("nan")), 0),
        (error(retry_after=0), 0),
    ],
    ids=["number", "text", "header", "own header", "of the cause", "past", "no number", "NaN", "now"],
)
def test_what_the_server_asks_for_is_waited(failure, asked, monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", 0.0)
    assert pause(failure, 1) == asked


def test_a_date_to_wait_for_is_counted_from_now(monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", 0.0)
    at = formatdate(time.time() + 100, usegmt=True)
    assert pause(error(response=response(503, retry_after=at)), 1) == pytest.approx(100, abs=10)
    assert pause(error(retry_after=formatdate(0, usegmt=True)), 1) == 0
