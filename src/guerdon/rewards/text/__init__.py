"""Measures of the text of a reply: by itself, and against references.

A measure against references reads the column `answer`: a text, a number, or a list of those, any of
which is right. It looks at the part of the completion that `within` names, after ignoring what `ignore`
says. A reply without that part has said nothing, and is measured as the empty text.
"""

from guerdon.rewards.text.distance import cer, edit, wer
from guerdon.rewards.text.length import length, length_cost, proportion
from guerdon.rewards.text.matching import contained, exact, f1, relaxed
from guerdon.rewards.text.overlap import bleu, chrf, rouge
from guerdon.rewards.text.verdict import specific, verdict

__all__ = [
    "bleu",
    "cer",
    "chrf",
    "contained",
    "edit",
    "exact",
    "f1",
    "length",
    "length_cost",
    "proportion",
    "relaxed",
    "rouge",
    "specific",
    "verdict",
    "wer",
]
