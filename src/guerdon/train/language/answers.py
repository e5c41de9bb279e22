"""The reference answers that stand behind completions, as the tokens that a policy learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guerdon.core.errors import RecipeError, nearest
from guerdon.core.rollouts import RESERVED, Rollouts
from guerdon.core.trajectory import Trajectory
from guerdon.rewards.likelihood import placed
from guerdon.train.language.losses import Experience
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import logprobs
from guerdon.train.language.tokenizer import pad
from guerdon.train.method import Answer, Method
from guerdon.train.prompts import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def answers(
    answer: Answer, rollouts: Rollouts, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    """What stands before each rollout's reference answer, and the answer, in tokens; as `likelihood.answer` reads them.

    A rollout whose reference is no text, has no place, cannot be encoded or does not fit the context has no answer.

    Args:
        answer: where it stands.
        rollouts: with its column.
        policy, tokenizer: who reads it.

    Returns:
        The columns of an `Experience`.
    """
    assert not isinstance(rollouts.completions, Trajectory)
    contexts, texts, problems = placed(
        rollouts.prompts, rollouts.completions, rollouts.columns[answer.column], after=answer.after, lead=answer.lead
    )
    encoded, unread = LanguageModel(policy, tokenizer).encoded(contexts, texts)
    rows = [([], []) if i in problems or i in unread else row for i, row in enumerate(encoded)]
    context_ids, context_mask = pad([context for context, _ in rows], tokenizer.pad_token_id, side="left")
    answer_ids, answer_mask = pad([ids for _, ids in rows], tokenizer.pad_token_id, side="right")
    return {
        "context_ids": context_ids, "context_mask": context_mask, "answer_ids": answer_ids, "answer_mask": answer_mask,
    }  # fmt: skip


def answered(model: Any, part: Experience, method: Method) -> dict[str, Tensor]:
    """What the policy says of the reference answers of a micro-batch, with gradients, and where their tokens are.

    At temperature 1, as rewards read it. Rows that are not learned from have none.
    """
    if method.answer is None:
        return {}
    assert part.context_ids is not None
    assert part.context_mask is not None
    assert part.answer_ids is not None
    assert part.answer_mask is not None
    there = part.answer_mask & part.mask.any(1)[:, None]
    rows = torch.nonzero(there.any(1))[:, 0]
    columns = (part.context_ids, part.context_mask, part.answer_ids, part.answer_mask)
    logp, _ = logprobs(model, *(x[rows] for x in columns))
    return {"answer_logp": torch.zeros_like(there, dtype=logp.dtype).index_copy(0, rows, logp), "answer_mask": there}


def check_answer(answer: Answer, row: Row) -> None:
    """Check, before any work, that prompts bring the column that holds the reference answer.

    Raises:
        RecipeError: naming it, and what there is.
    """
    columns = [name for name in row if name not in ("prompt", *RESERVED)]
    if answer.column not in columns:
        raise RecipeError(
            f"method.answer.column: prompts have no column {answer.column!r}: {nearest(answer.column, columns)}"
        )
