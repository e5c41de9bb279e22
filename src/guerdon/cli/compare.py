"""`guerdon compare`: several ways to train, over the same seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from guerdon.cli import options, terminal


def command(
    comparison: Annotated[Path, typer.Argument(metavar="COMPARISON", help="A YAML file; see recipes/ for examples.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of every arm: --set steps=20."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time. Default: the number of cores.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the runs are. Default: runs/NAME.")] = None,
    allow_import: options.AllowImport = False,
) -> None:
    """Train in several ways that differ in some settings, over the same seeds, and say how they compare.

    Every run is one that `guerdon train` could have made, with its folder and report. Runs that are finished are not
    made again, and one that was killed goes on from its last checkpoint: give the same command again.
    """
    from guerdon.train import comparison as comparisons

    loaded = comparisons.load(comparison, set_ or [], allow_import=allow_import)
    folder = folder or Path("runs") / loaded.name
    console = terminal.console(stderr=True)

    def report(text: str) -> None:
        console.print(text, soft_wrap=True)

    result = comparisons.compare(loaded, folder, jobs=jobs, allow_import=allow_import, report=report)
    out = terminal.console()
    out.print(table(result))
    out.print(f"runs: {folder}", soft_wrap=True)


def table(result: dict[str, Any]) -> Any:
    """The arms as rows: the mean over seeds of each measure, and the least and the most."""
    from rich.table import Table

    columns = {"accuracy": "{:.3f}", "best": "{:.3f}", "mean_length": "{:.1f}"}
    first = next(iter(result["arms"].values()))[0]
    shown = Table(title=result["name"], title_justify="left")
    shown.add_column("arm")
    names = [*columns, *(f"pass@{k}" for k in first.get("pass_at", {})), *(["rollouts"] if "rollouts" in first else [])]
    for name in names:
        shown.add_column(name.replace("_", " "), justify="right")
    for arm, runs in result["arms"].items():
        cells = []
        for name in names:
            kind, _, k = name.partition("@")
            values = [run["pass_at"][k] if kind == "pass" else run[name] for run in runs]
            cells.append(_cell(values, columns.get(name, "{:,.0f}" if name == "rollouts" else "{:.3f}")))
        shown.add_row(arm, *cells)
    return shown


def _cell(values: list[float | None], text: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, low, high = (text.format(x) for x in (sum(known) / len(known), min(known), max(known)))
    missing = f", {len(known)} of {len(values)}" if len(known) < len(values) else ""
    return f"{mean} ({low} … {high}{missing})" if len(values) > 1 else mean
