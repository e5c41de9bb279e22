"""Units: which ones are the same kind of thing, and by what factor they differ."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """What a number counts.

    Args:
        dimension: 'length', 'time', 'length^2', …; '' for none, or words that are no known unit ('apples').
        factor: how many of the dimension's first unit it is.
    """

    dimension: str
    factor: Fraction


NONE = Unit("", Fraction(1))

_DIMENSIONS: dict[str, dict[str, Fraction | int]] = {
    "length": {
        "m meter metre": 1, "mm millimeter millimetre": Fraction(1, 1000), "cm centimeter centimetre": Fraction(1, 100),
        "km kilometer kilometre": 1000, "in inch inches": Fraction(254, 10000), "ft foot feet": Fraction(3048, 10000),
        "yd yard": Fraction(9144, 10000), "mi mile": Fraction(1609344, 1000),
    },
    "time": {"s sec second": 1, "min minute": 60, "h hr hour": 3600, "day": 86400, "week": 604800},
    "calendar": {"month": 1, "year yr": 12},
    "mass": {
        "g gram": 1, "mg milligram": Fraction(1, 1000), "kg kilogram": 1000, "lb": Fraction(45359237, 100000),
        "oz ounce": Fraction(45359237, 1600000),
    },
    "volume": {
        "L l liter litre": 1, "mL ml milliliter millilitre": Fraction(1, 1000),
        "gallon gal": Fraction(3785411784, 10**9),
    },
    "dollar": {"$ dollar USD buck": 1, "cent ¢": Fraction(1, 100)},
    "euro": {"€ euro EUR": 1},
    "sterling": {"£ GBP": 1},
    "yen": {"¥ yen JPY": 1},
    "rupee": {"₹ rupee INR": 1},
    "degree": {"° degree deg": 1},
    "radian": {"radian rad": 1},
    "celsius": {"°C ℃ Celsius": 1},
    "fahrenheit": {"°F ℉ Fahrenheit": 1},
    "unit": {"unit": 1},
}  # fmt: skip
_KNOWN = {
    name + plural: Unit(dimension, Fraction(factor))
    for dimension, units in _DIMENSIONS.items()
    for names, factor in units.items()
    for name in names.split()
    for plural in ("", "s")
    if not plural or len(name) > 1
}
_DEGREES = ({"degree", "celsius"}, {"degree", "fahrenheit"})  # '3 degrees' leaves open of what
_POWERS = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "cu": 3, "cu.": 3}
_POWER_MARK = re.compile(r"\s*\^\{?([23])\}?$| (squared|cubed)$")
_WORDS = re.compile(r"\s+(?:an? )?[A-Za-z](?:[A-Za-z'.-]+|(?=/))(?:[ /]+[A-Za-z][A-Za-z'.-]*)*")
# After a number these make it something other than that many of a thing.
_NOT_A_COUNT = re.compile(
    r"\b(?:or|not|no|nor|if|unless|otherwise|else|but|maybe|perhaps|wrong|incorrect|false|out|plus|minus|over|squared"
    r"|cubed|half|pi|sqrt|factorial|choose|mod|modulo|hundred|thousand|million|billion|trillion|dozen|infinity|(?<!/)[b-z](?![/'])"
    r"|and(?:$| (?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twenty|thirty|forty|fifty)))\b|n't\b",
    re.IGNORECASE,
)


def conversion(unit: Unit, into: Unit) -> Fraction | None:
    """How many of one unit make one of another, 1 if either is not known, None if they measure different things.

    >>> conversion(unit_of(" hours"), unit_of(" minutes")), conversion(unit_of(" cm"), unit_of(" apples"))
    (Fraction(60, 1), Fraction(1, 1))
    >>> conversion(unit_of(" cm"), unit_of(" cm^2")) is None
    True
    """
    if not unit.dimension or not into.dimension or {unit.dimension, into.dimension} in _DEGREES:
        return Fraction(1)
    return unit.factor / into.factor if unit.dimension == into.dimension else None


def unit_of(text: str) -> Unit | None:
    r"""The unit that follows a number, given with the white space before it.

    Args:
        text: in plain notation, such as ' cm^{2}' or ' dollars per week'.

    Returns:
        The unit; `NONE` for no text or words that are no known unit; None if it is not a unit at all
        but more mathematics ('x', ' or 5', ' squared').

    >>> unit_of(" square centimeters") == unit_of(" cm^2"), unit_of(" apples"), unit_of("x")
    (True, Unit(dimension='', factor=Fraction(1, 1)), None)
    """
    if not text or text.isspace():
        return NONE
    power = 1
    if mark := _POWER_MARK.search(text):
        power = int(mark[1] or {"squared": 2, "cubed": 3}[mark[2]])
        text = text[: mark.start()]
    words = text.strip()
    first, _, rest = words.partition(" ")
    if rest and first.lower() in _POWERS:
        power *= _POWERS[first.lower()]
        words = rest
    words = words.removeprefix("degrees ") if words.endswith(("Celsius", "Fahrenheit")) else words
    unit = (
        _KNOWN.get(words)
        or _KNOWN.get(words.rstrip(".").replace("° ", "°"))
        or (_KNOWN.get(words.lower()) if len(words) > 1 else None)
    )
    if unit is not None and (text[0].isspace() or len(words) > 1 or not words.isalpha()):
        return unit if power == 1 else Unit(f"{unit.dimension}^{power}", unit.factor**power)
    return NONE if _WORDS.fullmatch(text) and not _NOT_A_COUNT.search(text) else None
