"""`guerdon score`: add a reward's scores to a file of rollouts."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guerdon.cli import summary, terminal
from guerdon.cli.options import AllowImport, Cache, Deadline, File, Group, RewardSpec, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerdon.algebra import Reward
    from guerdon.cli.files import Slice, Source
    from guerdon.cli.output import Output
    from guerdon.cli.tally import Tally
    from guerdon.core.rollouts import Rollouts
    from guerdon.engine import Engine


def command(
    file: File,
    reward: RewardSpec,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write: .jsonl, .jsonl.gz or .parquet.")],
    workers: Workers = None,
    deadline: Deadline = None,
    cache: Cache = False,
    allow_import: AllowImport = False,
    group: Group = None,
    max_abstain: Annotated[
        float, typer.Option(min=0, max=1, help="Stop with exit code 3 once a larger share of all rows has abstained.")
    ] = 1.0,
    max_batch: Annotated[
        int,
        typer.Option(
            min=1, metavar="ROWS", help="The most rows that a reward may compare with one another: all are in memory."
        ),
    ] = 100_000,
    prefix: Annotated[
        str, typer.Option(help="Put NAME. before the columns that are added, to keep those of another reward.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Write over OUT if it exists, and over the beginning of another run.")
    ] = False,
) -> None:
    """Score the rollouts of a file.

    FILE has a prompt and a completion in each row, and what the reward reads besides. OUT gets its
    columns, and score (empty for an abstention), valid, reason (why it abstained), details (the
    evidence) and part.NAME for each part of the reward.

    FILE is read as it is scored. Scored rows are kept in the folder OUT.parts, which becomes OUT when
    all are there. If scoring stops early, whatever stops it, the same command goes on from there.
    """
    from guerdon import __version__
    from guerdon.algebra import spec
    from guerdon.cli import files, output, scoring
    from guerdon.cli.tally import Tally

    expression = scoring.read_reward(reward, allow_import=allow_import)
    _check_target(out, file, force=force)
    source = files.source(file, typed=files.kind_of(out) == "parquet")
    names = source.schema.names
    files.require(names, group=group, where=file)
    scoring.require(expression, names, file)
    added, prefix = scoring.added(expression), f"{prefix}." if prefix else ""
    _check_names(names, [prefix + name for name in added.names], prefix, file)
    _check_size(expression, source, max_batch)
    group = group or ("group" if "group" in names else None)
    files.inspect(source, group=group, together=expression.scope == "group")

    engine = scoring.engine(workers, deadline, cache=cache)
    run = {
        "input": files.digest(file),
        "rows": source.rows,
        "reward": spec.dump(expression),
        "group": group,
        "deadline": engine.deadline,
        "prefix": prefix,
        "guerdon": __version__,
    }
    tally = Tally()
    with output.Output(out, output.format_of(out, source.schema, added, prefix), run, force=force) as kept:
        if kept.merged:
            kept.finish()
            _tell(f"{out} is whole: only {kept.folder} was left to be removed")
            return
        for columns in kept.scores([name for name in added.names if name != "details"]):
            tally.add(columns)
        if kept.done:
            _tell(f"resuming: {kept.done:,} of {source.rows:,} rows are done, in {kept.folder}")
        before, began = kept.done, time.monotonic()
        with engine:
            read = files.rollouts(source, scoring.read_columns(expression, names), group=group, start=kept.done)
            stopped = _score(
                expression, read, engine, kept, tally, total=source.rows, max_batch=max_batch, max_abstain=max_abstain
            )
        seconds = time.monotonic() - began
        if stopped is None:
            kept.finish()
        elif kept.done:
            _tell(f"{kept.done:,} of {source.rows:,} rows are done: the same command goes on from there")
        if tally.rows:
            written = out if stopped is None else kept.folder
            _summarise(tally, total=source.rows, scored=tally.rows - before, seconds=seconds, written=written)
    if stopped is not None:
        raise stopped


def _score(
    reward: Reward,
    read: Iterator[tuple[Slice, Rollouts]],
    engine: Engine,
    kept: Output,
    tally: Tally,
    *,
    total: int,
    max_batch: int,
    max_abstain: float,
) -> BaseException | None:
    """Score what is left of a file and keep it; what stopped that before the last row."""
    from guerdon.cli import scoring
    from guerdon.core.errors import CannotWrite, TooManyAbstentions

    def expected() -> Iterator[Rollouts]:
        for rows, rollouts in read:
            kept.expect(rows)
            yield rollouts

    names = scoring.added(reward).names
    try:
        with (
            scoring.progress(total, kept.done) as advance,
            closing(engine.stream(reward, expected(), max_batch=max_batch)) as pieces,
        ):
            while True:
                if tally.abstained > max_abstain * total:
                    raise TooManyAbstentions(
                        f"{tally.abstained:,} of {tally.rows:,} rows scored so far abstained, and at most "
                        f"{terminal.share(max_abstain, 1)} of {total:,} may (--max-abstain)"
                    )
                scores = next(pieces, None)
                if scores is None:
                    return None
                columns = scoring.columns(scores, names)
                kept.add(columns)
                tally.add(columns)
                advance(len(scores))
    except CannotWrite as error:
        return error
    except (Exception, KeyboardInterrupt) as error:
        kept.flush()
        return error


def _check_target(out: Path, file: Path, *, force: bool) -> None:
    from guerdon.cli.files import kind_of
    from guerdon.cli.output import is_merged
    from guerdon.core.errors import GuerdonError

    kind_of(out)
    if not out.parent.is_dir():
        raise GuerdonError(f"--out: there is no folder {out.parent}: make it first")
    if out.exists() and out.samefile(file):
        raise GuerdonError(f"--out: {out} is the file that is read: write to another")
    if out.is_dir() or (out.exists() and not force and not is_merged(out)):
        raise GuerdonError(f"--out: {out} exists already: --force writes over it")


def _check_names(columns: Sequence[str], added: Sequence[str], prefix: str, file: Path) -> None:
    from guerdon.core.errors import GuerdonError

    taken = next((name for name in added if name in columns), None)
    if taken is not None:
        raise GuerdonError(
            f"{file} already has a column {taken!r}, which would be written over: --prefix NAME writes "
            f"NAME.{taken.removeprefix(prefix)} beside it"
        )


def _check_size(reward: Reward, source: Source, most: int) -> None:
    from guerdon.core.errors import GuerdonError

    if reward.scope == "batch" and source.rows > most:
        raise GuerdonError(
            f"{reward} compares all rows with one another, and {source.path} has {source.rows:,}: all of them would "
            f"be in memory. Raise --max-batch, which is {most:,}, if they fit, or score the file in several"
        )


def _tell(message: str) -> None:
    terminal.console(stderr=True).print(message, soft_wrap=True)


def _summarise(tally: Tally, *, total: int, seconds: float, scored: int, written: Path) -> None:
    from guerdon.cli import findings

    found = findings.scores(tally)
    low, *_, high = found["quantiles"] or [None, None]
    console = terminal.console()
    console.print(
        terminal.facts(
            {
                "rows": f"{tally.rows:,}" if tally.rows == total else f"{tally.rows:,} of {total:,}",
                "mean score": f"{terminal.number(found['mean'])} ({terminal.number(low)} to {terminal.number(high)})",
                "abstained": f"{tally.abstained:,} ({terminal.share(tally.abstained, tally.rows)})",
                "rows/s": f"{scored / max(seconds, 1e-9):,.0f} ({terminal.duration(seconds)})",
                "written": str(written),
            }
        )
    )
    summary.show_parts(found["parts"], console)
    summary.show_reasons(found["reasons"], tally.rows, console)
