"""How much a reply repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from guerdon.algebra import reward
from guerdon.core.parsing import Completion, Passage, passage, text_of


def _positive(size: int, **options: object) -> tuple[str, ...]:
    if size < 1:
        raise ValueError(f"repetition counts n-grams of a size of at least 1; got size={size}")
    return ()


@reward(range=(-1, 0), requires=_positive)
def repetition(
    completion: Completion,
    *,
    measure: Literal["ngrams", "longest"] = "ngrams",
    size: int = 3,
    unit: Literal["words", "characters"] = "words",
    case: bool = False,
    within: Passage = "completion",
) -> float:
    """A penalty for saying the same thing again, from 0 (nothing) down to −1.

        'ngrams'    −(1 − unique n-grams / n-grams)
        'longest'   −(length of the longest stretch that stands there twice / length)

    The first grows with every repetition, the second tells one long loop from many set phrases. The two places
    of the longest stretch may overlap: of n equal words, n − 1 stand there twice. A text without n-grams does not
    repeat itself: 0. Both take time in proportion to the length.

    Args:
        completion: the reply: text or chat messages.
        measure: 'ngrams' or 'longest'.
        size: n; of 'ngrams' only.
        unit: 'words' stand between white space; in a script without, take 'characters' and a larger size.
        case: whether 'The' and 'the' differ.
        within: see `text.exact`. 'completion' is all of it, thinking included: that is where loops begin.

    Raises:
        ValueError: at once, if the size is less than 1.

    >>> from guerdon.rewards import format
    >>> format.repetition(size=2).evaluate("to be or not to be")  # 'to be' twice: 4 of 5 pairs are different
    -0.2
    >>> format.repetition(measure="longest").evaluate("to be or not to be")  # 2 of 6 words
    -0.3333333333333333

    Source: Demystifying Long CoT (arXiv 2502.03373), the n-gram repetition penalty, and Open-R1's; the longest
    repeated stretch is ours, by the suffix automaton of Blumer et al. 1985.
    """
    text = passage(text_of(completion), within) or ""
    text = text if case else text.casefold()
    units: Sequence[str] = text.split() if unit == "words" else text
    if measure == "longest":
        return -_longest(units) / len(units) if units else 0.0
    total = len(units) - size + 1
    if total < 1:
        return 0.0
    unique = set(zip(*(units[start:] for start in range(size)), strict=False))
    return (len(unique) - total) / total


def _longest(units: Sequence[str]) -> int:
    """The length of the longest stretch that stands at two places."""
    # States are sets of stretches that end at the same places. A state's link is its longest suffix that ends at
    # more places than it, so the longest linked state is the longest stretch seen twice.
    follow: list[dict[str, int]] = [{}]
    link, length = [-1], [0]
    last = longest = 0
    for unit in units:
        new, state = len(length), last
        follow.append({})
        length.append(length[last] + 1)
        link.append(0)
        while state >= 0 and unit not in follow[state]:
            follow[state][unit] = new
            state = link[state]
        if state >= 0:
            known = follow[state][unit]
            if length[known] > length[state] + 1:
                copy = len(length)
                follow.append(dict(follow[known]))
                length.append(length[state] + 1)
                link.append(link[known])
                link[known] = copy
                while state >= 0 and follow[state].get(unit) == known:
                    follow[state][unit] = copy
                    state = link[state]
                known = copy
            link[new] = known
        last = new
        longest = max(longest, length[link[new]])
    return longest
