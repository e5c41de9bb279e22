"""What a judge says of an answer beside its reference, and which answers no judge should be asked about."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, Passage, passage, shown, text_of
from guerdon.rewards.text.sides import asked, texts

Judge = Callable[[str], str] | Callable[[str], Awaitable[str]]
Reads = Literal["yes", "binary", "ten"]

TEMPLATE = (
    "Question: {question}\nReference answer: {reference}\nCandidate answer: {answer}\n"
    "Does the candidate mean the same as the reference? Reply with YES or NO."
)

_FIELD = re.compile(r"\{(question|reference|answer)\}")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@reward(range=(0, 1))
def specific(
    completion: Completion,
    *,
    least: int = 2,
    forbidden: tuple[str, ...] = ("__", ":", "?"),
    within: Passage = "answer_tag",
) -> tuple[float, dict[str, Any]]:
    """1 if the reply says something that can be right or wrong, else 0: a gate before judges and encoders.

    A judge is soft on what says nothing: a single letter, a blank to be filled in, a question back, 'Answer:'. Each of
    these closes one of them.

    Args:
        completion: the reply: text or chat messages.
        least: characters that are left once full stops and white space around them are taken off.
        forbidden: what must not stand in it.
        within: see `text.exact`.

    Returns:
        The score, and as a detail what is wrong: None if nothing.

    >>> from guerdon.rewards import text
    >>> text.specific().evaluate("<answer>pneumonia.</answer>"), text.specific().evaluate("<answer>A</answer>")
    ((1.0, {'problem': None}), (0.0, {'problem': 'shorter than 2 characters'}))

    Source: the checks before both accuracies of MediX-R1 (mbzuai-oryx/MediX-R1).
    """
    problem = _problem(_bare(passage(text_of(completion), within) or ""), least, forbidden)
    return float(problem is None), {"problem": problem}


def _valid(template: str, **options: object) -> tuple[str, ...]:
    if "{answer}" not in template:
        raise ValueError(f"the template of verdict has no {{answer}} in it: {shown(template)}")
    return ()


@reward(range=(0, 1), requires=_valid, retries=2)
async def verdict(
    prompt: Completion,
    completion: Completion,
    answer: Any,
    *,
    judge: Any,
    template: str = TEMPLATE,
    reads: Reads = "yes",
    least: int = 2,
    forbidden: tuple[str, ...] = ("__", ":", "?"),
    exact: Literal["accept", "ask"] = "accept",
    within: Passage = "answer_tag",
) -> tuple[float, dict[str, Any]]:
    """What a judge says of the answer.

        'yes'      1 if YES stands in what it says, whatever the case
        'binary'   the integer 0 or 1 that it says, and nothing else
        'ten'      the first number it says, between 0 and 10, divided by 10

    An answer that is not `specific` earns 0 and one that is the reference earns 1, both without asking. A judge that
    raises, or says what cannot be read, is an abstention: its failure is not the answer's.

    Args:
        prompt: the question; of chat messages the last of the user.
        completion: the reply: text or chat messages.
        answer: the reference: a text, a number, or a list of those; the judge is shown the first.
        judge: a function from a question to its reply, `async` or not: a client of any server, or a stub.
        template: what it is asked, with {question}, {reference} and {answer}.
        reads: how its reply is read.
        least: see `specific`.
        forbidden: see `specific`.
        exact: whether an answer that is the reference but for case and white space is accepted without asking.
        within: see `text.exact`.

    Returns:
        The score, and as details what the judge said (None if it was not asked) and what is wrong with the answer.

    Raises:
        Abstain: if there is no reference, or the judge's reply cannot be read.
        ValueError: at once, if the template does not show the answer.

    >>> from guerdon.rewards import text
    >>> same = text.verdict(judge=lambda question: "yes.", within="reply")
    >>> same(["What is it?"] * 2, ["lung infection", "what?"], answer=["pneumonia"] * 2)
    [1.0, 0.0]

    Source: MediX-R1 (mbzuai-oryx/MediX-R1) for 'yes', the checks and the order; VisionThink (dvlab-research) for
    'binary'; ReFine-RFT (arXiv 2601.06993) for 'ten'.
    """
    references = texts(answer)
    if not references[0].strip():
        raise Abstain(f"reference empty: {shown(answer)}")
    said = _bare(passage(text_of(completion), within) or "")
    problem = _problem(said, least, forbidden)
    if problem is not None:
        return 0.0, {"said": None, "problem": problem}
    if exact == "accept" and any(_same(said, reference) for reference in references):
        return 1.0, {"said": None, "problem": None}
    shows = {"question": asked(prompt), "reference": references[0], "answer": said}
    reply = await ask(judge, _FIELD.sub(lambda found: shows[found[1]], template))
    return _read(reply, reads), {"said": reply, "problem": None}


async def ask(judge: Callable[..., Any], *given: Any) -> Any:
    """What a judge says; one that is not `async` is called in a thread, so that others need not wait for it."""
    if inspect.iscoroutinefunction(judge):
        return await judge(*given)
    reply = await asyncio.to_thread(judge, *given)
    return await reply if inspect.isawaitable(reply) else reply


def _read(reply: Any, reads: str) -> float:
    written = reply.strip() if isinstance(reply, str) else ""
    if reads == "yes" and written:
        return float("YES" in written.upper())
    if reads == "binary" and written in ("0", "1"):
        return float(written)
    if reads == "ten" and (number := _NUMBER.search(written)):
        return min(float(number[0]), 10.0) / 10
    raise Abstain(f"judge's reply cannot be read: {shown(reply)}")


def _bare(text: str) -> str:
    return text.strip().strip(".").strip()


def _problem(said: str, least: int, forbidden: tuple[str, ...]) -> str | None:
    if len(said) < least:
        return f"shorter than {least} characters"
    found = next((mark for mark in forbidden if mark in said), None)
    return None if found is None else f"holds {found!r}"


def _same(said: str, reference: str) -> bool:
    return " ".join(said.casefold().split()) == " ".join(_bare(reference).casefold().split())
