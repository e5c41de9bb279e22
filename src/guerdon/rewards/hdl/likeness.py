"""`hdl.likeness`: how much of the golden design's structure stands in another."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from guerdon.algebra import reward
from guerdon.core.parsing import Completion
from guerdon.rewards.hdl.source import Token, design_in, tokens

MOST = 4000  # statements that are compared; matching takes the square of their number

_HEADS = {
    "if",
    "case",
    "casez",
    "casex",
    "for",
    "while",
    "repeat",
    "always",
    "always_comb",
    "always_ff",
    "always_latch",
}
_SINGLE = {"begin", "end", "else", "endcase", "endmodule", "initial", "generate", "endgenerate", "default"}


@reward(range=(0, 1))
def likeness(completion: Completion, reference: Any) -> tuple[float, dict[str, Any]]:
    """How much a design is like the golden one, statement by statement:

        clip(0.7 · similarity + 0.3 · coverage − 0.2 · redundancy, 0, 1)

    of the lists P and G of their statements (headers, ports, declarations, assignments, sensitivities, conditions,
    cases, instances; without comments and white space): similarity is difflib's ratio 2·matches / (|P| + |G|),
    coverage |P ∩ G| / |G| and redundancy |P ∖ G| / |P| of the sets.

    Copying the prompt's interface pays a part of this: let it count only beneath a test, as `hdl.stepped` does.

    Args:
        completion: the reply: text or chat messages.
        reference: the golden design.

    Raises:
        Abstain: if there is no golden design.

    >>> from guerdon.rewards import hdl
    >>> golden = "module a(input x, output y); assign y = ~x; endmodule"
    >>> hdl.likeness().evaluate(golden, golden)[0]
    1.0
    >>> round(hdl.likeness().evaluate("module a(input x, output y); assign y = x; endmodule", golden)[0], 3)
    0.76

    Source: VeriReason (arXiv 2505.11849), its AST score.
    """
    from guerdon.rewards.hdl.testing import text_in

    score = alike(design_in(completion), text_in(reference, "reference"))
    return score["likeness"], score


def alike(design: str, golden: str) -> dict[str, float]:
    """See `likeness`; its three terms, too."""
    ours, theirs = statements(design)[:MOST], statements(golden)[:MOST]
    same = len(set(ours) & set(theirs))
    parts = {
        "similarity": SequenceMatcher(None, ours, theirs, autojunk=False).ratio(),
        "coverage": same / max(1, len(set(theirs))),
        "redundancy": (len(set(ours)) - same) / max(1, len(set(ours))),
    }
    total = 0.7 * parts["similarity"] + 0.3 * parts["coverage"] - 0.2 * parts["redundancy"]
    return {"likeness": min(1.0, max(0.0, total)), **parts}


def statements(text: str) -> list[str]:
    """The statements of a design.

    >>> statements("module a(input x, output y); always @(*) if (x) y = 1; else y = 0; endmodule")
    ['module a', 'input x', 'output y', 'always @ ( * )', 'if ( x )', 'y = 1', 'else', 'y = 0', 'endmodule']
    """
    return [" ".join(token.text for token in piece) for piece in _pieces(tokens(text)) if piece]


def _pieces(given: tuple[Token, ...]) -> Iterator[list[Token]]:
    piece: list[Token] = []
    depth = 0
    head = header = False  # in what ends with a bracket; in the brackets of a module's ports
    for place, token in enumerate(given):
        text = token.text
        if depth == 0 and text in _SINGLE and not (text == "default" and piece):
            yield piece
            piece = []
            yield [token]
            continue
        if depth == 0 and text in _HEADS:
            yield piece
            piece, head = [], True
        if depth == 0 and text in ("module", "macromodule"):
            header = True
        if text in "()":
            depth += 1 if text == "(" else -1
            if header and (depth == 0 or (depth == 1 and text == "(")):
                yield piece
                piece = []
                continue
        if (text == ";" and depth == 0) or (text == "," and header and depth == 1):
            yield piece
            piece, header = [], header and text == ","
            continue
        if text == ":" and depth == 0 and not any(t.text in ("?", "[") for t in piece):
            yield [*piece, token]  # a case
            piece = []
            continue
        piece.append(token)
        after = given[place + 1].text if place + 1 < len(given) else ""
        if (
            head
            and depth == 0
            and ((text == ")" and after != "@") or (text.startswith("always") and after not in "@#"))
        ):
            yield piece
            piece, head = [], False
    yield piece
