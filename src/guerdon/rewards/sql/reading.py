"""The query in a completion, and the reference's."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from guerdon.core.errors import Abstain
from guerdon.core.parsing import Completion, last_fenced, last_tag, passage, shown, text_of

LONGEST = 20_000  # characters of a query; parsers recurse

_SKIPPED = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]", re.DOTALL)
_MARK = re.compile(r"[()]|\border\s+by\b", re.IGNORECASE)
_SHORT = 500  # characters of a query that is simple; a long list of constants is not
_BEHIND = {"where", "group", "having", "order"}  # words that may follow its table


def query_in(completion: Completion) -> str:
    """The reply's last SQL block, else its last `<answer>`, else all of it; '' if there is none.

    >>> query_in("<think>`SELECT 0`?</think><answer>\\n```sql\\nSELECT 1;\\n```\\n</answer>")
    'SELECT 1'
    """
    text = text_of(completion)
    if "<" not in text and "```" not in text and "~~~" not in text:  # there is nothing but the query
        return text.strip().rstrip(";").rstrip()
    reply = passage(text, "reply") or ""
    query = last_fenced(reply, "", "sql", "sqlite", "duckdb") or last_tag(reply, "answer") or reply
    return query.strip().rstrip(";").rstrip()


def reference(query: Any) -> str:
    """The query of the row.

    Raises:
        Abstain: if there is none.
    """
    if not isinstance(query, str) or not query.strip(" \t\r\n;"):
        raise Abstain(f"query not text: {shown(query)}")
    return query.strip().rstrip(";").rstrip()


def ordered(query: str) -> bool:
    """Whether the outermost query has an ORDER BY, so that the order of its rows means something.

    >>> ordered("SELECT a FROM t ORDER BY a"), ordered("SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 3)")
    (True, False)
    """
    depth = 0
    for mark in _MARK.finditer(_SKIPPED.sub(" ", query)):
        if mark[0] in "()":
            depth += 1 if mark[0] == "(" else -1
        elif depth == 0:
            return True
    return False


def only_table(query: str, but: Collection[str] = ()) -> str | None:
    """The table of a simple query, in lower case: it reads one table, all of it, and has no windows.

    None for others, for some that are simple but do not look so, and where the table is one of some.

    >>> only_table("SELECT a, sum(b) FROM T AS u WHERE b > 1 GROUP BY a"), only_table("SELECT 1 FROM t, u")
    ('t', None)
    """
    if query.partition(" FROM ")[2].partition(" ")[0] in but:  # soon said, of a query that is spelled as most are
        return None
    text = query.lower()
    _, _, behind = text.partition("from")
    if "from" in behind or "select" in text[6:] or not text.startswith("select") or len(text) > _SHORT:
        return None
    if "limit" in text or "offset" in text or "fetch" in text or "over" in text:  # other rows, where some tie
        return None
    table, *words = behind.split(maxsplit=4) or [""]
    if words and words[0] not in _BEHIND:  # another name for it
        name, *words = words[words[0] == "as" :] or [""]
        if not name.isidentifier() or (words and words[0] not in _BEHIND):
            return None
    table = table.removeprefix("main.").strip('"')
    return table if table.isidentifier() and table not in but else None
