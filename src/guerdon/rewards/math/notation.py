r"""Mathematics as people and models type it, in one notation.

`plain` only removes what carries no meaning (fonts, spacing, sizes) and writes each sign one way;
its result is still LaTeX of the same value.
"""

from __future__ import annotations

import re

EQUALS = re.compile(r"(?<![<>!:=])=(?!=)")

_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‒": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "％": "%",
        "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
        "±": r"\pm ", "∪": r"\cup ", "∅": r"\emptyset ", "’": "'", "\xa0": " ", "\u2009": " ", "\u202f": " ",
        "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
    }
)  # fmt: skip
_METRES = re.compile("(?<=[0-9])m(?=[²³])")  # '5m²' is an area, '5m^2' may be a term
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")

_FONT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mathsf|mathbb|mbox|bm|boldsymbol|operatorname\*?)"
    r"\s*\{([^{}]*)\}"
)
_ESCAPED_TWICE = re.compile(r"\\\\(?=[A-Za-z])")
_WRITTEN_ONE_WAY = (
    (re.compile(r",\s*\\!\s*(?=[0-9]{3})"), ","),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|[bB]igg?[lr]?)(?![a-zA-Z])|\\!"), ""),
    (re.compile(r"\s*\{\s*,\s*\}\s*"), ","),
    (re.compile(r"(?<!\\)\\[,;:> ]|~|\\q?quad|\\thinspace(?![a-zA-Z])"), " "),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])|\*\*"), lambda sign: "^" if sign[0] == "**" else "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\\(leq|geq|neq)(?![a-zA-Z])"), lambda sign: "\\" + sign[1][:-1]),
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"(?<=\s)!="), r"\\ne "),
    (re.compile(r"(?<!\\)\\([%$#&])"), r"\1"),
    (re.compile(r"\s+"), " "),
)
_WRAPPERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("*", "*"),
    ("__", "__"),
    ("`", "`"),
    ('"', '"'),
    (r"\"", r"\""),
)
_EATEN = re.compile(
    r"\\?(?:\f(?=rac|orall)|\x08(?=oxed|egin|inom|eta|ar\{|mod|f\{)|\r(?=ight|angle|ho|m\{)"
    r"|\t(?=ext|frac|imes|heta|an[^a-z]|au[^a-z]|o[^a-z]))"
)
_ESCAPES = {"\f": r"\f", "\b": r"\b", "\r": r"\r", "\t": r"\t"}
_CONTINUED = re.compile(r"\.[0-9]+ ?\.\.\.$")
_FORMULAS = ("$$", "$", r"\(", r"\[")
_FORMULA_AND_UNIT = re.compile(r"\$([^$]+)\$(\s*[^\s$\d][^$]*)")

_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_FUNCTIONS = re.compile(
    r"(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|log|exp|lim|max|min|gcd|lcm|mod|det|sqrt|infty|[pbvBV]?matrix|cases|array|and"
)

_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELLED = {word: i for i, word in enumerate(_UNITS)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_IN_WORDS = re.compile(
    rf"(-?)(?:({'|'.join(_TENS)})[- ]({'|'.join(_UNITS[1:10])})|({'|'.join(_SPELLED)}))\b",
    re.IGNORECASE,
)


def tidy(text: str) -> str:
    r"""What is left of an answer without the marks around it: white space, `$…$`, `\(…\)`, `**…**`, a final period.

    >>> tidy("**$x = 5$.**")
    'x = 5'
    >>> tidy("$18."), tidy("$28$ %"), tidy("$1$ and $2$")
    ('$18', '28 %', '1  and  2')
    """
    before = None
    while before != text and not text.isalnum():
        before = text
        text = text.strip().removeprefix("**").removesuffix("**")
        if text[-1:] in (".", ",", ";", ":") and text[-2:-1] != "\\" and not _CONTINUED.search(text[-40:]):
            text = text[:-1]
        for opening, closing in _WRAPPERS:
            if len(text) >= len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                text = text[len(opening) : -len(closing)]
                if opening in _FORMULAS and opening in text:  # there were several: $1$ and $2$
                    text = text.replace(closing, " ").replace(opening, " ")
                break
        if text.startswith("$") and (formula := _FORMULA_AND_UNIT.fullmatch(text)):
            text = formula[1] + formula[2]
    return text


def plain(text: str) -> str:
    r"""The same mathematics with fonts, spacing and sizes removed and each sign written one way.

    >>> plain(r"\left[0,\; \dfrac{1}{2}\right)"), plain(r"5 \times 10³ \text{ cm}"), plain("−3°")
    ('[0, \\frac{1}{2})', '5 * 10^{3} cm', '-3°')
    """
    if not text.isascii():
        text = _METRES.sub(" m", text)
        text = _SUPERSCRIPTS.sub(lambda power: f"^{{{power[0].translate(_SUPERSCRIPT)}}}", text).translate(_SIGNS)
    if "\\" in text:
        if "\\\\" in text and "\\begin" not in text:
            text = _ESCAPED_TWICE.sub(r"\\", text)
        text = _FONT.sub(r" \1", text)
    for pattern, replacement in _WRITTEN_ONE_WAY:
        text = pattern.sub(replacement, text)
    return text.strip()


def prose(text: str) -> bool:
    """Whether it has words, other than the names of functions and "and".

    >>> prose("18 eggs"), prose("2x + sin x"), prose("x = 3 or 4")
    (True, False, False)
    """
    return any(not _FUNCTIONS.fullmatch(word) for word in _WORD.findall(text))


def in_digits(text: str) -> str:
    """The same text, the number below one hundred that it begins with in digits.

    >>> in_digits("twenty-one eggs"), in_digits("Five"), in_digits("nobody")
    ('21 eggs', '5', 'nobody')
    """
    spelled = _IN_WORDS.match(text)
    if spelled is None:
        return text
    sign, *words = spelled.groups()
    return f"{sign}{sum(_SPELLED[word.lower()] for word in words if word)}{text[spelled.end() :]}"


def unescaped(text: str) -> str:
    r"""A text with the backslashes that an escape has eaten: JSON and Python read `\frac` as a form feed and `rac`.

    >>> unescaped("\frac{1}{2}")
    '\\frac{1}{2}'
    """
    for escape in _ESCAPES:
        if escape in text:
            return _EATEN.sub(lambda eaten: _ESCAPES[eaten[0][-1]], text)
    return text
