"""SVG as replies write it: found, read without trust, and put into a frame."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from guerdon.core.parsing import Completion, Passage, passage, text_of

Box = tuple[float, float, float, float]

LONGEST = 1 << 19  # characters of one drawing
ELEMENTS = 20_000
DEEPEST = 128  # elements within one another
LARGEST = 1e7  # of a view box's numbers
NARROWEST = 50.0  # how many times longer than wide a view box may be

_TAG = re.compile(r"<svg(?=[\s/>])[^<>]*>|</svg\s*>")
_START = re.compile(r"""<([^\s/>]+)(?:[^"'<>]|"[^"<]*"|'[^'<]*')*>""")
_OUTSIDE = re.compile(r"""url\(\s*["']?\s*(?!["'\s#])|@import""", re.IGNORECASE)
_PICTURES = ("image", "feimage")
_FRAME = ("viewBox", "width", "height", "x", "y", "preserveAspectRatio", "transform")
_LENGTH = re.compile(r"\s*\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*(?:px)?\s*")


@dataclass(frozen=True)
class Source:
    """An SVG document that was looked through.

    Args:
        text: from `<svg` to `</svg>`.
        attributes: of its root.
        elements: how many there are.
    """

    text: str
    attributes: dict[str, str]
    elements: int

    @property
    def box(self) -> Box:
        """The view box, or else the size.

        Raises:
            ValueError: if there is neither, or it is not one that can be drawn.
        """
        written = self.attributes.get("viewBox")
        if written is not None:
            numbers = _numbers(written.replace(",", " ").split())
        else:
            sizes = [_LENGTH.fullmatch(self.attributes.get(name, "")) for name in ("width", "height")]
            if None in sizes:
                raise ValueError("neither a view box nor a size")
            numbers = [0.0, 0.0, *_numbers([size[0].replace("px", "") for size in sizes if size])]
        if len(numbers) != 4 or not all(abs(x) <= LARGEST for x in numbers) or min(numbers[2:]) <= 0:
            raise ValueError(f"not a view box: {numbers}")
        if max(numbers[2:]) > NARROWEST * min(numbers[2:]):
            raise ValueError(f"a view box more than {NARROWEST:g} times longer than wide: {numbers}")
        return numbers[0], numbers[1], numbers[2], numbers[3]

    def framed(self, box: Box, width: int, height: int) -> str:
        """The document with another view box, drawn at a size in pixels, whatever its root says."""
        opening = _START.match(self.text)
        if opening is None:
            raise ValueError("no opening tag")
        name = opening[1]
        kept = {key: value for key, value in self.attributes.items() if key not in _FRAME}
        if name == "svg":
            kept.setdefault("xmlns", "http://www.w3.org/2000/svg")
        kept.setdefault("xmlns:xlink", "http://www.w3.org/1999/xlink")
        kept |= {"viewBox": " ".join(f"{x:.9g}" for x in box), "width": str(width), "height": str(height)}
        written = " ".join(f"{key}={quoteattr(value)}" for key, value in kept.items())
        empty = "/" if opening[0].endswith("/>") else ""
        return f"<{name} {written}{empty}>{self.text[opening.end() :]}"


def svg_in(completion: Completion, within: Passage = "reply") -> str | None:
    """The last whole `<svg>…</svg>` of a reply, or None.

    >>> svg_in("An <svg> tag: <svg><svg/><g/></svg> done")
    '<svg><svg/><g/></svg>'
    """
    text = passage(text_of(completion), within)
    if text is None:
        return None
    depth, end = 0, 0
    for tag in reversed(list(_TAG.finditer(text))):
        if tag[0].startswith("</"):
            end = end if depth else tag.end()
            depth += 1
        elif depth and not tag[0].endswith("/>"):
            depth -= 1
            if depth == 0:
                return text[tag.start() : end]
    return None


def read_svg(text: str) -> Source:
    """An SVG document, looked through before anything draws it.

    Nothing from outside is drawn, and no picture: the reference as a data URI is no vector graphic. A document type,
    and with it entities that grow, is refused where it begins.

    Args:
        text: from `<svg` to `</svg>`.

    Raises:
        ValueError: if it is not well-formed, too large or too deep, or shows pictures or what is not in it.

    >>> read_svg('<svg viewBox="0 0 8 8"><g/></svg>').elements
    2
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters; at most {LONGEST} are drawn")
    if _OUTSIDE.search(text):
        raise ValueError("a reference to something outside of it")
    look = _Look()
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = look.doctype
    parser.StartElementHandler = look.start
    parser.EndElementHandler = look.end
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("not well-formed: half a character") from None
    return Source(text, look.attributes, look.elements)


class _Look:
    def __init__(self) -> None:
        self.attributes: dict[str, str] = {}
        self.elements = 0
        self._depth = 0

    def doctype(self, *declared: Any) -> None:
        raise ValueError("a document type")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.elements += 1
        self._depth += 1
        kind = name.rpartition(":")[2].casefold()
        if self.elements == 1:
            if kind != "svg":
                raise ValueError(f"a {kind} is no drawing")
            self.attributes = attributes
        if self.elements > ELEMENTS:
            raise ValueError(f"more than {ELEMENTS} elements")
        if self._depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} elements within one another")
        if kind in _PICTURES:
            raise ValueError("a picture in it")
        for key, value in attributes.items():
            if key.rpartition(":")[2] == "href" and kind != "a" and not value.lstrip().startswith("#"):
                raise ValueError("a reference to something outside of it")

    def end(self, name: str) -> None:
        self._depth -= 1


def _numbers(words: list[str]) -> list[float]:
    try:
        read = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"not a view box: {' '.join(words)[:80]}") from None
    return read if all(map(math.isfinite, read)) else []
