"""The command line: `guerdon COMMAND`.

A command is a module of this room with a function `command`, whose docstring and annotations are
its help, and a line in `COMMANDS`. Commands import what they need when they run, so that
`guerdon --help` starts at once.

Exit codes, the same for every command:

- 0: done.
- 1: an unexpected failure; a file could not be written.
- 2: bad usage, spec, recipe or input. The message says what, where, and what to do.
- 3: stopped, because more of the scores were abstentions than allowed.
- 130: interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from guerdon.cli import check, compare, score, systems, terminal, train

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.command,
    "compare": compare.command,
    "score": score.command,
    "check": check.command,
    "systems": systems.command,
}

EXIT_CODES = (
    "Exit codes: 0 done; 1 unexpected failure, or a file could not be written; 2 bad usage, spec, recipe or input; "
    "3 stopped because too many scores were abstentions; 130 interrupted."
)


class Commands(TyperGroup):
    """The commands, with guerdon's errors told as messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error guerdon raises on purpose is printed without a traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            terminal.complain("interrupted")
            raise typer.Exit(130) from None
        except Exception as error:
            errors = sys.modules.get("guerdon.core.errors")  # not imported yet, it cannot have raised anything
            if errors is None or not isinstance(error, errors.GuerdonError):
                raise
            terminal.complain(str(error))
            codes = {errors.TooManyAbstentions: 3, errors.CannotWrite: 1}
            raise typer.Exit(codes.get(type(error), 2)) from None


app = typer.Typer(
    name="guerdon",
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for name, command in COMMANDS.items():
    app.command(name, epilog=EXIT_CODES)(command)


def _version(wanted: bool) -> None:
    if wanted:
        from guerdon import __version__

        typer.echo(f"guerdon {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Everything between a generation and a gradient: rewards that compose, cannot lie and train policies."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal or pipe that is not UTF-8 gets escapes, not an exception.
            stream.reconfigure(errors="backslashreplace")
    app()
