"""Pictures of a run: how varied they are, how near to real ones, and as files that a report shows."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from guerdon.rewards.distribution import vendi_score

SIDE = 16  # pixels a side at which pictures are compared
COLUMNS, ROWS = 10, 4  # of a sheet
THUMBNAIL = 48  # pixels a side at least, and at most four times as many, on a sheet


def vectors(pictures: Sequence[Any]) -> Float[Tensor, "n d"]:
    """Pictures as vectors: grey, at most 16 pixels a side, in [−1, 1]; mid-grey alone is not 0 exactly."""
    found = torch.stack([torch.as_tensor(np.asarray(picture), dtype=torch.float32) for picture in pictures])
    grey = (found.mean(-1) if found.ndim == 4 else found) / 127.5 - 1
    height, width = (min(SIDE, side) for side in grey.shape[1:])
    small = torch.nn.functional.adaptive_avg_pool2d(grey[:, None], (height, width))
    return small.flatten(1) + 1e-6


def diversity(pictures: Sequence[Any], prompts: Sequence[str]) -> float | None:
    """The mean over prompts of the Vendi score of their pictures: how many really different ones there are of each.

    It grows with the number of pictures of a prompt: only equal numbers are compared. Prompts with one picture are left
    out; None if no prompt has two.

    Source: the Vendi Score (arXiv 2210.02410), on the cosines of `vectors`.
    """
    found = vectors(pictures)
    scores = [float(vendi_score(found[rows])) for rows in _by_prompt(prompts) if len(rows) > 1]
    return sum(scores) / len(scores) if scores else None


def nearest(pictures: Sequence[Any], prompts: Sequence[str], real: Sequence[Any], labels: Sequence[str]) -> float:
    """The mean distance of a picture to the nearest real one of its prompt: root mean square over pixels, in [0, 1].

    It falls when a model repeats what it has seen, and rises when it leaves what is real.
    """
    of, ours, theirs = np.asarray(labels), vectors(pictures), vectors(real)
    distances = []
    for rows in _by_prompt(prompts):
        same = np.flatnonzero(of == prompts[rows[0]])
        if len(same):
            apart = torch.cdist(ours[rows], theirs[torch.as_tensor(same)]).amin(1)
            distances.append(apart / (2 * math.sqrt(ours.shape[1])))
    return float(torch.cat(distances).mean()) if distances else math.nan


def recognized(pictures: Sequence[Any], prompts: Sequence[str], real: Sequence[Any], labels: Sequence[str]) -> float:
    """The share of pictures whose nearest real one, of all prompts, is of their own.

    A classifier in the reward is what the policy learns to please; this is another judge of the same.
    """
    closest = torch.cdist(vectors(pictures), vectors(real)).argmin(1).tolist()
    return float(np.mean([labels[i] == prompt for i, prompt in zip(closest, prompts, strict=True)]))


def data_url(picture: Any) -> str:
    """A picture as text, which `rewards.image.picture` reads and a page shows."""
    return f"data:image/png;base64,{base64.b64encode(_png(np.asarray(picture))).decode()}"


def sheet(pictures: Sequence[Any]) -> bytes:
    """The first pictures side by side, as a PNG: ten in a row, at most four rows, small ones enlarged."""
    shown = [_sized(np.asarray(picture)) for picture in pictures[: COLUMNS * ROWS]]
    height, width = shown[0].shape[:2]
    rows = math.ceil(len(shown) / COLUMNS)
    page = np.full((rows * (height + 2), COLUMNS * (width + 2), 3), 128, np.uint8)
    for i, picture in enumerate(shown):
        top, left = i // COLUMNS * (height + 2) + 1, i % COLUMNS * (width + 2) + 1
        page[top : top + height, left : left + width] = picture
    return _png(page)


def _sized(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """In three colours, enlarged by whole pixels or reduced by leaving some out."""
    picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture
    side = max(picture.shape[:2])
    if side < THUMBNAIL:
        times = math.ceil(THUMBNAIL / side)
        return picture.repeat(times, 0).repeat(times, 1)
    stride = math.ceil(side / (4 * THUMBNAIL))
    return picture[::stride, ::stride]


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def _by_prompt(prompts: Sequence[str]) -> list[list[int]]:
    rows: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(i)
    return list(rows.values())
