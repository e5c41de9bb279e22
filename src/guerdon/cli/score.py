"""`guerdon score`: add a reward's scores to a file of rollouts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guerdon.cli import summary, terminal
from guerdon.cli.options import AllowImport, Deadline, File, Group, RewardSpec, Workers

if TYPE_CHECKING:
    from guerdon.cli.scoring import Scored

ADDED = ("score", "valid", "reason", "details")


def command(
    file: File,
    reward: RewardSpec,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write: .jsonl, .jsonl.gz or .parquet.")],
    workers: Workers = None,
    deadline: Deadline = None,
    allow_import: AllowImport = False,
    group: Group = None,
    max_abstain: Annotated[
        float, typer.Option(min=0, max=1, help="Stop with exit code 3 once a larger share of all rows has abstained.")
    ] = 1.0,
    prefix: Annotated[
        str, typer.Option(help="Put NAME. before the columns that are added, to keep those of another reward.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over OUT if it exists.")] = False,
) -> None:
    """Score the rollouts of a file.

    FILE has a prompt and a completion in each row, and what the reward reads besides. OUT gets its
    columns, and score (empty for an abstention), valid, reason (why it abstained), details (the
    evidence) and part.NAME for each part of the reward.

    OUT is written whole or not at all. If scoring stops early, the rows scored until then are kept
    in a file with '.partial' in its name.
    """
    from guerdon.cli import files, scoring

    expression = scoring.read_reward(reward, allow_import=allow_import)
    _check_target(out, file, force=force)
    columns = files.read(file)
    rollouts = files.rollouts_of(columns, group=group, where=file)
    scoring.require(expression, rollouts, file)
    prefix = f"{prefix}." if prefix else ""
    _check_names(columns, [*ADDED, *(f"part.{name}" for name in expression.names())], prefix, file)

    with scoring.engine(workers, deadline) as engine:
        scored = scoring.score(expression, rollouts, engine, max_abstain=max_abstain)
    if scored.stopped is not None and not len(scored):
        raise scored.stopped
    whole = scored.stopped is None
    added = {prefix + name: column for name, column in scored.columns.items()}
    kept = columns if whole else {name: [column[i] for i in scored.rows] for name, column in columns.items()}
    target = out if whole else _partial(out)
    _write(target, {**kept, **added})
    _summarise(scored, total=len(rollouts), target=target)
    if scored.stopped is not None:
        raise scored.stopped


def _check_target(out: Path, file: Path, *, force: bool) -> None:
    from guerdon.cli.files import kind_of
    from guerdon.core.errors import GuerdonError

    kind_of(out)
    if not out.parent.is_dir():
        raise GuerdonError(f"--out: there is no folder {out.parent}: make it first")
    if out.exists() and out.samefile(file):
        raise GuerdonError(f"--out: {out} is the file that is read: write to another")
    if out.is_dir() or (out.exists() and not force):
        raise GuerdonError(f"--out: {out} exists already: --force writes over it")


def _check_names(columns: dict[str, list[Any]], added: list[str], prefix: str, file: Path) -> None:
    from guerdon.core.errors import GuerdonError

    taken = [prefix + name for name in added if prefix + name in columns]
    if taken:
        raise GuerdonError(
            f"{file} already has a column {taken[0]!r}, which would be written over: --prefix NAME writes "
            f"NAME.{taken[0].removeprefix(prefix)} beside it"
        )


def _partial(out: Path) -> Path:
    """scores.jsonl.gz → scores.partial.jsonl.gz."""
    from guerdon.cli.files import ENDINGS

    ending = max((e for e in ENDINGS if out.name.endswith(e)), key=len)
    return out.with_name(f"{out.name.removesuffix(ending)}.partial{ending}")


def _write(target: Path, columns: dict[str, list[Any]]) -> None:
    """Write the scores, and if that fails, as on a full disk, elsewhere: they may have taken hours."""
    from guerdon.cli import files

    try:
        files.write(target, columns)
    except OSError as error:
        refuge = Path(tempfile.mkdtemp(prefix="guerdon-")) / target.name
        files.write(refuge, columns)
        terminal.complain(f"{target} cannot be written: {error.strerror or error}; the scores are in {refuge}")
        raise typer.Exit(1) from error


def _summarise(scored: Scored, *, total: int, target: Path) -> None:
    from guerdon.cli import findings

    found = findings.scores(scored)
    low, *_, high = found["quantiles"] or [None, None]
    rows = f"{len(scored):,}" if len(scored) == total else f"{len(scored):,} of {total:,}"
    console = terminal.console()
    console.print(
        terminal.facts(
            {
                "rows": rows,
                "mean score": f"{terminal.number(found['mean'])} ({terminal.number(low)} to {terminal.number(high)})",
                "abstained": f"{scored.abstained:,} ({terminal.share(scored.abstained, len(scored))})",
                "rows/s": f"{len(scored) / max(scored.seconds, 1e-9):,.0f} ({terminal.duration(scored.seconds)})",
                "written": str(target),
            }
        )
    )
    summary.show_parts(found["parts"], console)
    summary.show_reasons(found["reasons"], len(scored), console)
