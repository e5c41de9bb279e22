"""Which failures of an awaited unit are worth another attempt, and how long to wait before it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from guerdon.core.errors import Abstain

BACKOFF = 0.5  # seconds, at most, before the second attempt; twice as long before each that follows
LONGEST_BACKOFF = 60.0
TOO_MANY_REQUESTS = 429

_jitter = random.Random()  # not the global generator, from which a seeded training draws


def transient(error: BaseException, kinds: tuple[type[BaseException], ...] | None = None) -> bool:
    """Whether another attempt may go better.

    By default a lost connection, a timeout, another `OSError`, and a server that says so: by HTTP 429 or
    5xx, or by how long to wait. Clients wrap what the system says in errors of their own, so what an
    error was raised `from` counts as well. A status decides where there is one: HTTP 404 stays.

    Args:
        error: what the attempt raised.
        kinds: the exceptions that are worth another attempt, in place of the default.

    >>> transient(ConnectionResetError()), transient(ValueError("no number in the reply"))
    (True, False)
    """
    if kinds is not None:
        return isinstance(error, kinds)
    if isinstance(error, Abstain):
        return False
    for cause in _causes(error):
        status = _status(cause)
        if status is not None:
            return status == TOO_MANY_REQUESTS or 500 <= status < 600
        if isinstance(cause, OSError) or _asked(cause) is not None:  # ConnectionError and TimeoutError are OSErrors
            return True
    return False


def pause(error: BaseException, attempts: int) -> float:
    """Seconds to wait after the last of some attempts failed.

    What the server asks for (`retry_after` of the error, or the header Retry-After of its response), and
    beyond it a share of a back-off that doubles, drawn evenly so that units that failed together do not
    come back together:

        pause = asked + U(0, min(60, ½·2^(attempts−1)))

    Source: "full jitter" of Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """
    asked = next((seconds for cause in _causes(error) if (seconds := _asked(cause)) is not None), 0.0)
    return asked + _jitter.uniform(0.0, min(LONGEST_BACKOFF, BACKOFF * 2.0 ** min(attempts - 1, 20)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on; each once."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of httpx, openai, aiohttp or urllib carries."""
    for holder in (error, _attribute(error, "response")):
        for name in ("status_code", "status"):
            status = _attribute(holder, name)
            if isinstance(status, int):
                return status
    return None


def _asked(error: BaseException) -> float | None:
    """How many seconds the server asks to wait, if it does; an HTTP date is counted from now."""
    asked = _attribute(error, "retry_after")
    for holder in (error, _attribute(error, "response")):
        if asked is None:
            headers = _attribute(holder, "headers")
            asked = headers.get("retry-after", headers.get("Retry-After")) if hasattr(headers, "get") else None
    try:
        seconds = float(asked)
    except (TypeError, ValueError, OverflowError):
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (TypeError, ValueError, AttributeError, OverflowError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def _attribute(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except Exception:  # an error's properties may raise
        return None
