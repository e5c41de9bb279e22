"""The rows of `systems.toml`: read, checked for form and for truth, looked up by name."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from guerdon.core.coerce import coerce
from guerdon.core.errors import GuerdonError, SpecError, nearest
from guerdon.core.parts import ROOMS, resolve

Status = Literal["complete", "partial", "none"]

STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class System:
    """One published system.

    Args:
        n: its number.
        name: what it is called; unique, whatever the case.
        title: of its paper.
        rooms: where its parts belong, the main one first.
        status: 'complete' if everything the source describes runs and is proven, 'partial' if some
            of it does, 'none' if nothing yet.
        parts: the names of the parts it is made of.
        proof: pytest ids of the tests that show it.
        differs: what we do differently from the source.

    Raises:
        ValueError: if it claims something without parts or proof, or has parts and claims nothing.
    """

    n: int
    name: str
    title: str
    rooms: tuple[str, ...]
    status: Status = "none"
    parts: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()
    differs: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.rooms:
            raise ValueError("a system has a name and at least one room")
        for room in self.rooms:
            if room not in ROOMS:
                raise ValueError(f"there is no room {room!r}: {nearest(room, ROOMS)}")
        if self.status == "complete" and not (self.parts and self.proof):
            raise ValueError("a complete system names its parts and its proof")
        if self.status == "partial" and not self.parts:
            raise ValueError("a partial system names the parts there are")
        if self.status == "none" and (self.parts or self.proof):
            raise ValueError("a system with parts or proof is 'partial' or 'complete', not 'none'")

    def to_record(self) -> dict[str, Any]:
        """The system as plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def load(path: str | Path | None = None) -> tuple[System, ...]:
    """The systems of a file, by default the catalogue that comes with guerdon.

    Raises:
        GuerdonError: if the file is not TOML, a row has an unknown or ill-typed field, makes a claim
            without what it needs, or a number or name is there twice or out of order; says which row.

    >>> len(load()), load()[260].name
    (261, 'LUSPO')
    """
    source = files("guerdon.catalog") / "systems.toml" if path is None else Path(path)
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise GuerdonError(f"{source}: {error}") from None
    systems = tuple(_read(row, f"{source}, system {i}") for i, row in enumerate(data.get("system", [])))
    known: set[str] = set()
    for before, system in zip((None, *systems), systems, strict=False):
        if before is not None and system.n <= before.n:
            raise GuerdonError(f"{source}: system {system.n} stands after {before.n}; rows are ordered by n, each once")
        if system.name.casefold() in known:
            raise GuerdonError(f"{source}: two systems are called {system.name!r}")
        known.add(system.name.casefold())
    return systems


def _read(row: dict[str, Any], where: str) -> System:
    annotations = {"rooms": tuple[str, ...], "parts": tuple[str, ...], "proof": tuple[str, ...], "n": int}
    names = [field.name for field in fields(System)]
    values = {}
    for key, value in row.items():
        if key not in names:
            raise GuerdonError(f"{where}: unknown field {key!r}: {nearest(key, names)}")
        values[key] = coerce(value, Status if key == "status" else annotations.get(key, str), f"{where}: {key}")
    try:
        return System(**values)
    except (TypeError, ValueError) as error:
        raise GuerdonError(f"{where} ({row.get('name', 'without a name')}): {error}") from None


def find(name: str, systems: Sequence[System] | None = None) -> System:
    """The system of a name, in any case, or of a number.

    Raises:
        GuerdonError: if there is none; names the nearest ones.

    >>> find("luspo").n, find("260").name
    (260, 'LUSPO')
    """
    systems = load() if systems is None else systems
    wanted = name.strip().casefold()
    for system in systems:
        if wanted in (system.name.casefold(), str(system.n)):
            return system
    names = {system.name.casefold(): system.name for system in systems}
    close = [key for key in names if wanted and wanted in key] or difflib.get_close_matches(wanted, names, n=3)
    hint = (
        f"did you mean {' or '.join(repr(names[key]) for key in close[:3])}?"
        if close
        else "'guerdon systems' lists all"
    )
    raise GuerdonError(f"there is no system {name!r}: {hint}")


def problems(systems: Iterable[System], *, collected: Collection[str]) -> list[str]:
    """What the systems claim and is not so: one line each, empty if all is well.

    Args:
        systems: the rows to check.
        collected: the ids of the tests that pytest collects, those of parametrised tests included.

    Returns:
        A line for each part that does not exist or whose docstring names no source, and for each
        proof that is not among the collected tests.
    """
    tests = {*collected, *(identity.partition("[")[0] for identity in collected)}
    return [f"{system.n} {system.name}: {wrong}" for system in systems for wrong in _untrue(system, tests)]


def _untrue(system: System, tests: Collection[str]) -> Iterator[str]:
    for part in system.parts:
        try:
            source = resolve(part).__doc__ or ""
        except SpecError as error:
            yield str(error)
        else:
            if "Source:" not in source:
                yield f"the docstring of {part} has no 'Source:'"
    for proof in system.proof:
        if proof not in tests:
            yield f"pytest does not collect {proof}"
