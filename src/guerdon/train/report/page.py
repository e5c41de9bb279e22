"""The document: template, style and script in one file, with everything that was not written by us kept as data."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from guerdon import __version__

SCRIPTS = ("dom.js", "chart.js", "charts.js", "rollout.js", "rollouts.js", "report.js")

_UNSAFE = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def page(headline: Mapping[str, str], recipe: str, data: Mapping[str, Any]) -> str:
    """The report.

    Args:
        headline: markup by the template's names.
        recipe: YAML as it was written.
        data: what the script draws.
    """
    style, script = _asset("report.css"), _script()
    return Template(_asset("template.html")).substitute(
        headline,
        policy=f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src data:; base-uri 'none'",
        style=style,
        script=script,
        data=embed(data),
        recipe=_coloured(recipe),
        version=__version__,
    )


def embed(value: Any) -> str:
    r"""A value as JSON that may stand in a script element: no text in it can end the element.

    Lone surrogates stay what they are, as escapes, so that the file is valid UTF-8.

    >>> embed("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in _UNSAFE.items():
        text = text.replace(character, code)
    return text.encode("utf-8", "backslashreplace").decode()


def escape(text: str) -> str:
    r"""Text as markup that shows it: control characters and lone surrogates as escapes.

    >>> escape("<b>\x1b\udc80")
    '&lt;b&gt;\\x1b\\udc80'
    """
    return html.escape(text.translate(_CONTROLS)).encode("utf-8", "backslashreplace").decode()


def _coloured(recipe: str) -> str:
    """The recipe with its keys marked."""
    return re.sub(r"(?m)^((?: |- )*)([\w.-]+)(?=:)", r'\1<span class="key">\2</span>', escape(recipe))


def _script() -> str:
    return "(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A content security policy's name for an inline script or style: the browser runs this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
