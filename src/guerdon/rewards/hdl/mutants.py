"""Designs with one thing wrong: what a testbench, or a reward, has to notice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from guerdon.rewards.hdl.source import Token, replaced, tokens

Operator = Literal["operation", "comparison", "constant", "edge", "negation"]

_OPERATIONS = {"&": "|", "|": "&", "^": "&", "+": "-", "-": "+", "&&": "||", "||": "&&", "<<": ">>", ">>": "<<"}
_COMPARISONS = {"==": "!=", "!=": "==", ">": "<", "<": ">", ">=": "<"}
_EDGES = {"posedge": "negedge", "negedge": "posedge"}
_BASED = re.compile(r"'\s*[sS]?([bodhBODH])\s*([0-9a-fA-F_]+)$")
_RADIX = {"b": 2, "o": 8, "d": 10, "h": 16}


class Mutant(NamedTuple):
    """A design with one thing changed, and what."""

    text: str
    operator: Operator
    change: str
    place: int  # the character


def mutants(text: str, operators: tuple[Operator, ...] = get_args(Operator)) -> Iterator[Mutant]:
    """The designs that differ from one in one place of its body:

        operation    & | ^ + - && || << >>, another in its place (between two operands)
        comparison   == and !=, > and <, >= and <, one for the other
        constant     one more, or one less if that would not fit
        edge         posedge and negedge, one for the other
        negation     the right side of an assignment, or a condition, inverted

    Headers, ranges and delays stay. A mutant may be equivalent to the design: see `hdl.equivalent(method="proof")`.

    >>> [mutant.change for mutant in mutants("module a(input x, y, output z); assign z = x & y; endmodule")]
    ['x & y → ~(x & y)', '& → |']

    Source: the mutation operators of DeMillo, Lipton & Sayward 1978, for Verilog.
    """
    given = tokens(text)
    inside = _bodies(given)
    for place in inside:
        token, before = given[place], given[place - 1]
        operand = before.kind in ("name", "number") or before.text in (")", "]", "}")
        if "operation" in operators and token.text in _OPERATIONS and operand:
            yield _changed(text, token, _OPERATIONS[token.text], "operation")
        if "comparison" in operators and token.text in _COMPARISONS and operand:
            yield _changed(text, token, _COMPARISONS[token.text], "comparison")
        if "edge" in operators and token.text in _EDGES:
            yield _changed(text, token, _EDGES[token.text], "edge")
        if "constant" in operators and token.kind == "number" and (other := _next(given, place)):
            yield _changed(text, token, other, "constant")
        if "negation" in operators and (span := _expression(given, place)):
            first, last = given[span[0]], given[span[1]]
            old = text[first.start : last.end]
            new = f"{'!' if token.text == 'if' else '~'}({old})"
            yield Mutant(text[: first.start] + new + text[last.end :], "negation", f"{old} → {new}", first.start)


def _changed(text: str, token: Token, new: str, operator: Operator) -> Mutant:
    return Mutant(replaced(text, [(token, new)]), operator, f"{token.text} → {new}", token.start)


def _bodies(given: tuple[Token, ...]) -> list[int]:
    """The places in modules' bodies that are in no range, delay, parameter or declaration."""
    places = []
    depth = 0
    body = frozen = False
    for place, token in enumerate(given):
        if token.text in ("module", "macromodule"):
            body = False
        elif token.text == ";":
            body, frozen = True, False
        elif token.text in ("input", "output", "inout", "parameter", "localparam", "genvar", "integer", "typedef", "#"):
            frozen = token.text != "#"
        elif token.text in ("wire", "reg", "logic", "initial"):
            frozen = token.text == "initial" or not any(t.text == "=" for t in _statement(given, place))
        depth += (token.text == "[") - (token.text == "]")
        if body and not frozen and not depth and token.text not in ("module", "endmodule", ";"):
            places.append(place)
    return places


def _statement(given: tuple[Token, ...], place: int) -> tuple[Token, ...]:
    end = next((k for k in range(place, len(given)) if given[k].text == ";"), len(given))
    return given[place:end]


def _next(given: tuple[Token, ...], place: int) -> str | None:
    """Another constant of as many digits."""
    token = given[place]
    if token.text.isdigit():
        after = given[place + 1] if place + 1 < len(given) else token
        return None if after.text.startswith("'") else str(int(token.text) + 1)
    found = _BASED.match(token.text)
    if found is None:
        return None
    radix, digits = _RADIX[found[1].lower()], found[2].replace("_", "")
    try:
        value = int(digits, radix)
    except ValueError:
        return None
    size = given[place - 1].text
    most = 2 ** int(size) - 1 if size.isdigit() and int(size) < 64 else value + 1
    other = value + 1 if value + 1 <= most else value - 1
    form = {2: "b", 8: "o", 10: "d", 16: "x"}[radix]
    return token.text[: found.start(2)] + format(other, form).zfill(len(digits)) if other >= 0 else None


def _expression(given: tuple[Token, ...], place: int) -> tuple[int, int] | None:
    """Where the right side of an assignment, or the condition of an `if`, that begins here begins and ends."""
    token = given[place]
    if token.text == "if" and given[place + 1].text == "(":
        opening, depth = place + 1, 0
        for here in range(opening, len(given)):
            depth += (given[here].text == "(") - (given[here].text == ")")
            if depth == 0:
                return (opening + 1, here - 1) if here > opening + 1 else None
        return None
    head = given[max(0, place - 1)]
    if token.text not in ("=", "<=") or not (head.kind == "name" or head.text in ("]", "}")):
        return None
    depth = 0
    for here in range(place + 1, len(given)):
        depth += (given[here].text in "([{") - (given[here].text in ")]}")
        if depth < 0:
            return None  # a comparison, in brackets
        if given[here].text == ";":
            return (place + 1, here - 1) if here > place + 1 else None
    return None
