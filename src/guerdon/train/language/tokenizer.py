"""From text to token ids: prompts of any tokenizer, and a character tokenizer for policies built on the spot."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from guerdon.core.errors import RecipeError
from guerdon.core.parsing import text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Prompt = str | Sequence[Mapping[str, Any]]  # text, or chat messages

PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " \n"
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a part of a character decodes to


def character_tokenizer(alphabet: str = PRINTABLE, *, context: int | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character; decoding gives back exactly what was encoded.

    A character outside the alphabet is an error where it is encoded, not an unknown token: a task written with
    characters the policy cannot see would otherwise train, badly, without a word. Text that spells a special token
    (`<eos>`) is encoded letter by letter.

    Ids depend on the alphabet alone: pad 0, bos 1, eos 2, then the characters in their order. A prompt is encoded with
    bos in front; padding is on the left.

    Args:
        alphabet: the characters, each once.
        context: the most tokens the policy reads, `model_max_length`; None: no limit.

    Returns:
        A tokenizer of `transformers`, which `save_pretrained` and `AutoTokenizer.from_pretrained` carry as any other.

    Raises:
        RecipeError: if the alphabet is empty or repeats a character.

    >>> tokenizer = character_tokenizer("0123456789+=")
    >>> tokenizer("1+1=").input_ids
    [1, 4, 13, 4, 14]
    >>> tokenizer.decode([5, 2], skip_special_tokens=True)
    '2'
    """
    repeated = next((c for i, c in enumerate(alphabet) if c in alphabet[:i]), None)
    if not alphabet or repeated is not None:
        problem = "is empty" if not alphabet else f"has {repeated!r} twice"
        raise RecipeError(f"the alphabet {problem}: name every character of prompts and answers once")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((PAD, BOS, EOS, *alphabet))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=""))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        **({} if context is None else {"model_max_length": context}),
    )


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of prompts: text as the tokenizer begins one, chat messages through its template.

    Messages whose last one is the assistant's are a prompt to go on with it.

    Raises:
        RecipeError: if a character is outside the alphabet, a prompt has no tokens, or messages meet a tokenizer
            without a chat template.
    """
    chats = [not isinstance(prompt, str) for prompt in prompts]
    if any(chats) and not tokenizer.chat_template:
        raise RecipeError("the prompts are chat messages and the tokenizer has no chat template: set chat_template")
    rows = []
    for prompt, chat in zip(prompts, chats, strict=True):
        if chat:
            # The template writes the special tokens itself. What the assistant has begun to say is gone on with.
            messages: Any = list(prompt)
            begun = text_of([messages.pop()]) if messages and messages[-1].get("role") == "assistant" else ""
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            rows.append(encode_text(tokenizer, f"{text}{begun}"))
        else:
            rows.append(encode_text(tokenizer, str(prompt), special=True))
    empty = next((i for i, row in enumerate(rows) if not row), None)
    if empty is not None:
        raise RecipeError(f"prompt {empty} has no tokens: {prompts[empty]!r}")
    return rows


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = False) -> list[int]:
    """The token ids of one text.

    Args:
        tokenizer: any tokenizer of `transformers`.
        text: what to encode.
        special: add what the tokenizer puts around a text (bos, for most).

    Raises:
        RecipeError: if a character is outside the alphabet of a character tokenizer.
    """
    try:
        return list(tokenizer(text, add_special_tokens=special).input_ids)
    except Exception as error:  # tokenizers raises nothing narrower
        if "[UNK]" not in str(error):
            raise
        outside = sorted(set(text) - tokenizer.get_vocab().keys())
        raise RecipeError(f"{''.join(outside)!r} is not in the policy's alphabet; it stands in {text!r}") from None


def pad(
    rows: Sequence[Sequence[int]], value: int, *, side: Literal["left", "right"]
) -> tuple[Int[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """Rows of token ids as one matrix, and which of its entries are tokens.

    >>> pad([[5], [6, 7]], 0, side="left")
    (tensor([[0, 5], [6, 7]]), tensor([[False, True], [ True, True]]))
    """
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max()) if len(rows) else 0
    column = torch.arange(width)
    mask = column < lengths[:, None] if side == "right" else column >= width - lengths[:, None]
    ids = torch.full((len(rows), width), value)
    ids[mask] = torch.tensor([i for row in rows for i in row], dtype=ids.dtype)
    return ids, mask


def decode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]
) -> list[tuple[str, Int[np.ndarray[Any, Any], "t 2"]]]:
    """The texts of completions, without special tokens, and where each token stands in its text.

    Returns:
        For each row the text, and the (begin, end) characters of each token: −1 for special tokens; begin = end for a
        token that is only a part of a character, which belongs to the last of its tokens.

    >>> [(text, offsets)] = decode(character_tokenizer("0123456789+="), [[4, 13, 2]])
    >>> text, offsets.tolist()
    ('1+', [[0, 1], [1, 2], [-1, -1]])
    """

    def read(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    pieces = dict.fromkeys(tokenizer.all_special_ids, "")
    special = list(pieces)
    decoded = []
    for row in rows:
        text = read(row)
        for i in row:
            if i not in pieces:
                pieces[i] = read([i])
        if "".join([pieces[i] for i in row]) == text:
            ends = np.cumsum([len(pieces[i]) for i in row], dtype=np.int64)
        else:
            ends = np.asarray(_ends(read, list(row)), np.int64)
        offsets = np.stack([np.concatenate([[0], ends])[:-1], ends], -1)
        offsets[np.isin(row, special)] = -1
        decoded.append((text, offsets))
    return decoded


def _ends(read: Callable[[Sequence[int]], str], ids: list[int]) -> list[int]:
    """How much text is complete after each token, for tokenizers in which a token alone decodes to something else.

    Each token is read after the few before it, from where a character began; that is linear in the length, as
    decoding every prefix would not be.
    """
    begin = done = total = 0
    ends = []
    for i in range(1, len(ids) + 1):
        before, now = read(ids[begin:done]), read(ids[begin:i])
        if len(now) > len(before) and (not now.endswith(BROKEN) or i == len(ids)):
            total += len(now) - len(before)
            begin, done = done, i
        ends.append(total)
    return ends
