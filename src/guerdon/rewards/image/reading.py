"""Pictures as columns hold them, as arrays of bytes."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from guerdon.core.parsing import shown

Picture = UInt8[np.ndarray[Any, Any], "h w 3"]

MOST = 1 << 25  # pixels: what says it is larger is not unpacked

_DATA = re.compile(r"data:image/[\w.+-]+;base64,\s*", re.IGNORECASE)


def picture(value: Any, *, paths: bool = False, most: int = MOST) -> Picture:
    """A picture as bytes of red, green and blue; what is transparent stands on white.

    Args:
        value: an array "h w", "h w 1", "h w 3" or "h w 4", of bytes or of floats in [0, 1]; a PIL image; the bytes of
            a file, or their `data:image/…;base64,` text; a mapping with `bytes`, as Hugging Face datasets have it.
        paths: whether a text or a mapping's `path` may name a file. A model could name any file of yours: only of a
            column that the data holds.
        most: pixels.

    Raises:
        ValueError: if it is none of these, or has no pixels or too many.

    >>> picture(np.array([[0.0, 1.0]])).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and (begins := _DATA.match(value)):
        try:
            value = base64.b64decode(value[begins.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"not base64: {error}") from None
    if isinstance(value, str) and paths:
        try:
            value = Path(value).read_bytes()
        except (OSError, ValueError) as error:
            raise ValueError(f"no file that can be read: {shown(value)}: {error}") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _opened(bytes(value), most)
    if hasattr(value, "convert") and hasattr(value, "size"):
        return _converted(value, most)
    return _array(value, most)


def shown_by(completion: Any) -> Picture:
    """The picture that a completion is, or that the last message of the assistant shows.

    Raises:
        ValueError: if there is none that can be read.
    """
    messages = completion if isinstance(completion, (list, tuple)) else ()
    if messages and all(isinstance(message, Mapping) for message in messages):
        parts = [
            part
            for message in messages
            if message.get("role", "assistant") == "assistant" and isinstance(message.get("content"), (list, tuple))
            for part in message["content"]
            if isinstance(part, Mapping) and ("image" in part or "image_url" in part)
        ]
        if not parts:
            raise ValueError("no picture in the reply")
        held = parts[-1].get("image", parts[-1].get("image_url"))
        completion = held.get("url", held) if isinstance(held, Mapping) else held
    return picture(completion)


def _opened(data: bytes, most: int) -> Picture:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return _converted(image, most)
    except ValueError:
        raise
    except Exception as error:  # of a broken file Pillow raises whatever its reader met with
        raise ValueError(f"not a picture: {type(error).__name__}: {error}") from None


def _converted(image: Any, most: int) -> Picture:
    if not 0 < image.size[0] * image.size[1] <= most:
        raise ValueError(f"a picture of {image.size[0]} × {image.size[1]} pixels")
    return _array(np.asarray(image.convert("RGBA")), most)


def _array(value: Any, most: int) -> Picture:
    try:
        pixels = np.asarray(value)
    except (ValueError, TypeError):
        raise ValueError(f"not a picture: {shown(value)}") from None
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size or pixels.dtype.kind not in "uifb":
        raise ValueError(f"not a picture: {shown(value) if pixels.ndim < 2 else f'an array of shape {pixels.shape}'}")
    if pixels.shape[0] * pixels.shape[1] > most:
        raise ValueError(f"a picture of {pixels.shape[1]} × {pixels.shape[0]} pixels")
    if pixels.dtype.kind == "f":
        if not ((pixels >= 0) & (pixels <= 1)).all():
            raise ValueError("a picture of floats is in [0, 1]")
        pixels = np.round(pixels * 255)
    elif pixels.dtype.kind == "b":
        pixels = pixels * 255
    elif pixels.min() < 0 or pixels.max() > 255:
        raise ValueError("a picture of whole numbers is in [0, 255]")
    pixels = pixels.astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
