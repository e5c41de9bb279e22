"""How much of the reference's wording stands in a reply: n-grams of words and characters."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, Passage, shown
from guerdon.rewards.text.sides import Ignore, sides

if TYPE_CHECKING:
    from rouge_score.tokenizers import DefaultTokenizer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF


@reward(range=(0, 1), requires=needs("text.bleu", "sacrebleu", extra="text"))
def bleu(
    completion: Completion,
    answer: Any,
    *,
    order: Literal[1, 2, 3, 4] = 4,
    smooth: Literal["exp", "floor", "add-k", "add-one", "none"] = "exp",
    brevity: Literal["closest", "shortest"] = "closest",
    effective_order: bool = True,
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a",
    within: Passage = "reply",
    ignore: Ignore = (),
) -> float:
    """BLEU of the reply as a sentence.

        BLEU = min(1, e^(1 − r/c)) · (p₁ ⋯ p_N)^(1/N)

    with pₙ the share of the reply's n-grams that stand in the references (each counted at most as often as in
    the reference that has it most), c the number of the reply's tokens and r that of the reference nearest in
    length, or of the shortest. Several references are used together, as BLEU defines.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        order: N, the longest n-gram.
        smooth: what stands for a pₙ of 0, which would make the whole 0: 'exp' halves it for each order without
            a match, 'floor' is 0.1 matches, 'add-k' adds 1 from n = 2 on, 'add-one' from n = 1 on, and to the count
            as well, so that an order longer than the reply counts as full: pₙ = (mₙ + 1)/(tₙ + 1); 'none' leaves it.
        brevity: which reference sets r. With 'shortest', what `evaluate` does, another reference can only make it
            easier; 'closest' is the standard.
        effective_order: leaves out the orders longer than the reply. Without, a reply of three words that is the
            reference scores less than 1. With 'add-one' all orders count.
        tokenize: sacrebleu's tokenizer: '13a' for scripts with spaces, 'zh' for Chinese, 'char' for others without.
        within: see `exact`.
        ignore: see `exact`; BLEU is cased and keeps punctuation.

    Raises:
        Abstain: if there is no reference.
        MissingExtra: if sacrebleu is not installed.

    >>> from guerdon.rewards import text
    >>> score = text.bleu(order=2).evaluate("the cat sat", "the cat slept")  # (2/3 · 1/2)^(1/2)
    >>> round(score, 4)
    0.5774

    Source: Papineni et al. 2002; sacrebleu (Post, arXiv 1804.08771); smoothing of Chen & Cherry 2014; 'add-one' with
    'shortest' is the `bleu` of `evaluate` with smooth=True, the reward of BLEUBERI (2505.11080).
    """
    said, references = sides(completion, answer, within, ignore)
    metric = _bleu(order, "none" if smooth == "add-one" else smooth, effective_order, tokenize)
    found = metric.sentence_score(said, references)
    if smooth != "add-one" and brevity == "closest":
        return min(1.0, found.score / 100)
    length = found.sys_len
    aim = min(len(_tokens(metric, r)) for r in references) if brevity == "shortest" else found.ref_len
    if smooth != "add-one":
        counts = (found.counts, found.totals, length, aim)
        return min(1.0, metric.compute_bleu(*counts, smooth, None, effective_order, order).score / 100)
    if not length:
        return 0.0
    precisions = ((m + 1) / (t + 1) for m, t in zip(found.counts, found.totals, strict=True))
    return min(1.0, math.exp(1 - aim / length)) * math.prod(precisions) ** (1 / order)


def _tokens(metric: BLEU, text: str) -> list[str]:
    written: str = metric.tokenizer(text)
    return written.split()


_sacrebleu = needs("text.chrf", "sacrebleu", extra="text")


def _orders(characters: int, words: int, beta: int, **options: object) -> tuple[str, ...]:
    if characters < 1 or words < 0 or beta < 1:
        raise ValueError(f"chrf wants characters ≥ 1, words ≥ 0 and beta ≥ 1; got {characters}, {words} and {beta}")
    return _sacrebleu()


@reward(range=(0, 1), requires=_orders)
def chrf(
    completion: Completion,
    answer: Any,
    *,
    characters: int = 6,
    words: int = 0,
    beta: int = 2,
    within: Passage = "reply",
    ignore: Ignore = (),
) -> float:
    """chrF of the reply: an F-score of character n-grams; of several references the best.

        chrF = (1 + β²) · P · R / (β² P + R)

    with precision P and recall R averaged over the orders of n-grams. Kinder than BLEU to inflection and
    to scripts without spaces.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        characters: the longest n-gram of characters; white space is not one.
        words: the longest n-gram of words; 2 is chrF++.
        beta: how many times recall counts as much as precision.
        within: see `exact`.
        ignore: see `exact`.

    Raises:
        Abstain: if there is no reference.
        ValueError: at once, if an order or beta makes no sense.
        MissingExtra: if sacrebleu is not installed.

    >>> from guerdon.rewards import text
    >>> text.chrf(characters=1).evaluate("abcd", "abce")  # P = R = 3/4
    0.75

    Source: Popović 2015 (chrF), 2017 (chrF++); sacrebleu.
    """
    said, references = sides(completion, answer, within, ignore)
    score: float = _chrf(characters, words, beta).sentence_score(said, references).score
    return min(1.0, score / 100)


@reward(range=(0, 1), requires=needs("text.rouge", "rouge_score", "rapidfuzz", extra="text"))
def rouge(
    completion: Completion,
    answer: Any,
    *,
    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL",
    measure: Literal["f", "precision", "recall"] = "f",
    stem: bool = False,
    within: Passage = "reply",
    ignore: Ignore = (),
) -> float:
    """ROUGE of the reply: shared words, pairs of words, or the longest common subsequence; the best reference's.

        P = shared / (n-grams of the reply)        R = shared / (n-grams of the reference)        F = 2PR / (P + R)

    with `shared` the n-grams that both have, as often as both have them, or for 'rougeL' the length of the
    longest common subsequence of words.

    Args:
        completion: the reply: text or chat messages.
        answer: see `exact`.
        variant: 'rouge1', 'rouge2' or 'rougeL'.
        measure: 'recall' alone pays for copying everything, 'precision' alone for a single word.
        stem: takes words by their Porter stem, English only.
        within: see `exact`.
        ignore: see `exact`; ROUGE reads lower-case letters a–z and digits only.

    Raises:
        Abstain: if there is no reference, or no reference has what ROUGE counts, as in another script.
        MissingExtra: if rouge-score or rapidfuzz is not installed.

    >>> from guerdon.rewards import text
    >>> text.rouge().evaluate("the cat sat down", "the old cat sat")  # 'the cat sat': P = R = 3/4
    0.75

    Source: Lin 2004; rouge-score (Google), whose table for 'rougeL' rapidfuzz's bits replace.
    """
    from rapidfuzz.distance import LCSseq

    said, references = sides(completion, answer, within, ignore)
    tokenize = _rouge_tokens(stem).tokenize
    size = 2 if variant == "rouge2" else 1
    counted = [tokens for reference in references if len(tokens := tokenize(reference)) >= size]
    if not counted:
        raise Abstain(f"reference has nothing that {variant} counts: {shown(answer)}")
    reply = tokenize(said)
    best = 0.0
    for reference in counted:
        ours, theirs = _ngrams(reply, size), _ngrams(reference, size)
        shared = LCSseq.similarity(ours, theirs) if variant == "rougeL" else _shared(ours, theirs)
        total = {"precision": len(ours), "recall": len(theirs), "f": (len(ours) + len(theirs)) / 2}[measure]
        best = max(best, shared / total if total else 0.0)
    return best


def _ngrams(tokens: list[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[start:] for start in range(size)), strict=False))


def _shared(ours: list[tuple[str, ...]], theirs: list[tuple[str, ...]]) -> int:
    return (Counter(ours) & Counter(theirs)).total()


@lru_cache
def _bleu(order: int, smooth: str, effective_order: bool, tokenize: str) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(
        max_ngram_order=order, smooth_method=smooth, effective_order=effective_order, tokenize=tokenize, force=True
    )


@lru_cache
def _chrf(characters: int, words: int, beta: int) -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(char_order=characters, word_order=words, beta=beta)


@lru_cache
def _rouge_tokens(stem: bool) -> DefaultTokenizer:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(stem)
