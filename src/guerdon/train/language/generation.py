"""Sampling completions so that what a row says does not depend on the rows it is batched with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.errors import RecipeError
from guerdon.core.rollouts import Tokens
from guerdon.train.language.policy import positions
from guerdon.train.language.tokenizer import Prompt, decode, encode_prompts, pad

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Finished rows are dropped from the batch once they are this share of it; dropping copies the cache.
DROP = 0.125


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are sampled.

    Args:
        temperature: logits are divided by it; 0 always takes the most likely token.
        top_p: tokens are drawn from the smallest set that holds this share of the probability. Log-probabilities and
            entropies stay those of the whole distribution, which is the one that training differentiates.
        max_tokens: the most tokens of a completion, the end-of-sequence token included.
        stop: texts that end a completion.
        keep_stop: leave the stop text in the completion's text, for rewards that look for a closing tag.
        micro_batch: rows that are generated at once; None: all. Changes memory and speed only.

    Raises:
        RecipeError: if temperature < 0, top_p is outside (0, 1], max_tokens or micro_batch < 1, or a stop is empty.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise RecipeError(f"sampling: temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"sampling: top_p is a share above 0 and at most 1, got {self.top_p}")
        if self.max_tokens < 1:
            raise RecipeError(f"sampling: max_tokens must be at least 1, got {self.max_tokens}")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise RecipeError(f"sampling: micro_batch must be at least 1, got {self.micro_batch}")
        if "" in self.stop:
            raise RecipeError("sampling: an empty stop text would end every completion at once")


@dataclass(frozen=True, eq=False)
class Generated:
    """Completions of `n` prompts, at most `t` tokens long; tensors are on the model's device.

    Args:
        texts: what was said: without special tokens, cut at the first stop text.
        prompt_ids: the prompts, padded on the left.
        prompt_mask: True where the prompt has a token.
        ids: the completions, padded on the right.
        written: True where the policy chose the token. The end-of-sequence token is such a choice, and so are the
            tokens of a stop text; what a completion was begun with is not.
        attended: True where there is a token.
        logp: log-probability of each token at the sampling temperature (at temperature 1 where that is 0).
        entropy: of the same distribution, in nats.
        finished: True where the completion ended by itself, False where it was cut at `max_tokens`.
        offsets: begin and end of each token in `texts`; −1 where it has no character there. A character that takes
            several tokens belongs to the last of them; the others are empty, begin = end.
    """

    texts: list[str]
    prompt_ids: Int[Tensor, "n p"]
    prompt_mask: Bool[Tensor, "n p"]
    ids: Int[Tensor, "n t"]
    written: Bool[Tensor, "n t"]
    attended: Bool[Tensor, "n t"]
    logp: Float[Tensor, "n t"]
    entropy: Float[Tensor, "n t"]
    finished: Bool[Tensor, "n"]
    offsets: Int[np.ndarray[Any, Any], "n t 2"]

    def tokens(self) -> Tokens:
        """The tokens as rollouts carry them, in NumPy."""
        columns = (self.ids, self.written, self.attended, self.logp, self.entropy)
        ids, written, attended, logp, entropy = (x.cpu().numpy() for x in columns)
        return Tokens(ids, written, attended, logp=logp, entropy=entropy, offsets=self.offsets)


def uniforms(
    rows: Sequence[int] | Int[np.ndarray[Any, Any], "n"], length: int, *, seed: int, step: int, stream: int = 0
) -> Float[np.ndarray[Any, Any], "n length"]:
    """The randomness of some rows: one number in [0, 1) per position, a function of its arguments and nothing else.

    A row's numbers come from a counter-based generator keyed by (seed, step), its counter set to the row and stream.
    They are the same whichever process asks, in whatever order, for however many rows.

    Args:
        rows: global numbers of the rows in their batch, ≥ 0.
        length: positions per row. A longer request begins with the numbers of a shorter one.
        seed: of the run, ≥ 0.
        step: of the training, ≥ 0.
        stream: keeps uses apart that share a step, such as training and evaluation, ≥ 0.

    Source: Philox, "Parallel random numbers: as easy as 1, 2, 3" (Salmon et al., SC 2011), NumPy's implementation.

    >>> whole = uniforms(range(4), 8, seed=1, step=5)
    >>> (uniforms([2, 3], 6, seed=1, step=5) == whole[2:, :6]).all()
    np.True_
    """
    numbers = np.empty((len(rows), length))
    for i, row in enumerate(rows):
        numbers[i] = np.random.Generator(np.random.Philox(key=[seed, step], counter=[0, row, stream, 0])).random(length)
    return numbers


def inverse_cdf(
    logits: Float[Tensor, "n v"], uniform: Float[Tensor, "n"], *, temperature: float = 1.0, top_p: float = 1.0
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    r"""The token at which the cumulative distribution first exceeds u.

        p = softmax(z / T)        y = min {k : Σ_{j≤k} pⱼ > u Σⱼ pⱼ}

    Softmax in float32, the cumulative sum in float64 (float32 on devices without it), so that no token of a large
    vocabulary loses its share to rounding. With `top_p`, the p of the tokens outside the set is 0.

    Args:
        logits: z, any real numbers; −inf excludes a token.
        uniform: u in [0, 1).
        temperature: T ≥ 0; at 0 the most likely token is taken, and log-probability and entropy are those at T = 1.
        top_p: the share of probability to draw from, in (0, 1].

    Returns:
        Token ids, and the log-probability and entropy (nats) under p before `top_p`.

    Source: inverse transform sampling; top_p: nucleus sampling (arXiv 1904.09751).

    >>> logits = torch.tensor([[0.5, 0.2, 0.3]]).log().expand(3, 3)
    >>> inverse_cdf(logits, torch.tensor([0.49, 0.51, 0.71]))[0]
    tensor([0, 1, 2])
    """
    logp = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
    p = logp.exp()
    entropy = torch.special.entr(p).sum(-1)
    if temperature == 0:
        ids = logp.argmax(-1)
    else:
        if top_p < 1:
            p = _nucleus(p, top_p)
        cumulative = p.to(_widest(p.device)).cumsum(-1)
        total = cumulative[:, -1]
        # In float32 u may round up to 1, and u Σp to Σp, which no token exceeds.
        target = torch.minimum(uniform.to(total) * total, torch.nextafter(total, torch.zeros_like(total)))
        ids = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    return ids, logp.gather(-1, ids[:, None])[:, 0], entropy


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _nucleus(p: Tensor, top_p: float) -> Tensor:
    """The distribution without the tokens that come after `top_p` of the probability is reached, most likely first."""
    ordered, order = p.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(p).scatter(-1, order, torch.where(before < top_p, ordered, 0.0))


@torch.no_grad()
def generate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    uniforms: Float[np.ndarray[Any, Any], "n max_tokens"],
    config: SamplingConfig,
    begun: Sequence[Sequence[int]] | None = None,
    pause: tuple[str, ...] = (),
) -> Generated:
    """Sample one completion per prompt; the randomness is handed in.

    What a row says is a function of its prompt, its uniforms and the weights: how rows are batched, or spread over
    processes, changes it only where a rounding error moves a boundary of the cumulative distribution across its
    uniform, which is rare.

    The model is put into evaluation mode while it generates. Rows that are finished leave the batch; what rows begin
    with alike is read once.

    Args:
        model: a causal language model of `transformers`.
        tokenizer: its tokenizer.
        prompts: text or chat messages.
        uniforms: one row per prompt, see `uniforms`.
        config: how to sample.
        begun: tokens that each completion begins with, fewer than `max_tokens`, which they count towards. They are
            part of the completion and of its text, and not written; their log-probability and entropy are 0.
        pause: texts behind which a completion is left off, to be gone on with from there: they stay in its text, and it
            is not finished. Only what is written here is looked at.

    Raises:
        RecipeError: if a prompt cannot be encoded, or is so long that `max_tokens` more do not fit the model's context.
        ValueError: if there are not enough uniforms, or a beginning leaves no room.
    """
    begun = [[]] * len(prompts) if begun is None else begun
    if len(begun) != len(prompts) or max(map(len, begun), default=0) >= config.max_tokens:
        raise ValueError(f"{len(prompts)} prompts need as many beginnings, of fewer than {config.max_tokens} tokens")
    if len(uniforms) != len(prompts) or uniforms.shape[1] < config.max_tokens:
        raise ValueError(
            f"{len(prompts)} prompts of {config.max_tokens} tokens need as many uniforms, got {uniforms.shape}"
        )
    encoded = encode_prompts(tokenizer, prompts)
    check_context(model, encoded, config.max_tokens)
    device = next(model.parameters()).device
    chance = torch.as_tensor(uniforms[:, : config.max_tokens], dtype=_widest(device), device=device)
    ids = torch.full(chance.shape, tokenizer.pad_token_id, device=device)
    logp, entropy = (torch.zeros(chance.shape, dtype=torch.float32, device=device) for _ in range(2))
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
    ahead = torch.tensor([len(beginning) for beginning in begun], dtype=torch.long, device=device)
    room = config.max_tokens - ahead
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    rows = config.micro_batch or max(len(prompts), 1)
    read = [[*prompt, *beginning] for prompt, beginning in zip(encoded, begun, strict=True)]
    training = model.training
    model.eval()
    try:
        for a in range(0, len(prompts), rows):
            columns = (x[a : a + rows] for x in (chance, room, ids, logp, entropy, lengths, finished))
            _sample(model, tokenizer, read[a : a + rows], config, pause, *columns)
    finally:
        model.train(training)

    told = zip(begun, ids.tolist(), lengths.tolist(), strict=True)
    said = [[*beginning, *row[:length]] for beginning, row, length in told]
    width = max(map(len, said), default=0)
    texts, offsets = spoken(tokenizer, said, width, config)
    prompt_ids, prompt_mask = (x.to(device) for x in pad(encoded, tokenizer.pad_token_id, side="left"))
    place = torch.arange(width, device=device)
    attended = place < (ahead + lengths)[:, None]
    written = attended & (place >= ahead[:, None])
    whole = pad(said, tokenizer.pad_token_id, side="right")[0].to(device)
    at = (place - ahead[:, None]).clamp(0, max(config.max_tokens - 1, 0))
    logp, entropy = (torch.where(written, x.gather(1, at), 0.0) for x in (logp, entropy))
    return Generated(texts, prompt_ids, prompt_mask, whole, written, attended, logp, entropy, finished, offsets)


def _sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    config: SamplingConfig,
    pause: tuple[str, ...],
    chance: Float[Tensor, "n t"],
    room: Int[Tensor, "n"],
    ids: Int[Tensor, "n t"],
    logp: Float[Tensor, "n t"],
    entropy: Float[Tensor, "n t"],
    lengths: Int[Tensor, "n"],
    finished: Bool[Tensor, "n"],
) -> None:
    """Sample rows together, with `chance`, for as many tokens as there is `room`; into the tensors after it."""
    from transformers import DynamicCache

    device = chance.device
    distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    copies = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=device)
    prompt_ids, mask = (x.to(device) for x in pad(list(distinct), 0, side="left"))
    cache = DynamicCache(config=model.config)

    def read(ids: Tensor, attended: Tensor, place: Tensor) -> Tensor:
        output = model(
            input_ids=ids,
            attention_mask=attended.long(),
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]  # type: ignore[no-any-return]

    place = positions(mask)
    logits = read(prompt_ids, mask, place)[copies]
    cache.reorder_cache(copies)  # type: ignore[arg-type]
    attended, place = mask[copies], place[copies, -1:]

    ends = torch.tensor(end_tokens(model, tokenizer), device=device)

    row, alive = torch.arange(len(ids), device=device), torch.ones(len(ids), dtype=torch.bool, device=device)
    for t in range(config.max_tokens):
        options = {"temperature": config.temperature, "top_p": config.top_p}
        token, token_logp, token_entropy = inverse_cdf(logits, chance[row, t], **options)
        writing = row[alive]
        ids[writing, t], logp[writing, t], entropy[writing, t] = token[alive], token_logp[alive], token_entropy[alive]
        lengths[writing] = t + 1
        ended = torch.isin(token, ends)
        if config.stop:
            ended |= _stopped(tokenizer, ids[row, : t + 1], config.stop)
        finished[row[alive & ended]] = True
        if pause:
            ended |= _stopped(tokenizer, ids[row, : t + 1], pause)
        alive &= ~ended & (t + 1 < room[row])
        if t + 1 == config.max_tokens or not alive.any():
            break
        if alive.sum() <= (1 - DROP) * len(alive):
            keep = alive.nonzero()[:, 0]
            row, token, attended, place, alive = row[keep], token[keep], attended[keep], place[keep], alive[keep]
            cache.reorder_cache(keep)  # type: ignore[arg-type]
        attended = torch.nn.functional.pad(attended, (0, 1), value=True)
        place = place + 1
        logits = read(token[:, None], attended, place)


def _stopped(tokenizer: Any, ids: Tensor, stop: tuple[str, ...]) -> Tensor:
    """Which rows contain a stop text that their last token completed."""
    # A character takes at most four tokens, one per byte of its UTF-8.
    window = 4 * max(map(len, stop))
    tails = tokenizer.batch_decode(ids[:, -window:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return torch.tensor([any(s in tail for s in stop) for tail in tails], device=ids.device)


def spoken(
    tokenizer: Any, rows: list[list[int]], width: int, config: SamplingConfig
) -> tuple[list[str], Int[np.ndarray[Any, Any], "n t 2"]]:
    """The texts of completions, cut at the first stop text, and the place of each token in them."""
    texts, offsets = [], np.full((len(rows), width, 2), -1, np.int64)
    for i, (text, places) in enumerate(decode(tokenizer, rows)):
        stops = [(at, at + len(stop)) for stop in config.stop if (at := text.find(stop)) >= 0]
        text = text[: min(stops)[config.keep_stop]] if stops else text
        places[places[:, 0] >= len(text)] = -1
        offsets[i, : len(places)] = places.clip(max=len(text))
        texts.append(text)
    return texts, offsets


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a completion: chat models have one more than their tokenizer says."""
    others = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    others = [others] if isinstance(others, int) else others or []
    return sorted({tokenizer.eos_token_id, *others})


def check_context(model: Any, prompts: list[list[int]], max_tokens: int) -> None:
    """Check that prompts, as token ids, leave room for an answer.

    Raises:
        RecipeError: if the longest and `max_tokens` more do not fit the model's context.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if context is not None and longest + max_tokens > context:
        raise RecipeError(
            f"a prompt of {longest} tokens and max_tokens {max_tokens} do not fit the policy's context of {context}"
        )
