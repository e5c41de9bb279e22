r"""Numbers as people write them, read exactly.

    18   −3/4   1,234.5   1{,}234   .5   1\frac12   \frac{\frac12}{3}   25\%   \$18   5 cm   1.2\times10^{3}   2^{10}
    0.\overline{3}   0.333…

The value is an integer or a fraction, never a float, and nothing is evaluated that could grow
large: a power of more than some thousand digits is not read.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from guerdon.rewards.math.notation import EQUALS, in_digits, plain, tidy
from guerdon.rewards.math.units import NONE, Unit, conversion, unit_of

LONGEST = 2000  # characters; an answer is short, and what is longer is not worth the time
LARGEST_POWER = 8 * LONGEST  # bits

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_SIMPLE = re.compile(r"[-+$0-9.,/% ]+")
_DIGITS = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?:\ [0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_QUANTITY = re.compile(
    rf"""(?P<sign>[-+]?)\ ?(?P<currency>[$€£¥₹]?)\ ?(?P<inner>[-+]?)\ ?
    (?: (?P<whole>[0-9]+)\ (?P<part>[0-9]+)/(?P<parts>[0-9]+)
      | (?P<above>{_DIGITS})\ ?/\ ?(?P<minus>-?)\ ?(?P<below>{_DIGITS})
      | (?P<base>[0-9]+|\(-?[0-9]+\))\^(?P<power>[-+]?[0-9]{{1,4}})
      | (?P<start>[0-9]*\.[0-9]*)\\overline\ ?(?P<repeating>[0-9]+)
      | (?P<number>{_DIGITS})(?:(?:\ ?\*\ ?10\^|[eE])(?P<exponent>[-+]?[0-9]{{1,4}})|(?:st|nd|rd|th)\b)?
    )
    (?P<percent>\ ?%|\ (?:percent|per\ cent|percentage\ points?)\b)?
    (?:\ (?P<magnitude>hundred|thousand|million|billion|trillion|dozen)\b)?
    (?P<unit>[^0-9=<>]*(?:\^\{{?[23]\}}?)?)""",
    re.VERBOSE,
)
_MAGNITUDES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}

_PART = r"\{\s*(-?[0-9.,]+(?:/[0-9]+)?)\s*\}|([0-9])"
_FRACTION = re.compile(rf"\\frac\s*(?:{_PART})\s*(?:{_PART})")
_RECURRING = re.compile(
    r"(?P<start>[0-9]*\.)(?:(?P<digits>[0-9]{1,60})\s*(?:\\[lc]?dots(?![a-z])|\.\.\.|…)"
    r"|(?P<fixed>[0-9]*)\\dot\s*\{?(?P<dotted>[0-9])\}?|\((?P<bracketed>[0-9]+)\))"
)
_REPEATED = re.compile(r"(?:([0-9])\1\1+|([0-9]{2,}?)\2+)$")
_BRACED = re.compile(r"(?<!\\)\{\s*([-+]?[0-9.,]+)\s*\}")
_ABOUT = re.compile(r"^(?:approximately|about|exactly|\\approx)\s*", re.IGNORECASE)
_NEGATIVE = re.compile(r"^(?:minus|negative)\s+", re.IGNORECASE)
_NAME = re.compile(r"(?P<letter>(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{?\w+\}?)?'*)(?:\s*\([^()]*\))?|[A-Za-z][A-Za-z ]*")
_NEXT_NAME = re.compile(r"(?:[,;]|\b(?:and|or)\b)\s*\\?[A-Za-z]")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")


class Quantity(NamedTuple):
    """A number that was written out.

    Args:
        value: the number as written: 25 for '25 %'.
        decimal: it has a decimal point, so it may be rounded.
        percent: it has a percent sign.
        unit: what follows it.
        name: the letter it is said to be equal to: 'x' for 'x = 5'; '' for none.
        finished: False for a division that comes out even ('84/7'): an exercise, not a number.
    """

    value: Fraction
    decimal: bool = False
    percent: bool = False
    unit: Unit = NONE
    name: str = ""
    finished: bool = True


def quantity(text: str) -> Quantity | None:
    r"""The number that a text is, or None if it is anything else.

    Of an equation it is the last side, if the first is a name or arithmetic ('x = 5', '2 + 3 = 5');
    'x² + y² = 25' is not the number 25.

    >>> quantity("1{,}234.50").value, quantity(r"-2\frac13").value, quantity("$18 per day").unit.dimension
    (Fraction(2469, 2), Fraction(-7, 3), 'dollar')
    >>> quantity("3 or 4"), quantity("5m"), quantity("2 + 3")
    (None, None, None)
    """
    return _quantity(text) if len(text) <= LONGEST else None


@lru_cache(maxsize=1 << 14)
def _quantity(text: str) -> Quantity | None:
    if _INTEGER.fullmatch(text):
        return Quantity(Fraction(int(text)))
    if _SIMPLE.fullmatch(text) and (number := _number(text)):
        return number
    sides = [side.strip() for side in EQUALS.split(plain(tidy(text)))]
    if len(sides) == 1:
        return _number(sides[0])
    if len(sides) == 2 and _NAME.fullmatch(sides[1]) and not _NAME.fullmatch(sides[0]):
        sides.reverse()
    name = _NAME.fullmatch(sides[0])
    if any(_NEXT_NAME.search(side) for side in sides[1:-1]) or (
        not name and any(_LETTER.search(side) for side in sides[:-1])
    ):
        return None
    number = _number(sides[-1])
    return number and number._replace(name=(name and name["letter"]) or "")


def same(
    answer: Quantity,
    reference: Quantity,
    *,
    tolerance: float = 1e-6,
    percent: Literal["either", "value"] = "either",
    units: Literal["compare", "ignore"] = "compare",
) -> bool:
    """Whether two numbers are the same; see `equivalent` for the options.

    >>> same(quantity("90 minutes"), quantity("1.5 hours")), same(quantity("0.333"), quantity("1/3"))
    (True, False)
    """
    if answer.name and reference.name and answer.name != reference.name:
        return False
    a, r = answer.value, reference.value
    if units == "compare" and answer.unit is not reference.unit:
        factor = conversion(answer.unit, reference.unit)
        if factor is None:
            return False
        a *= factor
    slack = tolerance if answer.decimal or reference.decimal else 0.0
    if answer.percent != reference.percent and not (percent == "either" and _close(a, r, slack)):
        a, r = (a / 100, r) if answer.percent else (a, r / 100)
    return _close(a, r, slack)


def _close(a: Fraction, r: Fraction, slack: float) -> bool:
    return a == r or (slack > 0 and abs(a - r) <= Fraction(str(slack)) * min(Fraction(1), max(abs(a), abs(r))))


def _number(text: str) -> Quantity | None:
    if "." in text:
        text = _RECURRING.sub(_overlined, text)
    if not _SIMPLE.fullmatch(text):
        while (flat := _FRACTION.sub(_slashed, text)) != text:
            text = flat
        text = _BRACED.sub(r"\1", text)
        text = _NEGATIVE.sub("-", _ABOUT.sub("", text.strip()))
        if text.startswith("(") and text.endswith(")") and "," not in text:
            text = text[1:-1]
        text = in_digits(text)
    match = _QUANTITY.fullmatch(" ".join(text.split()))
    if match is None:
        return None
    unit, value = unit_of(match["unit"]), _value(match)
    if unit is None or value is None:
        return None
    if match["currency"] and not unit.dimension:
        unit = unit_of(match["currency"]) or NONE
    if (match["sign"] == "-") != (match["inner"] == "-"):
        value = -value
    value *= _MAGNITUDES.get(match["magnitude"], 1)
    decimal = "." in match[0][: match.start("unit")]
    finished = decimal or match["below"] in (None, "1") or value.denominator != 1
    return Quantity(value, decimal, bool(match["percent"]), unit, "", finished)


def _value(match: re.Match[str]) -> Fraction | None:
    if match["whole"]:
        part, parts = int(match["part"]), int(match["parts"])
        return int(match["whole"]) + Fraction(part, parts) if part < parts else None
    if match["above"]:
        below = _written(match["below"])
        return None if not below else _written(match["above"]) / (-below if match["minus"] else below)
    if match["base"]:
        base, power = int(match["base"].strip("()")), int(match["power"])
        if (power < 0 and not base) or base.bit_length() * abs(power) > LARGEST_POWER:
            return None
        return Fraction(base) ** power
    if repeating := match["repeating"]:
        decimals = len(match["start"].partition(".")[2])
        return _written(f"0{match['start']}") + Fraction(int(repeating), (10 ** len(repeating) - 1) * 10**decimals)
    value = _written(match["number"])
    return value * Fraction(10) ** int(match["exponent"]) if match["exponent"] else value


def _written(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", ""))


def _slashed(fraction: re.Match[str]) -> str:
    above, above_digit, below, below_digit = fraction.groups()
    above, below = above or above_digit, below or below_digit
    if "/" not in above + below:
        return f" {above}/{below}"
    (a, _, b), (c, _, d) = above.partition("/"), below.partition("/")
    if not (a.lstrip("-").isdecimal() and c.lstrip("-").isdecimal() and int(b or 1) and int(c)):
        return fraction[0]
    value = Fraction(int(a) * int(d or 1), int(b or 1) * int(c))
    # What comes out even is an exercise, not a number.
    return f" {value.numerator}/{value.denominator}" if value.denominator > 1 else fraction[0]


def _overlined(number: re.Match[str]) -> str:
    r"""0.1666… as 0.1\overline6, where the last digits are repeated; a single one three times at least."""
    if number["digits"] is None:
        return rf"{number['start']}{number['fixed'] or ''}\overline{number['dotted'] or number['bracketed']}"
    repeated = _REPEATED.search(number["digits"])
    if repeated is None:
        return number[0]
    return rf"{number['start']}{number['digits'][: repeated.start()]}\overline{repeated[1] or repeated[2]}"
