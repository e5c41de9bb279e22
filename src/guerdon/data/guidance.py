"""Attempts at tasks with tests, and failed ones made again under guidance that does not give the solution away."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from guerdon.core.errors import Abstain
from guerdon.core.rollouts import Rollouts
from guerdon.core.scores import Scores

Table = Mapping[str, bool]  # test → whether it passed


def resolved(outcomes: Table | None, fail_to_pass: Collection[str], pass_to_pass: Collection[str]) -> float:
    """1 if a change makes the failing tests pass and breaks no other, else 0.

    Args:
        outcomes: of each test after the change; None if it does not apply. A test that is not in it did not pass: a
            change can keep tests from being found.
        fail_to_pass: tests that the change is to mend.
        pass_to_pass: tests that passed before.

    Raises:
        Abstain: if there is no test that the change is to mend: everything that applies would count as a solution.

    Source: Agent-RLVR (arXiv 2506.11425), the rule of SWE-bench.

    >>> resolved({"a": True, "b": True}, ["a"], ["b"]), resolved({"a": True, "b": False}, ["a"], ["b"])
    (1.0, 0.0)
    >>> resolved(None, ["a"], [])
    0.0
    """
    if not fail_to_pass:
        raise Abstain("the task names no test that must come to pass")
    if outcomes is None:
        return 0.0
    return float(all(outcomes.get(test, False) for test in (*fail_to_pass, *pass_to_pass)))


def copied(text: str, secret: str, *, gram: int = 8) -> float:
    """The share of a secret's n-grams that stand in a text; of one shorter than n, whether it stands there whole.

    Args:
        text: the guidance.
        secret: what it must not give away: the solution's patch.
        gram: n, in words.

    Returns:
        In [0, 1].

    Raises:
        ValueError: if the secret has no words, so that nothing could be found out, or gram < 1.

    Source: ours; Agent-RLVR (arXiv 2506.11425) asks that guidance never hold the patch and does not say how.

    >>> copied("look at the parser, then return early", "if not tokens: return early", gram=2)
    0.25
    """
    if gram < 1:
        raise ValueError(f"gram must be at least 1, got {gram}")
    words, found = secret.split(), text.split()
    if not words:
        raise ValueError("secret is empty: there is nothing that guidance could give away")
    gram = min(gram, len(words))
    wanted, there = ({tuple(side[i : i + gram]) for i in range(len(side) - gram + 1)} for side in (words, found))
    return len(wanted & there) / len(wanted)


@dataclass(frozen=True)
class Task:
    """Something an agent is to do, and how it is seen that it is done.

    Args:
        id: its name.
        prompt: what the agent is told.
        fail_to_pass: tests that are to come to pass.
        pass_to_pass: tests that are not to break.
        solution: the reference patch, for whoever writes guidance and for the check that guidance does not hold it;
            empty where there is none to give away.
    """

    id: str
    prompt: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...] = ()
    solution: str = ""


class Attempt(NamedTuple):
    """What an agent did, and what the tests said.

    Args:
        completion: of the agent.
        outcomes: of the tests; None if it does not apply.
        reward: see `resolved`.
    """

    completion: Any
    outcomes: Table | None
    reward: float


Agent = Callable[[Sequence[str]], Sequence[Any]]  # prompts → completions
Guide = Callable[[Task, Sequence[Attempt]], str | None]  # guidance after these failures; None: there is none
Run = Callable[[Task, Any], Table | None]  # the environment; raises Abstain where it cannot say


def guided_attempts(
    tasks: Sequence[Task],
    agent: Agent,
    guide: Guide,
    run: Run,
    *,
    attempts: int = 1,
    again: int = 1,
    gram: int = 8,
    most: float = 0.0,
    template: str = "{prompt}\n\n{guidance}",
) -> tuple[Rollouts, Scores]:
    """Attempt each task; where all attempts fail, attempt it again under guidance.

    The guide sees what nobody else may: solution, tests, errors. Guidance that holds of the solution more than `most`
    is not used, and the task not attempted again. A task none of whose attempts could be tested did not fail, and is
    not guided either.

    Args:
        tasks: with different ids.
        agent: asked for all tasks at once, twice.
        guide: a plan, files to look at, what the errors mean.
        run: the environment: applies a completion and runs the tests.
        attempts: without guidance, of each task.
        again: with it, of each task that failed.
        gram: of the leak check; see `copied`.
        most: the share of the solution's n-grams that guidance may hold.
        template: of the guided prompt.

    Returns:
        All attempts and their rewards, a group for each task. 'prompt' is what the agent was told; columns: 'task',
        its prompt without guidance, and 'guidance', None without. `preference_pairs(scores, rollouts.groups,
        which="all").records(rollouts, prompts=rollouts.column("task"))` are the source's pairs, guidance removed.

    Raises:
        ValueError: if ids are not different, a number is below 1, or the agent gives another number of completions
            than it was asked for.

    Source: Agent-RLVR (arXiv 2506.11425); whether pairs keep the guidance is not stated. Removed, as above, the
    policy learns what to do without.
    """
    if len({task.id for task in tasks}) != len(tasks):
        raise ValueError("tasks must have different ids")
    if attempts < 1 or again < 1:
        raise ValueError(f"attempts and again must be at least 1, got {attempts} and {again}")
    rows: list[dict[str, Any]] = []
    rewards: list[float | None] = []
    reasons: dict[int, str] = {}
    tried: dict[int, list[Attempt]] = {place: [] for place in range(len(tasks))}

    def attempt(asked: list[tuple[int, str, str | None]]) -> None:
        completions = agent([prompt for _, prompt, _ in asked]) if asked else []
        if len(completions) != len(asked):
            raise ValueError(f"agent gave {len(completions)} completions for {len(asked)} prompts")
        for (place, prompt, guidance), completion in zip(asked, completions, strict=True):
            task = tasks[place]
            try:
                outcomes = run(task, completion)
                reward = resolved(outcomes, task.fail_to_pass, task.pass_to_pass)
                tried[place].append(Attempt(completion, outcomes, reward))
                rewards.append(reward)
            except Abstain as reason:
                reasons[len(rows)] = str(reason) or "the environment gave no reason"
                rewards.append(None)
            rows.append(
                {
                    "id": task.id,
                    "group": place,
                    "prompt": prompt,
                    "completion": completion,
                    "task": task.prompt,
                    "guidance": guidance,
                }
            )

    attempt([(place, task.prompt, None) for place, task in enumerate(tasks) for _ in range(attempts)])
    second: list[tuple[int, str, str | None]] = []
    for place, task in enumerate(tasks):
        if not tried[place] or any(made.reward for made in tried[place]):
            continue
        guidance = guide(task, tried[place])
        if guidance and not (task.solution.split() and copied(guidance, task.solution, gram=gram) > most):
            prompt = _filled(template, prompt=task.prompt, guidance=guidance)
            second += [(place, prompt, guidance)] * again
    attempt(second)
    if not rows:
        return Rollouts([], []), Scores.of([])
    return Rollouts.from_records(rows), Scores.of(rewards, reasons=reasons)


def _filled(template: str, **fields: str) -> str:
    """A template with its fields replaced at once, so that braces in what is filled in stay as they are."""
    return re.sub("|".join(rf"\{{{name}\}}" for name in fields), lambda found: fields[found[0][1:-1]], template)
