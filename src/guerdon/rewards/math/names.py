r"""Names that an answer gives its values: 'x = 5', 'f(x) = 2x', '(p, q) = (3, 2)', 'x \in [1, 2)'."""

from __future__ import annotations

import re
from functools import lru_cache

from guerdon.rewards.math.brackets import SEPARATOR, split
from guerdon.rewards.math.notation import EQUALS, plain, tidy

_ATOM = r"(?:[A-Za-z]|\\[A-Za-z]+|[A-Z]{2,4})(?:\s*_\s*(?:\{\w+\}|\w))?'*"
_NAMED = re.compile(
    rf"""(?P<name> {_ATOM}(?:\s*\([^()=]*\))? | \({_ATOM}(?:\s*,\s*{_ATOM})+\) | \|\s*{_ATOM}\s*\|
      | {_ATOM}(?:\s*[:/]\s*{_ATOM})+ | \\frac\s*\{{{_ATOM}\}}\s*\{{{_ATOM}\}} )
    \s*(?P<sign>=(?!=)|\\in(?![A-Za-z])|\\approx(?![A-Za-z]))\s*(?P<value>.+)""",
    re.VERBOSE | re.DOTALL,
)
_ARGUMENT = re.compile(r"\(([A-Za-z])\)$")
_RELATION = re.compile(r"=|[<>]|\\(?:le|ge|ne|lt|gt|in|equiv)(?![A-Za-z])")
_APPROXIMATELY = re.compile(r"\\approx(?![A-Za-z])")


def unnamed(answer: str, reference: str) -> tuple[str, str] | None:
    r"""An answer and a reference without the names that they give their values, or None if no name is to be dropped.

    'x = 5', 'f(x) = 2x', '(p, q) = (3, 2)', '|AB| = 1', 'A : B = 7 : 3' and 'x \in [1, 2)' name a value. A name on one
    side only does not count, unless the other is an equation itself ('2x - y = 0' is to be solved, not to be named).

    >>> unnamed("(p, q) = (3, 2)", "(3, 2)"), unnamed("y = 2x + 1", "y = 1 + 2x")
    (('(3, 2)', '(3, 2)'), ('2x + 1', '1 + 2x'))
    >>> unnamed("x = 2y", "y = x/2"), unnamed("11a + c", "7 = 11a + c"), unnamed("6", "x + y = 6")
    (None, None, None)
    """
    (a, given), (r, expected) = definition(answer), definition(reference)
    if (a is not None and a == r) or (
        (a is None) != (r is None) and not EQUALS.search(given if a is None else expected)
    ):
        return given, expected
    return None


@lru_cache(maxsize=1 << 12)
def definition(text: str) -> tuple[str | None, str]:
    r"""The name that a text gives a value, None if there is none, and the value; membership has an empty name.

    A function that does not depend on its argument is named without it: W(n) = 1 is W(x) = 1.

    >>> definition("a_{1} = 5"), definition(r"x \\in (0, 1)"), definition("2x + y = 3")
    (('a_1', '5'), ('', '(0, 1)'), (None, '2x + y = 3'))
    >>> definition("f(x) = 2x"), definition("f(x) = 2")
    (('f(x)', '2x'), ('f', '2'))
    """
    text = plain(tidy(text))
    sides = split(text, EQUALS)
    named = _NAMED.fullmatch(text) or (_NAMED.fullmatch(" = ".join(sides[-2:])) if len(sides) > 2 else None)
    if named is None:
        return None, text
    value = _APPROXIMATELY.split(split(named["value"], EQUALS)[-1])[0].strip()
    several = len(split(named["value"], SEPARATOR)) > 1
    if not value or _RELATION.search(value) or (several and EQUALS.search(named["value"])):
        return None, text
    if named["sign"] == "\\in":
        return "", value
    name = re.sub(r"[\s{}]", "", named["name"])
    argument = _ARGUMENT.search(name)
    constant = argument is not None and argument[1] not in value
    return name.removesuffix(argument[0]) if argument and constant else name, value
