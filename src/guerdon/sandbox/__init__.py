"""Running generated programs where they can do no harm."""

from guerdon.sandbox.box import Sandbox
from guerdon.sandbox.inside.peer import Lost, Raised
from guerdon.sandbox.inside.plain import NotPlain
from guerdon.sandbox.languages import VERILOG, Language
from guerdon.sandbox.launch import SandboxUnavailable
from guerdon.sandbox.program import BrokenTests, Judge, Program
from guerdon.sandbox.run import Late, Limits, Ran, SandboxFailed

__all__ = [
    "VERILOG", "BrokenTests", "Judge", "Language", "Late", "Limits", "Lost", "NotPlain", "Program", "Raised", "Ran",
    "Sandbox", "SandboxFailed", "SandboxUnavailable",
]  # fmt: skip
