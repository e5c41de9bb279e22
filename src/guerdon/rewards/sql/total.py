"""`sql.graded`: what a query earns in parts, so that a model that never gets it right has a slope to climb."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion, shown
from guerdon.rewards import format
from guerdon.rewards.sql.likeness import alike, linked
from guerdon.rewards.sql.opening import System
from guerdon.rewards.sql.reading import query_in, reference
from guerdon.rewards.sql.running import Order, compared, longest, valid

Judge = Callable[[Any, str, str], Any]

_sqlglot = needs("sql.graded", "sqlglot", extra="sql")


def _valid(*, tags: Any, judge: Any, **options: Any) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise ValueError(f"tags is a list of names: a single one is written ({tags!r},)")
    if judge is not None and not isinstance(judge, str) and not callable(judge):
        raise ValueError(f"judge is a column or a function, got {shown(judge)}")
    format.tags(*tags).evaluate("")  # it knows what names there are
    weights = {name: options[name] for name in ("executes", "judged", "runs", "links", "overlaps", "formed")}
    if not all(0 <= weight < math.inf for weight in weights.values()):
        raise ValueError(f"weights are 0 or more, got {weights}")
    return (*valid(**options), *_sqlglot())


def _columns(*, judge: Any, **others: Any) -> tuple[str, ...]:
    more = () if judge is None else (judge,) if isinstance(judge, str) else ("prompt",)
    return ("completion", "query", "database", *more)


def _range(
    *, executes: float, judged: float, runs: float, links: float, overlaps: float, formed: float, **others: Any
) -> tuple[float, float]:
    return 0.0, max(executes, judged) + runs + links + overlaps + formed


@reward(range=_range, columns=_columns, requires=_valid, deadline=longest)
def graded(
    completion: Completion,
    query: Any,
    database: Any,
    more: Any = None,
    *,
    judge: str | Judge | None = None,
    tags: tuple[str, ...] = ("think", "answer"),
    n: int = 2,
    executes: float = 3.0,
    judged: float = 2.0,
    runs: float = 1.0,
    links: float = 1.0,
    overlaps: float = 1.0,
    formed: float = 1.0,
    system: System = "sqlite",
    order: Order = "ignore",
    empty: Literal["abstain", "accept"] = "abstain",
    tolerance: float = 0.0,
    seconds: float = 5.0,
    rows: int = 100_000,
    folder: str = "",
) -> tuple[float, dict[str, Any]]:
    """What a query earns in six parts:

        R = 3·executes + 2·judged + runs + links + overlaps + formed

    executes: it gives the rows of the reference (`sql.execution`). judged: a judge's opinion in [0, 1], asked only
    where it does not. runs: it gives some result. links: `sql.linking`. overlaps: `sql.ngrams`. formed: the tags stand
    in the completion in this order, each once, closed, not empty.

    A wrong query that looks like the reference earns up to 6, a right one that looks different as little as 5 or
    less. Where that must not be, `lexicographic(sql.execution(), sql.graded())` puts all right ones first.

    Args:
        completion: the reply: text or chat messages.
        query: the reference.
        database: see `sql.execution`.
        more: the column that `judge` names, or the prompt if it is a function.
        judge: the column with the judge's opinion of this reply, or a function of the prompt, the reference and the
            query that gives it. None: nobody is asked, and the part is 0.
        tags: that `formed` wants.
        n: the length of the n-grams.
        executes: the weight of that part; so are judged, runs, links, overlaps and formed of theirs.
        judged: see `executes`.
        runs: see `executes`.
        links: see `executes`.
        overlaps: see `executes`.
        formed: see `executes`.
        system: see `sql.execution`; also the dialect that both queries are read as.
        order: see `sql.execution`.
        empty: see `sql.execution`.
        tolerance: see `sql.execution`.
        seconds: see `sql.execution`.
        rows: see `sql.execution`.
        folder: see `sql.execution`.

    Returns:
        The score, and as details the query, its parts before the weights, and why it is not right.

    Raises:
        Abstain: if the database or the reference cannot be used, or the judge's opinion is not in [0, 1].
        MissingExtra: at once, if sqlglot or what the system needs is not installed.
        ValueError: at once, if an option cannot be meant.

    >>> from guerdon.rewards import sql
    >>> shop = {"schema": "CREATE TABLE t (a, b)", "rows": {"t": [[1, 1], [2, 2], [3, 3]]}}
    >>> reply = "<think>b?</think><answer>SELECT a FROM t WHERE b>2</answer>"
    >>> score, details = sql.graded(judge="opinion").evaluate(reply, "SELECT a FROM t WHERE b>1", shop, 0.5)
    >>> round(score, 3), details["parts"]["judged"]
    (4.667, 0.5)

    Source: Reasoning-SQL (arXiv 2503.23157). The weights are those of an independent implementation.
    """
    said, wanted = query_in(completion), reference(query)
    wrong, ran = compared(
        said, wanted, database, system=system, order=order, empty=empty, tolerance=tolerance,
        seconds=seconds, rows=rows, folder=folder,
    )  # fmt: skip
    parts = {
        "executes": float(wrong is None),
        "judged": _opinion(judge, more, wanted, said) if wrong is not None else 0.0,
        "runs": float(ran),
        "links": linked(said, wanted, system)[0],
        "overlaps": alike(said, wanted, n),
        "formed": float(format.tags(*tags, outside="accept").evaluate(completion)),
    }
    weights = (executes, judged, runs, links, overlaps, formed)
    total = math.fsum(weight * part for weight, part in zip(weights, parts.values(), strict=True))
    return total, {"query": said, "parts": parts, **({"reason": wrong} if wrong else {})}


def _opinion(judge: str | Judge | None, more: Any, wanted: str, said: str) -> float:
    if judge is None:
        return 0.0
    opinion = more if isinstance(judge, str) else judge(more, wanted, said)
    try:
        value = float(opinion)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise Abstain(f"the judge's opinion is not in [0, 1]: {shown(opinion)}")
    return value
