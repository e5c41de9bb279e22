"""Optional dependencies: missed when a part is built, not while it scores."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from guerdon.core.errors import MissingExtra


def needs(what: str, *modules: str, extra: str) -> Callable[..., tuple[str, ...]]:
    """The `requires` of a reward that imports optional modules: reads nothing, and checks that they are there.

    Importing inside a reward that scores would turn a forgotten install into a batch of abstentions.

    Args:
        what: the part that needs them.
        modules: what it imports.
        extra: the extra of guerdon that installs them.

    Raises:
        MissingExtra: on the call, if one of them is not installed.

    >>> needs("text.bleu", "json", extra="text")(smooth="exp")
    ()
    >>> needs("text.bleu", "sacrebleu_of_old", extra="text")()
    Traceback (most recent call last):
    guerdon.core.errors.MissingExtra: text.bleu needs an optional dependency: pip install 'guerdon[text]'
    """

    def check(**options: Any) -> tuple[str, ...]:
        if any(find_spec(module) is None for module in modules):
            raise MissingExtra(what, extra)
        return ()

    return check
