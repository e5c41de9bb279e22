"""Generated programs, judged by running them: unit tests, whole programs with input and output, single functions.

The program is the last Python block between fences of the reply, or all of the reply. It runs in the sandbox
(`guerdon.sandbox`), and what it earns is decided outside of the process that it runs in: of a call, plain data
comes back; tests that are code run in a process of their own; expected outputs never enter the sandbox. Where
there is no sandbox, scoring raises `SandboxUnavailable` before any work. A row whose tests cannot be used
abstains; a program that cannot be run has failed them.
"""

from guerdon.rewards.code.calls import call_tests
from guerdon.rewards.code.streams import stdin_tests
from guerdon.rewards.code.units import humaneval, unit_tests

__all__ = ["call_tests", "humaneval", "stdin_tests", "unit_tests"]
