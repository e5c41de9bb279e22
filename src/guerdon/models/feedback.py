"""What a model learns from that is to speak as the user: each thing a user said back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guerdon.core.parsing import text_of
from guerdon.rewards.likelihood.follow_up import exchanged

Message = Mapping[str, Any]


def listening(dialogues: Iterable[Sequence[Message]], *, exchange: bool = True) -> list[dict[str, Any]]:
    """Prompt and completion for each turn of a user that follows one of the assistant.

    Args:
        dialogues: chats; the users' feedback in them is what is learned.
        exchange: the roles of user and assistant are exchanged, so that a chat model learns, and is read, as the one
            who speaks; `follow_up(exchange=True)` then asks it likewise. Without, the turn stays the user's.

    Returns:
        Records for `language_loss`; a turn that says nothing is none.

    Source: FLR (arXiv 2409.13948): supervised fine-tuning on natural feedback of users, roles exchanged.

    >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"},
    ...         {"role": "user", "content": "Thanks!"}]
    >>> listening([chat])[0]["prompt"][0], listening([chat])[0]["completion"]
    ({'role': 'assistant', 'content': 'Hi'}, [{'role': 'assistant', 'content': 'Thanks!'}])
    """
    taught = []
    for dialogue in dialogues:
        heard = exchanged(dialogue) if exchange else list(dialogue)
        for at in range(1, len(dialogue)):
            follows = (dialogue[at - 1].get("role"), dialogue[at].get("role")) == ("assistant", "user")
            if follows and text_of([{**dialogue[at], "role": "assistant"}]).strip():
                taught.append({"prompt": heard[:at], "completion": [heard[at]]})
    return taught
