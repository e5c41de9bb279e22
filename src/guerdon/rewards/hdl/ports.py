"""The ports of a module, and a testbench that compares two modules on random inputs."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

from guerdon.core.errors import Abstain
from guerdon.rewards.hdl.source import Token, modules, tokens

Direction = Literal["input", "output"]

_KINDS = {"wire", "reg", "logic", "var", "bit", "tri", "signed", "unsigned"}
_CLOCK = re.compile(r"(?i)(?:^|_)(?:clk|clock)(?:$|_|in|i\b|\d)")
_RESET = re.compile(r"(?i)rst|reset|clr|clear")
_LOW = re.compile(r"(?i)(?:_n|_ni|_b|_l|rstn|resetn|rstb|resetb)$")


class Port(NamedTuple):
    """A port: its direction, its range as it is written ('' for one bit), whether it is signed."""

    name: str
    direction: Direction
    range: str
    signed: bool


class Interface(NamedTuple):
    """What is known of a module from outside.

    Args:
        ports: in order.
        parameters: its constants, as declarations.
        clocks: the inputs at whose edges something happens, resets left out.
        resets: the inputs that reset; those that do so when they are low are in `low`, too.
    """

    ports: tuple[Port, ...]
    parameters: tuple[str, ...]
    clocks: tuple[str, ...]
    resets: tuple[str, ...]
    low: frozenset[str]


@lru_cache(maxsize=1 << 8)
def interface(text: str, name: str) -> Interface:
    """The ports of a module.

    Raises:
        Abstain: if they are beyond a reader of headers: of a type that is declared elsewhere, inout, or unpacked.

    >>> interface("module a #(parameter W = 4)(input clk, input [W-1:0] x, output reg y); endmodule", "a").ports[1]
    Port(name='x', direction='input', range='[W-1:0]', signed=False)
    """
    module = next((module for module in modules(text) if module.name == name), None)
    if module is None:
        raise Abstain(f"the golden design has no module {name}")
    given = tokens(text)[module.begin : module.end]
    place = next(k for k, token in enumerate(given) if token.text == name) + 1
    parameters: list[str] = []
    if given[place].text == "#":
        end = _closing(given, place + 1)
        parameters += [_constant(text, piece) for piece in _split(given[place + 2 : end])]
        place = end + 1
    header: list[list[Token]] = []
    if given[place].text == "(":
        end = _closing(given, place)
        header = _split(given[place + 1 : end])
        place = end + 1
    body = given[place + 1 :]
    if header and not any(token.text in ("input", "output", "inout") for piece in header for token in piece):
        names = {piece[0].text for piece in header}
        declared = [
            port for piece in _statements(body, ("input", "output", "inout")) for port in _ports(text, _split(piece))
        ]
        ports = tuple(port for port in declared if port.name in names)
        parameters += [_constant(text, piece) for piece in _statements(body, ("parameter", "localparam"))]
        if {port.name for port in ports} != names:
            raise Abstain("the golden design's ports are not all declared")
    else:
        ports = tuple(_ports(text, header))
    if not any(port.direction == "output" for port in ports):
        raise Abstain("the golden design has no output")
    return Interface(ports, tuple(parameters), *_timing(body, ports))


def _ports(text: str, pieces: list[list[Token]]) -> list[Port]:
    found: list[Port] = []
    direction, width, signed = "", "", False
    for piece in pieces:
        words = [token.text for token in piece]
        if words[0] in ("input", "output", "inout"):
            direction, width, signed, piece = words[0], "", False, piece[1:]
        elif words[0] in _KINDS | {"integer", "["}:
            width, signed = "", False
        if not piece or direction not in ("input", "output"):
            raise Abstain(f"the golden design's port is not read: {' '.join(words)}")
        while piece[0].text in _KINDS:
            signed = signed or piece[0].text == "signed"
            piece = piece[1:]
        if piece[0].text == "[":
            stop = next((k for k in range(len(piece)) if piece[k].kind == "name" and _outside(piece, k)), len(piece))
            width, piece = text[piece[0].start : piece[stop - 1].end], piece[stop:]
        if not piece or piece[0].kind != "name" or (len(piece) > 1 and piece[1].text != "="):
            raise Abstain(f"the golden design's port is not read: {' '.join(words)}")
        found.append(Port(piece[0].text, direction, width, signed))  # type: ignore[arg-type]
    return found


def _outside(piece: list[Token], place: int) -> bool:
    """Whether a token is in no brackets."""
    return sum((token.text == "[") - (token.text == "]") for token in piece[:place]) == 0


def _timing(
    body: tuple[Token, ...], ports: tuple[Port, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    inputs = [port.name for port in ports if port.direction == "input" and not port.range]
    edges = {
        (edge.text, signal.text)
        for edge, signal in pairwise(body)
        if edge.text in ("posedge", "negedge") and signal.text in inputs
    }
    active = {signal for _, signal in edges}
    read = {token.text for before, token in pairwise(body) if before.text not in ("posedge", "negedge", ".")}
    asked = len(active) > 1  # an edge of a signal that is read as well is an asynchronous reset's
    resets = tuple(name for name in inputs if _RESET.search(name) or (asked and name in active and name in read))
    clocks = tuple(name for name in inputs if name not in resets and (name in active or _CLOCK.search(name)))
    low = {name for name in resets if ("negedge", name) in edges or _LOW.search(name)}
    return clocks, resets, frozenset(low - {name for name in resets if ("posedge", name) in edges})


def _statements(body: tuple[Token, ...], heads: tuple[str, ...]) -> list[list[Token]]:
    """The statements that begin with one of some words, without the semicolon."""
    found: list[list[Token]] = []
    for place, token in enumerate(body):
        if token.text in heads and (place == 0 or body[place - 1].text in (";", ")", "endfunction", "endtask")):
            end = next((k for k in range(place, len(body)) if body[k].text == ";"), len(body))
            found.append(list(body[place:end]))
    return found


def _constant(text: str, piece: list[Token]) -> str:
    words = piece[1:] if piece[0].text in ("parameter", "localparam") else piece
    return f"localparam {text[words[0].start : words[-1].end]};"


def _split(given: list[Token] | tuple[Token, ...]) -> list[list[Token]]:
    """Pieces between commas that are in no brackets."""
    pieces: list[list[Token]] = [[]]
    depth = 0
    for token in given:
        depth += (token.text in "([{") - (token.text in ")]}")
        if token.text == "," and depth == 0:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return [piece for piece in pieces if piece]


def _closing(given: tuple[Token, ...], place: int) -> int:
    depth = 0
    for here in range(place, len(given)):
        depth += (given[here].text == "(") - (given[here].text == ")")
        if depth == 0:
            return here
    raise Abstain("the golden design's header does not end")


def comparison(
    known: Interface, gold: str, gate: str, *, name: str, sequences: int, steps: int, seed: int, unknown: str
) -> str:
    """A testbench that feeds two modules the same random inputs, and prints `name errors checks`.

    Each sequence holds another combination of resets for two cycles, then draws all inputs at each step. In half of the
    sequences resets are drawn as well, with probability 1/16; in the others states are reached that take long. Outputs
    are compared after the inputs have changed, and after each edge of the clock.

    Args:
        known: the ports of both.
        gold: the name of the module that decides.
        gate: the name of the other.
        name: of the testbench.
        sequences: how many.
        steps: of each.
        seed: of the inputs.
        unknown: 'differs' compares with `===`, 'free' lets bits of the first that are unknown be anything.
    """
    inputs = [port for port in known.ports if port.direction == "input"]
    outputs = [port for port in known.ports if port.direction == "output"]
    drawn = [port for port in inputs if port.name not in (*known.clocks, *known.resets)]
    lines = [f"module {name};", *known.parameters]
    lines += [f"reg {_sign(p)} {p.range} {p.name};" for p in inputs]
    for port in outputs:
        lines.append(f"wire {_sign(port)} {port.range} gold_{port.name}{name}, gate_{port.name}{name};")
    for module, which in ((gold, "gold"), (gate, "gate")):
        joined = [f".{p.name}({p.name})" for p in inputs] + [f".{p.name}({which}_{p.name}{name})" for p in outputs]
        lines.append(f"{module} {which}{name}({', '.join(joined)});")
    golds = ", ".join(f"gold_{port.name}{name}" for port in outputs)
    gates = ", ".join(f"gate_{port.name}{name}" for port in outputs)
    theirs = f"{{{gates}}}" if unknown == "differs" else f"({{{golds}}} ^ {{{gates}}} ^ {{{golds}}})"
    e, c, s, t, k, r = (f"{letter}{name}" for letter in ("errors", "checks", "s", "t", "k", "seed"))
    lines += [
        f"integer {e} = 0, {c} = 0, {s}, {t}, {k}, {r} = {seed};",
        f"task look{name}; begin {c} = {c} + 1; if ({{{golds}}} !== {theirs}) {e} = {e} + 1; end endtask",
        f"task draw{name}; begin",
        *(f"for ({k} = 0; {k} < $bits({p.name}); {k} = {k} + 32) {p.name} = ({p.name} << 31 << 1) ^ $random({r});"
          for p in drawn),
        "end endtask",
        f"task tick{name}; begin #1 look{name};",
        *(f"{clock} = 1; #1 look{name}; {clock} = 0; #1 look{name};" for clock in known.clocks),
        "end endtask",
        f"initial begin for ({s} = 0; {s} < {sequences}; {s} = {s} + 1) begin",
        *(f"{p.name} = 0;" for p in inputs),
        *(f"{port} = {s} / {1 << k} % 2 == 0 ? {_active(known, port)} : {1 - _active(known, port)};"
          for k, port in enumerate(known.resets)),
        f"draw{name}; tick{name}; tick{name};",
        f"for ({t} = 0; {t} < {steps}; {t} = {t} + 1) begin draw{name};",
        *(f"{port} = {s} % 4 < 2 && ($random({r}) & 15) == 0 ? {_active(known, port)} : {1 - _active(known, port)};"
          for port in known.resets),
        f"tick{name}; end end",
        f'$display("{name} %0d %0d", {e}, {c}); $finish; end',
        "endmodule",
    ]  # fmt: skip
    return "\n".join(lines)


def _sign(port: Port) -> str:
    return "signed" if port.signed else ""


def _active(known: Interface, port: str) -> int:
    return 0 if port in known.low else 1
