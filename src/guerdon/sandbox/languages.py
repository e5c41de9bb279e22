"""Languages that programs may be written in, besides Python."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """How a program in some language is run: by commands, one after the other, until one fails.

    Args:
        name: what it is called.
        file: the name under which the program is written.
        commands: each a tool and its arguments, in the folder of the file. The last reads the program's input.
        tools: the commands that are needed, those that they start themselves included.
        processes: how many processes they have at a time.
    """

    name: str
    file: str
    commands: tuple[tuple[str, ...], ...]
    tools: tuple[str, ...]
    processes: int = 8


VERILOG = Language(
    "Verilog",
    file="design.sv",
    commands=(("iverilog", "-g2012", "-o", "design.vvp", "design.sv"), ("vvp", "-n", "design.vvp")),
    tools=("iverilog", "vvp", "sh"),  # iverilog starts its stages through a shell
)
"""SystemVerilog, by Icarus Verilog (Debian: `iverilog`): what a testbench prints is the program's output."""
