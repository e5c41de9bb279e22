"""How near two texts are for a retrieval encoder: the reply to the question, or to a reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.errors import Abstain, GuerdonError
from guerdon.core.parsing import Completion, Passage, passage, shown, text_of
from guerdon.core.protocols import Range
from guerdon.core.scores import Scores
from guerdon.rewards.text.sides import asked

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
    return _compared([asked(p) for p in prompt], completion, "prompt", encoder, similarity, within)


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


@reward(lane="batch", range=(-1, 1))
def bmas(
    completion: Sequence[Completion],
    answer: Sequence[Any],
    *,
    encoder: Any,
    mean: Literal["arithmetic", "harmonic"] = "arithmetic",
    within: Passage = "reply",
) -> Scores:
    """How near reply and reference are, token by token: the bidirectional max-average similarity.

        S = E_r E_gᵀ        P = meanᵢ maxⱼ Sᵢⱼ        R = meanⱼ maxᵢ Sᵢⱼ        BMAS = (P + R) / 2

    with the rows of E of length 1. A reply that says too little loses R, one that pads loses P, and saying the same
    twice changes neither. It is blind to order: the reference's words in any order earn 1, and where 'not' stands is
    not seen.

    Args:
        completion: the reply: text or chat messages.
        answer: the reference: a text.
        encoder: the folder or name of a `transformers` model, whose table of input embeddings is read and nothing of
            it run; or a function from a text to one row of numbers per token, or to these and a weight for each, as
            `rare` makes. Rows of a contextual encoder make P, R and their harmonic mean BERTScore's.
        mean: of P and R; 'harmonic' is F₁, 0 where one of them is not positive.
        within: see `text.exact`.

    Returns:
        One score per rollout; an empty reply gets −1.

    Raises:
        Abstain: of a row whose reference is no text; of all, if the encoder gives no table of numbers for a text.

    >>> from guerdon.rewards import relevance
    >>> letters = lambda text: np.eye(26)[[ord(c) - 97 for c in text]]
    >>> relevance.bmas(encoder=letters)(["?"] * 3, ["ba", "a", "c"], answer=["ab"] * 3)  # P = 1 and R = 1/2 for 'a'
    [1.0, 0.75, 0.0]

    Source: Mixed-R1 (arXiv 2505.24164), by the policy's own embeddings; BERTScore (1904.09675) with mean='harmonic'.
    """
    encode = encoder if callable(encoder) else embeddings(encoder)
    replies = [passage(text_of(spoken), within) or "" for spoken in completion]
    reasons = {
        row: f"reference is not a text: {shown(text)}"
        for row, text in enumerate(answer)
        if not isinstance(text, str) or not text.strip()
    }
    references = [text for row, text in enumerate(answer) if row not in reasons]
    known = {text: _weighed(encode(text), text) for text in {*references, *(r for r in replies if r.strip())}}
    values: list[float] = []
    for row, (reply, text) in enumerate(zip(replies, answer, strict=True)):
        if row in reasons or not reply.strip() or not len(known[reply].rows):
            values.append(-1.0)
            continue
        if not len(known[text].rows):
            reasons[row] = f"reference has no tokens: {shown(text)}"
            values.append(-1.0)
            continue
        values.append(_max_average(known[reply], known[text], mean))
    return Scores.of(values, reasons=reasons)


class _Tokens(NamedTuple):
    rows: Embeddings
    weights: Float[np.ndarray[Any, Any], "n"] | None


def _max_average(reply: _Tokens, reference: _Tokens, mean: str) -> float:
    near = np.clip(reply.rows @ reference.rows.T, -1.0, 1.0)
    precision = float(np.average(near.max(1), weights=reply.weights))
    recall = float(np.average(near.max(0), weights=reference.weights))
    if mean == "arithmetic":
        return (precision + recall) / 2
    return 2 * precision * recall / (precision + recall) if precision > 0 and recall > 0 else 0.0


def _weighed(given: Any, text: str) -> _Tokens:
    rows, weights = given if isinstance(given, tuple) else (given, None)
    table = np.asarray(rows, np.float64)
    if table.size == 0:
        return _Tokens(np.zeros((0, 1)), None)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise Abstain(f"the encoder gave an array of shape {table.shape} for {shown(text)}, or one that is not finite")
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        if weights.shape != table.shape[:1] or not (np.isfinite(weights) & (weights > 0)).all():
            raise Abstain(f"the encoder gave weights for {shown(text)} that are not one number > 0 per token")
    return _Tokens(np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)), weights)


def rare(encoder: Callable[[str], Embeddings], corpus: Sequence[str]) -> Callable[[str], tuple[Embeddings, Any]]:
    """An encoder of tokens with a weight for each: the rarer in a corpus, the more.

        w = 1 + log((1 + N) / (1 + df))

    with df of the corpus's N texts having a token with the same row, so that it says little of contextual encoders.

    Args:
        encoder: from a text to one row per token.
        corpus: the texts that say which tokens are rare.

    Source: the option of BERTScore (arXiv 1904.09675), smoothed as `tfidf`.

    >>> letters = lambda text: np.eye(26)[[ord(c) - 97 for c in text]]
    >>> rare(letters, ["ab", "ac"])("ab")[1].round(3)
    array([1.   , 1.405])
    """
    tables = [np.asarray(encoder(text), np.float64) for text in corpus]
    held = Counter(row for table in tables for row in {entry.tobytes() for entry in table})

    def encode(text: str) -> tuple[Embeddings, Any]:
        table = np.asarray(encoder(text), np.float64)
        return table, np.array([math.log((1 + len(tables)) / (1 + held[entry.tobytes()])) + 1 for entry in table])

    return encode


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


@lru_cache(maxsize=2)
def embeddings(path: str) -> Callable[[str], Embeddings]:
    """The rows of a `transformers` model's table of input embeddings, one per token: nothing of the model is run.

    Args:
        path: a folder, or a name on the Hugging Face hub.

    Raises:
        GuerdonError: if it cannot be loaded.

    Source: the token embeddings of Mixed-R1 (arXiv 2505.24164).
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise GuerdonError(f"the model {path!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    table = np.asarray(model.get_input_embeddings().weight.detach().numpy(), np.float64)

    def encode(text: str) -> Embeddings:
        return np.asarray(table[tokenizer(text, add_special_tokens=False)["input_ids"]])

    return encode
