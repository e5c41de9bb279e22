"""Rewards for the form of a reply, whatever it says."""

from guerdon.rewards.format.documents import json, schema
from guerdon.rewards.format.language import language
from guerdon.rewards.format.repetition import repetition
from guerdon.rewards.format.structure import label, tags, template, thinking
from guerdon.rewards.format.values import value
from guerdon.rewards.format.wording import keywords, regex

__all__ = [
    "json",
    "keywords",
    "label",
    "language",
    "regex",
    "repetition",
    "schema",
    "tags",
    "template",
    "thinking",
    "value",
]
