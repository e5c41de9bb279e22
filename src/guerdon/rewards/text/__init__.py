"""Measures of the text of a reply: by itself, and against references.

A measure against references reads the column `answer`: a text, a number, or a list of those, any of
which is right. It looks at the part of the completion that `within` names, after ignoring what `ignore`
says. A reply without that part has said nothing, and is measured as the empty text.
"""

from guerdon.rewards.text.distance import cer, edit, wer
from guerdon.rewards.text.length import length
from guerdon.rewards.text.matching import exact, f1
from guerdon.rewards.text.overlap import bleu, chrf, rouge

__all__ = ["bleu", "cer", "chrf", "edit", "exact", "f1", "length", "rouge", "wer"]
