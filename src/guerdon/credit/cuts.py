"""Where a chain of thought can be cut: at words that announce a new attempt."""

from __future__ import annotations

import re
from collections.abc import Sequence

from guerdon.core.spans import Spans

# As the sources list them; they are looked for as written, so that 'So' opens a sentence and 'so' does not count.
TURNS = ("Wait", "But", "However", "Alternatively", "Hmm", "Let me double-check", "So")
SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")


def cut_at(
    texts: Sequence[str],
    words: Sequence[str] = TURNS,
    *,
    first: int = 1000,
    gap: int = 400,
    sentences: bool = True,
) -> Spans:
    """Steps of a text, each but the first beginning where a word announces a new attempt; nothing is left out.

    Args:
        texts: chains of thought.
        words: found as substrings, in the case given.
        first: characters before the first cut, at least: an attempt that has hardly begun is not yet worth a probe.
        gap: characters between cuts, at least.
        sentences: move a cut back to the end of the sentence before, so that no step ends in half of one; a cut that
            would come too close to the one before by it stays where its word is.

    Raises:
        ValueError: if there is no word, one is empty, or a distance is negative.

    Source: VSRM (arXiv 2508.10293; 1benwu1/VSRM-Efficient-LRMs), 1000 and 400 characters; the words also those of
    DECS (pixas/DECS) and MRT (2503.07572).

    >>> cut_at(["We get 4. Wait, is it 5? But no."], first=4, gap=4).rows()
    [[(0, 9), (9, 24), (24, 32)]]
    """
    if not words or not all(words) or first < 0 or gap < 0:
        raise ValueError(f"words must not be empty, first and gap not negative: {list(words)}, {first}, {gap}")
    pattern = re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)))
    rows = []
    for text in texts:
        cuts = [0]
        for match in pattern.finditer(text):
            nearest = cuts[-1] + (gap if len(cuts) > 1 else first)
            if not nearest <= match.start() < len(text) or match.start() == cuts[-1]:
                continue
            ends = [end.end() for end in SENTENCE_END.finditer(text, cuts[-1], match.start())] if sentences else []
            before = ends[-1] if ends else match.start()
            cuts.append(before if before >= nearest and before > cuts[-1] else match.start())
        rows.append([step for step in zip(cuts, [*cuts[1:], len(text)], strict=True) if step[0] < step[1]])
    return Spans.of(rows, unit="character")
