"""Rewards for the form of a reply, whatever it says."""

from guerdon.rewards.format.documents import json, schema
from guerdon.rewards.format.language import language
from guerdon.rewards.format.repetition import repetition
from guerdon.rewards.format.structure import tags, template
from guerdon.rewards.format.wording import keywords, regex

__all__ = ["json", "keywords", "language", "regex", "repetition", "schema", "tags", "template"]
