"""Encoders of frames and texts into one space, and vectors of length 1 from what columns hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.core.errors import Abstain, GuerdonError
from guerdon.core.parsing import shown
from guerdon.rewards.image.reading import Picture, picture
from guerdon.rewards.relevance import Embeddings, Encoder

Vector = Float[np.ndarray[Any, Any], "d"]
FrameEncoder = Callable[[Sequence[Any]], Embeddings]


class DualEncoder(NamedTuple):
    """Two encoders into one space.

    Args:
        frames: from pictures, bytes "h w 3", to one row of numbers each.
        texts: from texts to one row of numbers each.
    """

    frames: Callable[[Sequence[Picture]], Embeddings]
    texts: Encoder


@lru_cache(maxsize=2)
def dual_encoder(path: str, *, batch: int = 64) -> DualEncoder:
    """A `transformers` model that puts pictures and texts into one space: CLIP, SigLIP, ALIGN and their kind.

    Args:
        path: a folder, or a name on the Hugging Face hub.
        batch: pictures or texts that pass through it at once.

    Raises:
        GuerdonError: if it cannot be loaded, or is of another kind.

    Source: CLIP (arXiv 2103.00020).
    """
    import torch
    from transformers import AutoModel, AutoProcessor

    try:
        model = AutoModel.from_pretrained(path).eval()
        processor: Any = AutoProcessor.from_pretrained(path)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise GuerdonError(f"the encoder {path!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise GuerdonError(f"the encoder {path!r} is a {type(model).__name__}, which does not read pictures and texts")

    def in_batches(entries: Sequence[Any], features: Callable[..., Any], **reading: Any) -> Embeddings:
        rows = []
        with torch.no_grad():
            for start in range(0, len(entries), batch):
                (kind,) = (key for key, value in reading.items() if value is None)
                inputs = processor(**{**reading, kind: list(entries[start : start + batch])}, return_tensors="pt")
                found = features(**inputs)
                rows.append(found if isinstance(found, torch.Tensor) else found.pooler_output)
        return np.asarray(torch.cat(rows).double().numpy()) if rows else np.zeros((0, 1))

    return DualEncoder(
        lambda pictures: in_batches(pictures, model.get_image_features, images=None),
        lambda texts: in_batches(texts, model.get_text_features, text=None, padding=True, truncation=True),
    )


def unit_rows(vectors: Embeddings) -> Embeddings:
    """Rows of length 1; one of zeros stays so."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


class Frames(NamedTuple):
    """The vectors of frames.

    Args:
        units: of length 1; zeros where there is none.
        unreadable: of each row that is no picture, why.
        missing: of each row without a vector that can be used, why.
    """

    units: Embeddings
    unreadable: dict[int, str]
    missing: dict[int, str]


def frame_vectors(entries: Sequence[Any], encoder: Any, size: int, *, paths: bool = False) -> Frames:
    """The vectors of a column's entries.

    Args:
        entries: vectors, if there is no encoder; otherwise what it reads.
        encoder: None; the folder or name of a `dual_encoder`, or one, both of which are given pictures as
            `image.reading.picture` has them; or a function, which is given the entries as they are.
        size: how many numbers a vector has.
        paths: whether texts name files of pictures.

    Raises:
        Abstain: if the encoder gives anything but one row of so many numbers for each.
    """
    if encoder is None:
        return _recorded(entries, size)
    missing: dict[int, str] = {}
    unreadable: dict[int, str] = {}
    read: list[Any] = list(entries)
    rows = list(range(len(entries)))
    if isinstance(encoder, (str, DualEncoder)):
        read, rows = [], []
        for row, entry in enumerate(entries):
            if entry is None:
                missing[row] = "no frame"
                continue
            try:
                read.append(picture(entry, paths=paths))
                rows.append(row)
            except ValueError as problem:
                unreadable[row] = f"not a picture: {problem}"
    table = np.zeros((len(entries), size))
    if rows:
        function = encoder if callable(encoder) else loaded(encoder).frames
        known = encoded(function, read)
        if known.shape[1] != size:
            raise Abstain(f"the encoder gave {known.shape[1]} numbers for a frame, the goals have {size}")
        table[rows] = known
    return _used(table, unreadable, missing)


def goal_vector(said: Sequence[Any], encoder: Any, texts: Encoder | None) -> Vector:
    """The mean of the unit vectors of a goal's descriptions; it is not brought to length 1 again.

    Args:
        said: texts, or vectors.
        encoder: of frames, which reads texts too if it is a `dual_encoder`.
        texts: a function that reads texts.

    Raises:
        Abstain: if texts have no encoder, or vectors cannot be used.
    """
    if all(isinstance(one, str) for one in said):
        if texts is None and isinstance(encoder, (str, DualEncoder)):
            texts = loaded(encoder).texts
        if texts is None:
            raise Abstain(f"a goal in words needs an encoder of texts: {shown(said[0])}")
        rows = encoded(texts, list(said))
    else:
        try:
            rows = np.asarray(said, np.float64)
        except (TypeError, ValueError):
            rows = np.zeros(0)
    if rows.ndim != 2 or not np.isfinite(rows).all() or not rows.any(1).all():
        raise Abstain(f"a goal is texts, or vectors of one length that are finite and not zero: {shown(said)}")
    return np.asarray(unit_rows(rows).mean(0))


def loaded(encoder: str | DualEncoder) -> DualEncoder:
    """An encoder by its folder or name, or as it is."""
    return dual_encoder(encoder) if isinstance(encoder, str) else encoder


def encoded(encoder: Callable[[Any], Any], entries: Sequence[Any]) -> Embeddings:
    """What an encoder makes of entries.

    Raises:
        Abstain: if it is anything but one row of numbers for each.
    """
    rows = np.asarray(encoder(entries), np.float64)
    if rows.ndim != 2 or len(rows) != len(entries):
        raise Abstain(f"the encoder gave an array of shape {rows.shape} for {len(entries)} entries")
    return rows


def _recorded(entries: Sequence[Any], size: int) -> Frames:
    """Vectors that a column holds."""
    missing: dict[int, str] = {}
    try:
        table = np.asarray(entries, np.float64)
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.shape != (len(entries), size):
        table = np.zeros((len(entries), size))
        for i, entry in enumerate(entries):
            try:
                vector = np.asarray(entry, np.float64)
            except (TypeError, ValueError):
                vector = np.zeros(())
            if vector.shape == (size,):
                table[i] = vector
            else:
                missing[i] = f"no vector of {size} numbers, as the goals have: {shown(entry)}"
    return _used(table, {}, missing)


def _used(table: Embeddings, unreadable: dict[int, str], missing: dict[int, str]) -> Frames:
    finite = np.asarray(np.isfinite(table).all(1))
    table = np.where(finite[:, None], table, 0.0)
    peak = np.abs(table).max(1, initial=0.0)
    for row in np.flatnonzero(peak == 0):
        if row not in unreadable:
            missing.setdefault(int(row), "the vector is zero" if finite[row] else "the vector is not finite")
    return Frames(unit_rows(table / np.where(peak > 0, peak, 1.0)[:, None]), unreadable, missing)
