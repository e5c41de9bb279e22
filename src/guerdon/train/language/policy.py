"""The policy being trained: any causal language model of `transformers`, or a small one built on the spot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from guerdon.core.errors import MissingExtra, RecipeError
from guerdon.train.language.tokenizer import PRINTABLE, character_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Logits of this many (token, vocabulary entry) pairs are widened to float32 at once: 256 MiB.
CHUNK = 1 << 26


@dataclass(frozen=True)
class ModelShape:
    """A small Llama-architecture model over characters, with random weights.

    Args:
        layers: transformer blocks.
        hidden: width of the residual stream.
        heads: attention heads; `hidden / heads` is even (rotary positions turn pairs of numbers).
        mlp: width of the feed-forward layers.
        context: the most tokens it reads, prompt and completion together.
        tied_embeddings: one matrix embeds tokens and predicts them.
        alphabet: the characters of its tokenizer, each once; the default is printable ASCII and the newline.

    Raises:
        RecipeError: if a size is not positive, or heads do not divide the width into even parts.
    """

    layers: int = 3
    hidden: int = 128
    heads: int = 4
    mlp: int = 384
    context: int = 128
    tied_embeddings: bool = True
    alphabet: str = PRINTABLE

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "mlp", "context"):
            if getattr(self, name) < 1:
                raise RecipeError(f"from_config: {name} must be at least 1, got {getattr(self, name)}")
        if self.hidden % (2 * self.heads):
            raise RecipeError(
                f"from_config: hidden ({self.hidden}) must be a multiple of twice the heads ({2 * self.heads}): "
                "every head gets an equal and even part"
            )
        character_tokenizer(self.alphabet)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of full fine-tuning: W + (alpha / rank) · B A, of which only A and B learn.

    Args:
        rank: of the adapters.
        alpha: their scale.
        dropout: on the input of the adapters, while training. Above 0, the log-probabilities of a batch differ from
            those at sampling even before the first update.
        target_modules: names of the modules that get an adapter; None: what peft knows for the architecture.

    Source: LoRA (arXiv 2106.09685); the defaults are peft's.
    """

    rank: int = 8
    alpha: int = 8
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise RecipeError(
                f"lora: rank must be at least 1 and dropout in [0, 1), got {self.rank} and {self.dropout}"
            )


@dataclass(frozen=True)
class PolicyConfig:
    """Which language model is trained: exactly one of `from_config` and `path`.

    Args:
        from_config: build a small model on the spot.
        path: a folder written by `save_pretrained`, or a model's name on the Hugging Face hub.
        revision: branch, tag or commit of a hub model.
        dtype: of the weights, and so of the arithmetic; log-probabilities are always taken in float32.
        lora: train low-rank adapters only; needs `guerdon[lora]`.
        gradient_checkpointing: keep one activation per block and compute the rest again in the backward pass: less
            memory, about a third more time.
        attention: the attention implementation, a name `transformers` knows (`eager`, `sdpa`,
            `flash_attention_2`, …); None: its choice.
        chat_template: a Jinja template that turns messages into text; None: the tokenizer's own.

    Raises:
        RecipeError: if both or neither of `from_config` and `path` are given, or `revision` without `path`.
    """

    from_config: ModelShape | None = None
    path: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    attention: str | None = None
    chat_template: str | None = None

    def __post_init__(self) -> None:
        if (self.from_config is None) == (self.path is None):
            given = "neither" if self.path is None else "both"
            raise RecipeError(f"the policy is either built (from_config) or loaded (path): {given} given")
        if self.revision is not None and self.path is None:
            raise RecipeError("revision belongs to a path: a model built from_config has none")


def build(config: PolicyConfig, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer, on the CPU, in evaluation mode.

    All that is drawn at random (the weights of a model built on the spot, the adapters) depends on `seed` alone, and
    torch's global generator is left as it was.

    Raises:
        RecipeError: if the model cannot be found or loaded.
        MissingExtra: if adapters are asked for and peft is not installed.

    >>> model, tokenizer = build(PolicyConfig(ModelShape(layers=1, hidden=16, heads=2, mlp=32, alphabet="01+=")), 0)
    >>> model.config.vocab_size == len(tokenizer) == 7
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer = _built(config) if config.from_config else _loaded(config)
        if config.lora is not None:
            model = _adapted(model, config.lora)
    if config.chat_template is not None:
        tokenizer.chat_template = config.chat_template
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.eval(), tokenizer


def _built(config: PolicyConfig) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape = config.from_config
    assert shape is not None
    tokenizer = character_tokenizer(shape.alphabet, context=shape.context)
    model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=shape.tied_embeddings,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        dtype=getattr(torch, config.dtype),
        **_attention(config),
    )
    return model, tokenizer


def _loaded(config: PolicyConfig) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert config.path is not None
    dtype = getattr(torch, config.dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.path, revision=config.revision)
        model = AutoModelForCausalLM.from_pretrained(
            config.path, revision=config.revision, dtype=dtype, **_attention(config)
        )
    except (OSError, ValueError, ImportError) as error:
        place = "folder" if Path(config.path).is_dir() else "hub model (there is no such folder)"
        first_line = str(error).strip().split("\n", 1)[0]
        raise RecipeError(f"policy {config.path!r} cannot be loaded as a {place}: {first_line}") from error
    if tokenizer.eos_token_id is None:
        raise RecipeError(f"the tokenizer of {config.path!r} has no end-of-sequence token: no completion could end")
    if tokenizer.pad_token_id is None:
        # Which entries are padding is said by masks, never by the id, so any id will do.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return model, tokenizer


def _attention(config: PolicyConfig) -> dict[str, str]:
    return {} if config.attention is None else {"attn_implementation": config.attention}


def _adapted(model: Any, lora: Lora) -> Any:
    try:
        import peft
    except ImportError:
        raise MissingExtra("policy.lora", "lora") from None
    targets = None if lora.target_modules is None else list(lora.target_modules)
    try:
        return peft.get_peft_model(
            model,
            peft.LoraConfig(
                task_type="CAUSAL_LM",
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=targets,
            ),
        )
    except ValueError as error:
        raise RecipeError(f"policy.lora: {error}") from error


def logprobs(
    model: torch.nn.Module,
    prompt_ids: Int[Tensor, "n p"],
    prompt_mask: Bool[Tensor, "n p"],
    ids: Int[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    *,
    temperature: float = 1.0,
    micro_batch: int | None = None,
) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
    r"""Log-probability of every token of every completion, and the entropy of the distribution it stands in.

        logpᵢₜ = log softmax(zᵢₜ / T)[yᵢₜ]        Hᵢₜ = −Σᵥ pᵢₜᵥ log pᵢₜᵥ        p = softmax(z / T)

    Everywhere in `train` prompts are padded on the left and completions on the right, so that all completions begin
    in one column: prompt and completion are one sequence, and only the completion's columns are projected onto the
    vocabulary. The numbers do not depend on how much padding there is.

    Args:
        model: a causal language model of `transformers`. The mode it is in (dropout or not) is left to the caller.
        prompt_ids: the prompts, padded on the left.
        prompt_mask: True where there is a token.
        ids: the completions, padded on the right.
        mask: True where there is a token.
        temperature: T > 0, the one the completions were sampled at.
        micro_batch: rows that pass through the model at once, each time cut to their own longest; None: all.

    Returns:
        Log-probabilities in float32, with gradients if they are enabled, and entropies in nats, without; both 0
        where masked.

    Raises:
        ValueError: if the shapes do not fit, or T ≤ 0.
    """
    if prompt_ids.shape != prompt_mask.shape or ids.shape != mask.shape or len(prompt_ids) != len(ids):
        raise ValueError(
            f"prompts {tuple(prompt_ids.shape)} and completions {tuple(ids.shape)} need masks of their shapes and "
            f"equal numbers of rows; the masks are {tuple(prompt_mask.shape)} and {tuple(mask.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"log-probabilities need a temperature above 0, got {temperature}")
    rows = micro_batch or max(len(ids), 1)
    parts = [
        _logprobs(
            model,
            prompt_ids[a : a + rows],
            prompt_mask[a : a + rows],
            ids[a : a + rows],
            mask[a : a + rows],
            temperature,
        )
        for a in range(0, len(ids), rows)
    ]
    if not parts:
        return ids.new_zeros(ids.shape, dtype=torch.float32), ids.new_zeros(ids.shape, dtype=torch.float32)
    logp, entropy = (torch.cat(part) for part in zip(*parts, strict=True))
    return logp, entropy


def _logprobs(
    model: Any, prompt_ids: Tensor, prompt_mask: Tensor, ids: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    full = ids.shape[1]
    begin = int(prompt_mask.any(0).to(torch.uint8).argmax())
    width = int(mask.sum(1).max())
    if width == 0:
        empty = torch.zeros(ids.shape, device=ids.device)
        return empty, empty
    ids, mask = ids[:, :width], mask[:, :width]
    logits = completion_logits(model, prompt_ids[:, begin:], prompt_mask[:, begin:], ids, mask)
    rows = max(1, CHUNK // (width * logits.shape[-1]))
    pieces = [(logits[a : a + rows], ids[a : a + rows], temperature) for a in range(0, len(ids), rows)]
    if len(pieces) == 1:
        logp, entropy = _token_logprobs(*pieces[0])
    else:
        # In the backward pass each piece is widened again, so that never more than one is held in float32.
        parts = [checkpoint(_token_logprobs, *piece, use_reentrant=False) for piece in pieces]
        logp, entropy = (torch.cat(part) for part in zip(*parts, strict=True))
    outside = (0, full - width)
    return (
        torch.nn.functional.pad(torch.where(mask, logp, 0.0), outside),
        torch.nn.functional.pad(torch.where(mask, entropy, 0.0), outside),
    )


def completion_logits(
    model: Any,
    prompt_ids: Int[Tensor, "n p"],
    prompt_mask: Bool[Tensor, "n p"],
    ids: Int[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
) -> Float[Tensor, "n t v"]:
    """The logits that each token of each completion was chosen from; arguments as of `logprobs`."""
    logits: Tensor = read(model, prompt_ids, prompt_mask, ids, mask, logits_to_keep=ids.shape[1] + 1).logits
    return logits[:, :-1]


def read(
    model: Any,
    prompt_ids: Int[Tensor, "n p"],
    prompt_mask: Bool[Tensor, "n p"],
    ids: Int[Tensor, "n t"],
    mask: Bool[Tensor, "n t"],
    **asked: Any,
) -> Any:
    """Pass prompts and their completions, as of `logprobs`, through a model of `transformers`, asked for something."""
    attended = torch.cat([prompt_mask, mask], 1)
    return model(
        input_ids=torch.cat([prompt_ids, ids], 1),
        attention_mask=attended.long(),
        position_ids=positions(attended),
        use_cache=False,
        **asked,
    )


def _token_logprobs(logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = logits.logsumexp(-1)
    logp = logits.gather(-1, ids[..., None])[..., 0] - normaliser
    with torch.no_grad():
        logits = logits.detach() - normaliser.detach()[..., None]
        entropy = torch.special.entr(logits.exp()).sum(-1)
    return logp, entropy


def positions(attended: Bool[Tensor, "n t"]) -> Int[Tensor, "n t"]:
    """The position of each token in its own sequence; padding on the left is at 0.

    >>> positions(torch.tensor([[False, False, True, True, True]]))
    tensor([[0, 0, 0, 1, 2]])
    """
    return (attended.long().cumsum(1) - 1).clamp(min=0)


@contextmanager
def borrowed(policy: torch.nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The policy with other weights in place of those it learns; nothing is copied."""
    learned = {name: parameter for name, parameter in policy.named_parameters() if name in weights}
    own = {name: parameter.data for name, parameter in learned.items()}
    try:
        for name, parameter in learned.items():
            parameter.data = weights[name]
        yield
    finally:
        for name, parameter in learned.items():
            parameter.data = own[name]
