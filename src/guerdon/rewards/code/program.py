"""The program in a completion."""

from __future__ import annotations

import re
from typing import NamedTuple

from guerdon.core.parsing import Completion, last_fenced, passage, text_of


class Program(NamedTuple):
    """A program, and what the task puts before it.

    Args:
        code: what the model wrote.
        setup: what the task gives; it runs first, in the same module.
        entry_point: the name that is to be defined. Code that does not continues the setup: of HumanEval, a model
            may write the body only.
    """

    code: str
    setup: str = ""
    entry_point: str | None = None

    @property
    def source(self) -> str:
        """What is run.

        >>> Program("    return 42", "def answer():\\n", "answer").source
        'def answer():\\n    return 42'
        """
        if not self.setup:
            return self.code
        if self.entry_point is not None and not _defines(self.code, self.entry_point):
            return self.setup + self.code
        return f"{self.setup}\nexec({self.code!r})\n"  # a unit of its own, which may begin with `from __future__`


def program_in(completion: Completion) -> str:
    """The last fenced block that is Python or does not say what it is, else all of the reply; '' if it is blank.

    >>> program_in("<think>```x = 0```</think>So:\\n```python\\nx = 1\\n```\\nwhich is 1.")
    'x = 1'
    """
    reply = passage(text_of(completion), "reply") or ""
    code = last_fenced(reply, "", "python", "py", "python3")
    return code or (reply if reply.strip() else "")


def _defines(code: str, name: str) -> bool:
    """Whether code has a definition of a name at the margin."""
    # No parser: it would read what a model wrote in this process, where it could be felled by it.
    defined = rf"^(?:(?:(?:async\s+)?def|class)\s+{name}\b|{name}\s*[:=])"
    return re.search(defined, code, re.MULTILINE) is not None
