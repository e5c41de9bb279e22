"""What all rewards of code are set with, and what follows from it before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from guerdon.sandbox import Sandbox

START = 60.0  # seconds, besides those of the tests, after which an engine gives a row up


def valid(*, seconds: float, total: float, memory: int, packages: Sequence[str], **options: Any) -> tuple[str, ...]:
    """Nothing that is required, and a check of the options that all rewards of code have.

    Raises:
        ValueError: if one of them cannot be meant.
    """
    if not 0 < seconds <= total < math.inf:
        raise ValueError(f"seconds for a test are positive, and no more than the total: {seconds} and {total}")
    if memory <= 0:
        raise ValueError(f"memory is a positive number of MiB, got {memory}")
    if isinstance(packages, str):
        raise ValueError(f"packages is a list of names: a single one is written ({packages!r},)")
    tolerance = options.get("tolerance")
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise ValueError(f"a tolerance is None, or 0 or more, got {tolerance}")
    return ()


def longest(*, seconds: float, total: float, **options: Any) -> float:
    """The engine's deadline for a row, its setup and all its tests: a worker that is at it for longer is stuck."""
    return total + 3 * seconds + START


def check(*, packages: Sequence[str], **options: Any) -> None:
    """See that there is a sandbox.

    Raises:
        SandboxUnavailable: if programs cannot be isolated here; says what to do.
        GuerdonError: if a package is not installed.
    """
    _startable(tuple(packages))


@cache
def _startable(packages: tuple[str, ...]) -> None:
    with Sandbox(packages=packages) as box:
        box.check()
