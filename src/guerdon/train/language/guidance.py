"""Prompts with guidance in them, for rollouts that are written with help."""

from __future__ import annotations

from typing import Any

from guerdon.core.errors import RecipeError, nearest
from guerdon.train.language.generation import check_context
from guerdon.train.language.tokenizer import Prompt, encode_prompts
from guerdon.train.prompts import Prompts, Row, fill
from guerdon.train.sampling import Guided

GUIDED = "guided"  # the column that says which rollouts were written with guidance


def with_guidance(row: Row, guided: Guided) -> Prompt | None:
    """The prompt of a row with its guidance; None if there is none.

    Raises:
        RecipeError: if there is no such column, it holds no text, or the prompt has no place for guidance.

    >>> with_guidance({"prompt": "1+1=", "hint": "count"}, Guided("hint", template="{guidance}; {prompt}"))
    'count; 1+1='
    """
    if guided.column not in row:
        raise RecipeError(f"method.sampling.guided: prompts have no {guided.column!r}: {nearest(guided.column, row)}")
    guidance, prompt = row[guided.column], row["prompt"]
    if not guidance:
        return None
    if not isinstance(guidance, str):
        raise RecipeError(f"method.sampling.guided: {guided.column!r} holds texts, got {guidance!r:.80}")
    if isinstance(prompt, str):
        return _filled(guided, row, prompt, guidance)
    messages = [dict(message) for message in prompt]
    last = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if last is None or not isinstance(last["content"], str):
        raise RecipeError(f"method.sampling.guided: there is no text of a user in the prompt {prompt!r:.80}")
    last["content"] = _filled(guided, row, last["content"], guidance)
    return messages


def _filled(guided: Guided, row: Row, prompt: str, guidance: str) -> str:
    try:
        return fill(guided.template, {**row, "prompt": prompt, "guidance": guidance})
    except RecipeError as error:
        raise RecipeError(f"method.sampling.guided: {error}") from None


def check(prompts: Prompts, guided: Guided, policy: Any, tokenizer: Any, limit: int) -> None:
    """Check, before any work, that there is guidance, and that it leaves room for an answer.

    Raises:
        RecipeError: if a prompt's guidance cannot be read, no prompt of a file has any, the longest does not fit the
            context, or prompts have a column of the name that says which rollouts had it.
    """
    told = []
    for row in prompts.known():
        if GUIDED in row:
            raise RecipeError(
                f"method.sampling.guided: prompts have a column {GUIDED!r}, which says which rollouts had guidance"
            )
        prompt = with_guidance(row, guided)
        if prompt is not None:
            told.append(prompt)
    if not told and prompts.config.dataset is None:
        raise RecipeError(f"method.sampling.guided: no prompt of {prompts.config.file} has any {guided.column!r}")
    if told:
        longest = max(told, key=lambda prompt: len(str(prompt)))
        check_context(policy, encode_prompts(tokenizer, [longest]), limit)
