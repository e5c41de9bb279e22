"""Generated SQL: executed beside the reference query, and compared with it as text.

The query is the reply's last SQL block between fences, or its `<answer>`, or all of it. It may read and do nothing
else, within a time of its own, on a database that is a file or stands in the row. A reference that cannot be used
abstains; an answer that cannot be executed gets the floor, and why stands in the details.
"""

from guerdon.rewards.sql.likeness import linking, ngrams, syntax
from guerdon.rewards.sql.running import execution
from guerdon.rewards.sql.total import graded

__all__ = ["execution", "graded", "linking", "ngrams", "syntax"]
