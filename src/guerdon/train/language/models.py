"""Language models of `transformers` as rewards see them: read a text, write one, show what is inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guerdon.core.errors import RecipeError
from guerdon.core.parsing import text_of
from guerdon.core.protocols import TokenLogprobs
from guerdon.core.rollouts import Rollouts, Tokens
from guerdon.train.language.generation import SamplingConfig, generate, uniforms
from guerdon.train.language.policy import CHUNK, borrowed, completion_logits, read
from guerdon.train.language.tokenizer import encode_prompts, encode_text, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBES = 2  # a stream of randomness beside those of training and evaluation
FIELDS = ("logp", "entropy", "rank", "logit")


class LanguageModel:
    """A causal language model and its tokenizer, as `core.protocols.Model` has them.

    Prompt and completion are encoded each by itself, as when rollouts are sampled. A prompt of no tokens (no text,
    and a tokenizer without bos) begins as a document does: with the tokenizer's bos, or its end-of-sequence token.

    Args:
        model: a causal language model of `transformers`; put into evaluation mode while it is used.
        tokenizer: its tokenizer.
        weights: read with these in place of its own, as the reference policy is; then nothing can be learned.
        micro_batch: texts that pass through it at once.

    Raises:
        ValueError: if `micro_batch` is below 1.

    >>> from guerdon.train.language.policy import ModelShape, PolicyConfig, build
    >>> shape = ModelShape(layers=1, hidden=16, heads=2, mlp=32, alphabet="01+=")
    >>> model = LanguageModel(*build(PolicyConfig(shape), seed=0))
    >>> model.logprobs(["1+0=", "0="], ["1", "10"]).mask
    tensor([[ True, False],
            [ True,  True]])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        weights: Mapping[str, Tensor] | None = None,
        micro_batch: int = 32,
    ) -> None:
        if micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")
        self.model, self.tokenizer = model, tokenizer
        self._weights = None if weights is None else dict(weights)
        self._micro_batch = micro_batch

    def logprobs(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, temperature: float = 1.0
    ) -> TokenLogprobs:
        """What the model says of each completion after its prompt; with gradients where they are enabled.

        Args:
            prompts: text or chat messages.
            completions: text, messages of one entry, or token ids.
            temperature: T > 0.

        Returns:
            Tensors on the model's device, in float32; a text that does not fit the context, or cannot be encoded, is
            among the problems.

        Raises:
            ValueError: if the numbers of prompts and completions differ, or T ≤ 0.
        """
        if not temperature > 0:
            raise ValueError(f"log-probabilities need a temperature above 0, got {temperature}")

        def statistics(prompt_ids: Tensor, prompt_mask: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
            logits = completion_logits(self.model, prompt_ids, prompt_mask, ids, mask)
            rows = max(1, CHUNK // max(logits[0].numel(), 1))
            pieces = [
                _statistics(logits[a : a + rows], ids[a : a + rows], temperature) for a in range(0, len(ids), rows)
            ]
            return tuple(torch.cat(column) for column in zip(*pieces, strict=True))

        columns, mask, problems = self._read(prompts, completions, statistics, len(FIELDS))
        return TokenLogprobs(mask=mask, problems=problems, **dict(zip(FIELDS, columns, strict=True)))

    @torch.no_grad()
    def logits(
        self,
        prompt_ids: Int[Tensor, "n p"],
        prompt_mask: Bool[Tensor, "n p"],
        ids: Int[Tensor, "n t"],
        mask: Bool[Tensor, "n t"],
    ) -> Float[Tensor, "n t v"]:
        """The logits that each token was chosen from, without gradients; arguments as of `policy.logprobs`.

        The tokens are those of its own tokenizer: `same_tokenizer` says whether another's are.
        """
        with self._own_or_borrowed():
            return completion_logits(self.model, prompt_ids, prompt_mask, ids, mask)

    def hidden(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, layer: int | float = -1
    ) -> tuple[Float[Tensor, "n t d"], Bool[Tensor, "n t"]]:
        """Hidden states of each token of each completion, and which tokens exist.

        Args:
            prompts, completions: see `logprobs`.
            layer: after how many blocks, −1 for all; a number with a point is a share of them (0.5: half-way).

        Raises:
            ValueError: if a share is outside of [0, 1].
        """
        if isinstance(layer, float):
            if not 0 <= layer <= 1:
                raise ValueError(f"a layer is a whole number or a share in [0, 1], got {layer}")
            layer = round(layer * self.model.config.num_hidden_layers)

        def states_of(prompt_ids: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            states = read(self.model, prompt_ids, *rest, output_hidden_states=True).hidden_states[layer]
            return (states[:, prompt_ids.shape[1] :].float(),)

        (states,), mask, _ = self._read(prompts, completions, states_of, 1)
        return states, mask

    def generate(
        self,
        prompts: Sequence[Any],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: tuple[str, ...] = (),
        seed: int = 0,
    ) -> Rollouts:
        """Sample one completion per prompt, with tokens; a function of its arguments and the weights.

        Where a prompt cannot be read, or leaves no room for `max_tokens`, the column 'problem' says why.
        """
        config = SamplingConfig(temperature, top_p, max_tokens, stop, micro_batch=self._micro_batch)
        problems = {i: why for i, prompt in enumerate(prompts) if (why := self._room(prompt, max_tokens))}
        fits = [i for i in range(len(prompts)) if i not in problems]
        chance = uniforms(fits, max_tokens, seed=seed, step=0, stream=PROBES)
        with self._own_or_borrowed():
            written = generate(self.model, self.tokenizer, [prompts[i] for i in fits], uniforms=chance, config=config)
        finished, texts = written.finished.cpu().numpy(), written.texts
        tokens: Tokens | None = written.tokens()
        if problems and fits:
            there = np.isin(np.arange(len(prompts)), fits)
            at = np.where(there, there.cumsum() - 1, 0)
            texts = [texts[k] if ok else "" for k, ok in zip(at, there, strict=True)]
            picked, there_ = written.tokens().select(at), there[:, None]
            tokens = replace(picked, written=picked.written & there_, attended=picked.attended & there_)
            finished = finished[at] & there
        elif problems:
            texts, finished, tokens = [""] * len(prompts), np.zeros(len(prompts), bool), None
        columns = {"problem": [problems.get(i) for i in range(len(prompts))]} if problems else {}
        return Rollouts(list(prompts), texts, columns, finished=finished, tokens=tokens)

    def parameters(self) -> Iterator[Tensor]:
        """The weights that learn; none of a model that is read with others in place of its own."""
        if self._weights is not None:
            return iter(())
        return (parameter for parameter in self.model.parameters() if parameter.requires_grad)

    def state_dict(self) -> dict[str, Tensor]:
        """The values of all weights."""
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        self.model.load_state_dict(dict(state))

    def _read(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        read: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]],
        columns: int,
    ) -> tuple[list[Tensor], Bool[Tensor, "n t"], dict[int, str]]:
        """Pass texts through the model, those of like length together."""
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts and {len(completions)} completions: there is one for each")
        encoded, problems = self.encoded(prompts, completions)
        width = max((len(ids) for _, ids in encoded), default=0)
        device = next(self.model.parameters()).device
        mask = pad([ids for _, ids in encoded], 0, side="right")[1].to(device)
        order = sorted((i for i, (_, ids) in enumerate(encoded) if ids), key=lambda i: sum(map(len, encoded[i])))
        pieces = []
        with self._own_or_borrowed():
            for a in range(0, len(order), self._micro_batch):
                rows = order[a : a + self._micro_batch]
                prompt = pad([encoded[i][0] for i in rows], 0, side="left")
                target = pad([encoded[i][1] for i in rows], 0, side="right")
                results = read(*(x.to(device) for x in (*prompt, *target)))
                room = width - target[0].shape[1]
                pieces.append([torch.nn.functional.pad(x, (*(0, 0) * (x.ndim - 2), 0, room)) for x in results])
        if not pieces:
            return [torch.zeros(mask.shape, device=device) for _ in range(columns)], mask, problems
        at = torch.full((len(encoded),), 0, device=device)
        at[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
        whole = [torch.cat(column)[at] for column in zip(*pieces, strict=True)]
        return [torch.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, 0) for x in whole], mask, problems

    def encoded(
        self, prompts: Sequence[Any], completions: Sequence[Any]
    ) -> tuple[list[tuple[list[int], list[int]]], dict[int, str]]:
        """Prompts and completions as the token ids that `logprobs` reads, and why some completions have none."""
        encoded: list[tuple[list[int], list[int]]] = []
        problems: dict[int, str] = {}
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            try:
                before, ids = self._joined(prompt, completion)
            except RecipeError as error:
                before, ids, problems[row] = [], [], str(error)
            if self._limit is not None and len(before) + len(ids) > self._limit:
                problems[row] = f"{len(before) + len(ids)} tokens do not fit the model's context of {self._limit}"
                ids = []
            encoded.append((before, ids))
        return encoded, problems

    @property
    def _limit(self) -> int | None:
        return getattr(self.model.config, "max_position_embeddings", None)

    def _room(self, prompt: Any, tokens: int) -> str | None:
        """Why so many tokens cannot follow a prompt; None if they can."""
        try:
            before = len(self._before(prompt))
        except RecipeError as error:
            return str(error)
        if self._limit is None or before + tokens <= self._limit:
            return None
        return f"a prompt of {before} tokens and {tokens} more do not fit the model's context of {self._limit}"

    def _before(self, prompt: Any) -> list[int]:
        if prompt != "":
            return encode_prompts(self.tokenizer, [prompt])[0]
        begin = self.tokenizer.bos_token_id
        return encode_text(self.tokenizer, "", special=True) or [
            self.tokenizer.eos_token_id if begin is None else begin
        ]

    def _joined(self, prompt: Any, completion: Any) -> tuple[list[int], list[int]]:
        """The tokens of a prompt, and those of what follows it: text, or the content of one message."""
        if not isinstance(completion, str) and completion and isinstance(completion[0], int):
            return self._before(prompt), list(completion)
        if isinstance(completion, str):
            return self._before(prompt), encode_text(self.tokenizer, completion)
        if len(completion) != 1:
            raise RecipeError(f"a completion is text or one message, got {len(completion)} messages")
        said = text_of([{**completion[0], "role": "assistant"}])
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if completion[0].get("role", "assistant") == "assistant":
            return self._before(messages), encode_text(self.tokenizer, said)
        if not self.tokenizer.chat_template:
            raise RecipeError("a turn of the user needs a chat template, and the tokenizer has none: set chat_template")
        whole = str(self.tokenizer.apply_chat_template([*messages, *completion], tokenize=False))
        at = whole.rfind(said.strip())
        if at < 0:
            raise RecipeError(f"the chat template leaves out the message {said!r}")
        return encode_text(self.tokenizer, whole[:at]), encode_text(self.tokenizer, said.strip())

    @contextmanager
    def _own_or_borrowed(self) -> Iterator[None]:
        training = self.model.training
        self.model.train(False)
        lent = nullcontext() if self._weights is None else borrowed(self.model, self._weights)
        gradients = torch.is_grad_enabled() and self._weights is None
        try:
            with lent, torch.set_grad_enabled(gradients):
                yield
        finally:
            self.model.train(training)


def same_tokenizer(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers have the same tokens under the same numbers."""
    return dict(first.get_vocab()) == dict(second.get_vocab())


def _statistics(logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probability, entropy, rank and logit of each token."""
    logits = logits.float()
    logit = logits.gather(-1, ids[..., None])
    scaled = logits / temperature
    normaliser = scaled.logsumexp(-1, keepdim=True)
    logp = (logit / temperature - normaliser)[..., 0]
    with torch.no_grad():
        entropy = torch.special.entr((scaled.detach() - normaliser.detach()).exp()).sum(-1)
        rank = (logits.detach() > logit.detach()).sum(-1)
    return logp, entropy, rank, logit[..., 0]
