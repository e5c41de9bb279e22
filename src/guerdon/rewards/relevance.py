"""How near two texts are for a retrieval encoder: the reply to the question, or to a reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.errors import Abstain, GuerdonError
from guerdon.core.parsing import Completion, Passage, passage, shown, text_of
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores

Embeddings = Float[np.ndarray[Any, Any], "n d"]
Encoder = Callable[[Sequence[str]], Embeddings]
Similarity = Literal["cosine", "dot"]


def _range(similarity: Similarity, **options: Any) -> Range:
    return (-1.0, 1.0) if similarity == "cosine" else (-math.inf, math.inf)


@reward(lane="batch", range=_range)
def query(
    prompt: Sequence[Completion],
    completion: Sequence[Completion],
    *,
    encoder: Any,
    similarity: Similarity = "cosine",
    within: Passage = "reply",
) -> Scores:
    """How relevant the reply is to what was asked: M(x) · M(ŷ).

    By itself it is best served by repeating the question, so it is meant as a factor beside length and variety:
    R³ is `product(relevance.query(…), 0.01 * text.length(unit="words"), 1 + format.repetition())`.

    Args:
        prompt: text, or chat messages, of which the last of the user counts.
        completion: the reply: text or chat messages.
        encoder: the folder or name of a `transformers` encoder, whose states are averaged over the tokens; or a
            function from texts to one row of numbers each.
        similarity: 'cosine', or 'dot', the source's, which grows with the norms.
        within: see `text.exact`.

    Returns:
        One score per rollout; an empty reply gets the lowest cosine, or 0.

    Source: R³, "Regularized Relevance Reward" (arXiv 2402.03469), r_x.
    """
    return _compared([_asked(p) for p in prompt], completion, "prompt", encoder, similarity, within)


@reward(lane="batch", range=_range)
def reference(
    completion: Sequence[Completion],
    answer: Sequence[Any],
    *,
    encoder: Any,
    similarity: Similarity = "cosine",
    within: Passage = "reply",
) -> Scores:
    """How near the reply is to a reference in meaning: M(y) · M(ŷ).

    Args:
        completion: the reply: text or chat messages.
        answer: the reference: a text.
        encoder, similarity, within: see `query`.

    Returns:
        One score per rollout; an empty reply gets the lowest cosine, or 0.

    Source: R³, "Regularized Relevance Reward" (arXiv 2402.03469), r_y.
    """
    return _compared(list(answer), completion, "reference", encoder, similarity, within)


def _asked(prompt: Completion) -> str:
    if isinstance(prompt, str):
        return prompt
    turns = [message for message in prompt if message.get("role") == "user"]
    return text_of([{**turns[-1], "role": "assistant"}]) if turns else ""


def _compared(
    texts: Sequence[Any],
    completions: Sequence[Completion],
    what: str,
    encoder: Any,
    similarity: Similarity,
    within: Passage,
) -> Scores:
    replies = [passage(text_of(spoken), within) or "" for spoken in completions]
    reasons = {
        row: f"{what} is not a text: {shown(text)}"
        for row, text in enumerate(texts)
        if not isinstance(text, str) or not text.strip()
    }
    sides = [text if row not in reasons else what for row, text in enumerate(texts)]
    distinct = list(dict.fromkeys([*sides, *(reply for reply in replies if reply.strip())]))
    rows = np.asarray((encoder if callable(encoder) else transformer(encoder))(distinct), np.float64)
    if rows.shape[0] != len(distinct) or rows.ndim != 2:
        raise Abstain(f"the encoder gave an array of shape {rows.shape} for {len(distinct)} texts")
    if similarity == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    at = {text: i for i, text in enumerate(distinct)}
    nothing = -1.0 if similarity == "cosine" else 0.0
    values = [
        float(rows[at[side]] @ rows[at[reply]]) if reply.strip() else nothing
        for side, reply in zip(sides, replies, strict=True)
    ]
    return Scores.of(values, reasons=reasons)


def tfidf(corpus: Sequence[str]) -> Encoder:
    """An encoder that counts words, the rarer in a corpus the more: no model, for tests and small jobs.

        vᵥ = tf · (1 + log((1 + N) / (1 + df)))

    Args:
        corpus: the texts that say which words are rare. Words outside of it are not seen.

    Source: Spärck Jones 1972; the smoothing is scikit-learn's.

    >>> encode = tfidf(["red sea", "red wine"])
    >>> encode(["red sea", "sea of wine"]).round(3)
    array([[1.   , 1.405, 0.   ],
           [0.   , 1.405, 1.405]])
    """
    documents = [set(_words(text)) for text in corpus]
    counted = Counter(word for document in documents for word in document)
    columns = {word: i for i, word in enumerate(sorted(counted))}
    weights = np.array([1 + math.log((1 + len(documents)) / (1 + counted[word])) for word in columns])

    def encode(texts: Sequence[str]) -> Embeddings:
        table = np.zeros((len(texts), len(columns)))
        for row, text in enumerate(texts):
            for word, count in Counter(_words(text)).items():
                if word in columns:
                    table[row, columns[word]] = count
        return np.asarray(table * weights)

    return encode


def _words(text: str) -> list[str]:
    return ["".join(c for c in word if c.isalnum()) for word in text.casefold().split()]


@lru_cache(maxsize=2)
def transformer(path: str, *, batch: int = 64) -> Encoder:
    """A `transformers` encoder: the mean over the tokens of the last states, as Contriever and MiniLM are read.

    Args:
        path: a folder, or a name on the Hugging Face hub.
        batch: texts that pass through it at once; sorted by length, so that little padding is computed.

    Raises:
        GuerdonError: if it cannot be loaded.

    Source: mean pooling of Contriever (arXiv 2112.09118) and Sentence-BERT (1908.10084).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    except (OSError, ValueError) as error:
        raise GuerdonError(f"the encoder {path!r} cannot be loaded: {str(error).splitlines()[0]}") from error

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Embeddings:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        pooled = torch.zeros(len(texts), model.config.hidden_size)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = tokenizer([texts[i] for i in rows], padding=True, truncation=True, return_tensors="pt")
            mask = tokens["attention_mask"][..., None]
            states = model(**tokens).last_hidden_state
            pooled[rows] = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return np.asarray(pooled.numpy(), np.float64)

    return encode
