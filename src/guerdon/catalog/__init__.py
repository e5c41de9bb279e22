"""The published systems: which of guerdon's parts each one is, and what proves it."""

from guerdon.catalog.systems import System, find, load, problems

__all__ = ["System", "find", "load", "problems"]
