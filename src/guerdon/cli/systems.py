"""`guerdon systems`: which published systems guerdon has, and of which parts they are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from guerdon.cli import terminal

if TYPE_CHECKING:
    from guerdon.catalog import System

STYLES = {"complete": "green", "partial": "yellow", "none": "dim"}


def command(
    name: Annotated[str | None, typer.Argument(help="Show one system, by its name (in any case) or number.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those with this status: complete, partial or none.")] = None,
    room: Annotated[str | None, typer.Option(help="Only those with parts in this room, such as credit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows for another program.")] = False,
) -> None:
    """List the published systems by room, or show one.

    A system whose parts are in several rooms is listed once, under its main room.
    """
    from guerdon.catalog import find, load
    from guerdon.catalog.systems import STATUSES
    from guerdon.core.errors import GuerdonError, nearest

    systems = load()
    rooms = {room for system in systems for room in system.rooms}
    for option, value, valid in (("--status", status, STATUSES), ("--room", room, rooms)):
        if value is not None and value not in valid:
            raise GuerdonError(f"{option}: there is no {value!r}: {nearest(value, valid)}")
    if name is not None:
        if status or room:
            raise GuerdonError("--status and --room choose among all systems: leave them out to show one by its name")
        systems = (find(name, systems),)
    chosen = [s for s in systems if status in (None, s.status) and (room is None or room in s.rooms)]
    if as_json:
        terminal.print_json([system.to_record() for system in chosen])
    elif name is not None:
        _show(chosen[0])
    else:
        _list(chosen)


def _list(systems: Sequence[System]) -> None:
    from rich.text import Text

    from guerdon.core.parts import ROOMS

    console = terminal.console()
    width = max((len(system.name) for system in systems), default=0)
    for room in sorted({system.rooms[0] for system in systems}, key=ROOMS.index):
        members = [system for system in systems if system.rooms[0] == room]
        console.print(Text.assemble((room, "bold"), f"  {_counts(members)}"))
        for system in members:
            status = (f"{system.status:8}  ", STYLES[system.status])
            line = Text.assemble((f"{system.n:>5}  ", "dim"), f"{system.name:{width}}  ", status, (system.title, "dim"))
            console.print(line, no_wrap=True, overflow="ellipsis")
        console.print()
    console.print(Text(f"all  {_counts(systems)}", "bold"))


def _counts(systems: Sequence[System]) -> str:
    from guerdon.catalog.systems import STATUSES

    count = Counter(system.status for system in systems)
    return f"{len(systems)} system{'s' * (len(systems) != 1)}: " + ", ".join(f"{count[s]} {s}" for s in STATUSES)


def _show(system: System) -> None:
    terminal.console().print(
        terminal.facts(
            {
                "system": f"{system.name} ({system.n})",
                "title": system.title,
                "rooms": ", ".join(system.rooms),
                "status": system.status,
                "parts": "\n".join(system.parts) or "–",
                "proof": "\n".join(system.proof) or "–",
                "differs": system.differs or "–",
            }
        )
    )
