"""`sql.linking`, `sql.ngrams` and `sql.syntax`: a query as text, beside the reference."""

from __future__ import annotations

import re
from typing import Any, Literal

from guerdon.algebra import reward
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import Completion
from guerdon.rewards.sql.reading import LONGEST, query_in, reference

Dialect = Literal["sqlite", "duckdb", "postgres", "mysql", "snowflake", "bigquery", "tsql"]


_BEGIN = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|values|from)\b", re.IGNORECASE | re.DOTALL)


class Unparsed(Exception):
    """What is no query."""


@reward(range=(0, 1), requires=needs("sql.syntax", "sqlglot", extra="sql"))
def syntax(completion: Completion, *, dialect: Dialect = "sqlite") -> tuple[float, dict[str, Any]]:
    """1 if the reply holds one query, SELECT or a set operation on some, that parses, else 0.

    Nothing is executed and no table needs to exist: see `sql.execution` for whether it runs.

    Args:
        completion: the reply: text or chat messages.
        dialect: as which it is read.

    >>> from guerdon.rewards import sql
    >>> sql.syntax().evaluate("SELECT a FROM t")[0], sql.syntax().evaluate("SELECT FROM WHERE")[0]
    (1.0, 0.0)

    Source: sqlglot's parser; the syntax reward of Reasoning-SQL (arXiv 2503.23157) executes instead.
    """
    said = query_in(completion)
    try:
        _parsed(said, dialect)
    except Unparsed as error:
        return 0.0, {"query": said, "reason": str(error)}
    return 1.0, {"query": said}


@reward(range=(0, 1), requires=needs("sql.linking", "sqlglot", extra="sql"))
def linking(completion: Completion, query: Any, *, dialect: Dialect = "sqlite") -> tuple[float, dict[str, Any]]:
    """The share of tables and columns that a query and the reference have in common:

        |P ∩ G| / |P ∪ G|

    over the names of tables and of columns that each refers to, in lower case, whatever the aliases; 1 if both refer
    to none. Columns count by name, since without the schema `a` and `t.a` cannot be told to be one. Naming all
    tables does not pay: each that the reference lacks makes the union larger.

    Args:
        completion: the reply: text or chat messages.
        query: the reference.
        dialect: as which both are read.

    Raises:
        Abstain: if the reference does not parse.

    >>> from guerdon.rewards import sql
    >>> score, details = sql.linking().evaluate("SELECT x.a FROM t AS x", "SELECT a FROM t WHERE b > 1")
    >>> round(score, 3), details["missing"]  # t and a of t, a and b
    (0.667, ['column b'])

    Source: the schema-linking reward of Reasoning-SQL (arXiv 2503.23157).
    """
    said = query_in(completion)
    return linked(said, reference(query), dialect)


def linked(said: str, wanted: str, dialect: Dialect) -> tuple[float, dict[str, Any]]:
    """See `linking`."""
    try:
        theirs = _references(wanted, dialect)
    except Unparsed as error:
        raise Abstain(f"the reference fails: {error}") from None
    try:
        ours = _references(said, dialect)
    except Unparsed as error:
        return 0.0, {"reason": str(error)}
    share = len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
    return share, {"missing": sorted(theirs - ours), "foreign": sorted(ours - theirs)}


def _order(*, n: int) -> tuple[str, ...]:
    if n < 1:
        raise ValueError(f"n-grams have 1 token or more, got n={n}")
    return ()


@reward(range=(0, 1), requires=_order)
def ngrams(completion: Completion, query: Any, *, n: int = 2) -> float:
    """The share of n-grams that a query and the reference have in common:

        |P ∩ G| / |P ∪ G|

    over the sets of n successive words, in lower case; 1 if both have none.

    Args:
        completion: the reply: text or chat messages.
        query: the reference.
        n: how many words.

    Raises:
        Abstain: if there is no reference.
        ValueError: at once, if n is not positive.

    >>> from guerdon.rewards import sql
    >>> sql.ngrams().evaluate("SELECT a FROM t WHERE b>2", "SELECT a FROM t WHERE b>1")  # 4 of 6
    0.6666666666666666

    Source: the n-gram reward of Reasoning-SQL (arXiv 2503.23157).
    """
    return alike(query_in(completion), reference(query), n)


def alike(said: str, wanted: str, n: int) -> float:
    """See `ngrams`."""
    ours, theirs = (
        {tuple(words[k : k + n]) for k in range(len(words) - n + 1)} for words in map(_words, (said, wanted))
    )
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0


def _words(query: str) -> list[str]:
    return query[:LONGEST].lower().split()


def _references(query: str, dialect: Dialect) -> set[str]:
    """The tables and columns that a query refers to; not what it names itself."""
    from sqlglot import exp

    tree = _parsed(query, dialect)
    named = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    tables = {table.name.lower() for table in tree.find_all(exp.Table)} - named
    aliases: dict[str, set[str]] = {}  # and the columns in what they stand for
    for alias in tree.find_all(exp.Alias):
        inside = aliases.setdefault(alias.alias.lower(), set())
        inside |= {column.name.lower() for column in alias.this.find_all(exp.Column)}
    columns = {column.name.lower() for column in tree.find_all(exp.Column) if not isinstance(column.this, exp.Star)}
    columns = {name for name in columns if name not in aliases or name in aliases[name]}
    return {f"table {name}" for name in tables if name} | {f"column {name}" for name in columns if name}


def _parsed(query: str, dialect: Dialect) -> Any:
    import sqlglot
    from sqlglot import exp

    if not query or len(query) > LONGEST:
        raise Unparsed("no query" if not query else f"more than {LONGEST} characters")
    if not _BEGIN.match(query):  # of statements that it does not know, the parser warns row by row
        raise Unparsed("is not one query")
    try:
        statements = sqlglot.parse(query, read=dialect)
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError) as error:
        raise Unparsed((str(error).splitlines() or ["does not parse"])[0][:200]) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query) or _hollow(statements[0]):
        raise Unparsed("is not one query")
    return statements[0]


def _hollow(tree: Any) -> bool:
    """Whether it is a SELECT of nothing, which the parser lets pass."""
    from sqlglot import exp

    return isinstance(tree, exp.Select) and not tree.expressions
