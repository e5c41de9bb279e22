"""What a denoising policy makes of the same noise, over training: sheets as the page holds them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

SHEETS = 8
"""Most sheets in a report; of more, evenly spaced ones, the first and the last."""

BYTES = 600_000
"""Most bytes of all sheets; beyond, fewer are held."""


def pictures(sheets: Iterable[tuple[int, bytes]]) -> list[dict[str, Any]]:
    """Step and image of each sheet.

    >>> pictures([(0, b"png")])
    [{'step': 0, 'image': 'data:image/png;base64,cG5n'}]
    """
    known = list(sheets)
    most = SHEETS
    while True:
        last = len(known) - 1
        chosen = dict.fromkeys(round(i * last / max(1, most - 1)) for i in range(min(most, last + 1)))
        kept = [known[i] for i in (chosen if most <= last else range(last + 1))]
        if sum(len(png) for _, png in kept) <= BYTES or most <= 2:
            break
        most -= 1
    return [{"step": step, "image": f"data:image/png;base64,{base64.b64encode(png).decode()}"} for step, png in kept]
