"""Verilog as a sequence of tokens: modules, who instantiates whom, new names, and what a design may not say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from guerdon.core.parsing import Completion, last_fenced, passage, text_of

LONGEST = 200_000  # characters of a design

_TOKEN = re.compile(
    r"""
    (?P<comment> //[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<string>  "(?:\\.|[^"\\])*(?:"|\Z) )
  | (?P<macro>   `+\w* | `" )
  | (?P<system>  \$[\w$]* )
  | (?P<name>    [A-Za-z_][\w$]* | \\\S+ )
  | (?P<number>  '\s*[sS]?[bodhBODH]\s*[0-9a-fA-FxXzZ?_]+ | '[01xXzZ] | \d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)? )
  | (?P<sign>    <<<=|>>>=|===|!==|==\?|!=\?|<<<|>>>|<<=|>>=
                |\*\*|&&|\|\||==|!=|<=|>=|<<|>>|->|::|\+:|-:|~&|~\||~\^|\^~|\S )
    """,
    re.VERBOSE | re.DOTALL,
)
KEYWORDS = frozenset(
    [
        "always",
        "always_comb",
        "always_ff",
        "always_latch",
        "and",
        "assert",
        "assign",
        "assume",
        "automatic",
        "begin",
        "bit",
        "buf",
        "bufif0",
        "bufif1",
        "byte",
        "case",
        "casex",
        "casez",
        "const",
        "deassign",
        "default",
        "defparam",
        "disable",
        "do",
        "edge",
        "else",
        "end",
        "endcase",
        "endfunction",
        "endgenerate",
        "endmodule",
        "endpackage",
        "endprimitive",
        "endtask",
        "enum",
        "event",
        "final",
        "for",
        "force",
        "foreach",
        "forever",
        "fork",
        "function",
        "generate",
        "genvar",
        "if",
        "initial",
        "inout",
        "input",
        "inside",
        "int",
        "integer",
        "join",
        "join_any",
        "join_none",
        "localparam",
        "logic",
        "longint",
        "macromodule",
        "module",
        "nand",
        "negedge",
        "nor",
        "not",
        "notif0",
        "notif1",
        "or",
        "output",
        "package",
        "packed",
        "parameter",
        "posedge",
        "priority",
        "real",
        "realtime",
        "reg",
        "release",
        "repeat",
        "return",
        "shortint",
        "signed",
        "specify",
        "static",
        "string",
        "struct",
        "supply0",
        "supply1",
        "task",
        "time",
        "timeprecision",
        "timeunit",
        "tri",
        "tri0",
        "tri1",
        "triand",
        "trior",
        "typedef",
        "union",
        "unique",
        "unsigned",
        "var",
        "void",
        "wait",
        "wand",
        "while",
        "wire",
        "wor",
        "xnor",
        "xor",
    ]
)
_FUNCTIONS = frozenset(
    f"${name}"
    for name in [
        "signed",
        "unsigned",
        "clog2",
        "bits",
        "size",
        "left",
        "right",
        "low",
        "high",
        "increment",
        "dimensions",
        "countones",
        "countbits",
        "onehot",
        "onehot0",
        "isunknown",
        "rtoi",
        "itor",
        "ceil",
        "floor",
        "pow",
        "sqrt",
        "ln",
        "log10",
    ]
)
_DIRECTIVES = frozenset(["`timescale", "`default_nettype", "`resetall", "`celldefine", "`endcelldefine"])
_CONDITIONS = frozenset(["`define", "`undef", "`ifdef", "`ifndef", "`elsif", "`else", "`endif"])
_BEYOND = frozenset(["bind", "config", "library", "include", "checker", "program", "import", "export"])


class Token(NamedTuple):
    """A token, and where it stands."""

    kind: str
    text: str
    start: int
    end: int


class Module(NamedTuple):
    """A module, and which it instantiates; where its tokens begin and end."""

    name: str
    children: frozenset[str]
    begin: int
    end: int


def design_in(completion: Completion) -> str:
    """The reply's last Verilog block, else what stands from its first `module` to its last `endmodule`; else ''.

    >>> design_in("<think>hm</think>So: module a; endmodule. Done.")
    'module a; endmodule'
    """
    reply = passage(text_of(completion), "reply") or ""
    block = last_fenced(reply, "", "verilog", "systemverilog", "sv", "v")
    if block is not None:
        return block
    begin, end = re.search(r"\bmodule\b", reply), reply.rfind("endmodule")
    return reply[begin.start() : end + len("endmodule")] if begin and begin.start() < end else ""


@lru_cache(maxsize=1 << 8)
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a text, comments left out; an escaped name is without its backslash.

    >>> [token.text for token in tokens("assign \\\\q = 4'b1 /* 0 */ ;")]
    ['assign', 'q', '=', '4', "'b1", ';']
    """
    return tuple(
        Token(str(found.lastgroup), found[0].removeprefix("\\"), *found.span())
        for found in _TOKEN.finditer(text)
        if found.lastgroup != "comment"
    )


def replaced(text: str, edits: Iterable[tuple[Token, str]]) -> str:
    """A text in which some tokens stand for others."""
    pieces, last = [], 0
    for token, new in edits:
        pieces += [text[last : token.start], new]
        last = token.end
    return "".join([*pieces, text[last:]])


@lru_cache(maxsize=1 << 8)
def modules(text: str) -> tuple[Module, ...]:
    """The modules that a text declares, in order.

    >>> [(module.name, sorted(module.children)) for module in modules("module a; b u(); endmodule module b; endmodule")]
    [('a', ['b']), ('b', [])]
    """
    found, given = [], tokens(text)
    begin = None
    for place, token in enumerate(given):
        if token.text in ("module", "macromodule") and token.kind == "name":
            begin = place
        elif token.text == "endmodule" and begin is not None:
            name = next((t.text for t in given[begin + 1 : place] if t.text not in ("automatic", "static")), "")
            found.append((name, begin, place + 1))
            begin = None
    names = {name for name, *_ in found}
    return tuple(
        Module(name, frozenset(_instantiated(given[begin:end], names)) - {name}, begin, end)
        for name, begin, end in found
    )


def _instantiated(given: tuple[Token, ...], names: set[str]) -> Iterator[str]:
    for token, after in pairwise(given):
        if token.text in names and (after.kind == "name" or after.text == "#"):
            yield token.text


def top(text: str) -> str | None:
    """The module that no other instantiates; of several, the one with most modules below it. None if there is none.

    >>> top("module a; endmodule module b; c u(); endmodule module c; endmodule")
    'b'

    Source: CodeV-R1 (arXiv 2505.24183).
    """
    found = {module.name: module for module in modules(text)}
    inside = frozenset().union(*(module.children for module in found.values())) if found else frozenset()
    roots = [name for name in found if name not in inside] or list(found)
    return max(roots, key=lambda name: len(_below(name, found)), default=None)


def _below(name: str, found: Mapping[str, Module]) -> set[str]:
    seen: set[str] = set()
    left = [name]
    while left:
        for child in found[left.pop()].children - seen:
            seen.add(child)
            left.append(child)
    return seen


def renamed(text: str, names: Mapping[str, str]) -> str:
    """A text whose modules have other names, where they are declared and where they are instantiated.

    >>> renamed("module a; b b(.b(b)); endmodule module b(input b); endmodule", {"b": "c"})
    'module a; c b(.b(b)); endmodule module c(input b); endmodule'
    """
    given = tokens(text)
    edits = []
    for place, token in enumerate(given):
        if token.kind == "name" and token.text in names:
            before = given[place - 1].text if place else ""
            after = given[place + 1] if place + 1 < len(given) else None
            declared = before in ("module", "macromodule", "automatic", "static") or (
                before == ":" and place > 1 and given[place - 2].text == "endmodule"
            )
            if declared or (before != "." and after is not None and (after.kind == "name" or after.text == "#")):
                edits.append((token, names[token.text]))
    return replaced(text, edits)


def wanted(testbench: str, golden: str) -> str | None:
    """The module that a testbench instantiates and does not have, unless it is that of the golden design.

    >>> wanted("module tb; adder dut(.a(a)); endmodule", "module adder(input a); endmodule")
    'adder'
    """
    given = tokens(testbench)
    own = {module.name for module in modules(testbench)} | {module.name for module in modules(golden)}
    types = {module for module, _ in _instances(given)}
    lacking = sorted(types - own) or sorted(types - {module.name for module in modules(testbench)})
    return lacking[0] if len(lacking) == 1 else None


def _instances(given: tuple[Token, ...]) -> Iterator[tuple[str, str]]:
    """What looks like `type #(…) name [..] (`: the type and the name."""
    for place, token in enumerate(given):
        if token.kind != "name" or token.text in KEYWORDS or (place and given[place - 1].text in (".", "`", "task")):
            continue
        after = place + 1
        if after < len(given) and given[after].text == "#":
            after = _past(given, after + 1, "(", ")")
        if after < len(given) and given[after].kind == "name" and given[after].text not in KEYWORDS:
            opening = _past(given, after + 1, "[", "]")
            if opening < len(given) and given[opening].text == "(":
                yield token.text, given[after].text


def _past(given: tuple[Token, ...], place: int, opening: str, closing: str) -> int:
    """Where a group in brackets ends that begins here, or here if none does."""
    if place >= len(given) or given[place].text != opening:
        return place
    depth = 0
    for here in range(place, len(given)):
        depth += (given[here].text == opening) - (given[here].text == closing)
        if depth == 0:
            return here + 1
    return len(given)


@lru_cache(maxsize=1 << 8)
def scopes(text: str) -> frozenset[str]:
    """The names in a text that other modules could refer to: modules, instances, tasks, functions, named blocks."""
    given = tokens(text)
    names = {module.name for module in modules(text)} | {name for _, name in _instances(given)}
    for place, token in enumerate(given):
        if token.text in ("task", "function"):
            end = next((k for k in range(place, len(given)) if given[k].text in (";", "(")), place)
            names.add(given[end - 1].text)
        elif token.text in ("begin", "fork") and place + 2 < len(given) and given[place + 1].text == ":":
            names.add(given[place + 2].text)
        elif token.text in ("interface", "package") and place + 1 < len(given):
            names.add(given[place + 1].text)
    return frozenset(name for name in names if re.fullmatch(r"[A-Za-z_]\w*", name) and name not in KEYWORDS)


def hidden(text: str, names: frozenset[str], suffix: str) -> tuple[str, frozenset[str]]:
    """A text in which some names have a suffix, and those that had to stay, as they are names of ports as well."""
    given = tokens(text)
    ports = {given[k + 1].text for k in range(len(given) - 1) if _connection(given, k)}
    change = names - ports
    edits = [(t, t.text + suffix) for t in given if t.kind == "name" and t.text in change]
    return replaced(text, edits), names & ports


def objection(text: str, kept: frozenset[str]) -> str | None:
    """What a text says that a design does not: what would print, end, read or reach out; None if nothing.

    Args:
        text: the design.
        kept: names of what is around it, to which it may not refer.

    >>> objection("module a; initial $finish; endmodule", frozenset())
    'uses $finish'
    """
    if len(text) > LONGEST:
        return f"is longer than {LONGEST} characters"
    given = tokens(text)
    for place, token in enumerate(given):
        before = given[place - 1].text if place else ";"
        if token.kind == "system" and token.text not in _FUNCTIONS:
            return f"uses {token.text}"
        if token.kind == "macro" and token.text not in _DIRECTIVES:
            return f"uses {token.text}"
        if token.kind == "string" and ("`" in token.text or not token.text.endswith('"')):
            return "has a string that does not end"
        if token.kind == "name" and token.text in _BEYOND:
            return f"uses {token.text}"
        if token.text == "." and not _connection(given, place):
            root = _root(given, place)
            if root is None or root in kept or re.fullmatch(r"genblk\d+", root):
                return f"refers to something outside of it: {root}"
        if token.kind == "name" and token.text in kept:
            after = given[place + 1].text if place + 1 < len(given) else ""
            statement = before in (";", "begin", "end", "else", ")", ":", "disable")
            if (
                before == "disable"
                or (after == "(" and given[place - 1].kind != "name")
                or (statement and after == ";")
            ):
                return f"refers to something outside of it: {token.text}"
    return None


def conditional(text: str) -> bool:
    """Whether a text has macros or conditions, so that it has to be expanded before it can be read."""
    macros = {token.text for token in tokens(text) if token.kind == "macro"} - _DIRECTIVES
    return bool(macros & _CONDITIONS) and not macros & {"`include", "`line", "`pragma"}


def _connection(given: tuple[Token, ...], place: int) -> bool:
    """Whether a dot begins the connection of a port: `(.a(b), .c(d))`."""
    return given[place].text == "." and place > 0 and given[place - 1].text in ("(", ",")


def _root(given: tuple[Token, ...], place: int) -> str | None:
    """The first name of `a.b[0].c`, from a dot in it."""
    while place > 0 and given[place].text == ".":
        place -= 1
        while place > 0 and given[place].text == "]":
            depth = 0
            while place > 0:
                depth += (given[place].text == "]") - (given[place].text == "[")
                place -= 1
                if depth == 0:
                    break
        if given[place].kind != "name":
            return None
        if place == 0 or given[place - 1].text != ".":
            return given[place].text
        place -= 1
    return None
