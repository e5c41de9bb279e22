"""How green a text is, and how unlikely that would be by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from guerdon.algebra import reward
from guerdon.core.parsing import shown
from guerdon.core.scores import Scores

Count = Literal["all", "distinct"]


class Detection(NamedTuple):
    """What a detector says of each text.

    Args:
        share: D, of the positions that count those with a green token; 0 where none counts.
        green: how many these are.
        positions: how many count.
        z: in standard deviations above chance; 0 where chance leaves no room.
        p: the probability of as much by chance.
    """

    share: Float[np.ndarray[Any, Any], "n"]
    green: Int[np.ndarray[Any, Any], "n"]
    positions: Int[np.ndarray[Any, Any], "n"]
    z: Float[np.ndarray[Any, Any], "n"]
    p: Float[np.ndarray[Any, Any], "n"]


def green_share(
    green: Bool[np.ndarray[Any, Any], "n t"],
    counted: Bool[np.ndarray[Any, Any], "n t"],
    *,
    gamma: float | Float[np.ndarray[Any, Any], "n"] = 0.5,
) -> Detection:
    """The share of green tokens, and the test of whether it is above chance.

        D = k/T        z = (k − γT) / √(T γ (1 − γ))        p = ½ erfc(z/√2)

    Args:
        green: True where the token is green.
        counted: the positions that count: see `gate`.
        gamma: γ in [0, 1], the share of all tokens that are green. At 0 and 1 nothing is learned from a text: z = 0.

    Raises:
        ValueError: if the shapes differ, or γ is outside.

    >>> found = green_share(np.array([[True] * 16]), np.ones((1, 16), bool))
    >>> float(found.z[0]), float(found.p[0].round(7))
    (4.0, 3.17e-05)

    Source: KGW, "A Watermark for Large Language Models" (arXiv 2301.10226), eq. 3; D: RL-WATERMARK.
    """
    green, counted = np.asarray(green, bool), np.asarray(counted, bool)
    if green.ndim != 2 or green.shape != counted.shape:
        raise ValueError(f"green and counted have one shape (n, t), got {green.shape} and {counted.shape}")
    shares = np.broadcast_to(np.asarray(gamma, np.float64), (len(green),))
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"gamma is in [0, 1], got {gamma}")
    total, hits = counted.sum(1), (green & counted).sum(1)
    room = np.sqrt(total * shares * (1 - shares))
    z = np.where(room > 0, (hits - shares * total) / np.where(room > 0, room, 1.0), 0.0)
    p = np.array([math.erfc(each / math.sqrt(2)) / 2 for each in z])
    return Detection(hits / np.maximum(total, 1), hits, total, z, p)


def gate(
    entropy: Float[np.ndarray[Any, Any], "n t"],
    exists: Bool[np.ndarray[Any, Any], "n t"],
    *,
    lead: int = 21,
    threshold: float = 1.0,
) -> Bool[np.ndarray[Any, Any], "n t"]:
    """The positions that are marked and looked at: the first ones, and later those where much else could stand.

    Args:
        entropy: of the distribution that each token was drawn from, in nats; what is not finite is below.
        exists: False for padding.
        lead: how many first positions.
        threshold: α_H ≥ 0, above which entropy is high, in nats.

    Raises:
        ValueError: if the shapes differ, or a number is negative.

    >>> gate(np.array([[0.0, 0.0, 2.0]]), np.ones((1, 3), bool), lead=1)
    array([[ True, False,  True]])

    Source: RL-WATERMARK (an1118/rl-watermark); SWEET (arXiv 2305.15060).
    """
    entropy, exists = np.asarray(entropy, np.float64), np.asarray(exists, bool)
    if entropy.ndim != 2 or entropy.shape != exists.shape:
        raise ValueError(f"entropy and exists have one shape (n, t), got {entropy.shape} and {exists.shape}")
    if lead < 0 or not threshold >= 0:
        raise ValueError(f"lead and threshold must not be negative, got {lead} and {threshold}")
    first = np.arange(entropy.shape[1]) < lead
    return exists & (first | (np.where(np.isfinite(entropy), entropy, 0.0) > threshold))


def _options(
    gamma: float, vocabulary: int | None, lead: int, threshold: float | None, **options: Any
) -> tuple[str, ...]:
    if not 0 < gamma < 1:
        raise ValueError(f"gamma is between 0 and 1, got {gamma}")
    if vocabulary is not None and vocabulary < 1:
        raise ValueError(f"vocabulary is None or at least 1, got {vocabulary}")
    if lead < 0 or (threshold is not None and not threshold >= 0):
        raise ValueError(f"lead and threshold must not be negative, got {lead} and {threshold}")
    return ()


def _columns(threshold: float | None, **options: Any) -> tuple[str, ...]:
    return ("ids", "green") if threshold is None else ("ids", "green", "entropy")


@reward(lane="batch", range=(0, 1), columns=_columns, requires=_options)
def detect(
    ids: Sequence[Any],
    green: Sequence[Any],
    entropy: Sequence[Any] | None = None,
    *,
    gamma: float = 0.5,
    vocabulary: int | None = None,
    lead: int = 21,
    threshold: float | None = 1.0,
    count: Count = "all",
) -> Scores:
    """D, the share of a text's tokens that are on its green list, at the positions that count.

    By itself it is best served by a list of all tokens, or a text of one green token: it is meant to be anchored, see
    `watermark.anchored`. With the vocabulary known, z is measured against the list's own share, so that a list of
    all tokens finds nothing; with count='distinct' a token that is repeated is one.

    Args:
        ids: a text's tokens.
        green: the tokens on its list.
        entropy: of the distribution each token was drawn from, in nats.
        gamma: γ, the share of all tokens that are green, where the vocabulary is not known.
        vocabulary: how many tokens there are: γ is then the list's length over it.
        lead: see `gate`.
        threshold: see `gate`; None: every position counts, and no entropy is read.
        count: whether a token counts at 'all' its positions that count, or at the first of them only.

    Returns:
        One score per rollout, and as details z, p, the green tokens and the positions that count. A text without
        tokens gets 0. Without a list, or with an entropy of another length, the row abstains.

    Raises:
        ValueError: at once, if an option cannot be meant.

    >>> from guerdon.rewards import watermark
    >>> part = watermark.detect(threshold=None)
    >>> part(["?"] * 3, [""] * 3, ids=[[1, 2, 1, 5], [], [1]], green=[[1, 2], [1], None])
    [0.75, 0.0, None]

    Source: RL-WATERMARK (an1118/rl-watermark); z and p: KGW (arXiv 2301.10226).
    """
    reasons: dict[int, str] = {}
    texts, lists = (_whole(column, name, reasons) for column, name in ((ids, "ids"), (green, "green")))
    exists, table = _padded(texts, -1)
    counted = exists
    if entropy is not None and threshold is not None:
        said = [_numbers(entry, text, i, reasons) for i, (entry, text) in enumerate(zip(entropy, texts, strict=True))]
        counted = gate(_padded(said, 0.0)[1].reshape(exists.shape), exists, lead=lead, threshold=threshold)
    if count == "distinct":
        counted = counted & _first_of_its_kind(table, counted)
    if vocabulary is not None:
        for row, held in enumerate(lists):
            if len(held) and int(held.max()) >= vocabulary:
                reasons.setdefault(row, f"green names token {int(held.max())} of a vocabulary of {vocabulary}")
    own = np.array([len(held) / vocabulary if vocabulary else gamma for held in lists], np.float64)
    found = green_share(_on_list(table, exists, lists), counted, gamma=np.clip(own, 0.0, 1.0))
    details = {name: getattr(found, name).tolist() for name in ("z", "p", "green", "positions")}
    details["problem"] = [None if total else "no tokens that count" for total in found.positions]
    return Scores.of(found.share.tolist(), reasons=reasons, details=details)


def _on_list(table: Any, exists: Any, lists: Sequence[Any]) -> Bool[np.ndarray[Any, Any], "n t"]:
    """Where a token is on the list of its row."""
    wide = max([int(table.max(initial=-1)), *(int(held.max(initial=-1)) for held in lists)]) + 1
    rows = np.repeat(np.arange(len(lists)), [len(held) for held in lists])
    keys = rows * wide + (np.concatenate(lists) if len(lists) else np.zeros(0, np.int64))
    return np.asarray(exists & np.isin(np.arange(len(table))[:, None] * wide + table, keys))


def _first_of_its_kind(table: Any, counted: Any) -> Bool[np.ndarray[Any, Any], "n t"]:
    """Where a token that counts stands for the first time."""
    marked = np.where(counted, table, -1)
    order = np.argsort(marked, axis=1, kind="stable")
    sorted_ = np.take_along_axis(marked, order, 1)
    new = np.ones(table.shape, bool)
    new[:, 1:] = sorted_[:, 1:] != sorted_[:, :-1]
    first = np.zeros(table.shape, bool)
    np.put_along_axis(first, order, new, 1)
    return np.asarray(first & counted)


def _whole(column: Sequence[Any], name: str, reasons: dict[int, str]) -> list[Any]:
    """Each row's tokens; none where they cannot be read."""
    found = []
    for row, entry in enumerate(column):
        try:
            tokens = np.asarray(entry)
        except ValueError:  # lists of different lengths
            tokens = np.asarray(None)
        if tokens.shape == (0,):
            tokens = np.zeros(0, np.int64)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or ((tokens < 0) | (tokens >= 1 << 31)).any():
            reasons.setdefault(row, f"{name} no list of tokens: {shown(entry)}")
            tokens = np.zeros(0, np.int64)
        found.append(np.unique(tokens) if name == "green" else tokens)
    return found


def _numbers(entry: Any, text: Any, row: int, reasons: dict[int, str]) -> Any:
    try:
        numbers = np.asarray(entry, np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros((0, 0))
    if numbers.shape == text.shape and np.isfinite(numbers).all():
        return numbers
    reasons.setdefault(row, f"entropy not one finite number for each of {len(text)} tokens: {shown(entry)}")
    return np.zeros(len(text))


def _padded(rows: Sequence[Any], fill: float) -> tuple[Any, Any]:
    """Where there is an entry, and the entries with `fill` behind them."""
    sizes = np.array([len(row) for row in rows], np.int64)
    exists = np.arange(int(sizes.max(initial=0))) < sizes[:, None]
    table = np.full(exists.shape, fill)
    if exists.any():
        table = table.astype(np.result_type(*rows))
        table[exists] = np.concatenate(rows)
    return exists, table
