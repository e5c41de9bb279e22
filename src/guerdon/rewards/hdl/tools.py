"""Icarus Verilog and Yosys, in this process's sandbox."""

from __future__ import annotations

import math
import secrets
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.sandbox import Limits, Ran, Sandbox

START = 60.0  # seconds, besides those of the tools, after which an engine gives a row up
SECRET = f"_{secrets.token_hex(8)}"  # ends the names of what is around a design, which it so cannot know
SIMULATOR = ("iverilog", "vvp", "sh", "tail")
SYNTHESIZER = ("yosys", "sh")
_ABC = ("berkeley-abc", "yosys-abc")  # Debian's name, and Yosys' own

_DEBIAN = {"iverilog": "iverilog", "vvp": "iverilog", "yosys": "yosys"}


def tools_for(*, synthesis: bool) -> tuple[str, ...]:
    """The names of the tools that are used."""
    return (*SIMULATOR, *SYNTHESIZER, *filter(shutil.which, _ABC)) if synthesis else SIMULATOR


def check(*, synthesis: bool) -> None:
    """See that there is a sandbox, and what is to run in it.

    Raises:
        SandboxUnavailable: if designs cannot be isolated here; says what to do.
        GuerdonError: if a tool is not installed.
    """
    for tool, package in _DEBIAN.items():
        if (synthesis or tool != "yosys") and shutil.which(tool) is None:
            raise GuerdonError(f"{tool} is not installed: apt install {package}")
    _startable(synthesis)


@cache
def _startable(synthesis: bool) -> None:
    with Sandbox(tools=tools_for(synthesis=synthesis)) as box:
        box.check()


def positive(*, seconds: float, memory: int, **options: Any) -> tuple[str, ...]:
    """Nothing that is required, and a check of the options that all rewards of designs have.

    Raises:
        ValueError: if one of them cannot be meant.
    """
    if not 0 < seconds < math.inf or memory <= 0:
        raise ValueError(f"seconds and MiB of memory are positive, got {seconds} and {memory}")
    return ()


def execute(
    *commands: Sequence[str],
    files: Mapping[str, str],
    seconds: float,
    memory: int,
    synthesis: bool = False,
) -> Ran:
    """Run tools on files.

    Raises:
        SandboxFailed: if they could not be run.
    """
    limits = Limits(memory=memory << 20, processes=8, disk=64 << 20)
    return _sandbox(synthesis).command(*commands, files=files, deadline=seconds, limits=limits)


@cache
def _sandbox(synthesis: bool) -> Sandbox:
    """This process's own; it ends with the process."""
    box = Sandbox(tools=tools_for(synthesis=synthesis))
    box.check()  # its start is no time of a design's
    return box
